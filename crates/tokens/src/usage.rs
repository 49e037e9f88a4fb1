//! Usage: how many tokens of each kind a request consumed, as disjoint buckets.

use serde::{Deserialize, Serialize};

/// Tokens a request consumed, every token in exactly one bucket.
///
/// Providers report overlapping totals (OpenAI's `prompt_tokens` includes the cached ones, its
/// `completion_tokens` includes reasoning); `dialect` takes them apart once, so that nothing
/// downstream can count a token twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Prompt tokens that were neither cached nor of another modality.
    pub prompt: u64,
    /// Prompt tokens read from the provider's cache.
    pub cached_prompt: u64,
    /// Prompt tokens written to a cache that lives about five minutes.
    pub cache_write_5m: u64,
    /// Prompt tokens written to a cache that lives about an hour.
    pub cache_write_1h: u64,
    /// Audio in the prompt.
    pub audio_prompt: u64,
    /// Images in the prompt, where the provider reports them apart from text.
    pub image_prompt: u64,
    /// Visible output: text, tool calls, refusals.
    pub completion: u64,
    /// Output spent on reasoning, whether or not it is shown.
    pub reasoning: u64,
    /// Audio in the output.
    pub audio_completion: u64,
}

impl Usage {
    /// All prompt buckets together, saturating.
    #[must_use]
    pub fn prompt_total(&self) -> u64 {
        [
            self.prompt,
            self.cached_prompt,
            self.cache_write_5m,
            self.cache_write_1h,
            self.audio_prompt,
            self.image_prompt,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }

    /// All output buckets together, saturating.
    #[must_use]
    pub fn completion_total(&self) -> u64 {
        self.completion
            .saturating_add(self.reasoning)
            .saturating_add(self.audio_completion)
    }

    /// Prompt and output together, saturating.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt_total().saturating_add(self.completion_total())
    }
}

/// Where a usage figure comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UsageSource {
    /// The provider said so.
    Reported,
    /// We counted the text ourselves.
    Counted,
}
