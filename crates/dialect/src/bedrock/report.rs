//! From Bedrock's usage object to disjoint buckets, or to a fault: never a guess, never a panic.
//!
//! `inputTokens` leaves out what was read from the cache and what was written to it; `outputTokens`
//! includes the thinking.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use crate::counts::{Json, count, object, wide};
use crate::error::UsageFault;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawUsage<'a> {
    #[serde(borrow, default)]
    input_tokens: Json<'a>,
    #[serde(borrow, default)]
    output_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_read_input_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_write_input_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_details: Json<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDetail<'a> {
    #[serde(borrow, default)]
    ttl: Cow<'a, str>,
    #[serde(borrow, default)]
    input_tokens: Json<'a>,
}

/// Reads a usage object.
///
/// # Errors
/// Not an object, a count that is none or is missing, a part that exceeds its total.
pub(super) fn usage(json: &str) -> Result<Usage, UsageFault> {
    let raw: RawUsage<'_> = object(json)?;
    let needed = |field, raw| count(field, &[raw])?.ok_or(UsageFault::Missing { field });
    let hour = hour(raw.cache_details)?;
    let written = count("cacheWriteInputTokens", &[raw.cache_write_input_tokens])?;
    let written = written.map_or(hour, u64::from);
    let five_minutes = written
        .checked_sub(hour)
        .ok_or(UsageFault::PartExceedsTotal {
            field: "cacheDetails",
        })?;
    Ok(Usage {
        prompt: u64::from(needed("inputTokens", raw.input_tokens)?),
        cached_prompt: wide(count(
            "cacheReadInputTokens",
            &[raw.cache_read_input_tokens],
        )?),
        cache_write_5m: five_minutes,
        cache_write_1h: hour,
        completion: u64::from(needed("outputTokens", raw.output_tokens)?),
        ..Usage::default()
    })
}

/// What was written to live for an hour.
fn hour(details: Json<'_>) -> Result<u64, UsageFault> {
    let json = details.map_or("[]", RawValue::get);
    let list: Vec<RawDetail<'_>> =
        serde_json::from_str(json).map_err(|_| UsageFault::NotAnObject)?;
    let mut hour = 0_u64;
    for detail in list.iter().filter(|detail| detail.ttl == "1h") {
        let tokens = wide(count("cacheDetails", &[detail.input_tokens])?);
        hour = hour.saturating_add(tokens);
    }
    Ok(hour)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_lies_beside_the_input() {
        let read = usage(
            r#"{"inputTokens":5,"outputTokens":9,"totalTokens":114,"cacheReadInputTokens":70,
                "cacheReadInputTokenCount":70,"cacheWriteInputTokens":30,"cacheWriteInputTokenCount":30,
                "cacheDetails":[{"ttl":"1h","inputTokens":10},{"ttl":"5m","inputTokens":20}],"serverToolUsage":{}}"#,
        );
        let expected = Usage {
            prompt: 5,
            cached_prompt: 70,
            cache_write_5m: 20,
            cache_write_1h: 10,
            completion: 9,
            ..Usage::default()
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_cannot_be_billed_is_a_fault() {
        let missing = |field| UsageFault::Missing { field };
        for (json, fault) in [
            ("{}", missing("inputTokens")),
            (r#"{"inputTokens":5}"#, missing("outputTokens")),
            (
                r#"{"inputTokens":5,"outputTokens":1.5}"#,
                UsageFault::NotACount {
                    field: "outputTokens",
                },
            ),
            (
                r#"{"inputTokens":5,"outputTokens":1,"cacheWriteInputTokens":1,"cacheDetails":[{"ttl":"1h","inputTokens":2}]}"#,
                UsageFault::PartExceedsTotal {
                    field: "cacheDetails",
                },
            ),
            (
                r#"{"inputTokens":5,"outputTokens":1,"cacheDetails":7}"#,
                UsageFault::NotAnObject,
            ),
            ("[]", UsageFault::NotAnObject),
        ] {
            assert_eq!(usage(json), Err(fault), "{json}");
        }
    }
}
