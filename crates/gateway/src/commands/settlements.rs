//! `tollway settlements`: what was put aside because it could not be booked, and what becomes of it.

use std::process::ExitCode;

use billing::RequestId;
use serde_json::{Value, json};
use store::{Cursor, DeadSettlement, Page, ResolvedAs, Store};

use super::{
    CommandError, database,
    print::{self, cell},
};
use crate::{admin::settlements::DeadSettlementView, cli::SettlementsCommand, shape::List};

pub(super) async fn run(command: SettlementsCommand) -> Result<ExitCode, CommandError> {
    match command {
        SettlementsCommand::List {
            flags,
            all,
            page,
            json,
        } => {
            let (url, options) = database::named_by(&flags)?;
            let store = Store::open_read_only(&url, options).await?;
            let cursor = page.cursor.map(|text| text.parse::<Cursor>()).transpose()?;
            let page = Page::new(page.limit, cursor);
            let dead = store.dead_settlements(all, page).await?;
            let list = value(&List::of(dead, DeadSettlementView::from));
            if json {
                print::json(&list)?;
            } else {
                table(&list)?;
            }
        }
        SettlementsCommand::Resolve {
            flags,
            request,
            resolved_as,
            note,
            json,
        } => {
            let request: RequestId = request
                .parse()
                .map_err(|error| CommandError::Argument(format!("--request: {error}")))?;
            let resolved_as = ResolvedAs::parse(&resolved_as).ok_or_else(|| {
                CommandError::Argument("--as is charge, house-loss or drop".into())
            })?;
            let (url, options) = database::named_by(&flags)?;
            let store = Store::open_beside(&url, options).await?;
            let resolved = store
                .resolve_settlement(request, resolved_as, &note)
                .await?;
            show(json, resolved)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn table(list: &Value) -> Result<(), CommandError> {
    let headings = ["REQUEST", "ACCOUNT", "PUT ASIDE", "RESOLVED AS", "PROBLEM"];
    print::table(&headings, list, |row| {
        [
            "request_id",
            "account_id",
            "created_at",
            "resolution.resolved_as",
            "problem",
        ]
        .map(|path| cell(row, path))
        .to_vec()
    })?;
    Ok(())
}

fn show(as_json: bool, resolved: DeadSettlement) -> Result<(), CommandError> {
    let value = value(&DeadSettlementView::from(resolved));
    if as_json {
        print::json(&value)?;
        return Ok(());
    }
    let of = |name: &str| cell(&value, &format!("resolution.{name}"));
    print::record(&[
        ("request", cell(&value, "request_id")),
        ("account", cell(&value, "account_id")),
        ("resolved as", of("resolved_as")),
        ("charged", of("charged")),
        ("house loss", of("house_loss")),
        ("note", of("note")),
    ])?;
    Ok(())
}

fn value(shown: &impl serde::Serialize) -> Value {
    // What is shown has text for keys, which is all that JSON asks.
    serde_json::to_value(shown).unwrap_or(json!(null))
}
