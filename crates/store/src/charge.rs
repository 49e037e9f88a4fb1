//! Charges as they are read: one request each, and sums over many.

use std::collections::BTreeSet;

use billing::{AccountId, Credits, End, KeyId, PriceId, RequestId};
use jiff::Timestamp;
use tokens::{Usage, UsageSource};

/// One request that was booked. `charged + house_loss = cost`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChargeRecord {
    /// The request.
    pub id: RequestId,
    /// Who paid.
    pub account_id: AccountId,
    /// The key that asked.
    pub key_id: KeyId,
    /// The endpoint, such as `chat.completions`.
    pub endpoint: String,
    /// The model as configured.
    pub model: String,
    /// The provider that served it.
    pub provider: String,
    /// The price version it was admitted at.
    pub price_id: PriceId,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// How it ended.
    pub end: End,
    /// The price of its usage.
    pub cost: Credits,
    /// What was taken from the account.
    pub charged: Credits,
    /// What the operator bore.
    pub house_loss: Credits,
    /// Who counted.
    pub source: UsageSource,
    /// What it consumed.
    pub usage: Usage,
    /// What the provider reported, verbatim.
    pub raw_usage: Option<String>,
    /// From admission to the first byte of output, in microseconds.
    pub first_token_us: Option<u64>,
    /// From admission to the end, in microseconds.
    pub duration_us: u64,
    /// True when its lease had been taken back before it was booked.
    pub late: bool,
    /// When it was admitted (from its id).
    pub created_at: Timestamp,
    /// When it was booked.
    pub settled_at: Timestamp,
}

/// Which charges are listed; all conditions hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChargeFilter {
    /// Of this account.
    pub account_id: Option<AccountId>,
    /// Of this key.
    pub key_id: Option<KeyId>,
    /// Of this model, as configured.
    pub model: Option<String>,
    /// Admitted at or after.
    pub from: Option<Timestamp>,
    /// Admitted before.
    pub to: Option<Timestamp>,
    /// Ended so.
    pub end: Option<End>,
}

/// What a sum is broken down by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupBy {
    /// The day of admission, UTC.
    Day,
    /// The model.
    Model,
    /// The provider.
    Provider,
    /// The key.
    Key,
    /// The account.
    Account,
    /// How it ended.
    End,
}

impl GroupBy {
    /// Every dimension, for tables and documentation.
    pub const ALL: [Self; 6] = [
        Self::Day,
        Self::Model,
        Self::Provider,
        Self::Key,
        Self::Account,
        Self::End,
    ];

    /// The name in the admin API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Day => "day",
            Self::Model => "model",
            Self::Provider => "provider",
            Self::Key => "key",
            Self::Account => "account",
            Self::End => "end",
        }
    }

    /// The dimension of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|by| by.as_str() == text)
    }
}

/// The dimensions of one sum.
pub type Grouping = BTreeSet<GroupBy>;

/// One row of sums; the dimensions that were asked for are set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UsageSum {
    /// The day, `2026-01-31`.
    pub day: Option<String>,
    /// The model.
    pub model: Option<String>,
    /// The provider.
    pub provider: Option<String>,
    /// The key.
    pub key_id: Option<KeyId>,
    /// The account.
    pub account_id: Option<AccountId>,
    /// How they ended.
    pub end: Option<End>,
    /// How many requests.
    pub requests: u64,
    /// What they consumed.
    pub usage: Usage,
    /// The price of that.
    pub cost: Credits,
    /// What was taken from accounts.
    pub charged: Credits,
    /// What the operator bore.
    pub house_loss: Credits,
}
