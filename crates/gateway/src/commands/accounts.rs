//! `tollway accounts`.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::{
    CommandError,
    print::{self, cell},
    remote::Call,
};
use crate::cli::{AccountsCommand, Asking};

pub(super) async fn run(asking: Asking<AccountsCommand>) -> Result<ExitCode, CommandError> {
    let remote = &asking.remote;
    match asking.command {
        AccountsCommand::Create { name, overdraft } => {
            let body = json!({"name": name, "overdraft": overdraft});
            let call = Call::new(Method::POST, &["accounts"]).body(body);
            show(remote.json, &call.send(remote).await?)?;
        }
        AccountsCommand::Show { id } => {
            let call = Call::new(Method::GET, &["accounts", &id]);
            show(remote.json, &call.send(remote).await?)?;
        }
        AccountsCommand::List { page } => {
            let call = Call::new(Method::GET, &["accounts"])
                .query("limit", Some(page.limit))
                .query("cursor", page.cursor);
            let columns = [
                ("ACCOUNT", "id"),
                ("NAME", "name"),
                ("AVAILABLE", "balance.available"),
                ("HELD", "balance.held"),
                ("USED", "balance.used"),
                ("DISABLED", "disabled"),
            ];
            list(remote.json, &call.send(remote).await?, &columns)?;
        }
        AccountsCommand::Entries { id, page } => {
            let call = Call::new(Method::GET, &["accounts", &id, "entries"])
                .query("limit", Some(page.limit))
                .query("cursor", page.cursor);
            let columns = [
                ("WHEN", "created_at"),
                ("KIND", "kind"),
                ("AMOUNT", "amount"),
                ("REFERENCE", "reference"),
                ("ENTRY", "id"),
            ];
            list(remote.json, &call.send(remote).await?, &columns)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn show(as_json: bool, account: &Value) -> Result<(), CommandError> {
    if as_json {
        return Ok(print::json(account)?);
    }
    let pairs = [
        ("account", "id"),
        ("name", "name"),
        ("available", "balance.available"),
        ("held", "balance.held"),
        ("used", "balance.used"),
        ("overdraft", "overdraft"),
        ("disabled", "disabled"),
    ];
    Ok(print::record(
        &pairs.map(|(name, path)| (name, cell(account, path))),
    )?)
}

fn list(as_json: bool, page: &Value, columns: &[(&str, &str)]) -> Result<(), CommandError> {
    if as_json {
        return Ok(print::json(page)?);
    }
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    Ok(print::table(&headings, page, |row| {
        columns.iter().map(|(_, path)| cell(row, path)).collect()
    })?)
}
