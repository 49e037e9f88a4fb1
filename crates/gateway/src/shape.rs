//! How things look in JSON: times, amounts, lists and token counts (CONTRACT, first paragraph).

use std::{collections::BTreeMap, str::FromStr};

use billing::{Credits, Price, Rates};
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use store::Listed;
use tokens::Usage;
use utoipa::ToSchema;

/// A moment, in JSON an RFC 3339 time in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Time(pub Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// An RFC 3339 time with any offset, or a date, which is its midnight in UTC.
impl FromStr for Time {
    type Err = NotATime;

    fn from_str(text: &str) -> Result<Self, NotATime> {
        if let Ok(moment) = text.parse::<Timestamp>() {
            return Ok(Self(moment));
        }
        // `Date` alone would also read the date out of a time without an offset.
        let date: Date = match text.len() {
            10 => text.parse().map_err(|_| NotATime)?,
            _ => return Err(NotATime),
        };
        let midnight = date.to_zoned(TimeZone::UTC).map_err(|_| NotATime)?;
        Ok(Self(midnight.timestamp()))
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// The text is not a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a time is written 2026-01-31T12:00:00Z, a day 2026-01-31")]
pub struct NotATime;

/// A page of a list, or a list that has only one.
#[derive(Clone, Debug, Serialize)]
pub struct List<T> {
    /// Always `list`.
    object: &'static str,
    data: Vec<T>,
    /// Whether there is a next page.
    has_more: bool,
    /// Pass it as `cursor` to get the next page.
    next_cursor: Option<String>,
}

impl<T> List<T> {
    /// A page out of the store, each row shown by `show`.
    pub fn of<R>(listed: Listed<R>, show: impl FnMut(R) -> T) -> Self {
        let next_cursor = listed.next.map(|cursor| cursor.to_string());
        Self {
            object: "list",
            data: listed.data.into_iter().map(show).collect(),
            has_more: next_cursor.is_some(),
            next_cursor,
        }
    }

    /// A list without pages.
    #[must_use]
    pub const fn whole(data: Vec<T>) -> Self {
        Self {
            object: "list",
            data,
            has_more: false,
            next_cursor: None,
        }
    }

    /// `limit` rows of a list that stays the same while the program runs; the cursor is the
    /// number of rows before the page.
    #[must_use]
    pub fn slice(all: Vec<T>, limit: usize, start: usize) -> Self {
        let end = start.saturating_add(limit);
        let next_cursor = (end < all.len()).then(|| end.to_string());
        Self {
            object: "list",
            data: all.into_iter().skip(start).take(limit).collect(),
            has_more: next_cursor.is_some(),
            next_cursor,
        }
    }
}

/// What a request consumed: every token in exactly one of the first ten, what is sold by the piece
/// where there was any, and OpenAI's three sums of tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Tokens {
    /// Prompt tokens that were neither cached nor of another modality.
    prompt: u64,
    /// Prompt tokens read from the provider's cache.
    cached_prompt: u64,
    /// Prompt tokens written to a cache of about five minutes.
    cache_write_5m: u64,
    /// Prompt tokens written to a cache of about an hour.
    cache_write_1h: u64,
    /// Audio in the prompt.
    audio_prompt: u64,
    /// Images in the prompt.
    image_prompt: u64,
    /// Visible output.
    completion: u64,
    /// Output spent on reasoning.
    reasoning: u64,
    /// Audio in the output.
    audio_completion: u64,
    /// Images in the output, counted in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_completion: Option<u64>,
    /// Images made.
    #[serde(skip_serializing_if = "Option::is_none")]
    images: Option<u64>,
    /// Audio or video heard or made, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u64>,
    /// Characters read aloud or translated.
    #[serde(skip_serializing_if = "Option::is_none")]
    characters: Option<u64>,
    /// Searches made.
    #[serde(skip_serializing_if = "Option::is_none")]
    searches: Option<u64>,
    /// Pages read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pages: Option<u64>,
    /// The whole prompt.
    prompt_tokens: u64,
    /// The whole output.
    completion_tokens: u64,
    /// Both.
    total_tokens: u64,
}

impl From<&Usage> for Tokens {
    fn from(usage: &Usage) -> Self {
        let some = |count: u64| Some(count).filter(|count| *count > 0);
        Self {
            prompt: usage.prompt,
            cached_prompt: usage.cached_prompt,
            cache_write_5m: usage.cache_write_5m,
            cache_write_1h: usage.cache_write_1h,
            audio_prompt: usage.audio_prompt,
            image_prompt: usage.image_prompt,
            completion: usage.completion,
            reasoning: usage.reasoning,
            audio_completion: usage.audio_completion,
            image_completion: some(usage.image_completion),
            images: some(usage.images),
            milliseconds: some(usage.milliseconds),
            characters: some(usage.characters),
            searches: some(usage.searches),
            pages: some(usage.pages),
            prompt_tokens: usage.prompt_total(),
            completion_tokens: usage.completion_total(),
            total_tokens: usage.total(),
        }
    }
}

/// A price in credits per million tokens; `request` is per request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Pricing {
    /// What the rates are per: always `credits_per_million_tokens`; `character` is per million
    /// characters, and `image`, `second`, `search`, `page` and `request` are each per one.
    #[schema(example = "credits_per_million_tokens")]
    unit: &'static str,
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, String>)]
    rates: BTreeMap<&'static str, Credits>,
    /// Other rates where the prompt is long.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    tiers: Vec<PricingTier>,
}

/// The rates for a long prompt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PricingTier {
    /// The tier applies when the whole prompt has more tokens than this.
    above_prompt_tokens: u64,
    /// Whether the whole request then has these rates; else only the prompt beyond the threshold.
    whole_request: bool,
    #[serde(flatten)]
    #[schema(value_type = BTreeMap<String, String>)]
    rates: BTreeMap<&'static str, Credits>,
}

impl From<&Price> for Pricing {
    fn from(price: &Price) -> Self {
        let rates = |rates: &Rates| rates.all().into_iter().collect();
        Self {
            unit: "credits_per_million_tokens",
            rates: rates(price.base()),
            tiers: price
                .tiers()
                .iter()
                .map(|tier| PricingTier {
                    above_prompt_tokens: tier.above_prompt_tokens,
                    whole_request: tier.whole_request,
                    rates: rates(&tier.price),
                })
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, shown) in [
            ("2026-01-31T12:00:00Z", Some("2026-01-31T12:00:00Z")),
            ("2026-01-31T12:00:00+02:00", Some("2026-01-31T10:00:00Z")),
            ("2026-01-31", Some("2026-01-31T00:00:00Z")),
            ("2026-01-31T12:00:00", None),
            ("2026-02-30", None),
            ("20260131", None),
            ("yesterday", None),
            ("", None),
        ] {
            let time = text.parse::<Time>().ok();
            let json = time.map(|time| serde_json::to_string(&time).unwrap());
            assert_eq!(json, shown.map(|s| format!("\"{s}\"")), "{text}");
        }
    }

    #[test]
    fn tokens_have_their_own_names_and_openais_sums() {
        let usage = Usage {
            prompt: 1,
            cached_prompt: 2,
            completion: 4,
            reasoning: 8,
            images: 16,
            pages: 32,
            ..Usage::default()
        };
        let json = serde_json::to_value(Tokens::from(&usage)).unwrap();
        // Every bucket of `Usage` is there under its own name.
        for (name, count) in serde_json::to_value(usage).unwrap().as_object().unwrap() {
            assert_eq!(&json[name], count, "{name}");
        }
        assert_eq!(json["prompt_tokens"], 3);
        assert_eq!(json["completion_tokens"], 12);
        assert_eq!(json["total_tokens"], 15);
    }

    #[test]
    fn slices() {
        let page = List::slice(vec![1, 2, 3], 2, 0);
        assert_eq!(
            (page.data, page.next_cursor),
            (vec![1, 2], Some("2".into()))
        );
        let page = List::slice(vec![1, 2, 3], 2, 2);
        assert_eq!((page.data, page.has_more), (vec![3], false));
        assert!(List::slice(vec![1], usize::MAX, 9).data.is_empty());
    }
}
