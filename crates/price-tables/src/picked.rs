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
            TableName::Litellm => Self::Litellm(Litellm::parse(text, day)?),
            TableName::GenaiPrices => Self::GenaiPrices(GenaiPrices::parse(text, day)?),
        })
    }

    /// Reads a table of either kind; prices are those of `day`, `YYYY-MM-DD`.
    ///
    /// # Errors
    /// The text is neither.
    pub fn recognize(text: &str, day: &str) -> Result<(TableName, Self), TableError> {
        let names = [TableName::Litellm, TableName::GenaiPrices];
        let mut problems = Vec::new();
        for name in names {
            match Self::parse(name, text, day) {
                Ok(table) => return Ok((name, table)),
                Err(error) => problems.push(error.to_string()),
            }
        }
        let place = "the price table";
        Err(TableError::at(
            place,
            format!("of no known form: {}", problems.join("; ")),
        ))
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
            let units = facts.unknown_units.join(", ");
            match model::model(facts, provider, taken) {
                Ok(model) if models.contains_key(&id) => {
                    let place = format!("provider {}, model \"{}\"", provider.file, model.id);
                    return Err(TableError::at(place, "two rows of the table give it"));
                }
                Ok(model) => {
                    models.insert(id, model);
                }
                Err(reason) => {
                    let named = match reason {
                        LeftOut::UnknownUnit => format!("{id} ({units})"),
                        LeftOut::ByPlan
                        | LeftOut::Ended
                        | LeftOut::NoPrice
                        | LeftOut::NoContextWindow
                        | LeftOut::TooFine
                        | LeftOut::NoSource => id,
                    };
                    picked.left_out.entry(reason).or_default().push(named);
                }
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
    fn a_table_is_known_by_its_form_and_units_by_their_names() {
        let (name, _) = Table::recognize("{}", "2026-11-22").unwrap();
        assert_eq!(name, TableName::Litellm);
        let genai = "\nproviders: list[Provider] = []";
        let (name, _) = Table::recognize(genai, "2026-11-22").unwrap();
        assert_eq!(name, TableName::GenaiPrices);
        assert!(Table::recognize("[]", "2026-11-22").is_err());
        let row = |more: &str| {
            let text = format!(
                r#"{{"m":{{"litellm_provider":"acme","mode":"chat","max_input_tokens":1,
                "input_cost_per_token":1e-06,"output_cost_per_token":2e-06,{more}}}}}"#
            );
            let (_, table) = Table::recognize(&text, "2026-11-22").unwrap();
            let picked = pick(&table, &provider("[{ key = \"acme\" }]"), "2026-11-22").unwrap();
            picked.left_out_words(true)
        };
        let left_out = row(r#""input_cost_per_sigh": 0.1"#);
        assert_eq!(
            left_out,
            ", 1 left out (unknown unit): m (input_cost_per_sigh)"
        );
        for known in [
            r#""input_cost_per_sigh": 0.0"#,
            r#""input_cost_per_token_above_128k_tokens_priority": 1"#,
            r#""output_cost_per_token_ultrafast": 1"#,
            r#""search_context_cost_per_query": {"search_context_size_low": 1}"#,
        ] {
            assert_eq!(row(known), "", "{known}");
        }
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
