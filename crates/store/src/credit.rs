//! Credits put into accounts and taken out again, once for each idempotency key; the ledger as it is shown.

use std::time::Duration;

use billing::{
    AccountId, BudgetId, Credits, EntryId, RequestId,
    rules::{EntryKind, EntryRow, Moment},
};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    Listed, Page, Store, StoreError,
    account::{account_in, account_scope, refused},
    book::{self, EntryNotes},
    changes::{self, Change},
    check, clock, fresh,
    link::{Link, Tx},
    sql::sql,
};

/// How long a withdrawal waits for credit that replicas have leased and do not use.
const RECALL_MAX: Duration = Duration::from_secs(1);
const RECALL_POLL: Duration = Duration::from_millis(20);

/// Credits to be added, or taken away by a negative adjustment or refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCredits {
    /// How much; not zero; negative for `adjustment` and `refund` only.
    pub amount: Credits,
    /// Why; every kind but `expiry`, `closing` and `late_charge`.
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

    /// The key itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
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

#[derive(sqlx::FromRow)]
struct EntryRecord {
    id: Uuid,
    kind: String,
    amount: i64,
    grant_id: Option<Uuid>,
    expires_at: Option<i64>,
    reference: Option<String>,
    note: Option<String>,
    created_at: i64,
}

#[derive(sqlx::FromRow)]
struct DoneRecord {
    id: Uuid,
    request_hash: Option<Vec<u8>>,
}

impl Store {
    /// Adds credits to an account, or takes them away by a negative adjustment or refund, once
    /// for each idempotency key.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::Invalid`], [`StoreError::BelowZero`],
    /// [`StoreError::IdempotencyConflict`].
    pub async fn add_credits(
        &self,
        account: AccountId,
        credits: NewCredits,
        once: Option<&IdempotencyKey>,
    ) -> Result<Credited, StoreError> {
        let recall_until = clock::now() + RECALL_MAX;
        loop {
            let mut tx = self.begin().await?;
            let tried = add_credits_in(&mut tx, account, &credits, once).await;
            let leased = match &tried {
                Err(StoreError::BelowZero { .. }) => {
                    let there = account_in(&mut tx.link(), account).await?.balance;
                    // What running requests hold cannot come back, the rest can.
                    let wanted = credits.amount.checked_neg().unwrap_or(Credits::MAX);
                    there.available >= wanted
                }
                Ok(_) | Err(_) => false,
            };
            if leased && clock::now() < recall_until {
                changes::announce(
                    &mut tx.link(),
                    Change::Recall(BudgetId::Account(account)),
                    None,
                )
                .await?;
                tx.commit().await?;
                self.wake();
                tokio::time::sleep(RECALL_POLL).await;
                continue;
            }
            let credited = tried?;
            tx.commit().await?;
            self.wake();
            return Ok(credited);
        }
    }

    /// The ledger of an account, newest first: entries and charges together.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`].
    pub async fn entries(
        &self,
        account: AccountId,
        page: Page,
    ) -> Result<Listed<Entry>, StoreError> {
        let mut reader = self.read().await?;
        let mut link = reader.link();
        account_in(&mut link, account).await?;
        // Each half is cut by its own index before they are merged.
        let select = sql("SELECT * FROM (\
               SELECT * FROM (SELECT e.id, e.kind, e.amount, e.grant_id, g.expires_at, \
                   e.reference, e.note, e.created_at \
                 FROM entries e LEFT JOIN grants g ON g.account_id = e.account_id AND g.id = e.id \
                 WHERE e.account_id = ? AND e.id < ? ORDER BY e.id DESC LIMIT ?) AS made \
               UNION ALL \
               SELECT * FROM (SELECT c.id, 'charge' AS kind, -c.charged AS amount, \
                   CAST(NULL AS uuid) AS grant_id, CAST(NULL AS bigint) AS expires_at, \
                   CAST(NULL AS text) AS reference, CAST(NULL AS text) AS note, \
                   c.settled_at AS created_at \
                 FROM charges c WHERE c.account_id = ? AND c.id < ? \
                 ORDER BY c.id DESC LIMIT ?) AS taken\
             ) AS ledger ORDER BY id DESC LIMIT ?");
        let (id, below, limit) = (account.uuid(), page.below(), page.fetch_rows());
        let select = select.uuid(id).uuid(below).int(limit);
        let select = select.uuid(id).uuid(below).int(limit).int(limit);
        let rows: Vec<EntryRecord> = link.all(select).await?;
        let page = page.cut(rows, |row| row.id);
        let data = page.data.into_iter().map(|row| row.entry(account));
        Ok(Listed {
            data: data.collect::<Result<_, _>>()?,
            next: page.next,
        })
    }
}

/// Adds credits in a transaction of the caller's.
pub(crate) async fn add_credits_in(
    tx: &mut Tx<'_>,
    account: AccountId,
    credits: &NewCredits,
    once: Option<&IdempotencyKey>,
) -> Result<Credited, StoreError> {
    check_credits(credits)?;
    let mut link = tx.link();
    let mut loaded = book::load(&mut link, &account_scope(account)).await?;
    account_in(&mut link, account).await?;
    let hash = body_hash(credits);
    if let Some(once) = once
        && let Some(done) = done_before(&mut link, account, once).await?
    {
        if done.request_hash.as_deref() != Some(hash.as_slice()) {
            return Err(StoreError::IdempotencyConflict);
        }
        return Ok(Credited {
            entry: entry_in(&mut link, account, done.id).await?,
            replayed: true,
        });
    }
    let expires_at = credits.expires_at.map(|at| Moment(at.as_microsecond()));
    if expires_at.is_some_and(|at| at <= loaded.book.now()) {
        return Err(StoreError::Invalid {
            field: "expires_at",
            problem: "must be in the future",
        });
    }
    let row = EntryRow {
        id: EntryId::from_uuid(fresh::uuid()),
        account,
        kind: credits.kind,
        amount: credits.amount,
        grant: None,
        reference: credits.reference.clone(),
    };
    let id = row.id.uuid();
    if credits.amount.is_negative() {
        // Expired credit is not there to be taken.
        loaded
            .book
            .expire(account, &mut new_entry_id)
            .map_err(refused)?;
        loaded.book.debit(row).map_err(refused)?;
    } else {
        loaded.book.credit(row, expires_at).map_err(refused)?;
    }
    let notes = EntryNotes {
        note: credits.note.as_deref(),
        idempotency_key: once.map(IdempotencyKey::as_str),
        request_hash: once.map(|_| hash),
    };
    loaded.save(&mut link, &notes).await?;
    let entry = entry_in(&mut link, account, id).await?;
    changes::announce(&mut link, Change::Account(account), None).await?;
    Ok(Credited {
        entry,
        replayed: false,
    })
}

pub(crate) fn new_entry_id() -> EntryId {
    EntryId::from_uuid(fresh::uuid())
}

fn check_credits(credits: &NewCredits) -> Result<(), StoreError> {
    let invalid = |field, problem| Err(StoreError::Invalid { field, problem });
    if credits.amount.is_zero() {
        return invalid("amount", "must not be zero");
    }
    if credits.kind.is_the_programs_own() {
        return invalid(
            "kind",
            "expiry, closing and late_charge are the gateway's own",
        );
    }
    if credits.amount.is_negative() && !credits.kind.may_be_negative() {
        return invalid("amount", "is negative for kind adjustment and refund only");
    }
    if credits.amount.is_negative() && credits.expires_at.is_some() {
        return invalid("expires_at", "what is taken away does not expire");
    }
    check::text("reference", credits.reference.as_deref())?;
    check::text("note", credits.note.as_deref())
}

/// What makes two bodies the same.
fn body_hash(credits: &NewCredits) -> Vec<u8> {
    let body = serde_json::json!([
        credits.amount,
        credits.kind.as_str(),
        credits
            .expires_at
            .map(Timestamp::as_nanosecond)
            .map(|at| at.to_string()),
        credits.reference,
        credits.note,
    ]);
    Sha256::digest(body.to_string().as_bytes()).to_vec()
}

async fn done_before(
    link: &mut Link<'_>,
    account: AccountId,
    once: &IdempotencyKey,
) -> Result<Option<DoneRecord>, StoreError> {
    let select = sql("SELECT id, request_hash FROM entries \
         WHERE account_id = ? AND idempotency_key = ?");
    link.maybe(select.uuid(account.uuid()).text(once.as_str()))
        .await
}

async fn entry_in(link: &mut Link<'_>, account: AccountId, id: Uuid) -> Result<Entry, StoreError> {
    let select = sql(
        "SELECT e.id, e.kind, e.amount, e.grant_id, g.expires_at, e.reference, \
         e.note, e.created_at FROM entries e \
         LEFT JOIN grants g ON g.account_id = e.account_id AND g.id = e.id \
         WHERE e.account_id = ? AND e.id = ?",
    );
    let row: EntryRecord = link.one(select.uuid(account.uuid()).uuid(id)).await?;
    row.entry(account)
}

impl EntryRecord {
    fn entry(self, account_id: AccountId) -> Result<Entry, StoreError> {
        let request = RequestId::from_uuid(self.id).to_string();
        let charge = self.kind == "charge";
        let kind = if charge {
            "charge"
        } else {
            EntryKind::parse(&self.kind)
                .ok_or_else(|| StoreError::Corrupt(format!("an entry of kind {}", self.kind)))?
                .as_str()
        };
        Ok(Entry {
            id: if charge {
                request.clone()
            } else {
                EntryId::from_uuid(self.id).to_string()
            },
            account_id,
            kind,
            amount: Credits::from_nanos(self.amount),
            grant_id: self.grant_id.map(EntryId::from_uuid),
            expires_at: self.expires_at.map(check::timestamp).transpose()?,
            reference: if charge {
                Some(request)
            } else {
                self.reference
            },
            note: self.note,
            created_at: check::timestamp(self.created_at)?,
        })
    }
}
