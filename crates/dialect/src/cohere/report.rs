//! From Cohere's usage object to buckets, or to a fault: never a guess, never a panic.
//!
//! `billed_units` is what is paid for. `tokens` counts Cohere's own preamble too, and `cached_tokens`
//! is a part of that: neither is billed.

use serde::Deserialize;
use tokens::Usage;

use crate::counts::{Json, count, inner, object};
use crate::error::UsageFault;

#[derive(Deserialize)]
struct RawUsage<'a> {
    #[serde(borrow, default)]
    billed_units: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawUnits<'a> {
    #[serde(borrow, default)]
    input_tokens: Json<'a>,
    #[serde(borrow, default)]
    output_tokens: Json<'a>,
}

/// Reads a usage object.
///
/// # Errors
/// Not an object, a count that is none or is missing.
pub(super) fn usage(json: &str) -> Result<Usage, UsageFault> {
    let raw: RawUsage<'_> = object(json)?;
    let units: RawUnits<'_> = inner(raw.billed_units)?;
    let read = |field, raw| count(field, &[raw])?.ok_or(UsageFault::Missing { field });
    Ok(Usage {
        prompt: u64::from(read("input_tokens", units.input_tokens)?),
        completion: u64::from(read("output_tokens", units.output_tokens)?),
        ..Usage::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_billed_counts_and_nothing_else_does() {
        let read = usage(
            r#"{"billed_units":{"input_tokens":12,"output_tokens":7},"tokens":{"input_tokens":507,"output_tokens":10},"cached_tokens":448}"#,
        );
        let expected = Usage {
            prompt: 12,
            completion: 7,
            ..Usage::default()
        };
        assert_eq!(read, Ok(expected));
    }

    #[test]
    fn what_cannot_be_billed_is_a_fault() {
        let missing = |field| UsageFault::Missing { field };
        for (json, fault) in [
            (
                r#"{"tokens":{"input_tokens":507,"output_tokens":10}}"#,
                missing("input_tokens"),
            ),
            (
                r#"{"billed_units":{"input_tokens":1}}"#,
                missing("output_tokens"),
            ),
            (
                r#"{"billed_units":{"input_tokens":1,"output_tokens":-1}}"#,
                UsageFault::NotACount {
                    field: "output_tokens",
                },
            ),
            (r#"{"billed_units":3}"#, UsageFault::NotAnObject),
            ("[]", UsageFault::NotAnObject),
        ] {
            assert_eq!(usage(json), Err(fault), "{json}");
        }
    }
}
