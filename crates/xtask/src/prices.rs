//! `cargo xtask prices`: writes the models of the provider files from published price tables.
//!
//! The plan (`crates/price-tables/prices.toml`) pins each table to a version and a checksum, so the same
//! plan always gives the same files. Prices are moved as decimal digits; no float is involved.

mod render;
mod wheel;

pub(crate) use self::render::MARKER;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use price_tables::{PLAN_PATH, Plan, Provider, Table, TableName, pick};

use crate::{
    checkout::Checkout,
    report::{Failure, Report},
};

/// What the chore is asked to do.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Change nothing; fail where a file is not what the tables give.
    #[arg(long)]
    check: bool,
    /// Name every row that is left out, and whose rows go into no file.
    #[arg(long)]
    verbose: bool,
    /// Directory of the downloaded wheels [default: target/price-tables].
    #[arg(long, value_name = "DIR")]
    tables: Option<PathBuf>,
    /// Provider files; all that the plan names when none is given.
    files: Vec<PathBuf>,
}

/// Runs the chore.
pub(crate) fn run(checkout: &Checkout, arguments: &Arguments) -> Result<Report, Failure> {
    let plan = Plan::parse(&checkout.read(PLAN_PATH)?)?;
    let wheels = arguments
        .tables
        .clone()
        .unwrap_or_else(|| checkout.path("target/price-tables"));
    let providers = chosen(&plan, &arguments.files)?;
    let tables = read(&plan, &providers, &wheels)?;
    let mut report = Report::new();
    for provider in providers {
        let path = format!("providers/{}.toml", provider.file);
        let table = plan.table(provider.table)?;
        let from = format!("{} {}", table.package, table.version);
        let read = tables.get(&provider.table);
        let read = read.ok_or_else(|| Failure::content(PLAN_PATH, "a table was not read"))?;
        let picked = pick(read, provider, &plan.taken)?;
        for key in &picked.absent {
            report.blame(format!("{path}: the table has no rows of \"{key}\""));
        }
        let old = checkout.read(&path)?;
        let text = render::splice(&old, &picked.models, &from, &plan.taken)
            .map_err(|why| Failure::content(&path, why))?;
        if arguments.check {
            if text != old {
                report.blame(format!(
                    "{path}: not what the table gives; run `cargo xtask prices {path}`"
                ));
            }
            continue;
        }
        checkout.write(&path, &text)?;
        report.say(format!(
            "{path}: {} models{}",
            picked.models.len(),
            picked.left_out_words(arguments.verbose)
        ));
    }
    if arguments.verbose {
        for (name, table) in &tables {
            report.say(without_a_file(&plan, *name, table));
        }
    }
    if arguments.check && report.all_well {
        report.say("prices: every file is what its table gives");
    }
    Ok(report)
}

/// The planned providers of the given files, or all of them.
fn chosen<'a>(plan: &'a Plan, files: &[PathBuf]) -> Result<Vec<&'a Provider>, Failure> {
    if files.is_empty() {
        return Ok(plan.providers.iter().collect());
    }
    files
        .iter()
        .map(|file| {
            let stem = file.file_stem().unwrap_or_default().to_string_lossy();
            let planned = plan.providers.iter().find(|provider| provider.file == stem);
            planned.ok_or_else(|| Failure::content(PLAN_PATH, format!("no provider \"{stem}\"")))
        })
        .collect()
}

/// Whose rows of a table go into no provider file.
fn without_a_file(plan: &Plan, name: TableName, table: &Table) -> String {
    let planned = plan.providers.iter().filter(|one| one.table == name);
    let taken: BTreeSet<&str> = planned
        .flat_map(|one| one.from.iter().map(|rows| rows.key.as_str()))
        .collect();
    let mut others = table.providers();
    others.retain(|key, _| !taken.contains(key.as_str()));
    let list: Vec<String> = others.iter().map(|(k, n)| format!("{k} {n}")).collect();
    let rows: usize = others.values().sum();
    let (package, list) = (name.package(), list.join(", "));
    format!("{package}: {rows} rows of providers without a file: {list}")
}

/// The tables that are needed, read once.
fn read(
    plan: &Plan,
    providers: &[&Provider],
    wheels: &Path,
) -> Result<BTreeMap<TableName, Table>, Failure> {
    let needed: BTreeSet<TableName> = providers.iter().map(|provider| provider.table).collect();
    let mut tables = BTreeMap::new();
    for name in needed {
        let text = wheel::table_text(plan.table(name)?, wheels)?;
        tables.insert(name, Table::parse(name, &text, &plan.taken)?);
    }
    Ok(tables)
}
