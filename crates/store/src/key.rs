//! API keys: made, listed, changed, rotated and revoked; the secret is shown once and kept as a digest.

use billing::{
    AccountId, BudgetId, Credits, KeyId,
    rules::{BudgetRow, EntryKind},
};
use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::{
    Account, ApiKeySecret, IdempotencyKey, Listed, NewAccount, NewCredits, Page, Store, StoreError,
    account::{account_in, create_account_in, refused},
    book::{self, EntryNotes, Scope},
    changes::{self, Change},
    check,
    credit::add_credits_in,
    fresh,
    link::{Link, Tx},
    sql::{Sql, sql},
};

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

/// What [`Store::create_key_once`] did.
#[derive(Clone, Debug)]
pub enum CreatedOnce {
    /// The key is new.
    Made(Box<CreatedKey>),
    /// The same call made it before: the key as it is now, without its secret, which is kept
    /// nowhere, and its account.
    Before(Box<(Key, Account)>),
}

/// Which keys are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeyFilter {
    /// Of this account alone.
    pub account_id: Option<AccountId>,
    /// Revoked ones too.
    pub with_revoked: bool,
}

#[derive(sqlx::FromRow)]
struct KeyRecord {
    id: Uuid,
    account_id: Uuid,
    name: String,
    prefix: String,
    limit_credits: Option<i64>,
    spent: i64,
    models: Option<String>,
    expires_at: Option<i64>,
    revoked_at: Option<i64>,
    metadata: String,
    created_at: i64,
    updated_at: i64,
}

const SELECT_KEY: &str = "SELECT k.id, k.account_id, k.name, k.prefix, k.limit_credits, b.spent, \
     k.models, k.expires_at, k.revoked_at, k.metadata, k.created_at, k.updated_at \
     FROM keys k JOIN budgets b ON b.account_id = k.account_id AND b.id = k.id";

impl Store {
    /// Makes a key, and an account with it where none is named, in one transaction.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::Invalid`].
    pub async fn create_key(&self, key: NewKey) -> Result<CreatedKey, StoreError> {
        let mut tx = self.begin().await?;
        let created = self.create_key_in(&mut tx, key).await?;
        tx.commit().await?;
        self.wake();
        Ok(created)
    }

    /// As [`Store::create_key`], once for each idempotency key: a repeated call finds the key
    /// that the first one made, and no second credits are added.
    ///
    /// # Errors
    /// As there, and [`StoreError::IdempotencyConflict`] for another body.
    pub async fn create_key_once(
        &self,
        new: NewKey,
        once: &IdempotencyKey,
    ) -> Result<CreatedOnce, StoreError> {
        let hash = new.hash();
        if let Some(before) = self.created_before(once, &hash).await? {
            return Ok(before);
        }
        let mut tx = self.begin().await?;
        let created = self.create_key_in(&mut tx, new).await?;
        // A call that runs beside this one waits here, and then finds that it was second.
        let mark = sql("UPDATE keys SET idempotency_key = ?, request_hash = ? WHERE id = ?")
            .text(once.as_str())
            .bytes(&hash)
            .uuid(created.key.id.uuid());
        match tx.link().run(mark).await {
            Ok(_) => {}
            Err(StoreError::Database(sqlx::Error::Database(error)))
                if error.is_unique_violation() =>
            {
                drop(tx);
                return self
                    .created_before(once, &hash)
                    .await?
                    .ok_or(StoreError::TimedOut);
            }
            Err(error) => return Err(error),
        }
        tx.commit().await?;
        self.wake();
        Ok(CreatedOnce::Made(Box::new(created)))
    }

    /// The key that an earlier call with this idempotency key made.
    async fn created_before(
        &self,
        once: &IdempotencyKey,
        hash: &[u8],
    ) -> Result<Option<CreatedOnce>, StoreError> {
        let mut reader = self.read().await?;
        let mut link = reader.link();
        let find = sql("SELECT id, request_hash FROM keys WHERE idempotency_key = ?");
        let found: Option<(Uuid, Option<Vec<u8>>)> = link.maybe(find.text(once.as_str())).await?;
        let Some((id, before)) = found else {
            return Ok(None);
        };
        if before.as_deref() != Some(hash) {
            return Err(StoreError::IdempotencyConflict);
        }
        let key = key_in(&mut link, KeyId::from_uuid(id)).await?;
        let account = account_in(&mut link, key.account_id).await?;
        Ok(Some(CreatedOnce::Before(Box::new((key, account)))))
    }

    /// Keys, newest first.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn keys(&self, filter: KeyFilter, page: Page) -> Result<Listed<Key>, StoreError> {
        let mut text = format!("{SELECT_KEY} WHERE k.id < ?");
        if filter.account_id.is_some() {
            text.push_str(" AND k.account_id = ?");
        }
        if !filter.with_revoked {
            text.push_str(" AND k.revoked_at IS NULL");
        }
        text.push_str(" ORDER BY k.id DESC LIMIT ?");
        let mut select = sql(text).uuid(page.below());
        if let Some(account) = filter.account_id {
            select = select.uuid(account.uuid());
        }
        let mut reader = self.read().await?;
        let rows: Vec<KeyRecord> = reader.link().all(select.int(page.fetch_rows())).await?;
        let keys = rows
            .into_iter()
            .map(KeyRecord::key)
            .collect::<Result<Vec<_>, _>>()?;
        Ok(page.cut(keys, |key| key.id.uuid()))
    }

    /// One key, revoked or not.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`].
    pub async fn key(&self, id: KeyId) -> Result<Key, StoreError> {
        let mut reader = self.read().await?;
        key_in(&mut reader.link(), id).await
    }

    /// Changes a key; every replica knows within a second.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`], [`StoreError::Invalid`].
    pub async fn update_key(&self, id: KeyId, patch: KeyPatch) -> Result<Key, StoreError> {
        if let Some(name) = &patch.name {
            check::name(name)?;
        }
        let metadata = patch.metadata.as_ref().map(check::metadata).transpose()?;
        let mut tx = self.begin().await?;
        let mut link = tx.link();
        // A key never changes its account; everything else of it is read under the lock.
        let account = key_in(&mut link, id).await?.account_id;
        let mut loaded = book::load(&mut link, &key_scope(account, id)).await?;
        let there = key_in(&mut link, id).await?;
        let limit = patch.limit.unwrap_or(there.limit);
        if let Some(limit) = limit {
            check::not_negative("limit", limit)?;
        }
        loaded
            .book
            .set_limit(account, id, limit.unwrap_or(Credits::ZERO))
            .map_err(refused)?;
        loaded.save(&mut link, &EntryNotes::default()).await?;
        let models = patch.models.unwrap_or(there.models);
        let models = models.as_deref().map(check::models).transpose()?;
        let expires_at = patch.expires_at.unwrap_or(there.expires_at);
        let update = sql("UPDATE keys SET name = ?, limit_credits = ?, models = ?, \
             expires_at = ?, metadata = COALESCE(?, metadata), updated_at = {now} WHERE id = ?")
        .text(patch.name.as_deref().unwrap_or(&there.name))
        .opt_int(limit.map(Credits::nanos))
        .opt_text(models.as_deref())
        .opt_int(expires_at.map(Timestamp::as_microsecond))
        .opt_text(metadata.as_deref())
        .uuid(id.uuid());
        self.change_key(tx, id, update).await
    }

    /// Revokes a key for good; every replica refuses it within a second. Revoking twice is fine.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`].
    pub async fn revoke_key(&self, id: KeyId) -> Result<Key, StoreError> {
        let update = sql("UPDATE keys SET revoked_at = COALESCE(revoked_at, {now}), \
             updated_at = {now} WHERE id = ?");
        let tx = self.begin().await?;
        self.change_key(tx, id, update.uuid(id.uuid())).await
    }

    /// Gives a key a new secret; the old one is refused within a second.
    ///
    /// # Errors
    /// [`StoreError::UnknownKey`]; [`StoreError::Invalid`] for a revoked key.
    pub async fn rotate_key(&self, id: KeyId) -> Result<(Key, ApiKeySecret), StoreError> {
        let secret = ApiKeySecret::random()?;
        let mut tx = self.begin().await?;
        if key_in(&mut tx.link(), id).await?.revoked_at.is_some() {
            return Err(StoreError::Invalid {
                field: "id",
                problem: "the key was revoked; make a new one",
            });
        }
        let update = sql(
            "UPDATE keys SET digest = ?, prefix = ?, updated_at = {now} \
             WHERE id = ? AND revoked_at IS NULL",
        )
        .bytes(&self.pepper()?.digest(secret.expose()).0)
        .text(&secret.shown_prefix())
        .uuid(id.uuid());
        let key = self.change_key(tx, id, update).await?;
        Ok((key, secret))
    }

    /// Runs `update`, tells the replicas and commits.
    async fn change_key(&self, mut tx: Tx<'_>, id: KeyId, update: Sql) -> Result<Key, StoreError> {
        let mut link = tx.link();
        if link.run(update).await? == 0 {
            return Err(StoreError::UnknownKey(id));
        }
        let key = key_in(&mut link, id).await?;
        changes::announce(&mut link, Change::Key(id), None).await?;
        tx.commit().await?;
        self.wake();
        Ok(key)
    }

    /// Makes a key in a transaction of the caller's.
    pub(crate) async fn create_key_in(
        &self,
        tx: &mut Tx<'_>,
        new: NewKey,
    ) -> Result<CreatedKey, StoreError> {
        check::name(&new.name)?;
        if let Some(limit) = new.limit {
            check::not_negative("limit", limit)?;
        }
        if let Some(credits) = new.credits {
            check::positive("credits", credits)?;
        }
        let metadata = check::metadata(&new.metadata)?;
        let models = new.models.as_deref().map(check::models).transpose()?;
        let account = match new.account_id {
            Some(account) => {
                account_in(&mut tx.link(), account).await?;
                account
            }
            None => {
                let own = NewAccount {
                    name: new.name.clone(),
                    ..NewAccount::default()
                };
                create_account_in(tx, &own).await?
            }
        };
        let id = KeyId::from_uuid(fresh::uuid());
        let secret = ApiKeySecret::random()?;
        let insert = sql("INSERT INTO keys (id, account_id, name, digest, prefix, \
             limit_credits, models, expires_at, metadata, created_at, updated_at) \
             SELECT ?, ?, ?, ?, ?, ?, ?, ?, ?, {now}, {now}")
        .uuid(id.uuid())
        .uuid(account.uuid())
        .text(&new.name)
        .bytes(&self.pepper()?.digest(secret.expose()).0)
        .text(&secret.shown_prefix())
        .opt_int(new.limit.map(Credits::nanos))
        .opt_text(models.as_deref())
        .opt_int(new.expires_at.map(Timestamp::as_microsecond))
        .text(&metadata);
        let mut link = tx.link();
        link.run(insert).await?;
        open_budget(&mut link, id, account, new.limit.unwrap_or(Credits::ZERO)).await?;
        if let Some(amount) = new.credits {
            let credits = NewCredits {
                amount,
                kind: EntryKind::Purchase,
                expires_at: None,
                reference: None,
                note: None,
            };
            add_credits_in(tx, account, &credits, None).await?;
        }
        let mut link = tx.link();
        Ok(CreatedKey {
            key: key_in(&mut link, id).await?,
            secret,
            account: account_in(&mut link, account).await?,
        })
    }
}

impl NewKey {
    /// What makes two calls the same.
    fn hash(&self) -> Vec<u8> {
        let call = serde_json::json!([
            self.name,
            self.account_id.map(|id| id.to_string()),
            self.credits,
            self.limit,
            self.models,
            self.expires_at
                .map(|at| Timestamp::as_nanosecond(at).to_string()),
            self.metadata,
        ]);
        Sha256::digest(call.to_string().as_bytes()).to_vec()
    }
}

async fn open_budget(
    link: &mut Link<'_>,
    id: KeyId,
    account: AccountId,
    limit: Credits,
) -> Result<(), StoreError> {
    let mut loaded = book::load(link, &key_scope(account, id)).await?;
    loaded.book.open(BudgetRow {
        id: BudgetId::Key(account, id),
        available: limit,
        floor: Credits::ZERO,
        leased: Credits::ZERO,
        spent: Credits::ZERO,
        debt: Credits::ZERO,
    });
    loaded.save(link, &EntryNotes::default()).await
}

async fn key_in(link: &mut Link<'_>, id: KeyId) -> Result<Key, StoreError> {
    let select = sql(format!("{SELECT_KEY} WHERE k.id = ?"));
    link.maybe::<KeyRecord>(select.uuid(id.uuid()))
        .await?
        .ok_or(StoreError::UnknownKey(id))?
        .key()
}

fn key_scope(account: AccountId, id: KeyId) -> Scope {
    Scope {
        budgets: [BudgetId::Key(account, id)].into(),
        ..Scope::default()
    }
}

impl KeyRecord {
    fn key(self) -> Result<Key, StoreError> {
        let limit = self.limit_credits.map(Credits::from_nanos);
        let used = Credits::from_nanos(self.spent);
        Ok(Key {
            id: KeyId::from_uuid(self.id),
            account_id: AccountId::from_uuid(self.account_id),
            name: self.name,
            prefix: self.prefix,
            limit,
            used,
            remaining: limit.map(|limit| limit.saturating_sub(used).at_least_zero()),
            models: self
                .models
                .as_deref()
                .map(check::stored_models)
                .transpose()?,
            expires_at: self.expires_at.map(check::timestamp).transpose()?,
            revoked_at: self.revoked_at.map(check::timestamp).transpose()?,
            metadata: check::stored_metadata(&self.metadata)?,
            created_at: check::timestamp(self.created_at)?,
            updated_at: check::timestamp(self.updated_at)?,
        })
    }
}
