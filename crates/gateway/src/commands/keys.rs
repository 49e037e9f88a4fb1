//! `tollway keys`.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::{
    CommandError,
    print::{self, cell},
    remote::Call,
};
use crate::cli::{Asking, KeysCommand};

pub(super) async fn run(asking: Asking<KeysCommand>) -> Result<ExitCode, CommandError> {
    let remote = &asking.remote;
    match asking.command {
        KeysCommand::Create {
            name,
            account,
            credits,
            limit,
            models,
            expires_at,
        } => {
            let models = (!models.is_empty()).then_some(models);
            let body = json!({
                "name": name, "account_id": account, "credits": credits, "limit": limit,
                "models": models, "expires_at": expires_at,
            });
            let call = Call::new(Method::POST, &["keys"]).body(body);
            show(remote.json, &call.send(remote).await?)?;
        }
        KeysCommand::List {
            account,
            with_revoked,
            page,
        } => {
            let call = Call::new(Method::GET, &["keys"])
                .query("account_id", account)
                .query("with_revoked", with_revoked.then_some(true))
                .query("limit", Some(page.limit))
                .query("cursor", page.cursor);
            list(remote.json, &call.send(remote).await?)?;
        }
        KeysCommand::Revoke { id } => {
            let call = Call::new(Method::DELETE, &["keys", &id]);
            let key = call.send(remote).await?;
            if remote.json {
                print::json(&key)?;
            } else {
                print::line(&format!("revoked {}", cell(&key, "id")))?;
            }
        }
        KeysCommand::Rotate { id } => {
            let call = Call::new(Method::POST, &["keys", &id, "rotate"]);
            show(remote.json, &call.send(remote).await?)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a key with its secret.
fn show(as_json: bool, key: &Value) -> Result<(), CommandError> {
    if as_json {
        return Ok(print::json(key)?);
    }
    let mut pairs = vec![
        ("key", cell(key, "id")),
        ("name", cell(key, "name")),
        ("account", cell(key, "account_id")),
    ];
    if key["account"].is_object() {
        pairs.push(("balance", cell(key, "account.balance.available")));
    }
    pairs.push((
        "secret",
        format!("{}  (shown this once)", cell(key, "secret")),
    ));
    Ok(print::record(&pairs)?)
}

fn list(as_json: bool, keys: &Value) -> Result<(), CommandError> {
    if as_json {
        return Ok(print::json(keys)?);
    }
    let headings = [
        "KEY", "NAME", "SECRET", "ACCOUNT", "USAGE", "LIMIT", "STATE",
    ];
    Ok(print::table(&headings, keys, |key| {
        let state = if key["revoked_at"].is_string() {
            "revoked".to_owned()
        } else {
            match key["expires_at"].as_str() {
                Some(end) => format!("until {end}"),
                None => "in force".to_owned(),
            }
        };
        vec![
            cell(key, "id"),
            cell(key, "name"),
            format!("{}…", cell(key, "prefix")),
            cell(key, "account_id"),
            cell(key, "usage"),
            cell(key, "limit"),
            state,
        ]
    })?)
}
