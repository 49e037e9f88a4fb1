//! What a table says of one model: limits and prices per token kind, in one shape for every table.

use std::collections::BTreeMap;

use crate::decimal::Decimal;

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The id as the provider spells it.
    pub id: String,
    /// What it does, by the words of provider files; empty: it answers chats.
    pub endpoints: Vec<&'static str>,
    /// Whether the table says where it has the row from.
    pub sourced: bool,
    /// Tokens that fit.
    pub context_window: Option<u64>,
    /// Tokens of output at most.
    pub max_output_tokens: Option<u64>,
    /// Whether the model reasons.
    pub reasons: bool,
    /// The provider has announced its end.
    pub deprecated: bool,
    /// The day of its end, `YYYY-MM-DD`, where announced.
    pub ends: Option<String>,
    /// Prices; empty where the table has none.
    pub price: Price,
    /// What the table prices it by that nobody here knows, by the table's own names.
    pub unknown_units: Vec<String>,
    /// Prices for prompts longer than the key, which hold for the whole request.
    pub tiers: BTreeMap<u64, Price>,
    /// Prices of service tiers, by their names in a provider file, and those for long prompts.
    pub service: BTreeMap<&'static str, (Price, BTreeMap<u64, Price>)>,
    /// Prices of parts of the week, which hold in place of the plain ones; the first that fits counts.
    pub hours: Vec<(When, Price)>,
    /// Fee of a search with little context, in dollars.
    pub search_fee: Option<Decimal>,
}

/// A part of the week, as provider files write it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct When {
    /// From a time of day until before another; none: the whole day.
    pub hours: Option<(String, String)>,
    /// The days that it begins on; none: all.
    pub days: Vec<&'static str>,
    /// Whose clocks these are; none: UTC.
    pub zone: Option<String>,
}

/// Dollars per million tokens or characters of a kind; per piece of what is sold by the piece.
pub type Price = BTreeMap<Kind, Decimal>;

/// What a price is for; the order is that of the provider files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Fresh prompt tokens.
    Prompt,
    /// Visible output tokens.
    Completion,
    /// Prompt tokens read from a cache.
    CachedPrompt,
    /// Tokens written to a cache of about five minutes.
    CacheWrite5m,
    /// Tokens written to a cache of about an hour.
    CacheWrite1h,
    /// Audio in the prompt.
    AudioPrompt,
    /// Audio in the output.
    AudioCompletion,
    /// Reasoning tokens.
    Reasoning,
    /// Images in the prompt.
    ImagePrompt,
    /// Images in the output that are counted in tokens.
    ImageCompletion,
    /// An image made.
    Image,
    /// A second heard or made.
    Second,
    /// A million characters.
    Character,
    /// A search.
    Search,
    /// A request.
    Request,
}

impl Kind {
    /// The member of `price` in a provider file.
    #[must_use]
    pub const fn member(self) -> &'static str {
        match self {
            Self::Prompt => "prompt",
            Self::Completion => "completion",
            Self::CachedPrompt => "cached_prompt",
            Self::CacheWrite5m => "cache_write_5m",
            Self::CacheWrite1h => "cache_write_1h",
            Self::AudioPrompt => "audio_prompt",
            Self::AudioCompletion => "audio_completion",
            Self::Reasoning => "reasoning",
            Self::ImagePrompt => "image_prompt",
            Self::ImageCompletion => "image_completion",
            Self::Image => "image",
            Self::Second => "second",
            Self::Character => "character",
            Self::Search => "search",
            Self::Request => "request",
        }
    }

    /// Whether it is sold by the piece, and not by tokens.
    #[must_use]
    pub const fn is_piece(self) -> bool {
        match self {
            Self::Image | Self::Second | Self::Character | Self::Search => true,
            Self::Prompt
            | Self::Completion
            | Self::CachedPrompt
            | Self::CacheWrite5m
            | Self::CacheWrite1h
            | Self::AudioPrompt
            | Self::AudioCompletion
            | Self::Reasoning
            | Self::ImagePrompt
            | Self::ImageCompletion
            | Self::Request => false,
        }
    }
}
