//! The members of a request: each is translated, native, without effect, or refused by name.

use super::{Source, literal};
use crate::error::RequestError;
use crate::features::Effort;
use crate::json;

/// The form that an answer is to have.
pub(crate) enum Form<'a> {
    Text,
    Json,
    Schema {
        /// A JSON object.
        schema: &'a str,
        /// A literal.
        name: Option<&'a str>,
    },
}

impl<'a> Form<'a> {
    /// `response_format`.
    ///
    /// # Errors
    /// Another kind than these, or no schema where one is announced.
    pub(crate) fn read(source: &Source<'a>) -> Result<Self, RequestError> {
        let Some(sent) = source.get("response_format") else {
            return Ok(Self::Text);
        };
        match Source::member(sent, "type").map_or("", json::inside) {
            "text" => Ok(Self::Text),
            "json_object" => Ok(Self::Json),
            "json_schema" => {
                let named = Source::member(sent, "json_schema").unwrap_or_default();
                let schema = Source::member(named, "schema").filter(|json| json.starts_with('{'));
                let schema = schema.ok_or(RequestError::param(
                    "response_format",
                    "`response_format.json_schema.schema` is missing.",
                ))?;
                let name = literal(named, "name");
                Ok(Self::Schema { schema, name })
            }
            _ => {
                source.cannot(
                    "response_format",
                    "`response_format` must be text, json_object or json_schema for this model.",
                )?;
                Ok(Self::Text)
            }
        }
    }
}

/// How much a model is to reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reasoning {
    /// Not at all.
    No,
    Effort(Effort),
}

impl Reasoning {
    /// `reasoning_effort`; `None` where nothing is asked for.
    ///
    /// # Errors
    /// Another word than OpenAI's.
    pub(crate) fn read(source: &Source<'_>) -> Result<Option<Self>, RequestError> {
        let Some(sent) = source.get("reasoning_effort") else {
            return Ok(None);
        };
        Ok(Some(Self::Effort(match json::inside(sent) {
            "none" => return Ok(Some(Self::No)),
            "minimal" => Effort::Minimal,
            "low" => Effort::Low,
            "medium" => Effort::Medium,
            "high" => Effort::High,
            "xhigh" => Effort::Xhigh,
            "max" => Effort::Max,
            _ => {
                return Err(RequestError::param(
                    "reasoning_effort",
                    "`reasoning_effort` must be none, minimal, low, medium, high, xhigh or max.",
                ));
            }
        })))
    }
}

/// What becomes of the members that a client can send: each is in one of these lists or in one of
/// [`EVERYWHERE`] and [`NO_EFFECT`], or it is a 400.
pub(crate) struct Vocabulary {
    /// Translated beside those that every dialect translates, each by its own function.
    pub(crate) translated: &'static [&'static str],
    /// The dialect's own, which travel as they are.
    pub(crate) native: &'static [&'static str],
    /// Without effect on the answer, as [`NO_EFFECT`] is everywhere: left out without a word.
    pub(crate) no_effect: &'static [&'static str],
}

/// Members that every dialect translates.
const EVERYWHERE: &[&str] = &[
    "model",
    "messages",
    "stream",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "stop",
    "tools",
    "tool_choice",
    "reasoning_effort",
    "response_format",
];
/// Members without effect on any provider's answer.
const NO_EFFECT: &[&str] = &[
    "stream_options",
    "metadata",
    "store",
    "prompt_cache_key",
    "prompt_cache_retention",
];

/// Members that ask for what is so anyway, when they have this value.
const DEFAULTS: [(&str, &[&str]); 13] = [
    ("n", &["1"]),
    ("logprobs", &["false"]),
    ("top_logprobs", &["0"]),
    ("frequency_penalty", &["0", "0.0"]),
    ("presence_penalty", &["0", "0.0"]),
    ("logit_bias", &["{}"]),
    ("modalities", &[r#"["text"]"#]),
    ("verbosity", &[r#""medium""#]),
    ("service_tier", &[r#""auto""#, r#""default""#]),
    ("functions", &["[]"]),
    ("function_call", &[r#""auto""#, r#""none""#]),
    ("parallel_tool_calls", &["true"]),
    ("reasoning_effort", &[r#""none""#]),
];

impl Vocabulary {
    /// Refuses what is in none of the lists.
    ///
    /// # Errors
    /// The first member that the provider cannot take.
    pub(crate) fn check(&self, source: &Source<'_>) -> Result<(), RequestError> {
        for member in source.request.members() {
            let name = member.name.as_ref();
            let sent = json::slice(source.request.body(), &member.value);
            if sent == "null" || source.get(name).is_none() {
                continue;
            }
            let by_file = source.quirks.unsupported.iter().any(|other| other == name);
            let is_default = DEFAULTS.iter().any(|(default, values)| {
                *default == name && values.iter().any(|value| same_json(value, sent))
            });
            let own = [self.translated, self.native, self.no_effect];
            let mut lists = own.into_iter().chain([EVERYWHERE, NO_EFFECT]);
            let known = lists.any(|list| list.contains(&name));
            if by_file || !(known || is_default) {
                let hint = match name {
                    "functions" | "function_call" => ", and send `tools` and `tool_choice` instead",
                    "n" => ", and send one request for each answer",
                    _ => "",
                };
                source.cannot(
                    name,
                    format!(
                        "`{name}` is not supported by the provider of this model: leave it out{hint}."
                    ),
                )?;
            }
        }
        Ok(())
    }
}

/// Equal but for white space outside strings, for short values.
fn same_json(value: &str, sent: &str) -> bool {
    let bare = |text: &str| -> String {
        text.chars()
            .filter(|letter| !letter.is_ascii_whitespace())
            .collect()
    };
    sent.len() <= 64 && bare(value) == bare(sent)
}
