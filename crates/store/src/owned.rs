//! What customers have made at providers: which key owns it, and what of it is paid for.

use billing::{AccountId, KeyId, RequestId};
use jiff::Timestamp;
use uuid::Uuid;

use crate::{
    PAGE_ROWS_MAX, StandingHold, Store, StoreError, check, fresh,
    sql::{Rows, sql},
};

/// What a provider says of an object is kept up to this many bytes.
pub const ABOUT_BYTES_MAX: usize = 64 * 1024;

/// Requests that are looked for at a time.
const BOOKED_ROWS: usize = 2_000;

/// A key of an account: what it makes is its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: AccountId,
    /// The key.
    pub key: KeyId,
}

/// What an object is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// A file.
    File,
    /// Requests that are worked off together.
    Batch,
    /// Anything else.
    Other,
}

/// An object that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NewObject<'a> {
    /// By whom.
    pub owner: Owner,
    /// Where.
    pub provider: &'a str,
    /// What the provider calls it.
    pub id: &'a str,
    /// What it is.
    pub kind: ObjectKind,
    /// What the provider says of it, as JSON; left out where it is longer than [`ABOUT_BYTES_MAX`].
    pub about: Option<&'a str>,
    /// The batch whose results it is.
    pub made_by: Option<&'a str>,
    /// Of a batch: the model that its requests are to, and the hold that they are paid from.
    pub batch: Option<(&'a str, &'a StandingHold)>,
}

/// An object that somebody owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnedObject {
    /// Who.
    pub owner: Owner,
    /// Where it is.
    pub provider: String,
    /// What the provider calls it.
    pub id: String,
    /// What it is.
    pub kind: ObjectKind,
    /// What the provider said of it last, as JSON.
    pub about: Option<String>,
    /// The batch whose results it is.
    pub made_by: Option<String>,
    /// Whether these results are paid for.
    pub paid: bool,
    /// Of a batch: the model that its requests are to.
    pub model: Option<String>,
    /// When it was made.
    pub created_at: Timestamp,
    row: Uuid,
}

/// Which part of a list of objects is asked for.
#[derive(Clone, Copy, Debug)]
pub struct ObjectPage<'a> {
    /// Rows, at least 1 and at most [`PAGE_ROWS_MAX`] (pinned).
    pub limit: u16,
    /// The object that the page before ended with.
    pub after: Option<&'a OwnedObject>,
    /// The oldest first, in place of the newest.
    pub oldest_first: bool,
}

#[derive(sqlx::FromRow)]
struct ObjectRow {
    account_id: Uuid,
    key_id: Uuid,
    id: Uuid,
    provider: String,
    object_id: String,
    kind: String,
    about: Option<String>,
    made_by: Option<String>,
    paid_at: Option<i64>,
    model: Option<String>,
    created_at: i64,
}

const SELECT: &str = "SELECT account_id, key_id, id, provider, object_id, kind, about, made_by, \
     paid_at, model, created_at FROM owned_objects";

impl Store {
    /// Writes down whose an object is. False where it is somebody else's already: an object stays
    /// with its first owner.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn own(&self, new: &NewObject<'_>) -> Result<bool, StoreError> {
        let about = new.about.filter(|about| about.len() <= ABOUT_BYTES_MAX);
        let insert = sql(
            "INSERT INTO owned_objects (account_id, key_id, id, provider, object_id, kind, about, \
               made_by, model, created_at) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, {now}) \
             ON CONFLICT (object_id, provider) DO NOTHING",
        )
        .uuid(new.owner.account.uuid())
        .uuid(new.owner.key.uuid())
        .uuid(new.batch.map_or_else(fresh::uuid, |(_, hold)| hold.id()))
        .text(new.provider)
        .text(new.id)
        .text(new.kind.as_str())
        .opt_text(about)
        .opt_text(new.made_by)
        .opt_text(new.batch.map(|(model, _)| model));
        let mut tx = self.begin().await?;
        if tx.link().run(insert).await? == 1 {
            tx.commit().await?;
            return Ok(true);
        }
        tx.commit().await?;
        let there = self.objects(&[new.id]).await?;
        Ok(there
            .iter()
            .any(|object| object.provider == new.provider && object.owner == new.owner))
    }

    /// Those of these names that somebody owns, whoever it is.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`], [`StoreError::Corrupt`].
    pub async fn objects(&self, ids: &[&str]) -> Result<Vec<OwnedObject>, StoreError> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let select = sql(format!(
            "{SELECT} WHERE object_id IN (SELECT object_id FROM {{rows}}) ORDER BY object_id, provider"
        ))
        .rows(Rows::new().text("object_id", ids.iter().copied()));
        let mut reader = self.read().await?;
        let rows: Vec<ObjectRow> = reader.link().all(select).await?;
        rows.into_iter().map(ObjectRow::read).collect()
    }

    /// A page of the objects of one kind that a key owns, and whether there are more.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`], [`StoreError::Corrupt`].
    pub async fn objects_of(
        &self,
        owner: Owner,
        kind: ObjectKind,
        page: ObjectPage<'_>,
    ) -> Result<(Vec<OwnedObject>, bool), StoreError> {
        let limit = usize::from(page.limit.clamp(1, PAGE_ROWS_MAX));
        let (side, order, end) = if page.oldest_first {
            (">", "ASC", Uuid::nil())
        } else {
            ("<", "DESC", Uuid::max())
        };
        let select = sql(format!(
            "{SELECT} WHERE account_id = ? AND key_id = ? AND id {side} ? AND kind = ? \
             ORDER BY id {order} LIMIT ?"
        ))
        .uuid(owner.account.uuid())
        .uuid(owner.key.uuid())
        .uuid(page.after.map_or(end, |object| object.row))
        .text(kind.as_str())
        .int(i64::try_from(limit).unwrap_or(i64::MAX).saturating_add(1));
        let mut reader = self.read().await?;
        let rows: Vec<ObjectRow> = reader.link().all(select).await?;
        let more = rows.len() > limit;
        let objects = rows.into_iter().take(limit).map(ObjectRow::read);
        Ok((objects.collect::<Result<_, _>>()?, more))
    }

    /// Keeps what a provider says of an object now; nothing where it is longer than
    /// [`ABOUT_BYTES_MAX`].
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn describe(&self, object: &OwnedObject, about: &str) -> Result<(), StoreError> {
        if about.len() > ABOUT_BYTES_MAX {
            return Ok(());
        }
        let update = sql(
            "UPDATE owned_objects SET about = ? WHERE account_id = ? AND key_id = ? AND id = ?",
        )
        .text(about);
        self.change(update, object).await
    }

    /// Every request of these results is charged.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn results_paid(&self, object: &OwnedObject) -> Result<(), StoreError> {
        let update = sql(
            "UPDATE owned_objects SET paid_at = COALESCE(paid_at, {now}) \
             WHERE account_id = ? AND key_id = ? AND id = ?",
        );
        self.change(update, object).await
    }

    /// Results begin to be charged: when they did so first, which later attempts keep.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`], [`StoreError::Corrupt`].
    pub async fn results_paying(&self, object: &OwnedObject) -> Result<Timestamp, StoreError> {
        let update = sql(
            "UPDATE owned_objects SET paying_at = COALESCE(paying_at, {now}) \
             WHERE account_id = ? AND key_id = ? AND id = ?",
        );
        self.change(update, object).await?;
        let select = sql("SELECT COALESCE(paying_at, 0) FROM owned_objects \
             WHERE account_id = ? AND key_id = ? AND id = ?")
        .uuid(object.owner.account.uuid())
        .uuid(object.owner.key.uuid())
        .uuid(object.row);
        let mut reader = self.read().await?;
        let (at,): (i64,) = reader.link().one(select).await?;
        check::timestamp(at)
    }

    /// Whether any results of a batch are not paid for.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn has_unpaid_results(&self, batch: &OwnedObject) -> Result<bool, StoreError> {
        let select = sql("SELECT COUNT(*) FROM owned_objects \
             WHERE account_id = ? AND key_id = ? AND provider = ? AND made_by = ? \
               AND paid_at IS NULL")
        .uuid(batch.owner.account.uuid())
        .uuid(batch.owner.key.uuid())
        .text(&batch.provider)
        .text(&batch.id);
        let mut reader = self.read().await?;
        let (unpaid,): (i64,) = reader.link().one(select).await?;
        Ok(unpaid > 0)
    }

    /// The object in this row.
    pub(crate) async fn object_of(
        &self,
        owner: Owner,
        row: Uuid,
    ) -> Result<Option<OwnedObject>, StoreError> {
        let select = sql(format!(
            "{SELECT} WHERE account_id = ? AND key_id = ? AND id = ?"
        ))
        .uuid(owner.account.uuid())
        .uuid(owner.key.uuid())
        .uuid(row);
        let mut reader = self.read().await?;
        let row: Option<ObjectRow> = reader.link().maybe(select).await?;
        row.map(ObjectRow::read).transpose()
    }

    /// Those of these requests of an account that are booked.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn booked(
        &self,
        account: AccountId,
        requests: &[RequestId],
    ) -> Result<Vec<RequestId>, StoreError> {
        let mut booked = Vec::new();
        let mut reader = self.read().await?;
        for some in requests.chunks(BOOKED_ROWS) {
            let select = sql("SELECT c.id FROM charges c \
                 WHERE c.account_id = ? AND c.id IN (SELECT id FROM {rows})")
            .uuid(account.uuid())
            .rows(Rows::ids(some.iter().map(|id| id.uuid())));
            let rows: Vec<(Uuid,)> = reader.link().all(select).await?;
            booked.extend(rows.into_iter().map(|(id,)| RequestId::from_uuid(id)));
        }
        Ok(booked)
    }

    /// The object is gone.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::TimedOut`].
    pub async fn disown(&self, object: &OwnedObject) -> Result<(), StoreError> {
        let delete =
            sql("DELETE FROM owned_objects WHERE account_id = ? AND key_id = ? AND id = ?");
        self.change(delete, object).await
    }

    async fn change(
        &self,
        statement: crate::sql::Sql,
        object: &OwnedObject,
    ) -> Result<(), StoreError> {
        let statement = statement
            .uuid(object.owner.account.uuid())
            .uuid(object.owner.key.uuid())
            .uuid(object.row);
        let mut tx = self.begin().await?;
        tx.link().run(statement).await?;
        tx.commit().await
    }
}

impl OwnedObject {
    /// The id of its row, and of the hold for it.
    pub(crate) const fn row(&self) -> Uuid {
        self.row
    }
}

impl ObjectKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::File, Self::Batch, Self::Other];

    /// Its name in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Batch => "batch",
            Self::Other => "other",
        }
    }
}

impl ObjectRow {
    fn read(self) -> Result<OwnedObject, StoreError> {
        let kind = ObjectKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind)
            .ok_or_else(|| StoreError::Corrupt(format!("an object of kind {}", self.kind)))?;
        Ok(OwnedObject {
            owner: Owner {
                account: AccountId::from_uuid(self.account_id),
                key: KeyId::from_uuid(self.key_id),
            },
            provider: self.provider,
            id: self.object_id,
            kind,
            about: self.about,
            made_by: self.made_by,
            paid: self.paid_at.is_some(),
            model: self.model,
            created_at: check::timestamp(self.created_at)?,
            row: self.id,
        })
    }
}
