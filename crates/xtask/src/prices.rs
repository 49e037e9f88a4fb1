//! `cargo xtask prices`: writes the models of the provider files from published price tables.
//!
//! The plan (`crates/xtask/prices.toml`) pins each table to a version and a checksum, so the same
//! plan always gives the same files. Prices are moved as decimal digits; no float is involved.

mod decimal;
mod facts;
mod genai;
mod litellm;
mod model;
mod plan;
mod python_literal;
mod render;
mod wheel;

pub(crate) use self::render::MARKER;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use self::{
    facts::Facts,
    genai::GenaiPrices,
    litellm::Litellm,
    model::{LeftOut, Model},
    plan::{PLAN_PATH, Plan, Provider, TableName},
};
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
    /// Name every row that is left out.
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
    let tables = Tables::read(&plan, &providers, &wheels)?;
    let mut report = Report::new();
    for provider in providers {
        let path = format!("providers/{}.toml", provider.file);
        let picked = pick(&tables, provider, &plan.taken)?;
        let table = plan.table(provider.table)?;
        let from = format!("{} {}", table.package, table.version);
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
            picked.left_out(arguments.verbose)
        ));
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

/// The tables that are needed, read once.
struct Tables {
    litellm: Option<Litellm>,
    genai: Option<GenaiPrices>,
}

impl Tables {
    fn read(plan: &Plan, providers: &[&Provider], wheels: &Path) -> Result<Self, Failure> {
        let needed: BTreeSet<TableName> = providers.iter().map(|provider| provider.table).collect();
        let mut tables = Self {
            litellm: None,
            genai: None,
        };
        for name in needed {
            let text = wheel::table_text(plan.table(name)?, wheels)?;
            match name {
                TableName::Litellm => tables.litellm = Some(Litellm::parse(&text)?),
                TableName::GenaiPrices => {
                    tables.genai = Some(GenaiPrices::parse(&text, &plan.taken)?)
                }
            }
        }
        Ok(tables)
    }

    fn rows(&self, table: TableName, key: &str, prefix: &str) -> Result<Vec<Facts>, Failure> {
        let missing = || Failure::content(PLAN_PATH, format!("{table:?} was not read"));
        match table {
            TableName::Litellm => self
                .litellm
                .as_ref()
                .ok_or_else(missing)?
                .models(key, prefix),
            TableName::GenaiPrices => self
                .genai
                .as_ref()
                .ok_or_else(missing)?
                .chat_models(key, prefix),
        }
    }
}

/// What was taken of a table for one provider, and what was not.
#[derive(Debug, Default)]
struct Picked {
    /// By id.
    models: Vec<Model>,
    left_out: BTreeMap<LeftOut, Vec<String>>,
}

impl Picked {
    fn left_out(&self, verbose: bool) -> String {
        let mut text = String::new();
        for (reason, ids) in &self.left_out {
            text.push_str(&format!(", {} left out ({})", ids.len(), reason.words()));
            if verbose {
                text.push_str(&format!(": {}", ids.join(" ")));
            }
        }
        text
    }
}

fn pick(tables: &Tables, provider: &Provider, taken: &str) -> Result<Picked, Failure> {
    let mut rows = Vec::new();
    for source in &provider.from {
        let found = tables.rows(provider.table, &source.key, &source.prefix)?;
        if found.is_empty() {
            let what = format!("provider {}, key \"{}\"", provider.file, source.key);
            return Err(Failure::content(what, "the table has no such rows"));
        }
        rows.extend(found.into_iter().map(|mut facts| {
            facts.id.push_str(&source.suffix);
            facts
        }));
    }
    let mut models = BTreeMap::new();
    let mut picked = Picked::default();
    for facts in rows {
        let id = facts.id.clone();
        match model::model(facts, provider, taken) {
            Ok(model) if models.contains_key(&id) => {
                let what = format!("provider {}, model \"{}\"", provider.file, model.id);
                return Err(Failure::content(what, "two rows of the table give it"));
            }
            Ok(model) => {
                models.insert(id, model);
            }
            Err(reason) => picked.left_out.entry(reason).or_default().push(id),
        }
    }
    picked.models = models.into_values().collect();
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tables() -> Tables {
        let json = r#"{
            "acme/b":{"litellm_provider":"acme","mode":"chat","max_input_tokens":1,"input_cost_per_token":1e-06,"output_cost_per_token":2e-06},
            "acme/a":{"litellm_provider":"acme","mode":"chat","max_input_tokens":1,"input_cost_per_token":1e-06,"output_cost_per_token":2e-06},
            "acme/free":{"litellm_provider":"acme","mode":"chat","max_input_tokens":1,"input_cost_per_token":0.0,"output_cost_per_token":0.0},
            "acme/old":{"litellm_provider":"acme","mode":"chat","deprecation_date":"2020-01-01"}}"#;
        Tables {
            litellm: Some(Litellm::parse(json).unwrap()),
            genai: None,
        }
    }

    fn provider(from: &str) -> Provider {
        toml::from_str(&format!(
            "file = \"acme\"\ntable = \"litellm\"\nfrom = {from}"
        ))
        .unwrap()
    }

    #[test]
    fn picks_models_by_id_and_says_what_it_left_out() {
        let acme = provider("[{ key = \"acme\", prefix = \"acme/\", suffix = \":x\" }]");
        let picked = pick(&tables(), &acme, "2026-11-22").unwrap();
        let ids: Vec<&str> = picked
            .models
            .iter()
            .map(|model| model.id.as_str())
            .collect();
        assert_eq!(ids, ["a:x", "b:x"]);
        assert_eq!(
            picked.left_out(true),
            ", 1 left out (ended): old:x, 1 left out (no price): free:x"
        );
    }

    #[test]
    fn a_model_from_two_rows_is_an_error() {
        let twice = provider("[{ key = \"acme\" }, { key = \"acme\" }]");
        assert!(pick(&tables(), &twice, "2026-11-22").is_err());
        let nothing = provider("[{ key = \"other\" }]");
        assert!(pick(&tables(), &nothing, "2026-11-22").is_err());
    }

    #[test]
    fn the_plan_of_this_checkout_parses() {
        let plan = Plan::parse(include_str!("../prices.toml")).unwrap();
        let mut files: Vec<&str> = plan
            .providers
            .iter()
            .map(|provider| provider.file.as_str())
            .collect();
        let count = files.len();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), count, "a file is planned twice");
    }
}
