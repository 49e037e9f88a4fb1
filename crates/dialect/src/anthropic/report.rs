//! From Anthropic's usage object to disjoint buckets, or to a fault: never a guess, never a panic.
//!
//! The convention (`Convention::Beside` in the words of the quirks): `input_tokens` leaves out both
//! what was read from the cache and what was written to it; `output_tokens` includes the thinking.
//! The counts of a stream are totals so far, so that the last one counts.

use serde::Deserialize;
use tokens::Usage;

use crate::counts::{Json, count, inner, object, wide};
use crate::error::UsageFault;

#[derive(Deserialize)]
struct RawUsage<'a> {
    #[serde(borrow, default)]
    input_tokens: Json<'a>,
    #[serde(borrow, default)]
    output_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_read_input_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_creation_input_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_creation: Json<'a>,
    #[serde(borrow, default)]
    output_tokens_details: Json<'a>,
    #[serde(borrow, default)]
    server_tool_use: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawServerTools<'a> {
    #[serde(borrow, default)]
    web_search_requests: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawCreation<'a> {
    #[serde(borrow, default)]
    ephemeral_5m_input_tokens: Json<'a>,
    #[serde(borrow, default)]
    ephemeral_1h_input_tokens: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawOutput<'a> {
    #[serde(borrow, default)]
    thinking_tokens: Json<'a>,
}

/// The counts of one usage object, as reported. A `null` is a missing count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    input: Option<u32>,
    output: Option<u32>,
    read: Option<u32>,
    write: Option<u32>,
    write_5m: Option<u32>,
    write_1h: Option<u32>,
    thinking: Option<u32>,
    searches: Option<u32>,
}

impl Counts {
    /// Reads a usage object.
    ///
    /// # Errors
    /// Not an object, or a count that is none.
    pub(super) fn read(json: &str) -> Result<Self, UsageFault> {
        let raw: RawUsage<'_> = object(json)?;
        let creation: RawCreation<'_> = inner(raw.cache_creation)?;
        let output: RawOutput<'_> = inner(raw.output_tokens_details)?;
        let tools: RawServerTools<'_> = inner(raw.server_tool_use)?;
        Ok(Self {
            input: count("input_tokens", &[raw.input_tokens])?,
            output: count("output_tokens", &[raw.output_tokens])?,
            read: count("cache_read_input_tokens", &[raw.cache_read_input_tokens])?,
            write: count(
                "cache_creation_input_tokens",
                &[raw.cache_creation_input_tokens],
            )?,
            write_5m: count(
                "ephemeral_5m_input_tokens",
                &[creation.ephemeral_5m_input_tokens],
            )?,
            write_1h: count(
                "ephemeral_1h_input_tokens",
                &[creation.ephemeral_1h_input_tokens],
            )?,
            thinking: count("thinking_tokens", &[output.thinking_tokens])?,
            searches: count("web_search_requests", &[tools.web_search_requests])?,
        })
    }

    /// Takes over from an earlier report of the same stream what this one leaves out. The end of a
    /// stream gives the total of what was written to the cache, the beginning also how it is split.
    pub(super) fn over(self, earlier: Self) -> Self {
        Self {
            input: self.input.or(earlier.input),
            output: self.output.or(earlier.output),
            read: self.read.or(earlier.read),
            write: self.write.or(earlier.write),
            write_5m: self.write_5m.or(earlier.write_5m),
            write_1h: self.write_1h.or(earlier.write_1h),
            thinking: self.thinking.or(earlier.thinking),
            searches: self.searches.or(earlier.searches),
        }
    }

    /// The prompt's buckets alone.
    ///
    /// # Errors
    /// No `input_tokens`, or a part that exceeds its total.
    pub(super) fn prompt(&self) -> Result<Usage, UsageFault> {
        let missing = UsageFault::Missing {
            field: "input_tokens",
        };
        let hour = wide(self.write_1h);
        let written = match self.write {
            Some(total) => u64::from(total),
            None => wide(self.write_5m) + hour,
        };
        // A total that has grown since it was split up grew by what lives five minutes, the default.
        let Some(five_minutes) = written.checked_sub(hour) else {
            return Err(UsageFault::PartExceedsTotal {
                field: "ephemeral_1h_input_tokens",
            });
        };
        Ok(Usage {
            prompt: self.input.map(u64::from).ok_or(missing)?,
            cached_prompt: wide(self.read),
            cache_write_5m: five_minutes,
            cache_write_1h: hour,
            ..Usage::default()
        })
    }

    /// All buckets.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt), and the same for the output.
    pub(super) fn usage(&self) -> Result<Usage, UsageFault> {
        let missing = UsageFault::Missing {
            field: "output_tokens",
        };
        let output = self.output.map(u64::from).ok_or(missing)?;
        let thinking = wide(self.thinking);
        let Some(visible) = output.checked_sub(thinking) else {
            return Err(UsageFault::PartExceedsTotal {
                field: "thinking_tokens",
            });
        };
        Ok(Usage {
            completion: visible,
            reasoning: thinking,
            searches: wide(self.searches),
            ..self.prompt()?
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Result<Usage, UsageFault> {
        Counts::read(json).and_then(|counts| counts.usage())
    }

    #[test]
    fn cache_lies_beside_the_input_and_thinking_inside_the_output() {
        let all = usage(
            r#"{"input_tokens":5,"cache_read_input_tokens":70,"cache_creation_input_tokens":30,
                "cache_creation":{"ephemeral_5m_input_tokens":20,"ephemeral_1h_input_tokens":10},
                "output_tokens":9,"output_tokens_details":{"thinking_tokens":4},
                "server_tool_use":{"web_search_requests":1},"service_tier":"standard"}"#,
        );
        assert_eq!(
            all,
            Ok(Usage {
                prompt: 5,
                cached_prompt: 70,
                cache_write_5m: 20,
                cache_write_1h: 10,
                completion: 5,
                reasoning: 4,
                searches: 1,
                ..Usage::default()
            })
        );
    }

    #[test]
    fn the_end_of_a_stream_keeps_the_split_of_its_beginning() {
        let start = Counts::read(
            r#"{"input_tokens":2,"cache_creation_input_tokens":3068,"cache_read_input_tokens":0,
                "cache_creation":{"ephemeral_5m_input_tokens":68,"ephemeral_1h_input_tokens":3000},"output_tokens":1}"#,
        );
        let end = Counts::read(
            r#"{"input_tokens":6,"cache_creation_input_tokens":3337,"cache_read_input_tokens":6289,"output_tokens":198}"#,
        );
        let usage = end.unwrap().over(start.unwrap()).usage().unwrap();
        assert_eq!((usage.prompt, usage.cached_prompt), (6, 6289));
        assert_eq!((usage.cache_write_5m, usage.cache_write_1h), (337, 3000));
        assert_eq!(usage.completion, 198);
        let only_output = Counts::read(r#"{"output_tokens":7}"#).unwrap();
        assert_eq!(only_output.over(start.unwrap()).usage().unwrap().prompt, 2);
    }

    #[test]
    fn what_cannot_be_billed_is_a_fault() {
        let missing = |field| Err(UsageFault::Missing { field });
        for (json, fault) in [
            ("{}", missing("output_tokens")),
            (r#"{"output_tokens":1}"#, missing("input_tokens")),
            (
                r#"{"input_tokens":"1","output_tokens":1}"#,
                Err(UsageFault::NotACount {
                    field: "input_tokens",
                }),
            ),
            (
                r#"{"input_tokens":1,"output_tokens":-1}"#,
                Err(UsageFault::NotACount {
                    field: "output_tokens",
                }),
            ),
            (
                r#"{"input_tokens":1e18,"output_tokens":1}"#,
                Err(UsageFault::NotACount {
                    field: "input_tokens",
                }),
            ),
            (
                r#"{"input_tokens":99999999999,"output_tokens":1}"#,
                Err(UsageFault::TooLarge {
                    field: "input_tokens",
                }),
            ),
            (
                r#"{"input_tokens":1,"output_tokens":1,"output_tokens_details":{"thinking_tokens":2}}"#,
                Err(UsageFault::PartExceedsTotal {
                    field: "thinking_tokens",
                }),
            ),
            (
                r#"{"input_tokens":1,"output_tokens":1,"cache_creation_input_tokens":1,"cache_creation":{"ephemeral_1h_input_tokens":2}}"#,
                Err(UsageFault::PartExceedsTotal {
                    field: "ephemeral_1h_input_tokens",
                }),
            ),
            ("7", Err(UsageFault::NotAnObject)),
            (r#"{"cache_creation":[]}"#, Err(UsageFault::NotAnObject)),
        ] {
            assert_eq!(usage(json), fault, "{json}");
        }
        assert_eq!(
            usage(r#"{"input_tokens":0,"output_tokens":0,"cache_creation":null}"#),
            Ok(Usage::default())
        );
    }
}
