//! How much a model is to think: OpenAI's effort as Anthropic's thinking and effort.
//!
//! Source: Anthropic's guides "Thinking" and "Effort", and its migration guides to Claude 4.7, 5 and 5.5.

use crate::error::RequestError;
use crate::features::{Effort, Features, Thinking};
use crate::json;
use crate::request::ChatRequest;
use crate::source::{Reasoning, Source};

/// The smallest budget that Anthropic takes, in tokens.
const BUDGET_TOKENS_MIN: u64 = 1024;

/// What the rest of the request means for thinking.
pub(crate) struct Wish {
    /// A tool must be called, which rules thinking out where it is a choice.
    pub(crate) forced_tools: bool,
    /// The conversation stands in the middle of a tool's use, and the thinking that led to it was
    /// not sent back: models that think by budget refuse to think on.
    pub(crate) signature_lost: bool,
    /// `max_tokens`, of which a budget is a part.
    pub(crate) output_limit: u64,
}

/// What is written.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    /// The `thinking` member.
    pub(crate) thinking: Option<String>,
    /// The `effort` of `output_config`.
    pub(crate) effort: Option<Effort>,
}

impl Plan {
    pub(crate) fn of(source: &Source<'_>, wish: &Wish) -> Result<Self, RequestError> {
        let features = source.edit.features;
        let asked = Reasoning::read(source)?;
        if let Some(own) = source.get("thinking") {
            if asked.is_some() {
                return Err(RequestError::param(
                    "thinking",
                    "`thinking` says what `reasoning_effort` says: send one or the other.",
                ));
            }
            return Ok(Self {
                thinking: within_limit(own, wish.output_limit),
                effort: None,
            });
        }
        match asked {
            None => Ok(Self {
                thinking: (features.thinking == Thinking::On && wish.forced_tools).then(disabled),
                effort: None,
            }),
            Some(Reasoning::No) => match features.thinking {
                Thinking::Never | Thinking::Budget | Thinking::Adaptive => Ok(Self::default()),
                Thinking::On => Ok(Self {
                    thinking: Some(disabled()),
                    effort: None,
                }),
                Thinking::Always => {
                    source.cannot(
                        "reasoning_effort",
                        "This model always thinks: ask for `low` effort instead of none.",
                    )?;
                    Ok(Self::default())
                }
            },
            // There is nothing below low.
            Some(Reasoning::Effort(Effort::Minimal)) => {
                Self::with_effort(source, wish, Effort::Low)
            }
            Some(Reasoning::Effort(effort)) => Self::with_effort(source, wish, effort),
        }
    }

    fn with_effort(source: &Source<'_>, wish: &Wish, wished: Effort) -> Result<Self, RequestError> {
        let features = source.edit.features;
        let effort = features.effort_at_most(wished);
        let thinking = match features.thinking {
            Thinking::Never if effort.is_none() => {
                source.cannot(
                    "reasoning_effort",
                    "This model does not reason: leave `reasoning_effort` out.",
                )?;
                None
            }
            Thinking::Never => None,
            Thinking::Budget | Thinking::Adaptive if wish.forced_tools => None,
            Thinking::Budget if wish.signature_lost => None,
            Thinking::Budget => budget(wished, wish.output_limit),
            Thinking::On if wish.forced_tools => Some(disabled()),
            // Without `display` newer models show nothing of it.
            Thinking::Adaptive | Thinking::On | Thinking::Always => {
                Some(r#"{"type":"adaptive","display":"summarized"}"#.to_owned())
            }
        };
        Ok(Self { thinking, effort })
    }

    /// Whether the request says that the model is to think.
    pub(crate) fn thinks(&self) -> bool {
        self.thinking
            .as_deref()
            .is_some_and(|json| kind(json) != "disabled")
    }
}

/// Whether a request makes a model with `features` think.
pub(crate) fn thinks(request: &ChatRequest<'_>, features: &Features) -> bool {
    let own = request.get("thinking").map(kind);
    let effort = request.get("reasoning_effort").map(json::inside);
    let asked = own.is_some_and(|kind| kind != "disabled")
        || own.is_none() && effort.is_some_and(|effort| effort != "none");
    let refused = own == Some("disabled") || own.is_none() && effort == Some("none");
    match features.thinking {
        Thinking::Never => own.is_some() && asked,
        Thinking::Budget | Thinking::Adaptive => asked,
        Thinking::On => !refused,
        Thinking::Always => true,
    }
}

fn kind(thinking: &str) -> &str {
    Source::member(thinking, "type").map_or("", json::inside)
}

fn disabled() -> String {
    r#"{"type":"disabled"}"#.to_owned()
}

/// A share of the output for thinking; `None` where the output is too short for any.
fn budget(effort: Effort, output_limit: u64) -> Option<String> {
    let percent = match effort {
        Effort::Minimal | Effort::Low => 20,
        Effort::Medium => 50,
        Effort::High => 80,
        Effort::Xhigh | Effort::Max => 95,
    };
    let share = output_limit.saturating_mul(percent) / 100;
    budget_within(share, output_limit)
        .map(|budget| format!(r#"{{"type":"enabled","budget_tokens":{budget}}}"#))
}

/// A budget is at least 1024 and less than all of the output.
fn budget_within(wished: u64, output_limit: u64) -> Option<u64> {
    (output_limit > BUDGET_TOKENS_MIN).then(|| wished.clamp(BUDGET_TOKENS_MIN, output_limit - 1))
}

/// The client's own `thinking`, with a budget that fits the output limit, which may have been
/// lowered to what is affordable.
pub(super) fn within_limit(own: &str, output_limit: u64) -> Option<String> {
    let budget = json::find(own, &["budget_tokens".into()]);
    let Some((at, tokens)) =
        budget.and_then(|at| Some((at.clone(), json::slice(own, &at).parse::<u64>().ok()?)))
    else {
        return Some(own.to_owned());
    };
    if tokens < output_limit {
        return Some(own.to_owned());
    }
    let tokens = budget_within(tokens, output_limit)?;
    let mut splice = json::Splice::default();
    splice.replace(at, tokens.to_string());
    String::from_utf8(splice.apply(own)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_a_share_of_the_output_within_bounds() {
        let tokens = |effort, limit| {
            budget(effort, limit).map(|json| {
                let at = json::find(&json, &["budget_tokens".into()]).unwrap();
                json::slice(&json, &at).parse::<u64>().unwrap()
            })
        };
        assert_eq!(tokens(Effort::High, 64_000), Some(51_200));
        assert_eq!(tokens(Effort::Low, 2_000), Some(1024));
        assert_eq!(tokens(Effort::Max, 1_025), Some(1024));
        assert_eq!(tokens(Effort::High, 1_024), None);
    }

    #[test]
    fn a_budget_of_the_clients_own_stays_below_the_output() {
        let own = r#"{"type":"enabled","budget_tokens":5000}"#;
        assert_eq!(within_limit(own, 6000).as_deref(), Some(own));
        assert_eq!(
            within_limit(own, 5000).as_deref(),
            Some(r#"{"type":"enabled","budget_tokens":4999}"#)
        );
        assert_eq!(within_limit(own, 800), None);
        let adaptive = r#"{"type":"adaptive"}"#;
        assert_eq!(within_limit(adaptive, 1).as_deref(), Some(adaptive));
    }
}
