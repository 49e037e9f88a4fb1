//! From Google's usage object to disjoint buckets, or to a fault: never a guess, never a panic.
//!
//! The convention: `promptTokenCount` includes what was read from the cache, and not the prompts of
//! tools that the provider ran; `candidatesTokenCount` leaves out the thoughts. The details split the
//! totals by modality. The counts of a stream are totals so far, so that the last one counts.

use std::borrow::Cow;

use serde::Deserialize;
use tokens::Usage;

use crate::counts::{Json, count, object, wide};
use crate::error::UsageFault;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawUsage<'a> {
    #[serde(borrow, default)]
    prompt_token_count: Json<'a>,
    #[serde(borrow, default)]
    candidates_token_count: Json<'a>,
    #[serde(borrow, default)]
    thoughts_token_count: Json<'a>,
    #[serde(borrow, default)]
    cached_content_token_count: Json<'a>,
    #[serde(borrow, default)]
    tool_use_prompt_token_count: Json<'a>,
    #[serde(borrow, default)]
    total_token_count: Json<'a>,
    #[serde(borrow, default)]
    prompt_tokens_details: Json<'a>,
    #[serde(borrow, default)]
    cache_tokens_details: Json<'a>,
    #[serde(borrow, default)]
    candidates_tokens_details: Json<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDetail<'a> {
    #[serde(borrow, default)]
    modality: Cow<'a, str>,
    #[serde(borrow, default)]
    token_count: Json<'a>,
}

/// The counts of one usage object, as reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    prompt: u64,
    cached: u64,
    tools: u64,
    prompt_by: Modalities,
    cached_by: Modalities,
    output: u64,
    thoughts: u64,
    output_by: Modalities,
}

/// Tokens that are no text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Modalities {
    audio: u64,
    image: u64,
}

impl Counts {
    /// Reads a usage object; `None` where it counts nothing: before the end some say only how the
    /// request was let in.
    ///
    /// # Errors
    /// Not an object, a count that is none, or no `promptTokenCount`.
    pub(super) fn read(json: &str) -> Result<Option<Self>, UsageFault> {
        let raw: RawUsage<'_> = object(json)?;
        let prompt = count("promptTokenCount", &[raw.prompt_token_count])?;
        let output = count("candidatesTokenCount", &[raw.candidates_token_count])?;
        let thoughts = count("thoughtsTokenCount", &[raw.thoughts_token_count])?;
        let total = count("totalTokenCount", &[raw.total_token_count])?;
        let Some(prompt) = prompt else {
            return if output.or(thoughts).or(total).is_some() {
                Err(UsageFault::Missing {
                    field: "promptTokenCount",
                })
            } else {
                Ok(None)
            };
        };
        let cached = count("cachedContentTokenCount", &[raw.cached_content_token_count])?;
        let tools = count(
            "toolUsePromptTokenCount",
            &[raw.tool_use_prompt_token_count],
        )?;
        Ok(Some(Self {
            prompt: u64::from(prompt),
            cached: wide(cached),
            tools: wide(tools),
            prompt_by: Modalities::read("promptTokensDetails", raw.prompt_tokens_details)?,
            cached_by: Modalities::read("cacheTokensDetails", raw.cache_tokens_details)?,
            output: wide(output),
            thoughts: wide(thoughts),
            output_by: Modalities::read("candidatesTokensDetails", raw.candidates_tokens_details)?,
        }))
    }

    /// The prompt's buckets alone.
    ///
    /// # Errors
    /// A part that exceeds its total.
    pub(super) fn prompt(&self) -> Result<Usage, UsageFault> {
        let fresh = part("cachedContentTokenCount", self.prompt, self.cached)?;
        // Where only the sum of what was cached is known, what is not text may lie in it.
        let within = |all: u64, cached: u64, room: u64| {
            let uncached = all.saturating_sub(cached);
            if self.cached == 0 {
                uncached
            } else {
                uncached.min(room)
            }
        };
        let audio = within(self.prompt_by.audio, self.cached_by.audio, fresh);
        let rest = part("promptTokensDetails", fresh, audio)?;
        let image = within(self.prompt_by.image, self.cached_by.image, rest);
        let text = part("promptTokensDetails", rest, image)?;
        Ok(Usage {
            prompt: text.saturating_add(self.tools),
            cached_prompt: self.cached,
            audio_prompt: audio,
            image_prompt: image,
            ..Usage::default()
        })
    }

    /// All buckets.
    ///
    /// # Errors
    /// As [`prompt`](Self::prompt), and the same for the output.
    pub(super) fn usage(&self) -> Result<Usage, UsageFault> {
        let Modalities { audio, image } = self.output_by;
        let silent = part("candidatesTokensDetails", self.output, audio)?;
        Ok(Usage {
            completion: part("candidatesTokensDetails", silent, image)?,
            audio_completion: audio,
            image_completion: image,
            reasoning: self.thoughts,
            ..self.prompt()?
        })
    }
}

impl Modalities {
    fn read(field: &'static str, details: Json<'_>) -> Result<Self, UsageFault> {
        let Some(details) = details else {
            return Ok(Self::default());
        };
        let list: Vec<RawDetail<'_>> =
            serde_json::from_str(details.get()).map_err(|_| UsageFault::NotAnObject)?;
        let mut all = Self::default();
        for detail in list {
            let tokens = wide(count(field, &[detail.token_count])?);
            match detail.modality.as_ref() {
                "AUDIO" => all.audio = all.audio.saturating_add(tokens),
                "IMAGE" => all.image = all.image.saturating_add(tokens),
                // TEXT, DOCUMENT and VIDEO are sold at the price of text.
                _ => {}
            }
        }
        Ok(all)
    }
}

/// What a total has beside one of its parts.
fn part(field: &'static str, total: u64, part: u64) -> Result<u64, UsageFault> {
    total
        .checked_sub(part)
        .ok_or(UsageFault::PartExceedsTotal { field })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(json: &str) -> Result<Option<Usage>, UsageFault> {
        match Counts::read(json)? {
            Some(counts) => counts.usage().map(Some),
            None => Ok(None),
        }
    }

    #[test]
    fn the_cache_lies_inside_the_prompt_and_thoughts_beside_the_output() {
        let all = usage(
            r#"{"promptTokenCount":1000,"cachedContentTokenCount":600,"candidatesTokenCount":20,"thoughtsTokenCount":300,
                "toolUsePromptTokenCount":7,"totalTokenCount":1327,
                "promptTokensDetails":[{"modality":"TEXT","tokenCount":700},{"modality":"AUDIO","tokenCount":200},{"modality":"IMAGE","tokenCount":100}],
                "cacheTokensDetails":[{"modality":"TEXT","tokenCount":550},{"modality":"AUDIO","tokenCount":50}],
                "candidatesTokensDetails":[{"modality":"TEXT","tokenCount":12},{"modality":"AUDIO","tokenCount":5},{"modality":"IMAGE","tokenCount":3}],
                "trafficType":"ON_DEMAND"}"#,
        );
        assert_eq!(
            all,
            Ok(Some(Usage {
                prompt: 150 + 7,
                cached_prompt: 600,
                audio_prompt: 150,
                image_prompt: 100,
                completion: 12,
                audio_completion: 5,
                image_completion: 3,
                reasoning: 300,
                ..Usage::default()
            }))
        );
    }

    #[test]
    fn what_was_cached_without_details_may_be_anything() {
        let all = usage(
            r#"{"promptTokenCount":100,"cachedContentTokenCount":90,
                "promptTokensDetails":[{"modality":"AUDIO","tokenCount":80}]}"#,
        );
        let all = all.unwrap().unwrap();
        assert_eq!(
            (all.prompt, all.audio_prompt, all.cached_prompt),
            (0, 10, 90)
        );
    }

    #[test]
    fn an_answer_without_output_has_none() {
        let all = usage(r#"{"promptTokenCount":5,"totalTokenCount":5}"#);
        assert_eq!(all.unwrap().unwrap().total(), 5);
        assert_eq!(
            usage(r#"{"trafficType":"PROVISIONED_THROUGHPUT"}"#),
            Ok(None)
        );
    }

    #[test]
    fn what_cannot_be_billed_is_a_fault() {
        for (json, fault) in [
            (
                r#"{"candidatesTokenCount":1}"#,
                UsageFault::Missing {
                    field: "promptTokenCount",
                },
            ),
            (
                r#"{"promptTokenCount":-1}"#,
                UsageFault::NotACount {
                    field: "promptTokenCount",
                },
            ),
            (
                r#"{"promptTokenCount":1,"cachedContentTokenCount":2}"#,
                UsageFault::PartExceedsTotal {
                    field: "cachedContentTokenCount",
                },
            ),
            (
                r#"{"promptTokenCount":1,"promptTokensDetails":[{"modality":"IMAGE","tokenCount":2}]}"#,
                UsageFault::PartExceedsTotal {
                    field: "promptTokensDetails",
                },
            ),
            (
                r#"{"promptTokenCount":1,"candidatesTokenCount":1,"candidatesTokensDetails":[{"modality":"AUDIO","tokenCount":2}]}"#,
                UsageFault::PartExceedsTotal {
                    field: "candidatesTokensDetails",
                },
            ),
            (
                r#"{"promptTokenCount":99999999999}"#,
                UsageFault::TooLarge {
                    field: "promptTokenCount",
                },
            ),
            (
                r#"{"promptTokenCount":1,"promptTokensDetails":7}"#,
                UsageFault::NotAnObject,
            ),
            ("[]", UsageFault::NotAnObject),
        ] {
            assert_eq!(usage(json), Err(fault), "{json}");
        }
    }
}
