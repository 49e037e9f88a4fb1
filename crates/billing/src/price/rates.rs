//! Rates: what each kind of usage costs, and what a kind without a rate of its own costs.

use serde::{Deserialize, Serialize};
use tokens::Bucket;

use super::{PriceError, TOKENS_PER_RATE};
use crate::Credits;

/// Milliseconds in the second that a rate is quoted for.
const MILLISECONDS_PER_RATE: i128 = 1_000;

/// A price as written in a provider file, in decimal text: credits per million tokens or
/// characters; credits per image, second, search, page and request.
///
/// A kind of token without a rate of its own is priced as the kind that it is part of: cached,
/// cache writes, audio and images in the prompt as `prompt`; reasoning, audio and images in the
/// output as `completion`. What is sold by the piece costs nothing of its own without a rate:
/// the model is sold by something else. `prompt` and `completion` may be left out only where the
/// model is sold by the piece. Zero must be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written")]
pub struct Rates {
    /// Fresh prompt tokens.
    pub prompt: Credits,
    /// Visible output tokens.
    pub completion: Credits,
    /// Prompt tokens read from a cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_prompt: Option<Credits>,
    /// Tokens written to a cache of about five minutes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_5m: Option<Credits>,
    /// Tokens written to a cache of about an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<Credits>,
    /// Audio in the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_prompt: Option<Credits>,
    /// Images in the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_prompt: Option<Credits>,
    /// Reasoning tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Credits>,
    /// Audio in the output.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio_completion: Option<Credits>,
    /// Images in the output that are counted in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_completion: Option<Credits>,
    /// Credits per image made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<Credits>,
    /// Credits per second heard or made, to the millisecond.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second: Option<Credits>,
    /// Credits per million characters.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub character: Option<Credits>,
    /// Credits per search.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub search: Option<Credits>,
    /// Credits per page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub page: Option<Credits>,
    /// Credits per request, whatever it consumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Credits>,
    /// Credits that a request costs at least, whatever it consumes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub minimum: Option<Credits>,
}

/// [`Rates`] before it is known whether what was left out may be left out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    prompt: Option<Credits>,
    completion: Option<Credits>,
    cached_prompt: Option<Credits>,
    cache_write_5m: Option<Credits>,
    cache_write_1h: Option<Credits>,
    audio_prompt: Option<Credits>,
    image_prompt: Option<Credits>,
    reasoning: Option<Credits>,
    audio_completion: Option<Credits>,
    image_completion: Option<Credits>,
    image: Option<Credits>,
    second: Option<Credits>,
    character: Option<Credits>,
    search: Option<Credits>,
    page: Option<Credits>,
    request: Option<Credits>,
    minimum: Option<Credits>,
}

impl TryFrom<Written> for Rates {
    type Error = PriceError;

    fn try_from(w: Written) -> Result<Self, PriceError> {
        let by_the_piece = [w.image, w.second, w.character, w.search, w.page, w.request];
        let absent = by_the_piece.iter().flatten().next().map(|_| Credits::ZERO);
        let needed = |rate: Option<Credits>, name| rate.or(absent).ok_or(PriceError::NoRate(name));
        Ok(Self {
            prompt: needed(w.prompt, "prompt")?,
            completion: needed(w.completion, "completion")?,
            cached_prompt: w.cached_prompt,
            cache_write_5m: w.cache_write_5m,
            cache_write_1h: w.cache_write_1h,
            audio_prompt: w.audio_prompt,
            image_prompt: w.image_prompt,
            reasoning: w.reasoning,
            audio_completion: w.audio_completion,
            image_completion: w.image_completion,
            image: w.image,
            second: w.second,
            character: w.character,
            search: w.search,
            page: w.page,
            request: w.request,
            minimum: w.minimum,
        })
    }
}

impl Rates {
    /// Rates that charge the two plain kinds alone.
    #[must_use]
    pub const fn plain(prompt: Credits, completion: Credits) -> Self {
        Self {
            prompt,
            completion,
            cached_prompt: None,
            cache_write_5m: None,
            cache_write_1h: None,
            audio_prompt: None,
            image_prompt: None,
            reasoning: None,
            audio_completion: None,
            image_completion: None,
            image: None,
            second: None,
            character: None,
            search: None,
            page: None,
            request: None,
            minimum: None,
        }
    }

    /// The same with every rate that is written changed; `None` where one of them comes to none.
    pub(super) fn map(&self, change: impl Fn(Credits) -> Option<Credits>) -> Option<Self> {
        let some = |rate: Option<Credits>| match rate {
            Some(rate) => change(rate).map(Some),
            None => Some(None),
        };
        Some(Self {
            prompt: change(self.prompt)?,
            completion: change(self.completion)?,
            cached_prompt: some(self.cached_prompt)?,
            cache_write_5m: some(self.cache_write_5m)?,
            cache_write_1h: some(self.cache_write_1h)?,
            audio_prompt: some(self.audio_prompt)?,
            image_prompt: some(self.image_prompt)?,
            reasoning: some(self.reasoning)?,
            audio_completion: some(self.audio_completion)?,
            image_completion: some(self.image_completion)?,
            image: some(self.image)?,
            second: some(self.second)?,
            character: some(self.character)?,
            search: some(self.search)?,
            page: some(self.page)?,
            request: some(self.request)?,
            minimum: some(self.minimum)?,
        })
    }

    /// Every rate that is written, with its name.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, Credits)> {
        let optional = [
            ("cached_prompt", self.cached_prompt),
            ("cache_write_5m", self.cache_write_5m),
            ("cache_write_1h", self.cache_write_1h),
            ("audio_prompt", self.audio_prompt),
            ("image_prompt", self.image_prompt),
            ("reasoning", self.reasoning),
            ("audio_completion", self.audio_completion),
            ("image_completion", self.image_completion),
            ("image", self.image),
            ("second", self.second),
            ("character", self.character),
            ("search", self.search),
            ("page", self.page),
            ("request", self.request),
            ("minimum", self.minimum),
        ];
        [("prompt", self.prompt), ("completion", self.completion)]
            .into_iter()
            .chain(
                optional
                    .into_iter()
                    .filter_map(|(name, rate)| rate.map(|rate| (name, rate))),
            )
            .collect()
    }

    /// What a bucket is charged by: credits per million tokens or characters, else per piece.
    #[must_use]
    pub fn rate(&self, bucket: Bucket) -> Credits {
        match bucket {
            Bucket::Prompt => self.prompt,
            Bucket::CachedPrompt => self.cached_prompt.unwrap_or(self.prompt),
            Bucket::CacheWrite5m => self.cache_write_5m.unwrap_or(self.prompt),
            Bucket::CacheWrite1h => self.cache_write_1h.unwrap_or(self.prompt),
            Bucket::AudioPrompt => self.audio_prompt.unwrap_or(self.prompt),
            Bucket::ImagePrompt => self.image_prompt.unwrap_or(self.prompt),
            Bucket::Completion => self.completion,
            Bucket::Reasoning => self.reasoning.unwrap_or(self.completion),
            Bucket::AudioCompletion => self.audio_completion.unwrap_or(self.completion),
            Bucket::ImageCompletion => self.image_completion.unwrap_or(self.completion),
            Bucket::Images => self.image.unwrap_or(Credits::ZERO),
            Bucket::Milliseconds => self.second.unwrap_or(Credits::ZERO),
            Bucket::Characters => self.character.unwrap_or(Credits::ZERO),
            Bucket::Searches => self.search.unwrap_or(Credits::ZERO),
            Bucket::Pages => self.page.unwrap_or(Credits::ZERO),
        }
    }

    /// Whether the model is sold by what this bucket holds: a rate of zero is one.
    #[must_use]
    pub const fn has_rate(&self, bucket: Bucket) -> bool {
        match bucket {
            Bucket::Prompt
            | Bucket::CachedPrompt
            | Bucket::CacheWrite5m
            | Bucket::CacheWrite1h
            | Bucket::AudioPrompt
            | Bucket::ImagePrompt
            | Bucket::Completion
            | Bucket::Reasoning
            | Bucket::AudioCompletion
            | Bucket::ImageCompletion => true,
            Bucket::Images => self.image.is_some(),
            Bucket::Milliseconds => self.second.is_some(),
            Bucket::Characters => self.character.is_some(),
            Bucket::Searches => self.search.is_some(),
            Bucket::Pages => self.page.is_some(),
        }
    }

    /// The dearest rates that the text and the audio of a prompt may turn out to have.
    pub(super) fn dearest_prompt(&self) -> (Credits, Credits) {
        let text = [
            self.cached_prompt,
            self.cache_write_5m,
            self.cache_write_1h,
            self.image_prompt,
        ]
        .into_iter()
        .flatten()
        .fold(self.prompt, Credits::max);
        (text, self.rate(Bucket::AudioPrompt).max(text))
    }

    /// The dearest rate that output may turn out to have.
    pub(super) fn dearest_output(&self) -> Credits {
        [self.reasoning, self.audio_completion, self.image_completion]
            .into_iter()
            .flatten()
            .fold(self.completion, Credits::max)
    }

    /// What so much of a bucket costs, in millionths of a nano-credit; `None` where it overflows.
    pub(super) fn exact(&self, bucket: Bucket, count: u64) -> Option<i128> {
        if count == 0 {
            return Some(0);
        }
        let parts = match bucket {
            Bucket::Prompt
            | Bucket::CachedPrompt
            | Bucket::CacheWrite5m
            | Bucket::CacheWrite1h
            | Bucket::AudioPrompt
            | Bucket::ImagePrompt
            | Bucket::Completion
            | Bucket::Reasoning
            | Bucket::AudioCompletion
            | Bucket::ImageCompletion
            | Bucket::Characters => 1,
            Bucket::Milliseconds => TOKENS_PER_RATE / MILLISECONDS_PER_RATE,
            Bucket::Images | Bucket::Searches | Bucket::Pages => TOKENS_PER_RATE,
        };
        i128::from(self.rate(bucket).nanos())
            .checked_mul(parts)?
            .checked_mul(i128::from(count))
    }

    /// The fee per request, in millionths of a nano-credit.
    pub(super) fn fee(&self) -> i128 {
        i128::from(self.request.unwrap_or(Credits::ZERO).nanos()) * TOKENS_PER_RATE
    }

    pub(super) fn refuse_negative(&self) -> Result<(), PriceError> {
        match self.all().into_iter().find(|(_, rate)| rate.is_negative()) {
            Some((name, _)) => Err(PriceError::Negative(name)),
            None => Ok(()),
        }
    }
}
