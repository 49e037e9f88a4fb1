//! A provider file as the chores read it: the same members that the gateway accepts, no others.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::report::Failure;

/// One file of `providers/`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProviderFile {
    pub(crate) name: String,
    pub(crate) display_name: Option<String>,
    pub(crate) dialect: String,
    pub(crate) base_url: String,
    pub(crate) api_key_env: Option<String>,
    #[serde(default)]
    pub(crate) auth: Auth,
    pub(crate) docs_url: Option<String>,
    pub(crate) prices_from: Option<String>,
    pub(crate) prices_taken: Option<String>,
    #[serde(default)]
    pub(crate) quirks: Quirks,
    /// Where endpoints are that are not at their usual path.
    #[serde(default)]
    #[expect(dead_code, reason = "read to prove that it parses")]
    pub(crate) paths: BTreeMap<String, String>,
    /// Whether it keeps files and works off batches.
    #[serde(default)]
    #[expect(dead_code, reason = "read to prove that it parses")]
    pub(crate) files: bool,
    /// Other paths that are passed on.
    #[serde(default)]
    #[expect(dead_code, reason = "read to prove that it parses")]
    pub(crate) passthrough: BTreeMap<String, toml::Value>,
    #[serde(default)]
    pub(crate) models: Vec<Model>,
}

/// How the key travels.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Auth {
    /// `Authorization: Bearer KEY`.
    #[default]
    Bearer,
    /// The bare key in the header of this name.
    Header(String),
    /// A token of Google's cloud, by the credentials file that the variable names.
    ServiceAccount,
    /// A bearer, or a signature with Amazon's keys.
    Aws,
}

/// The closed vocabulary of deviations from the dialect.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Quirks {
    pub(crate) rename: BTreeMap<String, String>,
    pub(crate) drop: Vec<String>,
    pub(crate) drop_unsupported: bool,
    pub(crate) set: BTreeMap<String, toml::Value>,
    pub(crate) clamp: BTreeMap<String, toml::Value>,
    pub(crate) path: Option<String>,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) output_limit_field: Option<String>,
    pub(crate) usage_at: Vec<String>,
    pub(crate) usage_how: Option<UsageHow>,
    pub(crate) reasoning: Option<Placement>,
    pub(crate) cached: Option<Placement>,
    pub(crate) unsupported: Vec<String>,
    pub(crate) responses: Option<Responses>,
}

/// Whether a provider has OpenAI's Responses.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Responses {
    /// It has not.
    Translated,
    /// It has, and keeps none.
    Stateless,
    /// It has, and keeps them.
    Stored,
}

/// When a provider reports the usage of a stream.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum UsageHow {
    /// When `stream_options.include_usage` asks for it.
    StreamOptions,
    /// Unasked.
    Always,
    /// Not at all.
    Never,
}

/// Whether a count is part of the total beside it.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Placement {
    /// Part of the total.
    Inside,
    /// To be added to it.
    Beside,
}

/// One model of a provider.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "members are read to prove that they parse")]
pub(crate) struct Model {
    pub(crate) id: String,
    pub(crate) upstream_id: Option<String>,
    pub(crate) tokenizer: Option<String>,
    pub(crate) token_factor: Option<u32>,
    pub(crate) learn_factor: Option<bool>,
    /// A path, which an operator's own file has.
    #[expect(dead_code, reason = "read to prove that it parses")]
    pub(crate) tokenizer_json: Option<String>,
    pub(crate) context_window: u64,
    pub(crate) max_output_tokens: Option<u64>,
    #[serde(default)]
    pub(crate) hidden_output: bool,
    #[serde(default)]
    pub(crate) features: BTreeMap<String, toml::Value>,
    pub(crate) image_rule: Option<String>,
    #[serde(default)]
    pub(crate) aliases: Vec<String>,
    /// What it does; left out: it answers chats.
    #[serde(default)]
    pub(crate) endpoints: Vec<String>,
    #[serde(default)]
    pub(crate) deprecated: bool,
    pub(crate) price: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub(crate) price_tiers: Vec<Tier>,
    /// Prices of images by size and quality.
    #[serde(default)]
    pub(crate) image_prices: Vec<BTreeMap<String, toml::Value>>,
    #[serde(default)]
    pub(crate) service_tiers: BTreeMap<String, toml::Value>,
    #[serde(default)]
    pub(crate) price_hours: Vec<toml::Value>,
    #[serde(default)]
    pub(crate) price_versions: Vec<toml::Value>,
    pub(crate) price_date: Option<String>,
}

/// A price for long prompts.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "members are read to prove that they parse")]
pub(crate) struct Tier {
    pub(crate) above_prompt_tokens: u64,
    pub(crate) whole_request: bool,
    pub(crate) price: BTreeMap<String, String>,
}

impl ProviderFile {
    /// Reads a provider file; `path` is for the error.
    pub(crate) fn parse(path: &str, text: &str) -> Result<Self, Failure> {
        toml::from_str(text).map_err(|error| Failure::content(path, error))
    }

    /// The environment variables that must be set for the provider to be served, in order.
    pub(crate) fn environment(&self) -> Vec<String> {
        let mut names = Vec::new();
        let mut rest = self.base_url.as_str();
        while let Some((_, after)) = rest.split_once("${") {
            let Some((name, after)) = after.split_once('}') else {
                break;
            };
            if !names.iter().any(|other| other == name) {
                names.push(name.to_owned());
            }
            rest = after;
        }
        names.extend(self.api_key_env.clone());
        names
    }

    /// True when any model has a price.
    pub(crate) fn has_prices(&self) -> bool {
        self.models.iter().any(|model| model.price.is_some())
    }

    /// Ids and aliases that occur more than once.
    pub(crate) fn repeated_names(&self) -> Vec<String> {
        let mut seen = BTreeSet::new();
        self.models
            .iter()
            .flat_map(|model| std::iter::once(&model.id).chain(&model.aliases))
            .filter(|name| !seen.insert(name.as_str()))
            .cloned()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acme(extra: &str) -> String {
        format!(
            "name = \"acme\"\ndialect = \"openai\"\nbase_url = \"${{ACME_URL}}/v1\"\napi_key_env = \"ACME_KEY\"\n{extra}"
        )
    }

    #[test]
    fn names_the_environment_it_needs() {
        let file = ProviderFile::parse("acme.toml", &acme("")).unwrap();
        assert_eq!(file.environment(), ["ACME_URL", "ACME_KEY"]);
        assert!(!file.has_prices());
    }

    #[test]
    fn reads_both_ways_of_sending_a_key() {
        let bearer = ProviderFile::parse("a", &acme("auth = \"bearer\"")).unwrap();
        assert!(matches!(bearer.auth, Auth::Bearer));
        let header = ProviderFile::parse("a", &acme("auth = { header = \"api-key\" }")).unwrap();
        assert!(matches!(header.auth, Auth::Header(name) if name == "api-key"));
    }

    #[test]
    fn refuses_unknown_members() {
        for extra in [
            "colour = 1",
            "[quirks]\ncolour = 1",
            "[[models]]\nid = \"a\"\ncolour = 1",
        ] {
            assert!(ProviderFile::parse("a", &acme(extra)).is_err(), "{extra}");
        }
    }

    #[test]
    fn finds_repeated_names() {
        let models = "[[models]]\nid = \"a\"\ncontext_window = 1\nmax_output_tokens = 1\n\
                      [[models]]\nid = \"b\"\naliases = [\"a\"]\ncontext_window = 1\nmax_output_tokens = 1\n";
        let file = ProviderFile::parse("a", &acme(models)).unwrap();
        assert_eq!(file.repeated_names(), ["a"]);
    }
}
