//! A customer as the operator's API shows them.

use billing::Credits;
use serde_json::Value;

/// A key with an account.
#[derive(Clone, Debug)]
pub struct Customer {
    /// `key_…`.
    pub key_id: String,
    /// `acct_…`.
    pub account_id: String,
    /// What the client sends.
    pub secret: String,
}

impl Customer {
    /// Out of the answer to `POST /keys`.
    #[must_use]
    pub fn of(created: &Value) -> Self {
        let text = |name: &str| created[name].as_str().expect(name).to_owned();
        Self {
            key_id: text("id"),
            account_id: text("account_id"),
            secret: text("secret"),
        }
    }
}

/// An account's balance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balance {
    /// A new request can spend it.
    pub available: Credits,
    /// Set aside for running requests.
    pub held: Credits,
    /// The sum of the ledger.
    pub total: Credits,
}

impl Balance {
    /// Out of an account's `balance`.
    #[must_use]
    pub fn of(balance: &Value) -> Self {
        let amount = |name: &str| balance[name].as_str().expect(name).parse().expect(name);
        Self {
            available: amount("available"),
            held: amount("held"),
            total: amount("total"),
        }
    }
}
