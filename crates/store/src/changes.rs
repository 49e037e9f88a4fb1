//! What other replicas must hear of: written with the change itself, read by every replica's watcher.

use billing::{AccountId, BudgetId, KeyId, ReplicaId};
use uuid::Uuid;

use crate::{
    StoreError,
    link::Link,
    postgres::CHANNEL,
    sql::{Flavor, sql},
};

/// Something that replicas keep in memory is no longer true.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// A key was changed, rotated or revoked.
    Key(KeyId),
    /// An account was changed or got credits.
    Account(AccountId),
    /// A replica needs what others have leased of this budget and do not use.
    Recall(BudgetId),
}

/// A change as it was read.
#[derive(Clone, Debug, sqlx::FromRow)]
pub(crate) struct ChangeRecord {
    pub(crate) seq: i64,
    pub(crate) kind: String,
    pub(crate) id: Uuid,
    pub(crate) source: Option<Uuid>,
}

/// Announces `change`, as the last thing before the commit: readers look back only so far.
pub(crate) async fn announce(
    link: &mut Link<'_>,
    change: Change,
    source: Option<ReplicaId>,
) -> Result<(), StoreError> {
    let (kind, id) = match change {
        Change::Key(id) => ("key", id.uuid()),
        Change::Account(id) => ("account", id.uuid()),
        Change::Recall(BudgetId::Account(id)) => ("recall_account", id.uuid()),
        Change::Recall(BudgetId::Key(id)) => ("recall_key", id.uuid()),
    };
    let insert = sql("INSERT INTO changes (kind, id, source, at) SELECT ?, ?, ?, {now}");
    let insert = insert
        .text(kind)
        .uuid(id)
        .opt_uuid(source.map(ReplicaId::uuid));
    link.run(insert).await?;
    match link.flavor() {
        Flavor::Sqlite => {}
        Flavor::Postgres => {
            let notify = sql("SELECT pg_notify(?, '')").text(CHANNEL);
            link.run(notify).await?;
        }
    }
    Ok(())
}

impl ChangeRecord {
    pub(crate) fn change(&self) -> Option<Change> {
        match self.kind.as_str() {
            "key" => Some(Change::Key(KeyId::from_uuid(self.id))),
            "account" => Some(Change::Account(AccountId::from_uuid(self.id))),
            "recall_account" => Some(Change::Recall(BudgetId::Account(AccountId::from_uuid(
                self.id,
            )))),
            "recall_key" => Some(Change::Recall(BudgetId::Key(KeyId::from_uuid(self.id)))),
            _ => None,
        }
    }
}
