//! Accounts and the credits that are put into them.

use billing::{AccountId, Credits, EntryId, rules::EntryKind};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::StoreError;

/// What is asked for with a new account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewAccount {
    /// For the operator's eyes; 1 to 200 characters.
    pub name: String,
    /// How far below zero it may go; usually zero.
    pub overdraft: Credits,
    /// The operator's own notes; at most 16 KiB as JSON.
    pub metadata: Map<String, Value>,
}

/// What is to change; `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountPatch {
    /// The new name.
    pub name: Option<String>,
    /// The new overdraft; refused below what is used of it.
    pub overdraft: Option<Credits>,
    /// Whether its keys are refused.
    pub disabled: Option<bool>,
    /// The new notes, replacing all old ones.
    pub metadata: Option<Map<String, Value>>,
}

/// An account and its balance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its id.
    pub id: AccountId,
    /// For the operator's eyes.
    pub name: String,
    /// How far below zero it may go.
    pub overdraft: Credits,
    /// Whether its keys are refused.
    pub disabled: bool,
    /// The operator's own notes.
    pub metadata: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed, its balance apart.
    pub updated_at: Timestamp,
    /// Its balance.
    pub balance: Balance,
}

/// What an account has. `available + held = total`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Can be held by a new request, on some replica.
    pub available: Credits,
    /// Set aside for running requests, as of the replicas' last heartbeats.
    pub held: Credits,
    /// The sum of the ledger.
    pub total: Credits,
    /// What its charges took so far.
    pub used: Credits,
}

/// Credits to be added, or taken away by a negative adjustment or refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCredits {
    /// How much; not zero; negative for `adjustment` and `refund` only.
    pub amount: Credits,
    /// Why; every kind but `expiry`.
    pub kind: EntryKind,
    /// When the rest of them expires; for positive amounts, in the future.
    pub expires_at: Option<Timestamp>,
    /// The operator's reference, such as a payment's id; at most 500 characters.
    pub reference: Option<String>,
    /// A note; at most 500 characters.
    pub note: Option<String>,
}

/// A key under which a call with effect is repeated without a second effect: 1 to 255 visible
/// ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of this text.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when it is empty, longer than 255 characters, or holds anything
    /// but visible ASCII.
    pub fn new(text: &str) -> Result<Self, StoreError> {
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(StoreError::Invalid {
                field: "Idempotency-Key",
                problem: "1 to 255 visible ASCII characters",
            })
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One row of the ledger as it is shown: an entry or a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `ent_…`, or `req_…` for a charge.
    pub id: String,
    /// Whose balance it changed.
    pub account_id: AccountId,
    /// An [`EntryKind`]'s name, or `charge`.
    pub kind: &'static str,
    /// By how much, signed.
    pub amount: Credits,
    /// The grant that it made or ended.
    pub grant_id: Option<EntryId>,
    /// When the rest expires, for a grant.
    pub expires_at: Option<Timestamp>,
    /// The operator's reference; the request for a charge.
    pub reference: Option<String>,
    /// A note.
    pub note: Option<String>,
    /// When it was booked.
    pub created_at: Timestamp,
}

/// What [`crate::Store::add_credits`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credited {
    /// The entry.
    pub entry: Entry,
    /// True when it had been made before by the same call.
    pub replayed: bool,
}
