//! The ledger of one replica: what the request path asks for keys, permits and credit.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{AccountId, Budget, BudgetId, Checkpoint, Credits, Escrow, KeyId, Path, Settlement};
use jiff::Timestamp;
use tokio::sync::mpsc::OwnedPermit;

use crate::{Balance, LedgerOptions, Store, StoreError};

/// One replica's side of the ledger. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Ledger {}

/// What a request needs to know of its key.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The key.
    pub key_id: KeyId,
    /// Whose it is.
    pub account_id: AccountId,
    /// The key's name.
    pub name: String,
    /// Whether it has a limit of its own.
    pub has_limit: bool,
    /// The models that it may use; `None` is all.
    pub models: Option<Vec<String>>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// Where its requests take credit from: its account and, with a limit, its own budget.
    pub path: Path,
}

/// Why a secret was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// It does not have the form of a key.
    #[error("not an API key")]
    Malformed,
    /// No key has it.
    #[error("no such API key")]
    Unknown,
    /// The key was revoked.
    #[error("the API key was revoked")]
    Revoked,
    /// The key's time is over.
    #[error("the API key has expired")]
    Expired,
    /// The account was disabled.
    #[error("the account is disabled")]
    AccountDisabled,
    /// The database cannot be asked now.
    #[error("keys cannot be looked up now")]
    Unavailable,
}

/// No permit is free: too many requests are in flight, or the gateway shuts down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many requests in flight")]
pub struct Busy;

/// Why credit could not be obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough credit: {available} available, {held} held, {leased_elsewhere} with other replicas"
)]
pub struct Shortfall {
    /// The first budget that could not give.
    pub budget: BudgetId,
    /// What of it could be taken by a request here.
    pub available: Credits,
    /// What requests running here hold of it.
    pub held: Credits,
    /// What other replicas lease of it, held or not.
    pub leased_elsewhere: Credits,
    /// True when the ledger cannot be asked now, so that nothing is known: 503, not 402.
    pub unavailable: bool,
}

/// Figures for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Settlements and commands that wait.
    pub journal_queue: usize,
    /// How long the last batch took, from its first message to its commit.
    pub journal_lag: Duration,
    /// Credits leased by this replica, free and held.
    pub leased: Credits,
    /// Credits held by running requests.
    pub held: Credits,
    /// Running requests that hold credit.
    pub holds_open: u64,
    /// Permits in use.
    pub in_flight: usize,
    /// What the operator bore since the start, by cause.
    pub house_losses: BTreeMap<&'static str, Credits>,
    /// Whether this replica may grant nothing now.
    pub fenced: bool,
}

impl Ledger {
    /// Registers this process as a replica and starts its journal, watcher and chores.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn start(_store: Store, _options: LedgerOptions) -> Result<Self, StoreError> {
        todo!()
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        todo!()
    }

    /// This replica's leases.
    #[must_use]
    pub fn escrow(&self) -> &Escrow {
        todo!()
    }

    /// The key with this secret. Known keys are answered from memory; a change to a key or its
    /// account is known within a second.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, _secret: &str) -> Result<Arc<KeyRecord>, AuthError> {
        todo!()
    }

    /// The permit with which a request will settle, taken at admission.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn reserve(&self) -> Result<OwnedPermit<Settlement>, Busy> {
        todo!()
    }

    /// Waits until every budget of the path has `need` free in memory, fetching leases of about
    /// `want`, recalling other replicas' idle ones and waiting a little for running requests.
    /// Another task may take it first: loop over taking and obtaining, with one deadline.
    ///
    /// # Errors
    /// [`Shortfall`].
    pub async fn obtain(
        &self,
        _path: &Path,
        _need: Credits,
        _want: Credits,
        _deadline: Instant,
    ) -> Result<(), Shortfall> {
        todo!()
    }

    /// Fetches more in the background where a budget has less than half of what its spending
    /// asks for. Cheap; does not wait.
    pub fn refill_soon(&self, _budget: &Arc<Budget>) {
        todo!()
    }

    /// Writes down what a long request has consumed so far. Dropped when the journal is busy.
    pub fn checkpoint(&self, _checkpoint: Checkpoint) {
        todo!()
    }

    /// An account's balance: exact for this replica, as of the last heartbeat for others.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::TimedOut`].
    pub async fn balance(&self, _account: AccountId) -> Result<Balance, StoreError> {
        todo!()
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        todo!()
    }

    /// Takes no more requests, waits for running ones up to `deadline`, writes every settlement,
    /// gives all leases back. True when everything was written.
    pub async fn shutdown(&self, _deadline: Duration) -> bool {
        todo!()
    }
}
