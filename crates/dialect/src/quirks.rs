//! Quirks: the closed vocabulary of a provider's deviations from its dialect, as its file writes them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Deserializer};
use serde_json::{Number, Value};

use crate::Dialect;

/// How one provider deviates from its dialect. The default is no deviation.
///
/// Members named here are top-level members of the request body.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Quirks {
    /// Members sent under another name. Where the new name is present too, the old one is left out.
    pub rename: BTreeMap<String, String>,
    /// Members left out without a word, because they do not matter or the operator says so.
    pub drop: Vec<String>,
    /// Members that a client is refused (400, naming the member), because serving the request without
    /// them would be serving another request. A `null` is left out instead.
    pub unsupported: Vec<String>,
    /// Members always sent with this value, whatever the client sent.
    pub set: BTreeMap<String, Value>,
    /// Numbers moved into the range that the provider accepts.
    pub clamp: BTreeMap<String, Clamp>,
    /// Leaves out what the provider cannot do, instead of refusing the request for it. It is never
    /// about limits and prices: only about what would have been a 400.
    pub drop_unsupported: bool,
    /// Path after the base URL; absent: the dialect's own. `{model}` is replaced by the
    /// percent-encoded upstream model.
    #[serde(deserialize_with = "path")]
    pub path: Option<String>,
    /// Headers sent with every request.
    #[serde(deserialize_with = "headers")]
    pub headers: BTreeMap<String, String>,
    /// The member that carries an output limit when the client named none.
    pub output_limit_field: OutputLimitField,
    /// Where a usage object may be; the first that is there counts.
    pub usage_at: Vec<Pointer>,
    /// Whether streams report usage, and what makes them.
    pub usage_how: UsageHow,
    /// Whether `completion_tokens` includes reasoning.
    pub reasoning: Convention,
    /// Whether `prompt_tokens` includes cached tokens and cache writes.
    pub cached: Convention,
    /// Whether it has OpenAI's Responses itself: then those of clients travel as they are. Of the
    /// other quirks `unsupported`, `drop`, `set` and `headers` are about them, too.
    pub responses: ResponsesApi,
}

impl Default for Quirks {
    fn default() -> Self {
        Self {
            rename: BTreeMap::new(),
            drop: Vec::new(),
            unsupported: Vec::new(),
            set: BTreeMap::new(),
            clamp: BTreeMap::new(),
            drop_unsupported: false,
            path: None,
            headers: BTreeMap::new(),
            output_limit_field: OutputLimitField::default(),
            usage_at: vec![Pointer {
                steps: vec![String::from("usage")],
            }],
            usage_how: UsageHow::default(),
            reasoning: Convention::default(),
            cached: Convention::default(),
            responses: ResponsesApi::default(),
        }
    }
}

impl Quirks {
    /// The quirks that are set and mean nothing in `dialect`: a provider's file with one of them does
    /// not do what it says.
    #[must_use]
    pub fn without_meaning(&self, dialect: Dialect) -> Vec<&'static str> {
        match dialect {
            Dialect::OpenAi => Vec::new(),
            Dialect::Anthropic
            | Dialect::AnthropicVertex
            | Dialect::Gemini
            | Dialect::Cohere
            | Dialect::Ollama
            | Dialect::Bedrock => {
                let plain = Self::default();
                // Theirs says whether to stream.
                let two = matches!(
                    dialect,
                    Dialect::Gemini | Dialect::AnthropicVertex | Dialect::Bedrock
                );
                let path = two && self.path != plain.path;
                let set = [
                    ("path", path),
                    ("rename", self.rename != plain.rename),
                    (
                        "output_limit_field",
                        self.output_limit_field != plain.output_limit_field,
                    ),
                    ("usage_at", self.usage_at != plain.usage_at),
                    ("usage_how", self.usage_how != plain.usage_how),
                    ("reasoning", self.reasoning != plain.reasoning),
                    ("cached", self.cached != plain.cached),
                    ("responses", self.responses != plain.responses),
                ];
                let set = set.into_iter().filter(|(_, differs)| *differs);
                set.map(|(name, _)| name).collect()
            }
        }
    }

    /// The same for text completions: what is renamed, added or sent elsewhere is a chat's, and the
    /// output limit has one name there.
    #[must_use]
    pub fn for_completions(&self) -> Self {
        Self {
            rename: BTreeMap::new(),
            set: BTreeMap::new(),
            path: None,
            output_limit_field: OutputLimitField::MaxTokens,
            ..self.clone()
        }
    }

    /// The path of a request for `model`: the provider's own, else `default`.
    pub(crate) fn path_for(&self, default: &str, model: &str) -> String {
        let template = self.path.as_deref().unwrap_or(default);
        let Some((before, after)) = template.split_once("{model}") else {
            return template.to_owned();
        };
        let mut path = String::with_capacity(template.len() + model.len());
        path.push_str(before);
        for byte in model.bytes() {
            if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
                path.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(path, "%{byte:02X}");
            }
        }
        path.push_str(after);
        path
    }

    /// The headers that the provider's file asks for.
    pub(crate) fn header_list(&self) -> Vec<(String, String)> {
        self.headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect()
    }
}

/// A closed range of numbers; either end may be open.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clamp {
    /// Smallest value accepted.
    #[serde(default)]
    pub min: Option<Number>,
    /// Largest value accepted.
    #[serde(default)]
    pub max: Option<Number>,
}

impl Clamp {
    /// The bound that a number, given as JSON, lies beyond.
    pub(crate) fn beyond(&self, value: &str) -> Option<&Number> {
        let number: f64 = value.parse().ok()?;
        let below = |bound: &&Number| bound.as_f64().is_some_and(|bound| number < bound);
        let above = |bound: &&Number| bound.as_f64().is_some_and(|bound| number > bound);
        self.min
            .as_ref()
            .filter(below)
            .or_else(|| self.max.as_ref().filter(above))
    }
}

/// The two names of the output limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputLimitField {
    /// `max_tokens`: known to everybody. The default, because where it is refused it is refused
    /// loudly, whereas an unknown name is often ignored and leaves the output without a limit.
    #[default]
    MaxTokens,
    /// `max_completion_tokens`: what OpenAI's reasoning models demand.
    MaxCompletionTokens,
}

impl OutputLimitField {
    /// The name of the member.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// What makes a provider report usage in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageHow {
    /// `stream_options: {"include_usage": true}`, as OpenAI has it.
    #[default]
    StreamOptions,
    /// It always does; nothing is asked for.
    Always,
    /// It never does; nothing is asked for, and the gateway's own count is the bill.
    Never,
}

/// Whether a part is counted in the total beside it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Convention {
    /// The total includes the part (OpenAI).
    #[default]
    Inside,
    /// The part comes on top of the total (reasoning at xAI).
    Beside,
}

/// Whether a provider has OpenAI's Responses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResponsesApi {
    /// It has not: they are composed out of chats.
    #[default]
    Translated,
    /// It has, and keeps none.
    Stateless,
    /// It has, keeps them, gives them out again and goes on with them.
    Stored,
}

/// A JSON pointer (RFC 6901), as in `"/x_groq/usage"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    pub(crate) steps: Vec<String>,
}

impl Pointer {
    pub(crate) fn is_top_usage(&self) -> bool {
        matches!(self.steps.as_slice(), [only] if only == "usage")
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let Some(rest) = text.strip_prefix('/') else {
            return Err(serde::de::Error::custom(
                "a JSON pointer begins with a slash, as in \"/usage\"",
            ));
        };
        let steps = rest
            .split('/')
            .map(|step| step.replace("~1", "/").replace("~0", "~"));
        Ok(Self {
            steps: steps.collect(),
        })
    }
}

fn path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let path = String::deserialize(deserializer)?;
    let sound = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic());
    if !sound {
        return Err(serde::de::Error::custom(
            "path begins with a slash and has no spaces, as in \"/chat/completions\"",
        ));
    }
    Ok(Some(path))
}

fn headers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let headers = BTreeMap::<String, String>::deserialize(deserializer)?;
    let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    for (name, value) in &headers {
        if name.is_empty() || !name.bytes().all(token) {
            return Err(serde::de::Error::custom(
                "a header name is letters, digits and dashes",
            ));
        }
        if !value
            .bytes()
            .all(|byte| byte == b' ' || byte.is_ascii_graphic())
        {
            return Err(serde::de::Error::custom(
                "a header value is printable ASCII",
            ));
        }
    }
    Ok(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_reads_from_toml() {
        let quirks: Quirks = toml::from_str(
            r#"
            rename = { max_tokens = "max_completion_tokens" }
            drop = ["logit_bias"]
            unsupported = ["logprobs"]
            set = { safe_prompt = false, reasoning = { effort = "low" } }
            clamp = { temperature = { min = 0, max = 1.5 } }
            drop_unsupported = true
            path = "/v2/{model}/chat"
            headers = { "x-title" = "Tollway" }
            output_limit_field = "max_completion_tokens"
            usage_at = ["/usage", "/x_groq/usage", "/a~1b/~0"]
            usage_how = "never"
            reasoning = "beside"
            cached = "beside"
            "#,
        )
        .unwrap();
        assert_eq!(quirks.set["reasoning"]["effort"], "low");
        assert_eq!(quirks.clamp["temperature"].max, Number::from_f64(1.5));
        assert_eq!(quirks.usage_at[2].steps, ["a/b", "~"]);
        assert_eq!(quirks.reasoning, Convention::Beside);
        assert_eq!(toml::from_str::<Quirks>("").unwrap(), Quirks::default());
    }

    #[test]
    fn what_is_not_in_the_vocabulary_is_refused() {
        for bad in [
            "renamed = {}",
            "usage_how = \"sometimes\"",
            "reasoning = \"both\"",
            "usage_at = [\"usage\"]",
            "path = \"chat\"",
            "path = \"/a b\"",
            "headers = { \"a b\" = \"c\" }",
            "headers = { a = \"c\\r\\nd: e\" }",
            "clamp = { temperature = { low = 0 } }",
            "output_limit_field = \"max_output_tokens\"",
        ] {
            assert!(toml::from_str::<Quirks>(bad).is_err(), "{bad}");
        }
    }
}
