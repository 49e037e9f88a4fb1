//! `tollway reconcile`: a provider's own export beside our charges; exit 1 where they differ.

use std::{fs::File, process::ExitCode};

use billing::Credits;
use http::Method;
use jiff::{ToSpan as _, civil::Date};
use serde_json::{Value, json};

use super::{
    CommandError,
    print::{self, cell},
    remote::Call,
};
use crate::{
    cli::{ReconcileQuery, Remote},
    reconcile::{Export, differences, ours},
};

/// Rows of one answer.
const PAGE: usize = 1_000;
/// Rows of ours at most.
const ROWS_MAX: usize = 100_000;

pub(super) async fn run(remote: &Remote, asked: &ReconcileQuery) -> Result<ExitCode, CommandError> {
    let tolerance: Credits = asked
        .tolerance
        .parse()
        .ok()
        .filter(|t: &Credits| !t.is_negative())
        .ok_or_else(|| {
            CommandError::Argument(format!(
                "--tolerance {:?} is no percentage such as 0.5",
                asked.tolerance
            ))
        })?;
    let (from, to) = (day(asked.from.as_deref())?, day(asked.to.as_deref())?);
    let wrong =
        |problem: String| CommandError::Argument(format!("{}: {problem}", asked.file.display()));
    let file = File::open(&asked.file).map_err(|error| wrong(error.to_string()))?;
    let text = |day: Option<Date>| day.map(|day| day.to_string());
    let (first, end) = (text(from), text(to));
    let export = Export::read(file, first.as_deref(), end.as_deref());
    let export = export.map_err(|error| wrong(error.to_string()))?;
    let edges = (export.days.first(), export.days.last());
    let (Some(earliest), Some(latest)) = edges else {
        return Err(wrong("has no figures of these days".into()));
    };
    let latest: Option<Date> = latest.parse().ok();
    let next = latest.and_then(|day| day.checked_add(1.day()).ok());
    let from = first.unwrap_or_else(|| earliest.clone());
    let to = end.or(text(next)).unwrap_or_default();
    let rows = usage(remote, &from, &to).await?;
    let figures = ours(&rows, &asked.provider, export.by_model, export.writes_apart);
    let (found, compared) = differences(&export, &figures, tolerance.nanos());
    let list = json!({ "data": found });
    if remote.json {
        print::json(&json!({
            "provider": asked.provider, "from": from, "to": to, "compared": compared,
            "tolerance_percent": tolerance, "differences": list["data"],
        }))?;
    } else {
        if !found.is_empty() {
            let headings = ["DAY", "MODEL", "WHAT", "PROVIDER", "HERE"];
            let paths = ["day", "model", "measure", "provider", "here"];
            print::table(&headings, &list, |row: &Value| {
                paths.iter().map(|path| cell(row, path)).collect()
            })?;
            print::line("")?;
        }
        print::line(&format!(
            "{compared} figures of {} from {from} until before {to} compared, {} differ by more than {tolerance} %",
            asked.provider,
            found.len()
        ))?;
    }
    Ok(if found.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn day(text: Option<&str>) -> Result<Option<Date>, CommandError> {
    let parse = |text: &str| {
        let day = text.parse::<Date>().ok().filter(|_| text.len() == 10);
        day.ok_or_else(|| CommandError::Argument(format!("{text:?} is no day such as 2026-12-31")))
    };
    text.map(parse).transpose()
}

/// Our sums by day, model and provider, page by page.
async fn usage(remote: &Remote, from: &str, to: &str) -> Result<Vec<Value>, CommandError> {
    let mut rows = Vec::new();
    let mut cursor: Option<String> = None;
    loop {
        let call = Call::new(Method::GET, &["usage"])
            .query("group_by", Some("day,model,provider"))
            .query("from", Some(from))
            .query("to", Some(to))
            .query("limit", Some(PAGE))
            .query("cursor", cursor);
        let mut page = call.send(remote).await?;
        if let Some(more) = page["data"].as_array_mut() {
            rows.append(more);
        }
        cursor = page["next_cursor"].as_str().map(str::to_owned);
        if cursor.is_none() {
            return Ok(rows);
        }
        if rows.len() > ROWS_MAX {
            let problem =
                format!("more than {ROWS_MAX} sums of ours; narrow it with --from and --to");
            return Err(CommandError::Argument(problem));
        }
    }
}
