//! Usage as Responses has it: read from a provider's object, and written for a client with the cost beside it.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::{Usage, UsageSource};

use crate::client::{Bill, add_cost};
use crate::counts::{Json, count, fresh_prompt, inner, object, wide};
use crate::error::UsageFault;
use crate::json::{self, Splice};

#[derive(Deserialize)]
struct RawUsage<'a> {
    #[serde(borrow, default)]
    input_tokens: Json<'a>,
    #[serde(borrow, default)]
    output_tokens: Json<'a>,
    #[serde(borrow, default)]
    total_tokens: Json<'a>,
    #[serde(borrow, default)]
    input_tokens_details: Json<'a>,
    #[serde(borrow, default)]
    output_tokens_details: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawInput<'a> {
    #[serde(borrow, default)]
    cached_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_write_tokens: Json<'a>,
    #[serde(borrow, default)]
    audio_tokens: Json<'a>,
    #[serde(borrow, default)]
    image_tokens: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawOutput<'a> {
    #[serde(borrow, default)]
    reasoning_tokens: Json<'a>,
    #[serde(borrow, default)]
    audio_tokens: Json<'a>,
    #[serde(borrow, default)]
    image_tokens: Json<'a>,
}

/// Reads a usage object. Every part is inside its total, at every provider that has this API.
///
/// # Errors
/// A missing total, parts that exceed it, totals that disagree.
pub(super) fn read(json: &str) -> Result<Usage, UsageFault> {
    let raw: RawUsage<'_> = object(json)?;
    let inside: RawInput<'_> = inner(raw.input_tokens_details)?;
    let outside: RawOutput<'_> = inner(raw.output_tokens_details)?;
    let needed = |field, json: Json<'_>| {
        let count = count(field, &[json])?;
        count.map(u64::from).ok_or(UsageFault::Missing { field })
    };
    let counted = |field, json: Json<'_>| count(field, &[json]).map(wide);
    let input = needed("input_tokens", raw.input_tokens)?;
    let output = needed("output_tokens", raw.output_tokens)?;
    let cached = counted("cached_tokens", inside.cached_tokens)?;
    let written = counted("cache_write_tokens", inside.cache_write_tokens)?;
    let fresh = input
        .checked_sub(cached + written)
        .ok_or(UsageFault::PartExceedsTotal {
            field: "cached_tokens",
        })?;
    let audio = counted("input audio_tokens", inside.audio_tokens)?;
    let image = counted("input image_tokens", inside.image_tokens)?;
    if audio + image > input {
        return Err(UsageFault::PartExceedsTotal {
            field: "input audio_tokens",
        });
    }
    let reasoning = counted("reasoning_tokens", outside.reasoning_tokens)?;
    let audio_completion = counted("output audio_tokens", outside.audio_tokens)?;
    let image_completion = counted("output image_tokens", outside.image_tokens)?;
    let completion = output
        .checked_sub(reasoning + audio_completion + image_completion)
        .ok_or(UsageFault::PartExceedsTotal {
            field: "reasoning_tokens",
        })?;
    let total = count("total_tokens", &[raw.total_tokens])?;
    if total.is_some_and(|total| u64::from(total) != input + output) {
        return Err(UsageFault::TotalDisagrees);
    }
    Ok(Usage {
        cached_prompt: cached,
        cache_write_5m: written,
        completion,
        reasoning,
        audio_completion,
        image_completion,
        ..fresh_prompt(fresh, audio, image)
    })
}

/// Usage as Responses has it, with the cost.
pub(super) fn usage(bill: &Bill<'_>) -> String {
    let usage = bill.usage;
    let details = bill
        .cost_details
        .map(|details: &RawValue| format!(r#","cost_details":{}"#, details.get()));
    format!(
        concat!(
            r#"{{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{}}},"#,
            r#""output_tokens":{},"output_tokens_details":{{"reasoning_tokens":{}}},"#,
            r#""total_tokens":{},"cost":{}{}}}"#
        ),
        usage.prompt_total(),
        usage.cached_prompt,
        usage.completion_total(),
        usage.reasoning,
        usage.total(),
        json::quote(bill.cost),
        details.unwrap_or_default(),
    )
}

/// Puts the bill into the response that begins at `response` in `text`: the provider's own usage
/// object is kept where it is what is charged.
pub(super) fn splice(
    text: &str,
    response: usize,
    reported: Option<Range<usize>>,
    bill: &Bill<'_>,
) -> Bytes {
    let mut splice = Splice::default();
    match (bill.source, reported) {
        (UsageSource::Reported, Some(object)) => add_cost(text, object.start, bill, &mut splice),
        (UsageSource::Reported | UsageSource::Counted, _) => {
            let members: Vec<_> = json::members(text, response).collect();
            match members.iter().find(|member| member.name(text) == "usage") {
                Some(member) => splice.replace(member.value.clone(), usage(bill)),
                None => {
                    let comma = if members.is_empty() { "" } else { "," };
                    let end = members.last().map_or(response + 1, |last| last.value.end);
                    splice.insert(end, format!("{comma}\"usage\":{}", usage(bill)));
                }
            }
        }
    }
    Bytes::from(splice.apply(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_in_one_bucket() {
        let read = |json: &str| read(json).map(|usage| (usage.prompt_total(), usage));
        let (input, usage) = read(
            r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":40,"cache_write_tokens":10,"image_tokens":20},"output_tokens":9,"output_tokens_details":{"reasoning_tokens":4},"total_tokens":109}"#,
        )
        .unwrap();
        assert_eq!(input, 100);
        let expected = Usage {
            prompt: 30,
            cached_prompt: 40,
            cache_write_5m: 10,
            image_prompt: 20,
            completion: 5,
            reasoning: 4,
            ..Usage::default()
        };
        assert_eq!(usage, expected);
        for (json, fault) in [
            (
                r#"{"output_tokens":1}"#,
                UsageFault::Missing {
                    field: "input_tokens",
                },
            ),
            (
                r#"{"input_tokens":1,"output_tokens":1,"total_tokens":3}"#,
                UsageFault::TotalDisagrees,
            ),
            (
                r#"{"input_tokens":1,"input_tokens_details":{"cached_tokens":2},"output_tokens":1}"#,
                UsageFault::PartExceedsTotal {
                    field: "cached_tokens",
                },
            ),
            (
                r#"{"input_tokens":1,"output_tokens":1,"output_tokens_details":{"reasoning_tokens":2}}"#,
                UsageFault::PartExceedsTotal {
                    field: "reasoning_tokens",
                },
            ),
            ("[]", UsageFault::NotAnObject),
        ] {
            assert_eq!(read(json).unwrap_err(), fault, "{json}");
        }
    }
}
