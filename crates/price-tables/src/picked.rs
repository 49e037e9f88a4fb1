//! What is taken of a table for one provider, and what is not, each with its reason.

use std::collections::BTreeMap;

use crate::{
    TableError,
    facts::Facts,
    genai::GenaiPrices,
    litellm::Litellm,
    model::{self, LeftOut, Model},
    plan::{Provider, TableName},
};

/// A table, read.
pub enum Table {
    /// The table of PyPI's `litellm`.
    Litellm(Litellm),
    /// The table of PyPI's `genai-prices`.
    GenaiPrices(GenaiPrices),
}

impl Table {
    /// Reads the text of a table; prices are those of `day`, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// The text is not that table's.
    pub fn parse(name: TableName, text: &str, day: &str) -> Result<Self, TableError> {
        Ok(match name {
            TableName::Litellm => Self::Litellm(Litellm::parse(text)?),
            TableName::GenaiPrices => Self::GenaiPrices(GenaiPrices::parse(text, day)?),
        })
    }

    /// How many rows it has of each provider, by the table's own names.
    #[must_use]
    pub fn providers(&self) -> BTreeMap<String, usize> {
        match self {
            Self::Litellm(table) => table.providers(),
            Self::GenaiPrices(table) => table.providers(),
        }
    }

    fn rows(&self, key: &str, prefix: &str) -> Result<Vec<Facts>, TableError> {
        match self {
            Self::Litellm(table) => table.models(key, prefix),
            Self::GenaiPrices(table) => table.chat_models(key, prefix),
        }
    }
}

/// What was taken of a table for one provider, and what was not.
#[derive(Debug, Default)]
pub struct Picked {
    /// By id.
    pub models: Vec<Model>,
    /// Ids by the reason why they were not taken.
    pub left_out: BTreeMap<LeftOut, Vec<String>>,
    /// Names of providers in the plan that the table has no rows of.
    pub absent: Vec<String>,
}

impl Picked {
    /// How many were left out and why, in words; with their ids where `verbose`.
    #[must_use]
    pub fn left_out_words(&self, verbose: bool) -> String {
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

/// Takes what the plan wants for a provider file; `taken` is the day of the table, `YYYY-MM-DD`.
///
/// # Errors
/// A row that cannot be read, or two rows for one model.
pub fn pick(table: &Table, provider: &Provider, taken: &str) -> Result<Picked, TableError> {
    let mut models = BTreeMap::new();
    let mut picked = Picked::default();
    for source in &provider.from {
        let rows = table.rows(&source.key, &source.prefix)?;
        if rows.is_empty() {
            picked.absent.push(source.key.clone());
        }
        for mut facts in rows {
            facts.id.push_str(&source.suffix);
            let id = facts.id.clone();
            match model::model(facts, provider, taken) {
                Ok(model) if models.contains_key(&id) => {
                    let place = format!("provider {}, model \"{}\"", provider.file, model.id);
                    return Err(TableError::at(place, "two rows of the table give it"));
                }
                Ok(model) => {
                    models.insert(id, model);
                }
                Err(reason) => picked.left_out.entry(reason).or_default().push(id),
            }
        }
    }
    picked.models = models.into_values().collect();
    Ok(picked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let json = r#"{
            "acme/b":{"litellm_provider":"acme","mode":"chat","max_input_tokens":1,"input_cost_per_token":1e-06,"output_cost_per_token":2e-06},
            "acme/a":{"litellm_provider":"acme","mode":"chat","max_input_tokens":1,"input_cost_per_token":1e-06,"output_cost_per_token":2e-06},
            "acme/free":{"litellm_provider":"acme","mode":"chat","max_input_tokens":1,"input_cost_per_token":0.0,"output_cost_per_token":0.0},
            "acme/old":{"litellm_provider":"acme","mode":"chat","deprecation_date":"2020-01-01"}}"#;
        Table::parse(TableName::Litellm, json, "2026-11-22").unwrap()
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
        let picked = pick(&table(), &acme, "2026-11-22").unwrap();
        let ids: Vec<&str> = picked
            .models
            .iter()
            .map(|model| model.id.as_str())
            .collect();
        assert_eq!(ids, ["a:x", "b:x"]);
        assert_eq!(
            picked.left_out_words(true),
            ", 1 left out (ended): old:x, 1 left out (no price): free:x"
        );
    }

    #[test]
    fn a_model_from_two_rows_is_an_error_and_no_rows_are_told() {
        let twice = provider("[{ key = \"acme\" }, { key = \"acme\" }]");
        assert!(pick(&table(), &twice, "2026-11-22").is_err());
        assert_eq!(table().providers()["acme"], 4);
        let nothing = provider("[{ key = \"other\" }]");
        assert_eq!(pick(&table(), &nothing, "x").unwrap().absent, ["other"]);
    }
}
