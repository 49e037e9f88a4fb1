//! Requests that a client may repeat: one row claims an Idempotency-Key for all replicas and keeps the answer.

use std::time::Duration;

use billing::{AccountId, KeyId, ReplicaId, RequestId};
use uuid::Uuid;

use crate::{
    IdempotencyKey, Store, StoreError, book,
    link::{Link, Tx},
    sql::{Rows, Sql, sql},
};

/// Looks at a row that others change between two of our statements.
const LOOKS_MAX: usize = 8;
/// Expired rows that are deleted in one transaction.
const PRUNE_ROWS_MAX: i64 = 500;
/// Transactions of one pruning.
const PRUNE_ROUNDS_MAX: usize = 20;
/// A request that was superseded is remembered so long: nothing settles later than that.
const SUPERSEDED_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// What makes two requests the same: a keyed digest of method, path, API key and body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestHash([u8; 32]);

/// How many keys an account may have, for how long, and how much of their answers is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepLimits {
    /// From the first request with a key until it may be used anew.
    pub kept_for: Duration,
    /// Keys of one account that have not expired; about so many, where they race.
    pub keys_max: u32,
    /// Bytes of answers kept for one account; the oldest are dropped first, their keys stay.
    pub account_bytes_max: u64,
}

/// A request that wants to be the only one with its key.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Whose key it is; keys of other accounts are other keys.
    pub account: AccountId,
    /// The client's key.
    pub key: IdempotencyKey,
    /// What it asks for.
    pub hash: RequestHash,
    /// The request itself.
    pub request: RequestId,
    /// The replica that it runs on.
    pub replica: ReplicaId,
}

/// What became of a claim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The request is the only one: run it.
    Granted,
    /// Another one runs.
    Running {
        /// Which one.
        request: RequestId,
        /// Where.
        replica: ReplicaId,
    },
    /// Another one was answered.
    Answered {
        /// Which one.
        request: RequestId,
        /// What its client got.
        answer: KeptAnswer,
    },
    /// Another one was charged, and its answer is not kept.
    NotKept {
        /// Which one.
        request: RequestId,
    },
    /// The key came before with another body, on another path or by another API key.
    OtherRequest,
    /// The account has too many keys.
    TooMany,
}

/// An answer as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptAnswer {
    /// Whether it is a stream of events.
    pub stream: bool,
    /// The lowered output limit that its header named.
    pub max_tokens: Option<u64>,
    /// Its bytes.
    pub body: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct ClaimRecord {
    request_hash: Vec<u8>,
    request_id: Uuid,
    replica_id: Uuid,
    state: String,
    stream: bool,
    max_tokens: Option<i64>,
    body: Option<Vec<u8>>,
    expired: i32,
    replica_alive: i32,
}

/// What a look at a claimed key says.
enum Seen {
    /// Nobody has it, or its time is over.
    Free(Option<RequestId>),
    /// Its replica has ended.
    Orphaned(RequestId),
    Taken(Claimed),
}

impl Store {
    /// The digest of a request. Without this installation's pepper nobody can guess a prompt by it.
    ///
    /// # Errors
    /// [`StoreError::Empty`] on a store that was opened for reading.
    pub fn request_hash(
        &self,
        method: &str,
        path: &str,
        key: KeyId,
        body: &[u8],
    ) -> Result<RequestHash, StoreError> {
        let key = key.uuid();
        let parts: [&[u8]; 4] = [method.as_bytes(), path.as_bytes(), key.as_bytes(), body];
        Ok(RequestHash(self.pepper()?.digest_of(&parts).0))
    }

    /// Claims a key for a request, or says who has it. Only one request of all replicas gets it
    /// until it is released or its time is over. A request whose replica has ended loses it: to
    /// the next one where it was not charged, to nobody where it was.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`]: the claim may have been made; release it.
    pub async fn claim(&self, claim: &Claim, limits: &KeepLimits) -> Result<Claimed, StoreError> {
        for _ in 0..LOOKS_MAX {
            let seen = {
                let mut reader = self.read().await?;
                look(&mut reader.link(), claim).await?
            };
            let made = match seen {
                Seen::Taken(claimed) => return Ok(claimed),
                Seen::Free(None) => self.insert_claim(claim, limits).await?,
                Seen::Free(Some(before)) => self.renew_claim(claim, limits, before).await?,
                Seen::Orphaned(before) => self.take_over(claim, limits, before).await?,
            };
            if let Some(claimed) = made {
                return Ok(claimed);
            }
        }
        Err(StoreError::TimedOut)
    }

    /// Gives a key back: its request did nothing that anybody pays for. Doing so again is fine.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn release_claim(&self, claim: &Claim) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let delete = sql("DELETE FROM idempotent_requests \
             WHERE account_id = ? AND idempotency_key = ? AND request_id = ?");
        tx.link().run(claim.name(delete)).await?;
        tx.commit().await
    }

    /// Keeps the answer of a request, or the fact alone that there was one. Only the request
    /// that has the key can; doing so again is fine.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn keep_answer(
        &self,
        claim: &Claim,
        answer: Option<&KeptAnswer>,
        limits: &KeepLimits,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        let update = match answer {
            Some(answer) => sql(
                "UPDATE idempotent_requests SET state = 'answered', stream = ?, \
                 max_tokens = ?, body = ?, body_bytes = ? \
                 WHERE account_id = ? AND idempotency_key = ? AND request_id = ?",
            )
            .bool(answer.stream)
            .opt_int(answer.max_tokens.map(crate::check::pinned))
            .bytes(&answer.body)
            .int(i64::try_from(answer.body.len()).unwrap_or(i64::MAX)),
            None => sql(
                "UPDATE idempotent_requests SET state = 'not_kept', body = NULL, \
                 body_bytes = 0 \
                 WHERE account_id = ? AND idempotency_key = ? AND request_id = ?",
            ),
        };
        let changed = link.run(claim.name(update)).await?;
        if changed > 0 && answer.is_some() {
            drop_oldest_answers(&mut link, claim.account, limits.account_bytes_max).await?;
        }
        tx.commit().await
    }

    async fn insert_claim(
        &self,
        claim: &Claim,
        limits: &KeepLimits,
    ) -> Result<Option<Claimed>, StoreError> {
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        let count = sql("SELECT COUNT(*) FROM idempotent_requests \
             WHERE account_id = ? AND expires_at > {now}");
        let (keys,) = link.one::<(i64,)>(count.uuid(claim.account.uuid())).await?;
        if keys >= i64::from(limits.keys_max) {
            return Ok(Some(Claimed::TooMany));
        }
        let insert = sql(
            "INSERT INTO idempotent_requests (account_id, idempotency_key, \
             request_hash, request_id, replica_id, state, stream, body_bytes, created_at, \
             expires_at) SELECT ?, ?, ?, ?, ?, 'running', ?, 0, {now}, {now} + ? WHERE true \
             ON CONFLICT (account_id, idempotency_key) DO NOTHING",
        )
        .uuid(claim.account.uuid())
        .text(claim.key.as_str())
        .bytes(&claim.hash.0)
        .uuid(claim.request.uuid())
        .uuid(claim.replica.uuid())
        .bool(false)
        .int(micros(limits.kept_for));
        granted_if(tx.link().run(insert).await? == 1, tx).await
    }

    /// Takes a key whose time is over.
    async fn renew_claim(
        &self,
        claim: &Claim,
        limits: &KeepLimits,
        before: RequestId,
    ) -> Result<Option<Claimed>, StoreError> {
        let mut tx = self.begin().await?;
        let renew = replace(claim, limits, before, "expires_at <= {now}");
        granted_if(tx.link().run(renew).await? == 1, tx).await
    }

    /// Takes the key of a request whose replica has ended, unless that request was charged. The
    /// account is locked, as it is by whoever books a settlement: either the charge is seen here,
    /// or it finds that it is superseded.
    async fn take_over(
        &self,
        claim: &Claim,
        limits: &KeepLimits,
        before: RequestId,
    ) -> Result<Option<Claimed>, StoreError> {
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        let account = claim.account.uuid();
        book::lock(&mut link, [claim.account]).await?;
        let charged = sql("SELECT 1 FROM charges WHERE account_id = ? AND id = ? \
             AND charged > 0 UNION ALL SELECT 1 FROM dead_settlements \
             WHERE account_id = ? AND request_id = ?")
        .uuid(account)
        .uuid(before.uuid())
        .uuid(account)
        .uuid(before.uuid());
        if link.maybe::<(i32,)>(charged).await?.is_some() {
            let mark = sql("UPDATE idempotent_requests SET state = 'not_kept' \
                 WHERE account_id = ? AND idempotency_key = ? AND request_id = ? \
                 AND state = 'running'")
            .uuid(account)
            .text(claim.key.as_str())
            .uuid(before.uuid());
            link.run(mark).await?;
            tx.commit().await?;
            return Ok(None);
        }
        let supersede = sql(
            "INSERT INTO superseded_requests (account_id, id, created_at) \
             SELECT ?, ?, {now} WHERE true ON CONFLICT (account_id, id) DO NOTHING",
        )
        .uuid(account)
        .uuid(before.uuid());
        link.run(supersede).await?;
        let replace = replace(claim, limits, before, "state = 'running'");
        granted_if(tx.link().run(replace).await? == 1, tx).await
    }
}

impl Claim {
    /// Binds what names the claim's own row.
    fn name(&self, sql: Sql) -> Sql {
        sql.uuid(self.account.uuid())
            .text(self.key.as_str())
            .uuid(self.request.uuid())
    }
}

/// Commits a claim that was made; one that was not is undone.
async fn granted_if(made: bool, tx: Tx<'_>) -> Result<Option<Claimed>, StoreError> {
    if made {
        tx.commit().await?;
    }
    Ok(made.then_some(Claimed::Granted))
}

/// Makes the row of `before` that of a new claim, under a condition.
fn replace(claim: &Claim, limits: &KeepLimits, before: RequestId, condition: &str) -> Sql {
    let text = format!(
        "UPDATE idempotent_requests SET request_hash = ?, request_id = ?, replica_id = ?, \
         state = 'running', max_tokens = NULL, body = NULL, body_bytes = 0, \
         created_at = {{now}}, expires_at = {{now}} + ? \
         WHERE account_id = ? AND idempotency_key = ? AND request_id = ? AND {condition}"
    );
    sql(text)
        .bytes(&claim.hash.0)
        .uuid(claim.request.uuid())
        .uuid(claim.replica.uuid())
        .int(micros(limits.kept_for))
        .uuid(claim.account.uuid())
        .text(claim.key.as_str())
        .uuid(before.uuid())
}

async fn look(link: &mut Link<'_>, claim: &Claim) -> Result<Seen, StoreError> {
    let select = sql(
        "SELECT i.request_hash, i.request_id, i.replica_id, i.state, i.stream, i.max_tokens, \
         i.body, CASE WHEN i.expires_at <= {now} THEN 1 ELSE 0 END AS expired, \
         CASE WHEN EXISTS (SELECT 1 FROM replicas r WHERE r.id = i.replica_id \
           AND r.state = 'alive') THEN 1 ELSE 0 END AS replica_alive \
         FROM idempotent_requests i WHERE i.account_id = ? AND i.idempotency_key = ?",
    )
    .uuid(claim.account.uuid())
    .text(claim.key.as_str());
    let Some(row) = link.maybe::<ClaimRecord>(select).await? else {
        return Ok(Seen::Free(None));
    };
    row.seen(claim)
}

impl ClaimRecord {
    fn seen(self, claim: &Claim) -> Result<Seen, StoreError> {
        let request = RequestId::from_uuid(self.request_id);
        if self.expired != 0 {
            return Ok(Seen::Free(Some(request)));
        }
        if request == claim.request {
            // Our own claim, whose commit was in doubt.
            return Ok(Seen::Taken(Claimed::Granted));
        }
        if self.request_hash != claim.hash.0 {
            return Ok(Seen::Taken(Claimed::OtherRequest));
        }
        Ok(match (self.state.as_str(), self.body) {
            ("running", _) if self.replica_alive == 0 => Seen::Orphaned(request),
            ("running", _) => Seen::Taken(Claimed::Running {
                request,
                replica: ReplicaId::from_uuid(self.replica_id),
            }),
            ("not_kept", _) => Seen::Taken(Claimed::NotKept { request }),
            ("answered", Some(body)) => Seen::Taken(Claimed::Answered {
                request,
                answer: KeptAnswer {
                    stream: self.stream,
                    max_tokens: self.max_tokens.map(crate::check::count),
                    body,
                },
            }),
            (state, _) => {
                return Err(StoreError::Corrupt(format!(
                    "an idempotent request in the state {state}"
                )));
            }
        })
    }
}

/// Drops the oldest answers of an account above `bytes_max`. Their keys stay, so that none of
/// them is served or charged anew.
async fn drop_oldest_answers(
    link: &mut Link<'_>,
    account: AccountId,
    bytes_max: u64,
) -> Result<(), StoreError> {
    let drop = sql(
        "UPDATE idempotent_requests SET state = 'not_kept', body = NULL, body_bytes = 0 \
         WHERE account_id = ? AND idempotency_key IN (SELECT idempotency_key FROM \
           (SELECT idempotency_key, SUM(body_bytes) OVER \
              (ORDER BY created_at DESC, idempotency_key) AS bytes \
            FROM idempotent_requests WHERE account_id = ? AND body_bytes > 0) AS kept \
           WHERE kept.bytes > ?)",
    )
    .uuid(account.uuid())
    .uuid(account.uuid())
    .int(i64::try_from(bytes_max).unwrap_or(i64::MAX));
    link.run(drop).await?;
    Ok(())
}

/// Those of these requests whose idempotency key somebody else has claimed since.
pub(crate) async fn superseded(
    link: &mut Link<'_>,
    requests: impl IntoIterator<Item = (AccountId, RequestId)>,
) -> Result<Vec<RequestId>, StoreError> {
    let requests: Vec<_> = requests.into_iter().collect();
    if requests.is_empty() {
        return Ok(Vec::new());
    }
    let rows = Rows::new()
        .uuid("account_id", requests.iter().map(|r| r.0.uuid()))
        .uuid("id", requests.iter().map(|r| r.1.uuid()));
    let select = sql("SELECT p.id FROM {rows} JOIN superseded_requests p \
         ON p.account_id = s.account_id AND p.id = s.id");
    let found: Vec<(Uuid,)> = link.all(select.rows(rows)).await?;
    Ok(found
        .into_iter()
        .map(|(id,)| RequestId::from_uuid(id))
        .collect())
}

/// Deletes keys whose time is over, a bounded number at a time.
pub(crate) async fn prune(store: &Store) -> Result<(), StoreError> {
    for _ in 0..PRUNE_ROUNDS_MAX {
        let delete = sql(
            "DELETE FROM idempotent_requests WHERE (account_id, idempotency_key) IN \
             (SELECT account_id, idempotency_key FROM idempotent_requests \
              WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?)",
        );
        let mut tx = store.begin().await?;
        let deleted = tx.link().run(delete.int(PRUNE_ROWS_MAX)).await?;
        tx.commit().await?;
        if deleted < PRUNE_ROWS_MAX.unsigned_abs() {
            break;
        }
    }
    let forget = sql("DELETE FROM superseded_requests WHERE created_at < {now} - ?");
    let mut tx = store.begin().await?;
    tx.link().run(forget.int(micros(SUPERSEDED_KEPT))).await?;
    tx.commit().await
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
