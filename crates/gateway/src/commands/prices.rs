//! `tollway prices`: what a published price table changes is shown, and on demand written into the file of own prices.

use std::{fs::File, io::Read as _, path::Path, process::ExitCode};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use price_tables::Table;
use serde_json::{Value, json};

use super::{
    CommandError,
    print::{self, cell},
};
use crate::{
    cli::{PricesCommand, UpdatePrices},
    configuration,
    price_update::{self, Fall, OwnFile, Update, Wish},
};

/// The largest table that is read, in bytes.
const TABLE_BYTES_MAX: u64 = 64 << 20;
/// Names of models that a line has at most.
const NAMES_MAX: usize = 20;

pub(super) fn run(command: PricesCommand) -> Result<ExitCode, CommandError> {
    match command {
        PricesCommand::Update(update) => self::update(&update),
    }
}

fn update(asked: &UpdatePrices) -> Result<ExitCode, CommandError> {
    let (environment, mut findings) = configuration::environment();
    let (settings, files, wrong) = configuration::load(&asked.flags, &environment);
    findings.extend(wrong);
    if !findings.is_empty() {
        for finding in &findings {
            print::line(&finding.to_string())?;
        }
        return Err(CommandError::Configuration);
    }
    for name in &asked.only {
        if !files.iter().any(|(_, file)| file.name == *name) {
            return Err(CommandError::Argument(format!(
                "no provider is called {name:?}"
            )));
        }
    }
    let wish = wish(asked)?;
    let text = read(&asked.from)?;
    let table = Table::recognize(&text, &wish.valid_from).map_err(refused)?;
    let path = settings.prices.as_deref();
    let own = path.map_or(Ok(OwnFile::default()), OwnFile::read);
    let own = own.map_err(CommandError::Argument)?;
    let update = price_update::compare(&table, &files, &own, &wish).map_err(refused)?;
    let written = if asked.yes && !update.entries.is_empty() {
        let Some(path) = path else {
            return Err(CommandError::Argument(
                "no file of own prices is named: set `prices` in tollway.toml, or TOLLWAY_PRICES"
                    .into(),
            ));
        };
        let text = own.with(update.entries.clone());
        // What cannot be read again is not written.
        OwnFile::parse(&text).map_err(CommandError::Argument)?;
        price_update::replace(path, &text)
            .map_err(|error| CommandError::Argument(format!("{}: {error}", path.display())))?;
        Some(path)
    } else {
        None
    };
    show(asked, &update, written)?;
    Ok(ExitCode::SUCCESS)
}

fn refused(error: price_tables::TableError) -> CommandError {
    CommandError::Argument(error.to_string())
}

fn wish(asked: &UpdatePrices) -> Result<Wish, CommandError> {
    let today = || Timestamp::now().to_zoned(TimeZone::UTC).date();
    let day = match &asked.valid_from {
        None => today(),
        Some(text) => text
            .parse::<Date>()
            .ok()
            .filter(|_| text.len() == 10)
            .ok_or_else(|| {
                CommandError::Argument(format!(
                    "--valid-from {text:?} is no day such as 2026-12-31"
                ))
            })?,
    };
    let midnight = day.to_zoned(TimeZone::UTC);
    let midnight = midnight.map_err(|error| CommandError::Argument(error.to_string()))?;
    Ok(Wish {
        providers: asked.only.clone(),
        valid_from: day.to_string(),
        moment: midnight.timestamp().as_second(),
    })
}

fn read(path: &Path) -> Result<String, CommandError> {
    let wrong = |problem: String| CommandError::Argument(format!("{}: {problem}", path.display()));
    let file = File::open(path).map_err(|error| wrong(error.to_string()))?;
    let mut text = String::new();
    let read = file.take(TABLE_BYTES_MAX + 1).read_to_string(&mut text);
    let read = read.map_err(|error| wrong(error.to_string()))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > TABLE_BYTES_MAX {
        return Err(wrong("is larger than 64 MiB".into()));
    }
    Ok(text)
}

fn show(asked: &UpdatePrices, update: &Update, written: Option<&Path>) -> Result<(), CommandError> {
    let mut value = serde_json::to_value(update).unwrap_or_default();
    value["written"] = json!(written.map(|path| path.display().to_string()));
    if asked.json {
        return Ok(print::json(&value)?);
    }
    let list = json!({ "data": value["changes"] });
    if !update.changes.is_empty() {
        let headings = ["MODEL", "TIER", "HOURS", "ABOVE", "BUCKET", "OLD", "NEW"];
        let paths = [
            "model",
            "service_tier",
            "hours",
            "above_prompt_tokens",
            "bucket",
            "old",
            "new",
        ];
        print::table(&headings, &list, |row: &Value| {
            paths.iter().map(|path| cell(row, path)).collect()
        })?;
        print::line("")?;
    }
    for left in &update.left {
        print::line(&format!("{}: stays as it is: {}", left.model, left.why))?;
    }
    for fall in &update.falls {
        let Fall {
            model,
            service_tier,
            above_prompt_tokens,
            bucket,
            below,
            above,
        } = fall;
        print::line(&format!(
            "{model}: look at the provider's own prices: by the table {bucket} of {service_tier} falls from {below} to {above} for prompts of more than {above_prompt_tokens} tokens"
        ))?;
    }
    if !update.not_served.is_empty() {
        let count = update.not_served.len();
        let names: Vec<&str> = update
            .not_served
            .iter()
            .take(NAMES_MAX)
            .map(String::as_str)
            .collect();
        let more = if count > NAMES_MAX { " …" } else { "" };
        print::line(&format!(
            "{count} models of the table are in no provider file, so nothing here serves them: {}{more}",
            names.join(", ")
        ))?;
    }
    let (models, same) = (update.entries.len(), update.same);
    print::line(&format!(
        "{models} models change, {same} are as the table says"
    ))?;
    match written {
        Some(path) => print::line(&format!(
            "written into {}; a gateway charges by it when it starts again",
            path.display()
        ))?,
        None if models > 0 => print::line("nothing was written: --yes writes it")?,
        None => {}
    }
    Ok(())
}
