//! From a provider's usage object to disjoint buckets, or to a fault: never a guess, never a panic.

use serde::Deserialize;
use tokens::Usage;

use crate::counts::{Json, count, fresh_prompt, inner, object, wide};
use crate::error::UsageFault;
use crate::quirks::{Convention, Quirks};

/// The counts of one usage object, as reported. A `null` is a missing count.
///
/// Kept between the chunks of a stream, so that a report without details does not wipe those of an
/// earlier one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    prompt: Option<u32>,
    completion: Option<u32>,
    total: Option<u32>,
    cached: Option<u32>,
    cache_write: Option<u32>,
    audio_prompt: Option<u32>,
    image_prompt: Option<u32>,
    reasoning: Option<u32>,
    audio_completion: Option<u32>,
    image_completion: Option<u32>,
    searches: Option<u32>,
    accepted: Option<u32>,
    rejected: Option<u32>,
}

#[derive(Deserialize)]
struct RawUsage<'a> {
    #[serde(borrow, default)]
    prompt_tokens: Json<'a>,
    #[serde(borrow, default)]
    completion_tokens: Json<'a>,
    #[serde(borrow, default)]
    total_tokens: Json<'a>,
    #[serde(borrow, default)]
    prompt_tokens_details: Json<'a>,
    #[serde(borrow, default)]
    completion_tokens_details: Json<'a>,
    /// DeepSeek. Its miss count is what is left of the prompt.
    #[serde(borrow, default)]
    prompt_cache_hit_tokens: Json<'a>,
    /// Moonshot.
    #[serde(borrow, default)]
    cached_tokens: Json<'a>,
    /// Anthropic's names, kept by several gateways in OpenAI's shape.
    #[serde(borrow, default)]
    cache_read_input_tokens: Json<'a>,
    #[serde(borrow, default)]
    cache_creation_input_tokens: Json<'a>,
    /// Perplexity.
    #[serde(borrow, default)]
    reasoning_tokens: Json<'a>,
    #[serde(borrow, default)]
    num_search_queries: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawPromptDetails<'a> {
    #[serde(borrow, default)]
    cached_tokens: Json<'a>,
    #[serde(borrow, default)]
    audio_tokens: Json<'a>,
    #[serde(borrow, default)]
    image_tokens: Json<'a>,
    /// OpenRouter.
    #[serde(borrow, default)]
    cache_write_tokens: Json<'a>,
    /// LiteLLM.
    #[serde(borrow, default)]
    cache_creation_tokens: Json<'a>,
    /// Alibaba.
    #[serde(borrow, default)]
    cache_creation_input_tokens: Json<'a>,
}

#[derive(Default, Deserialize)]
struct RawCompletionDetails<'a> {
    #[serde(borrow, default)]
    reasoning_tokens: Json<'a>,
    #[serde(borrow, default)]
    audio_tokens: Json<'a>,
    #[serde(borrow, default)]
    image_tokens: Json<'a>,
    #[serde(borrow, default)]
    accepted_prediction_tokens: Json<'a>,
    #[serde(borrow, default)]
    rejected_prediction_tokens: Json<'a>,
}

impl Counts {
    /// Reads a usage object. `None` when it reports nothing: an object without prompt and completion.
    pub(crate) fn read(json: &str) -> Option<Result<Self, UsageFault>> {
        Self::try_read(json).transpose()
    }

    fn try_read(json: &str) -> Result<Option<Self>, UsageFault> {
        let raw: RawUsage<'_> = object(json)?;
        let prompt: RawPromptDetails<'_> = inner(raw.prompt_tokens_details)?;
        let completion: RawCompletionDetails<'_> = inner(raw.completion_tokens_details)?;
        let counts = Self {
            prompt: count("prompt_tokens", &[raw.prompt_tokens])?,
            completion: count("completion_tokens", &[raw.completion_tokens])?,
            total: count("total_tokens", &[raw.total_tokens])?,
            cached: count(
                "cached_tokens",
                &[
                    prompt.cached_tokens,
                    raw.prompt_cache_hit_tokens,
                    raw.cached_tokens,
                    raw.cache_read_input_tokens,
                ],
            )?,
            cache_write: count(
                "cache_write_tokens",
                &[
                    prompt.cache_write_tokens,
                    prompt.cache_creation_tokens,
                    prompt.cache_creation_input_tokens,
                    raw.cache_creation_input_tokens,
                ],
            )?,
            audio_prompt: count("prompt audio_tokens", &[prompt.audio_tokens])?,
            image_prompt: count("prompt image_tokens", &[prompt.image_tokens])?,
            reasoning: count(
                "reasoning_tokens",
                &[completion.reasoning_tokens, raw.reasoning_tokens],
            )?,
            audio_completion: count("completion audio_tokens", &[completion.audio_tokens])?,
            image_completion: count("completion image_tokens", &[completion.image_tokens])?,
            searches: count("num_search_queries", &[raw.num_search_queries])?,
            accepted: count(
                "accepted_prediction_tokens",
                &[completion.accepted_prediction_tokens],
            )?,
            rejected: count(
                "rejected_prediction_tokens",
                &[completion.rejected_prediction_tokens],
            )?,
        };
        let silent = counts.prompt.is_none() && counts.completion.is_none();
        Ok((!silent || counts.total.is_some()).then_some(counts))
    }

    /// Takes over the details of an earlier report where this one has the same total but no details.
    pub(crate) fn keep_details_of(&mut self, earlier: &Self) {
        if self.prompt == earlier.prompt {
            self.cached = self.cached.or(earlier.cached);
            self.cache_write = self.cache_write.or(earlier.cache_write);
            self.audio_prompt = self.audio_prompt.or(earlier.audio_prompt);
            self.image_prompt = self.image_prompt.or(earlier.image_prompt);
        }
        if self.completion == earlier.completion {
            self.reasoning = self.reasoning.or(earlier.reasoning);
            self.audio_completion = self.audio_completion.or(earlier.audio_completion);
            self.image_completion = self.image_completion.or(earlier.image_completion);
            self.accepted = self.accepted.or(earlier.accepted);
            self.rejected = self.rejected.or(earlier.rejected);
        }
    }

    /// Takes the overlapping totals apart into disjoint buckets.
    ///
    /// # Errors
    /// Parts that exceed their total, a missing count that nothing replaces, totals that disagree.
    pub(crate) fn usage(&self, quirks: &Quirks) -> Result<Usage, UsageFault> {
        let (prompt, completion) = self.totals()?;
        let prompt_buckets = self.prompt_buckets(prompt, quirks.cached)?;
        let cache_beside = match quirks.cached {
            Convention::Inside => 0,
            Convention::Beside => prompt_buckets.cached_prompt + prompt_buckets.cache_write_5m,
        };
        let reasoning = self.reasoning(prompt + completion + cache_beside, quirks.reasoning);
        let reasoning_beside = match quirks.reasoning {
            Convention::Inside => 0,
            Convention::Beside => reasoning,
        };
        self.check_total(prompt + completion, cache_beside, reasoning_beside)?;
        let audio = wide(self.audio_completion);
        let image = wide(self.image_completion);
        let inside = audio + image + reasoning - reasoning_beside;
        let Some(visible) = completion.checked_sub(inside) else {
            return Err(UsageFault::PartExceedsTotal {
                field: "reasoning_tokens",
            });
        };
        if wide(self.accepted) + wide(self.rejected) > completion {
            // Both are part of the completion and billed like it; only their size is checked.
            return Err(UsageFault::PartExceedsTotal {
                field: "prediction tokens",
            });
        }
        Ok(Usage {
            completion: visible,
            reasoning,
            audio_completion: audio,
            image_completion: image,
            searches: wide(self.searches),
            ..prompt_buckets
        })
    }

    /// Prompt and completion; one of them may follow from the total.
    fn totals(&self) -> Result<(u64, u64), UsageFault> {
        let rest = |part: u32, field| match self.total {
            None => Err(UsageFault::Missing { field }),
            Some(total) => match total.checked_sub(part) {
                Some(rest) => Ok(u64::from(rest)),
                None => Err(UsageFault::TotalDisagrees),
            },
        };
        match (self.prompt, self.completion) {
            (Some(prompt), Some(completion)) => Ok((u64::from(prompt), u64::from(completion))),
            (Some(prompt), None) => Ok((u64::from(prompt), rest(prompt, "completion_tokens")?)),
            (None, Some(completion)) => {
                Ok((rest(completion, "prompt_tokens")?, u64::from(completion)))
            }
            (None, None) => Err(UsageFault::Missing {
                field: "prompt_tokens",
            }),
        }
    }

    fn prompt_buckets(&self, prompt: u64, cached: Convention) -> Result<Usage, UsageFault> {
        let (read, write) = (wide(self.cached), wide(self.cache_write));
        let fresh = match cached {
            Convention::Inside => match prompt.checked_sub(read + write) {
                Some(fresh) => fresh,
                None => {
                    return Err(UsageFault::PartExceedsTotal {
                        field: "cached_tokens",
                    });
                }
            },
            Convention::Beside => prompt,
        };
        let (audio, image) = (wide(self.audio_prompt), wide(self.image_prompt));
        let all = match cached {
            Convention::Inside => prompt,
            Convention::Beside => prompt + read + write,
        };
        if audio + image > all {
            return Err(UsageFault::PartExceedsTotal {
                field: "prompt audio_tokens",
            });
        }
        Ok(Usage {
            cached_prompt: read,
            cache_write_5m: write,
            ..fresh_prompt(fresh, audio, image)
        })
    }

    /// Reasoning, which a provider that counts it beside the completion may show in the total alone
    /// (Gemini's OpenAI endpoint).
    fn reasoning(&self, accounted: u64, convention: Convention) -> u64 {
        match (self.reasoning, convention) {
            (Some(reasoning), _) => u64::from(reasoning),
            (None, Convention::Inside) => 0,
            (None, Convention::Beside) => wide(self.total).saturating_sub(accounted),
        }
    }

    fn check_total(&self, base: u64, cache: u64, reasoning: u64) -> Result<(), UsageFault> {
        let Some(total) = self.total.map(u64::from) else {
            return Ok(());
        };
        // What lies beside a count is in the total of some providers and not of others.
        let sums = [
            base,
            base + cache,
            base + reasoning,
            base + cache + reasoning,
        ];
        if sums.contains(&total) {
            Ok(())
        } else {
            Err(UsageFault::TotalDisagrees)
        }
    }
}
