//! `tollway usage`.

use std::process::ExitCode;

use http::Method;

use super::{
    CommandError,
    print::{self, cell},
    remote::Call,
};
use crate::cli::{Remote, UsageQuery};

/// Dimensions: the name in `--group-by`, the heading, and the member of the answer.
const DIMENSIONS: [(&str, &str, &str); 7] = [
    ("day", "DAY", "day"),
    ("month", "MONTH", "month"),
    ("model", "MODEL", "model"),
    ("provider", "PROVIDER", "provider"),
    ("key", "KEY", "key_id"),
    ("account", "ACCOUNT", "account_id"),
    ("end", "END", "end"),
];
const SUMS: [(&str, &str); 6] = [
    ("REQUESTS", "requests"),
    ("PROMPT", "usage.prompt_tokens"),
    ("COMPLETION", "usage.completion_tokens"),
    ("COST", "cost"),
    ("CHARGED", "charged"),
    ("HOUSE LOSS", "house_loss"),
];

pub(super) async fn run(remote: &Remote, query: UsageQuery) -> Result<ExitCode, CommandError> {
    let by = Some(query.group_by.clone()).filter(|by| !by.is_empty());
    let call = Call::new(Method::GET, &["usage"])
        .query("group_by", by)
        .query("account_id", query.account)
        .query("key_id", query.key)
        .query("model", query.model)
        .query("from", query.from)
        .query("to", query.to);
    let sums = call.send(remote).await?;
    if remote.json {
        print::json(&sums)?;
        return Ok(ExitCode::SUCCESS);
    }
    let asked: Vec<&str> = query.group_by.split(',').map(str::trim).collect();
    let columns: Vec<(&str, &str)> = DIMENSIONS
        .iter()
        .filter(|(name, _, _)| asked.contains(name))
        .map(|(_, heading, path)| (*heading, *path))
        .chain(SUMS)
        .collect();
    let headings: Vec<&str> = columns.iter().map(|(heading, _)| *heading).collect();
    print::table(&headings, &sums, |row| {
        columns.iter().map(|(_, path)| cell(row, path)).collect()
    })?;
    Ok(ExitCode::SUCCESS)
}
