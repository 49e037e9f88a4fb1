//! The auditor as a process: reads a database and records, prints a report in JSON, exits 1 where something is wrong.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use auditor::{AuditorError, Database, Options, Report, judge, read_records};
use clap::Parser;

/// Judges the books from outside.
#[derive(Parser)]
struct Arguments {
    /// `sqlite://PATH` or `postgres://…`.
    #[arg(long)]
    database_url: String,
    /// What clients and the operator wrote down, one JSON object a line.
    #[arg(long)]
    records: PathBuf,
    /// Every process has ended in order: nothing may be leased.
    #[arg(long)]
    closed: bool,
    /// The database's clock jumped: the times of rows say nothing about their order.
    #[arg(long)]
    any_order: bool,
    /// Of a killed process's requests, so many tokens may have been written down and not sent.
    #[arg(long, default_value_t = 0)]
    ahead_tokens: u64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (text, code) = match audit(&arguments).await {
        Ok(report) => {
            let code = if report.balanced { 0 } else { 1 };
            let text = serde_json::to_string_pretty(&report).unwrap_or_default();
            (text, code)
        }
        Err(error) => (format!("error: {error}"), 2),
    };
    // A closed pipe is no finding.
    let _ = writeln!(io::stdout(), "{text}");
    ExitCode::from(code)
}

async fn audit(arguments: &Arguments) -> Result<Report, AuditorError> {
    let records = read_records(&arguments.records)?;
    let books = Database::open(&arguments.database_url)
        .await?
        .books()
        .await?;
    let options = Options {
        closed: arguments.closed,
        any_order: arguments.any_order,
        ahead_tokens: arguments.ahead_tokens,
    };
    Ok(judge(&books, &records, options))
}
