//! How much a model is to think: OpenAI's effort as Google's levels, or as its budgets of tokens.
//!
//! Source: Google's guides "Thinking" and "OpenAI compatibility", which has the budgets of the levels.

use super::google;
use crate::error::RequestError;
use crate::features::{Effort, Features, Thinking};
use crate::json;
use crate::request::ChatRequest;
use crate::source::{Reasoning, Source};

/// The `thinkingConfig`, or `None` where the model does as it does.
///
/// # Errors
/// What the model cannot do, or an effort that is none.
pub(super) fn config(
    source: &Source<'_>,
    own: Option<&str>,
) -> Result<Option<String>, RequestError> {
    let features = source.edit.features;
    let asked = Reasoning::read(source)?;
    if let Some(own) = own {
        if asked.is_some() {
            return Err(RequestError::param(
                "google.thinking_config",
                "`thinking_config` says what `reasoning_effort` says: send one or the other.",
            ));
        }
        return Ok(Some(in_camel_case(own)));
    }
    match asked {
        None => Ok(None),
        Some(Reasoning::No) => match features.thinking {
            Thinking::Never | Thinking::Budget | Thinking::Adaptive => Ok(None),
            Thinking::On => Ok(Some(r#"{"thinkingBudget":0}"#.to_owned())),
            Thinking::Always => {
                source.cannot(
                    "reasoning_effort",
                    "This model always thinks: ask for `low` effort instead of none.",
                )?;
                Ok(None)
            }
        },
        Some(Reasoning::Effort(wished)) => {
            if let Some(level) = features.effort_at_most(wished) {
                let level = level.as_str().to_ascii_uppercase();
                return Ok(Some(format!(
                    r#"{{"thinkingLevel":"{level}","includeThoughts":true}}"#
                )));
            }
            if features.thinking == Thinking::Never {
                source.cannot(
                    "reasoning_effort",
                    "This model does not reason: leave `reasoning_effort` out.",
                )?;
                return Ok(None);
            }
            let budget = budget(wished);
            Ok(Some(format!(
                r#"{{"thinkingBudget":{budget},"includeThoughts":true}}"#
            )))
        }
    }
}

/// Whether a request makes a model with `features` think, of which it shows a summary at most.
pub(crate) fn thinks(request: &ChatRequest<'_>, features: &Features) -> bool {
    let own = google::thinking(request).map(|own| {
        let budget = ["thinking_budget", "thinkingBudget"]
            .iter()
            .find_map(|name| Source::member(own, name));
        budget != Some("0")
    });
    let effort = request.get("reasoning_effort").map(json::inside);
    let asked = own.or(effort.map(|effort| effort != "none"));
    match features.thinking {
        Thinking::Never | Thinking::Budget | Thinking::Adaptive => asked == Some(true),
        Thinking::On => asked != Some(false),
        Thinking::Always => true,
    }
}

/// Tokens that every model with a budget takes; 24,576 is the most that the smaller ones do.
const fn budget(effort: Effort) -> u32 {
    match effort {
        Effort::Minimal | Effort::Low => 1_024,
        Effort::Medium => 8_192,
        Effort::High | Effort::Xhigh | Effort::Max => 24_576,
    }
}

/// Google's clients for OpenAI's API write its names with underscores.
fn in_camel_case(own: &str) -> String {
    let mut splice = json::Splice::default();
    for member in json::members(own, 0) {
        let name = match member.name(own).as_ref() {
            "thinking_budget" => "thinkingBudget",
            "thinking_level" => "thinkingLevel",
            "include_thoughts" => "includeThoughts",
            _ => continue,
        };
        splice.replace(member.key, json::quote(name));
    }
    String::from_utf8(splice.apply(own)).unwrap_or_default()
}
