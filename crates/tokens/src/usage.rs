//! Usage: how much of each kind a request consumed, as disjoint buckets.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a request consumed: every token in exactly one bucket, and beside the tokens what is sold
/// by the piece.
///
/// Providers report overlapping totals (OpenAI's `prompt_tokens` includes the cached ones, its
/// `completion_tokens` includes reasoning); `dialect` takes them apart once, so that nothing
/// downstream can count a token twice.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
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
    /// Images in the output, where the provider counts them in tokens.
    #[serde(skip_serializing_if = "is_zero")]
    pub image_completion: u64,
    /// Images made.
    #[serde(skip_serializing_if = "is_zero")]
    pub images: u64,
    /// Audio or video heard or made, in milliseconds.
    #[serde(skip_serializing_if = "is_zero")]
    pub milliseconds: u64,
    /// Characters read aloud or translated.
    #[serde(skip_serializing_if = "is_zero")]
    pub characters: u64,
    /// Searches made: of the web by a tool, or of documents by a reranker.
    #[serde(skip_serializing_if = "is_zero")]
    pub searches: u64,
    /// Pages read.
    #[serde(skip_serializing_if = "is_zero")]
    pub pages: u64,
}

/// One of the kinds that a usage tells apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// [`Usage::prompt`].
    Prompt,
    /// [`Usage::cached_prompt`].
    CachedPrompt,
    /// [`Usage::cache_write_5m`].
    CacheWrite5m,
    /// [`Usage::cache_write_1h`].
    CacheWrite1h,
    /// [`Usage::audio_prompt`].
    AudioPrompt,
    /// [`Usage::image_prompt`].
    ImagePrompt,
    /// [`Usage::completion`].
    Completion,
    /// [`Usage::reasoning`].
    Reasoning,
    /// [`Usage::audio_completion`].
    AudioCompletion,
    /// [`Usage::image_completion`].
    ImageCompletion,
    /// [`Usage::images`].
    Images,
    /// [`Usage::milliseconds`].
    Milliseconds,
    /// [`Usage::characters`].
    Characters,
    /// [`Usage::searches`].
    Searches,
    /// [`Usage::pages`].
    Pages,
}

impl Bucket {
    /// Every bucket; those that hold tokens come first.
    pub const ALL: [Self; 15] = [
        Self::Prompt,
        Self::CachedPrompt,
        Self::CacheWrite5m,
        Self::CacheWrite1h,
        Self::AudioPrompt,
        Self::ImagePrompt,
        Self::Completion,
        Self::Reasoning,
        Self::AudioCompletion,
        Self::ImageCompletion,
        Self::Images,
        Self::Milliseconds,
        Self::Characters,
        Self::Searches,
        Self::Pages,
    ];

    /// What few requests have: beside the nine that every chat may have.
    pub const RARE: [Self; 6] = [
        Self::ImageCompletion,
        Self::Images,
        Self::Milliseconds,
        Self::Characters,
        Self::Searches,
        Self::Pages,
    ];

    /// The name in JSON, in the database and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::CachedPrompt => "cached_prompt",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::AudioPrompt => "audio_prompt",
            Self::ImagePrompt => "image_prompt",
            Self::Completion => "completion",
            Self::Reasoning => "reasoning",
            Self::AudioCompletion => "audio_completion",
            Self::ImageCompletion => "image_completion",
            Self::Images => "images",
            Self::Milliseconds => "milliseconds",
            Self::Characters => "characters",
            Self::Searches => "searches",
            Self::Pages => "pages",
        }
    }

    /// Whether it holds tokens of the prompt.
    #[must_use]
    pub const fn is_prompt(self) -> bool {
        match self {
            Self::Prompt
            | Self::CachedPrompt
            | Self::CacheWrite5m
            | Self::CacheWrite1h
            | Self::AudioPrompt
            | Self::ImagePrompt => true,
            Self::Completion
            | Self::Reasoning
            | Self::AudioCompletion
            | Self::ImageCompletion
            | Self::Images
            | Self::Milliseconds
            | Self::Characters
            | Self::Searches
            | Self::Pages => false,
        }
    }

    /// Whether it holds tokens of the output.
    #[must_use]
    pub const fn is_completion(self) -> bool {
        match self {
            Self::Completion | Self::Reasoning | Self::AudioCompletion | Self::ImageCompletion => {
                true
            }
            Self::Prompt
            | Self::CachedPrompt
            | Self::CacheWrite5m
            | Self::CacheWrite1h
            | Self::AudioPrompt
            | Self::ImagePrompt
            | Self::Images
            | Self::Milliseconds
            | Self::Characters
            | Self::Searches
            | Self::Pages => false,
        }
    }
}

impl Usage {
    /// What is in a bucket.
    #[must_use]
    pub const fn get(&self, bucket: Bucket) -> u64 {
        match bucket {
            Bucket::Prompt => self.prompt,
            Bucket::CachedPrompt => self.cached_prompt,
            Bucket::CacheWrite5m => self.cache_write_5m,
            Bucket::CacheWrite1h => self.cache_write_1h,
            Bucket::AudioPrompt => self.audio_prompt,
            Bucket::ImagePrompt => self.image_prompt,
            Bucket::Completion => self.completion,
            Bucket::Reasoning => self.reasoning,
            Bucket::AudioCompletion => self.audio_completion,
            Bucket::ImageCompletion => self.image_completion,
            Bucket::Images => self.images,
            Bucket::Milliseconds => self.milliseconds,
            Bucket::Characters => self.characters,
            Bucket::Searches => self.searches,
            Bucket::Pages => self.pages,
        }
    }

    /// A bucket, to be written to.
    pub const fn get_mut(&mut self, bucket: Bucket) -> &mut u64 {
        match bucket {
            Bucket::Prompt => &mut self.prompt,
            Bucket::CachedPrompt => &mut self.cached_prompt,
            Bucket::CacheWrite5m => &mut self.cache_write_5m,
            Bucket::CacheWrite1h => &mut self.cache_write_1h,
            Bucket::AudioPrompt => &mut self.audio_prompt,
            Bucket::ImagePrompt => &mut self.image_prompt,
            Bucket::Completion => &mut self.completion,
            Bucket::Reasoning => &mut self.reasoning,
            Bucket::AudioCompletion => &mut self.audio_completion,
            Bucket::ImageCompletion => &mut self.image_completion,
            Bucket::Images => &mut self.images,
            Bucket::Milliseconds => &mut self.milliseconds,
            Bucket::Characters => &mut self.characters,
            Bucket::Searches => &mut self.searches,
            Bucket::Pages => &mut self.pages,
        }
    }

    /// All prompt buckets together, saturating.
    #[must_use]
    pub fn prompt_total(&self) -> u64 {
        self.total_of(Bucket::is_prompt)
    }

    /// All output buckets together, saturating.
    #[must_use]
    pub fn completion_total(&self) -> u64 {
        self.total_of(Bucket::is_completion)
    }

    /// Prompt and output together, saturating. What is not counted in tokens is not in it.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.prompt_total().saturating_add(self.completion_total())
    }

    fn total_of(&self, counts: impl Fn(Bucket) -> bool) -> u64 {
        Bucket::ALL
            .into_iter()
            .filter(|bucket| counts(*bucket))
            .fold(0, |sum, bucket| sum.saturating_add(self.get(bucket)))
    }
}

impl fmt::Debug for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Usage");
        for bucket in Bucket::ALL {
            let count = self.get(bucket);
            if count > 0 || !Bucket::RARE.contains(&bucket) {
                shown.field(bucket.as_str(), &count);
            }
        }
        shown.finish()
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_zero(count: &u64) -> bool {
    *count == 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bucket_is_itself_under_its_name() {
        for bucket in Bucket::ALL {
            let mut usage = Usage::default();
            *usage.get_mut(bucket) = 7;
            assert_eq!(usage.get(bucket), 7);
            let json = serde_json::to_value(usage).unwrap();
            assert_eq!(json[bucket.as_str()], 7);
            assert_eq!(serde_json::from_value::<Usage>(json).unwrap(), usage);
            let tokens = u64::from(bucket.is_prompt()) + u64::from(bucket.is_completion());
            assert_eq!(usage.total(), 7 * tokens, "{bucket:?}");
            assert!(tokens <= 1);
            assert!(tokens == 1 || Bucket::RARE.contains(&bucket));
        }
    }

    #[test]
    fn what_was_never_used_is_not_written() {
        let json = serde_json::to_value(Usage::default()).unwrap();
        assert_eq!(
            json.as_object().unwrap().len(),
            Bucket::ALL.len() - Bucket::RARE.len()
        );
    }
}
