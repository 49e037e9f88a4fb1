//! Keys in memory: looked up once, refused within a second of their revocation, bounded whatever clients send.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use billing::{AccountId, BudgetId, Credits, Escrow, KeyId, Path};
use jiff::Timestamp;
use tokio::sync::{OnceCell, Semaphore};
use uuid::Uuid;

use crate::{Store, StoreError, check, clock, secret::Digest, sql::sql, well_formed};

/// Look-ups at once; a flood of unknown keys must not take every connection.
const LOOKUPS_MAX: usize = 4;
/// The longest look-up, waiting for its turn included.
const LOOKUP_MAX: Duration = Duration::from_secs(5);
/// Unknown secrets remembered, so that a client that repeats one costs nothing.
const UNKNOWN_MAX: usize = 4096;

/// What a request needs to know of its key.
#[derive(Clone, Debug)]
pub struct KeyRecord {
    /// The key.
    pub key_id: KeyId,
    /// Whose it is.
    pub account_id: AccountId,
    /// The key's name.
    pub name: String,
    /// The most that it may spend in its life.
    pub limit: Option<Credits>,
    /// The models that it may use; `None` is all.
    pub models: Option<Vec<String>>,
    /// When it stops working.
    pub expires_at: Option<Timestamp>,
    /// The group of customers that its account is in: `price_group` of the account's metadata.
    pub price_group: Option<String>,
    /// Where its requests take credit from: its account and, with a limit, its own budget.
    pub path: Path,
    revoked: bool,
    disabled: bool,
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

impl KeyRecord {
    /// Whether the key has a limit of its own.
    #[must_use]
    pub const fn has_limit(&self) -> bool {
        self.limit.is_some()
    }

    /// Whether the key may use this model.
    #[must_use]
    pub fn allows(&self, model: &str) -> bool {
        self.models
            .as_ref()
            .is_none_or(|models| models.iter().any(|allowed| allowed == model))
    }

    fn admit(self: &Arc<Self>) -> Result<Arc<Self>, AuthError> {
        if self.revoked {
            return Err(AuthError::Revoked);
        }
        if self.expires_at.is_some_and(|at| at <= clock::wall()) {
            return Err(AuthError::Expired);
        }
        if self.disabled {
            return Err(AuthError::AccountDisabled);
        }
        Ok(Arc::clone(self))
    }
}

type Slot = Arc<OnceCell<Option<Arc<KeyRecord>>>>;

/// Keys by the digest of their secret.
#[derive(Debug)]
pub(crate) struct Keys {
    known: Mutex<Slots>,
    lookups: Semaphore,
    slots_max: usize,
}

/// Two generations: when the young one is full, the old one is forgotten and they change places.
#[derive(Debug, Default)]
struct Slots {
    young: HashMap<Digest, Slot>,
    old: HashMap<Digest, Slot>,
    unknown: HashMap<Digest, ()>,
}

#[derive(sqlx::FromRow)]
struct LookedUp {
    id: Uuid,
    account_id: Uuid,
    name: String,
    limit_credits: Option<i64>,
    models: Option<String>,
    expires_at: Option<i64>,
    revoked: bool,
    disabled: bool,
    metadata: String,
}

impl Keys {
    pub(crate) fn new(slots_max: usize) -> Self {
        Self {
            known: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS_MAX),
            slots_max: slots_max.max(2),
        }
    }

    pub(crate) async fn authenticate(
        &self,
        store: &Store,
        escrow: &Escrow,
        secret: &str,
    ) -> Result<Arc<KeyRecord>, AuthError> {
        let pepper = store.pepper().map_err(|_| AuthError::Unavailable)?;
        let digest = pepper.digest(secret);
        if let Some(record) = self.found(&digest) {
            return record.admit();
        }
        // What is known was well formed when it was looked up.
        if !well_formed(secret) {
            return Err(AuthError::Malformed);
        }
        let Some(slot) = self.slot(digest) else {
            return Err(AuthError::Unknown);
        };
        // Those who ask at once for the same key wait for one look-up.
        let found = slot
            .get_or_try_init(|| {
                // On the heap: most requests ask with a key that is known, and do not wait here.
                let look_up = Box::pin(self.look_up(store, escrow, digest));
                async {
                    tokio::time::timeout(LOOKUP_MAX, look_up)
                        .await
                        .map_err(|_| StoreError::TimedOut)?
                }
            })
            .await
            .map_err(|error| {
                tracing::warn!(%error, "a key could not be looked up");
                AuthError::Unavailable
            })?;
        match found {
            Some(record) => record.admit(),
            None => {
                self.note_unknown(digest);
                Err(AuthError::Unknown)
            }
        }
    }

    /// Forgets a key that was changed. A look-up under way may still find what was before, so
    /// its slot goes too: whoever waits for it gets its answer, but nobody after.
    pub(crate) fn forget(&self, key: Option<KeyId>, account: Option<AccountId>) {
        let keep = |slot: &Slot| match slot.get() {
            Some(Some(record)) => Some(record.key_id) != key && Some(record.account_id) != account,
            Some(None) | None => false,
        };
        let mut slots = self.lock();
        slots.young.retain(|_, slot| keep(slot));
        slots.old.retain(|_, slot| keep(slot));
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        *self.lock() = Slots::default();
    }

    /// The key of this digest, where it was looked up and not forgotten.
    fn found(&self, digest: &Digest) -> Option<Arc<KeyRecord>> {
        self.lock().young.get(digest)?.get()?.clone()
    }

    /// The place for this digest; `None` when it is known to be nobody's.
    fn slot(&self, digest: Digest) -> Option<Slot> {
        let mut slots = self.lock();
        if let Some(slot) = slots.young.get(&digest) {
            return Some(Arc::clone(slot));
        }
        if slots.unknown.contains_key(&digest) {
            return None;
        }
        let slot = slots.old.remove(&digest).unwrap_or_default();
        if slots.young.len() >= self.slots_max / 2 {
            slots.old = std::mem::take(&mut slots.young);
        }
        slots.young.insert(digest, Arc::clone(&slot));
        Some(slot)
    }

    /// A secret is random, so one that is nobody's now will never be anybody's.
    fn note_unknown(&self, digest: Digest) {
        let mut slots = self.lock();
        slots.young.remove(&digest);
        if slots.unknown.len() >= UNKNOWN_MAX {
            slots.unknown.clear();
        }
        slots.unknown.insert(digest, ());
    }

    async fn look_up(
        &self,
        store: &Store,
        escrow: &Escrow,
        digest: Digest,
    ) -> Result<Option<Arc<KeyRecord>>, StoreError> {
        let _turn = self
            .lookups
            .acquire()
            .await
            .map_err(|_| StoreError::TimedOut)?;
        let row = match read(store, digest).await {
            // A connection that broke is no reason to refuse anybody: once more, on another.
            Err(StoreError::Database(_)) => read(store, digest).await?,
            read => read?,
        };
        row.map(|row| row.record(escrow).map(Arc::new)).transpose()
    }

    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read(store: &Store, digest: Digest) -> Result<Option<LookedUp>, StoreError> {
    let select = sql(
        "SELECT k.id, k.account_id, k.name, k.limit_credits, k.models, \
         k.expires_at, (k.revoked_at IS NOT NULL) AS revoked, a.disabled, a.metadata \
         FROM keys k JOIN accounts a ON a.id = k.account_id WHERE k.digest = ?",
    );
    let mut reader = store.read().await?;
    reader.link().maybe(select.bytes(&digest.0)).await
}

impl LookedUp {
    fn record(self, escrow: &Escrow) -> Result<KeyRecord, StoreError> {
        let key_id = KeyId::from_uuid(self.id);
        let account_id = AccountId::from_uuid(self.account_id);
        let limit = self.limit_credits.map(Credits::from_nanos);
        let mut budgets = vec![escrow.budget(BudgetId::Account(account_id))];
        if limit.is_some() {
            budgets.push(escrow.budget(BudgetId::Key(account_id, key_id)));
        }
        Ok(KeyRecord {
            key_id,
            account_id,
            name: self.name,
            limit,
            models: self
                .models
                .as_deref()
                .map(check::stored_models)
                .transpose()?,
            expires_at: self.expires_at.map(check::timestamp).transpose()?,
            price_group: price_group(&self.metadata),
            path: Path::new(budgets),
            revoked: self.revoked,
            disabled: self.disabled,
        })
    }
}

/// The text under `price_group` in an account's metadata.
fn price_group(metadata: &str) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Notes {
        price_group: Option<serde_json::Value>,
    }
    let notes: Notes = serde_json::from_str(metadata).ok()?;
    notes.price_group?.as_str().map(str::to_owned)
}
