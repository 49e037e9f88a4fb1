//! `tollway credits`.

use std::process::ExitCode;

use http::Method;
use serde_json::json;
use uuid::Uuid;

use super::{
    CommandError,
    print::{self, cell},
    remote::Call,
};
use crate::cli::{Asking, CreditsCommand};

pub(super) async fn run(asking: Asking<CreditsCommand>) -> Result<ExitCode, CommandError> {
    let remote = &asking.remote;
    let CreditsCommand::Add {
        to,
        amount,
        kind,
        expires_at,
        reference,
        note,
        idempotency_key,
    } = asking.command;
    let kind_of_target = if to.starts_with("key_") {
        "keys"
    } else if to.starts_with("acct_") {
        "accounts"
    } else {
        return Err(CommandError::Argument(format!(
            "{to:?} is neither an account (acct_…) nor a key (key_…)"
        )));
    };
    let body = json!({
        "amount": amount, "kind": kind, "expires_at": expires_at,
        "reference": reference, "note": note,
    });
    let once = idempotency_key.unwrap_or_else(|| format!("cli-{}", Uuid::now_v7().simple()));
    let call = Call::new(Method::POST, &[kind_of_target, &to, "credits"])
        .body(body)
        .once(once);
    let entry = call.send(remote).await?;
    if remote.json {
        print::json(&entry)?;
    } else {
        print::record(&[
            ("entry", cell(&entry, "id")),
            ("account", cell(&entry, "account_id")),
            ("amount", cell(&entry, "amount")),
            ("kind", cell(&entry, "kind")),
        ])?;
    }
    Ok(ExitCode::SUCCESS)
}
