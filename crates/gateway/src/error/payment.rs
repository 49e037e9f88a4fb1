//! What a 402 says: why, whose credits are missing, and how much.

use billing::Credits;
use serde::Serialize;

/// What a 402 says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentRequired {
    /// Why.
    pub reason: PaymentReason,
    /// Whose credits are missing.
    pub scope: Scope,
    /// What could be spent now.
    pub available: Credits,
    /// What is set aside for running requests.
    pub held: Credits,
    /// What the request needs at least.
    pub required: Credits,
    /// Output tokens that are affordable.
    pub affordable_tokens: u64,
}

/// Our reasons for a 402.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentReason {
    /// The account has no credits left.
    CreditsExhausted,
    /// The key has used up its limit.
    KeyLimitReached,
    /// Credit is there, but set aside by requests still running.
    HeldByRunningRequests,
}

impl PaymentReason {
    /// Its name in JSON and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreditsExhausted => "credits_exhausted",
            Self::KeyLimitReached => "key_limit_reached",
            Self::HeldByRunningRequests => "held_by_running_requests",
        }
    }
}

/// Whose credits are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// The account's.
    Account,
    /// The key's own limit.
    Key,
}

impl PaymentRequired {
    /// The text for a person, with what to do next.
    pub(super) fn message(&self, top_up_url: Option<&str>) -> String {
        let needs = format!(
            "this request needs at least {} credits and {} are available",
            self.required,
            self.available.at_least_zero()
        );
        match self.reason {
            PaymentReason::CreditsExhausted => match top_up_url {
                Some(url) => format!("The account's credits are used up: {needs}. Top up at {url}"),
                None => {
                    format!("The account's credits are used up: {needs}. Add credits to go on.")
                }
            },
            PaymentReason::KeyLimitReached => format!(
                "This key's own limit is used up: {needs} within it. Raise the key's limit or use another key."
            ),
            PaymentReason::HeldByRunningRequests => format!(
                "The remaining credits are set aside for requests that are still running ({} credits): {needs}. Try again when they have finished.",
                self.held
            ),
        }
    }
}
