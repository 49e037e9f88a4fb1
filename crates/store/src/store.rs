//! The store: one of two databases behind the same verbs.

use std::time::Duration;

use billing::{AccountId, KeyId, PriceId, RequestId};

use crate::{
    Account, AccountPatch, ApiKeySecret, Audit, ChargeFilter, ChargeRecord, CreatedKey, Credited,
    Entry, Grouping, IdempotencyKey, Key, KeyFilter, KeyPatch, Listed, NewAccount, NewCredits,
    NewKey, OpenOptions, Page, StoreError, StoreUrl, UsageSum,
};

/// A database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {}

/// Knows an admin key when it sees one.
#[derive(Clone, Debug)]
pub struct AdminKey {}

impl AdminKey {
    /// True for the admin key; compared in constant time.
    #[must_use]
    pub fn matches(&self, _secret: &str) -> bool {
        todo!()
    }
}

impl Store {
    /// Opens the database, creating a SQLite file where there is none, and brings the tables up
    /// to date. Replicas that start together do that once.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Migrate`], [`StoreError::Database`].
    pub async fn open(_url: &StoreUrl, _options: OpenOptions) -> Result<Self, StoreError> {
        todo!()
    }

    /// Opens an existing database for reading only, beside a running gateway: for the audit.
    ///
    /// # Errors
    /// [`StoreError::Empty`], [`StoreError::Database`].
    pub async fn open_read_only(
        _url: &StoreUrl,
        _options: OpenOptions,
    ) -> Result<Self, StoreError> {
        todo!()
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// [`StoreError::TimedOut`], [`StoreError::Database`].
    pub async fn ping(&self, _deadline: Duration) -> Result<(), StoreError> {
        todo!()
    }

    /// The key of the admin API: `given` where the operator set one, else the one made by the
    /// first start. The secret is there only on the call that made it.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a given key of less than 16 characters.
    pub async fn ensure_admin_key(
        &self,
        _given: Option<&str>,
    ) -> Result<(AdminKey, Option<ApiKeySecret>), StoreError> {
        todo!()
    }

    /// Makes the demo key of a first run; `None` when this database had one before.
    ///
    /// # Errors
    /// As [`Store::create_key`].
    pub async fn create_demo_key(&self, _key: NewKey) -> Result<Option<CreatedKey>, StoreError> {
        todo!()
    }

    /// Makes an account.
    ///
    /// # Errors
    /// [`StoreError::Invalid`].
    pub async fn create_account(&self, _account: NewAccount) -> Result<Account, StoreError> {
        todo!()
    }

    /// All accounts, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn accounts(&self, _page: Page) -> Result<Listed<Account>, StoreError> {
        todo!()
    }

    /// One account.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`].
    pub async fn account(&self, _id: AccountId) -> Result<Account, StoreError> {
        todo!()
    }

    /// Changes an account.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::Invalid`], [`StoreError::OverdraftInUse`].
    pub async fn update_account(
        &self,
        _id: AccountId,
        _patch: AccountPatch,
    ) -> Result<Account, StoreError> {
        todo!()
    }

    /// Adds credits to an account, or takes them away by a negative adjustment or refund, once
    /// for each idempotency key.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::Invalid`], [`StoreError::BelowZero`],
    /// [`StoreError::IdempotencyConflict`].
    pub async fn add_credits(
        &self,
        _account: AccountId,
        _credits: NewCredits,
        _once: Option<&IdempotencyKey>,
    ) -> Result<Credited, StoreError> {
        todo!()
    }

    /// Makes a key, and an account with it where none is named, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::Invalid`].
    pub async fn create_key(&self, _key: NewKey) -> Result<CreatedKey, StoreError> {
        todo!()
    }

    /// Keys, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keys(&self, _filter: KeyFilter, _page: Page) -> Result<Listed<Key>, StoreError> {
        todo!()
    }

    /// One key, revoked or not.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`].
    pub async fn key(&self, _id: KeyId) -> Result<Key, StoreError> {
        todo!()
    }

    /// Changes a key; every replica knows within a second.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`], [`StoreError::Invalid`].
    pub async fn update_key(&self, _id: KeyId, _patch: KeyPatch) -> Result<Key, StoreError> {
        todo!()
    }

    /// Revokes a key for good; every replica refuses it within a second. Revoking twice is fine.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`].
    pub async fn revoke_key(&self, _id: KeyId) -> Result<Key, StoreError> {
        todo!()
    }

    /// Gives a key a new secret; the old one is refused within a second.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`]; [`StoreError::Invalid`] for a revoked key.
    pub async fn rotate_key(&self, _id: KeyId) -> Result<(Key, ApiKeySecret), StoreError> {
        todo!()
    }

    /// The ledger of an account, newest first: entries and charges together.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`].
    pub async fn entries(
        &self,
        _account: AccountId,
        _page: Page,
    ) -> Result<Listed<Entry>, StoreError> {
        todo!()
    }

    /// Requests that were booked, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn charges(
        &self,
        _filter: &ChargeFilter,
        _page: Page,
    ) -> Result<Listed<ChargeRecord>, StoreError> {
        todo!()
    }

    /// One request of an account; `None` while it runs, or when it was never charged.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn charge(
        &self,
        _account: AccountId,
        _id: RequestId,
    ) -> Result<Option<ChargeRecord>, StoreError> {
        todo!()
    }

    /// Sums over charges, by the dimensions in `by`; at most 10,000 rows.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the answer would be longer.
    pub async fn usage(
        &self,
        _filter: &ChargeFilter,
        _by: &Grouping,
    ) -> Result<Vec<UsageSum>, StoreError> {
        todo!()
    }

    /// Proves the books on one snapshot.
    ///
    /// # Errors
    /// [`StoreError::Database`]; books that are off are no error.
    pub async fn audit(&self) -> Result<Audit, StoreError> {
        todo!()
    }

    /// Keeps price versions, so that every charge can be computed again. Those already kept stay.
    /// Each row is the id, the provider, the model and the canonical JSON.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn record_prices(
        &self,
        _prices: &[(PriceId, &str, &str, &str)],
    ) -> Result<(), StoreError> {
        todo!()
    }
}
