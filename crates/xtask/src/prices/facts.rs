//! What a table says of one model: limits and prices per token kind, in one shape for every table.

use std::collections::BTreeMap;

use super::decimal::Decimal;

/// A row of a table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    /// The id as the provider spells it.
    pub(crate) id: String,
    /// What it does, by the words of provider files; empty: it answers chats.
    pub(crate) endpoints: Vec<&'static str>,
    /// Whether the table says where it has the row from.
    pub(crate) sourced: bool,
    /// Tokens that fit.
    pub(crate) context_window: Option<u64>,
    /// Tokens of output at most.
    pub(crate) max_output_tokens: Option<u64>,
    /// Whether the model reasons.
    pub(crate) reasons: bool,
    /// The provider has announced its end.
    pub(crate) deprecated: bool,
    /// The day of its end, `YYYY-MM-DD`, where announced.
    pub(crate) ends: Option<String>,
    /// Prices; empty where the table has none.
    pub(crate) price: Price,
    /// Prices for prompts longer than the key, which hold for the whole request.
    pub(crate) tiers: BTreeMap<u64, Price>,
    /// Prices of service tiers, by their names in a provider file, and those for long prompts.
    pub(crate) service: BTreeMap<&'static str, (Price, BTreeMap<u64, Price>)>,
    /// Fee of a search with little context, in dollars.
    pub(crate) search_fee: Option<Decimal>,
}

/// Dollars per million tokens or characters of a kind; per piece of what is sold by the piece.
pub(crate) type Price = BTreeMap<Kind, Decimal>;

/// What a price is for; the order is that of the provider files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Prompt,
    Completion,
    CachedPrompt,
    CacheWrite5m,
    CacheWrite1h,
    AudioPrompt,
    AudioCompletion,
    Reasoning,
    ImagePrompt,
    ImageCompletion,
    Image,
    Second,
    Character,
    Search,
    Request,
}

impl Kind {
    /// The member of `price` in a provider file.
    pub(crate) const fn member(self) -> &'static str {
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
    pub(crate) const fn is_piece(self) -> bool {
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
