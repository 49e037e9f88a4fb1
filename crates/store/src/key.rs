//! API keys: made, listed, changed, rotated and revoked; the secret is shown once and kept as a digest.

use billing::{AccountId, Credits, KeyId};
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{Account, ApiKeySecret};

/// What is asked for with a new key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewKey {
    /// For the operator's eyes; 1 to 200 characters.
    pub name: String,
    /// Whose it is; without one it gets an account of its own, with the key's name.
    pub account_id: Option<AccountId>,
    /// Credits to add to the account as a purchase; positive.
    pub credits: Option<Credits>,
    /// The most that the key may spend in its life.
    pub limit: Option<Credits>,
    /// The models that it may use; `None` is all.
    pub models: Option<Vec<String>>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// The operator's own notes; at most 16 KiB as JSON.
    pub metadata: Map<String, Value>,
}

/// What is to change; `None` stays, `Some(None)` clears.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyPatch {
    /// The new name.
    pub name: Option<String>,
    /// The new limit. Below what is spent already, nothing more is granted.
    pub limit: Option<Option<Credits>>,
    /// The new list of models.
    pub models: Option<Option<Vec<String>>>,
    /// The new end.
    pub expires_at: Option<Option<Timestamp>>,
    /// The new notes, replacing all old ones.
    pub metadata: Option<Map<String, Value>>,
}

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Its id.
    pub id: KeyId,
    /// Whose it is.
    pub account_id: AccountId,
    /// For the operator's eyes.
    pub name: String,
    /// The secret's first letters.
    pub prefix: String,
    /// The most that it may spend in its life.
    pub limit: Option<Credits>,
    /// What its charges took so far.
    pub used: Credits,
    /// What is left of the limit, held or not; never below zero.
    pub remaining: Option<Credits>,
    /// The models that it may use; `None` is all.
    pub models: Option<Vec<String>>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
    /// The operator's own notes.
    pub metadata: Map<String, Value>,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A key that was just made.
#[derive(Clone, Debug)]
pub struct CreatedKey {
    /// The key.
    pub key: Key,
    /// Its secret, which nobody can read again.
    pub secret: ApiKeySecret,
    /// Its account.
    pub account: Account,
}

/// Which keys are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter {
    /// Of this account alone.
    pub account_id: Option<AccountId>,
    /// Revoked ones too.
    pub with_revoked: bool,
}
