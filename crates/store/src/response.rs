//! Responses that clients come back to: kept here or at their provider, and bound to the key that made them.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use billing::{AccountId, KeyId};

use crate::{
    Store, StoreError, check,
    link::Link,
    sql::{Rows, sql},
};

/// A row without a body is reckoned as so many bytes.
const ROW_BYTES: usize = 256;
/// And an item of it as so many, beside its id.
const ITEM_BYTES: usize = 64;
/// Rows that are deleted in one transaction.
const PRUNE_ROWS_MAX: i64 = 500;
/// Transactions of one pruning.
const PRUNE_ROUNDS_MAX: usize = 20;

/// A response that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptResponse {
    /// Its id, as clients name it.
    pub id: String,
    /// What answered, as `provider/model`.
    pub model: String,
    /// What a request that goes on with it begins with, in tokens.
    pub tokens: u64,
    /// How much of that was thought.
    pub thought: u64,
    /// What is kept here; `None` where the provider keeps it.
    pub body: Option<ResponseBody>,
    /// The ids of what it said, where it is written down.
    pub items: Vec<String>,
}

/// A response that is kept here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseBody {
    /// The items that were sent, as a list in JSON; those of earlier responses come first.
    pub input: Vec<u8>,
    /// The response, as JSON.
    pub response: Vec<u8>,
}

#[derive(sqlx::FromRow)]
struct ResponseRow {
    id: String,
    model: String,
    tokens: i64,
    thought: i64,
    input: Option<Vec<u8>>,
    response: Option<Vec<u8>>,
}

impl Store {
    /// Keeps a response for a key. One of the same id gives way.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn keep_response(
        &self,
        account: AccountId,
        key: KeyId,
        response: &KeptResponse,
        kept_for: Duration,
    ) -> Result<(), StoreError> {
        let body = response.body.as_ref();
        let delete = sql("DELETE FROM kept_responses WHERE account_id = ? AND id = ?")
            .uuid(account.uuid())
            .text(&response.id);
        let values = if body.is_some() { "?, ?" } else { "NULL, NULL" };
        let insert = sql(format!(
            "INSERT INTO kept_responses (account_id, id, key_id, model, tokens, thought, bytes, \
             created_at, expires_at, input, response) \
             VALUES (?, ?, ?, ?, ?, ?, ?, {{now}}, {{now}} + ?, {values})"
        ))
        .uuid(account.uuid())
        .text(&response.id)
        .uuid(key.uuid())
        .text(&response.model)
        .int(check::pinned(response.tokens))
        .int(check::pinned(response.thought))
        .int(check::pinned(response.bytes()))
        .int(micros(kept_for));
        let insert = match body {
            Some(body) => insert.bytes(&body.input).bytes(&body.response),
            None => insert,
        };
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        link.run(delete).await?;
        link.run(insert).await?;
        if !response.items.is_empty() {
            let items = sql(
                "INSERT INTO kept_items (account_id, key_id, id, response_id) \
                 SELECT ?, ?, s.id, ? FROM {rows} WHERE true \
                 ON CONFLICT (account_id, key_id, id) \
                 DO UPDATE SET response_id = excluded.response_id",
            )
            .uuid(account.uuid())
            .uuid(key.uuid())
            .text(&response.id);
            let ids: BTreeSet<&str> = response.items.iter().map(String::as_str).collect();
            link.run(items.rows(Rows::new().text("id", ids))).await?;
        }
        tx.commit().await
    }

    /// The responses of this key that said these items and have not expired, each with those of the
    /// items that it said.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn responses_that_said(
        &self,
        account: AccountId,
        key: KeyId,
        items: &[&str],
    ) -> Result<Vec<KeptResponse>, StoreError> {
        let select = sql("SELECT i.id, i.response_id FROM kept_items i \
             WHERE i.account_id = ? AND i.key_id = ? AND i.id IN (SELECT id FROM {rows}) \
             ORDER BY i.id")
        .uuid(account.uuid())
        .uuid(key.uuid())
        .rows(Rows::new().text("id", items.iter().copied()));
        let found: Vec<(String, String)> = {
            let mut reader = self.read().await?;
            reader.link().all(select).await?
        };
        let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (item, response) in found {
            said.entry(response).or_default().push(item);
        }
        let mut responses = Vec::with_capacity(said.len());
        for (id, items) in said {
            if let Some(response) = self.response(account, key, &id).await? {
                responses.push(KeptResponse { items, ..response });
            }
        }
        Ok(responses)
    }

    /// A response that this key made and that has not expired.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn response(
        &self,
        account: AccountId,
        key: KeyId,
        id: &str,
    ) -> Result<Option<KeptResponse>, StoreError> {
        let select = sql(
            "SELECT id, model, tokens, thought, input, response FROM kept_responses \
             WHERE account_id = ? AND id = ? AND key_id = ? AND expires_at > {now}",
        )
        .uuid(account.uuid())
        .text(id)
        .uuid(key.uuid());
        let mut reader = self.read().await?;
        let row: Option<ResponseRow> = reader.link().maybe(select).await?;
        Ok(row.map(ResponseRow::read))
    }

    /// Deletes a response of this key; `false` where it has none of that id.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn forget_response(
        &self,
        account: AccountId,
        key: KeyId,
        id: &str,
    ) -> Result<bool, StoreError> {
        let delete =
            sql("DELETE FROM kept_responses WHERE account_id = ? AND id = ? AND key_id = ?")
                .uuid(account.uuid())
                .text(id)
                .uuid(key.uuid());
        let mut tx = self.begin().await?;
        let deleted = tx.link().run(delete).await?;
        tx.commit().await?;
        Ok(deleted > 0)
    }

    /// Drops the oldest responses of accounts that have more than `bytes_max` bytes of them. Sums over
    /// all that is kept: for now and then.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn bound_responses(&self, bytes_max: u64) -> Result<(), StoreError> {
        let drop = sql("DELETE FROM kept_responses WHERE (account_id, id) IN \
             (SELECT account_id, id FROM (SELECT account_id, id, SUM(bytes) OVER \
                (PARTITION BY account_id ORDER BY created_at DESC, id) AS newer \
              FROM kept_responses WHERE account_id IN \
                (SELECT account_id FROM kept_responses GROUP BY account_id \
                 HAVING SUM(bytes) > ?)) AS kept \
             WHERE kept.newer > ?)");
        let most = i64::try_from(bytes_max).unwrap_or(i64::MAX);
        let mut tx = self.begin().await?;
        tx.link().run(drop.int(most).int(most)).await?;
        tx.commit().await
    }
}

impl KeptResponse {
    /// What it is reckoned as where those of an account are bounded, in bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let body = self.body.as_ref();
        let body = body.map_or(0, |body| body.input.len() + body.response.len());
        let items: usize = self.items.iter().map(|id| id.len() + ITEM_BYTES).sum();
        u64::try_from(body + items + ROW_BYTES).unwrap_or(u64::MAX)
    }
}

impl ResponseRow {
    fn read(self) -> KeptResponse {
        let body = self.input.zip(self.response);
        KeptResponse {
            id: self.id,
            model: self.model,
            tokens: check::count(self.tokens),
            thought: check::count(self.thought),
            body: body.map(|(input, response)| ResponseBody { input, response }),
            items: Vec::new(),
        }
    }
}

/// Deletes responses whose time is over, a bounded number at a time.
pub(crate) async fn prune(store: &Store) -> Result<(), StoreError> {
    for _ in 0..PRUNE_ROUNDS_MAX {
        let mut tx = store.begin().await?;
        let deleted = prune_some(&mut tx.link()).await?;
        tx.commit().await?;
        if deleted < PRUNE_ROWS_MAX.unsigned_abs() {
            break;
        }
    }
    Ok(())
}

async fn prune_some(link: &mut Link<'_>) -> Result<u64, StoreError> {
    let delete = sql("DELETE FROM kept_responses WHERE (account_id, id) IN \
         (SELECT account_id, id FROM kept_responses \
          WHERE expires_at <= {now} ORDER BY expires_at LIMIT ?)");
    link.run(delete.int(PRUNE_ROWS_MAX)).await
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}
