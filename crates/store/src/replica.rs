//! A replica's row: one for each run of a process, alive until it closes or is reaped.

use std::time::Duration;

use billing::{BudgetId, ReplicaId};
use uuid::Uuid;

use crate::{
    StoreError,
    book::{self, EntryNotes, Scope, budget_id},
    link::Link,
    sql::sql,
};

/// Registers a new replica whose leases are good for `ttl` without a heartbeat.
pub(crate) async fn register(
    link: &mut Link<'_>,
    id: ReplicaId,
    ttl: Duration,
) -> Result<(), StoreError> {
    let host = std::env::var("HOSTNAME").unwrap_or_default();
    let insert = sql("INSERT INTO replicas \
         (id, state, heartbeat_at, last_batch, ttl, host, started_at) \
         SELECT ?, 'alive', {now}, 0, ?, ?, {now}")
    .uuid(id.uuid())
    .int(i64::try_from(ttl.as_micros()).unwrap_or(i64::MAX))
    .text(&host);
    link.run(insert).await?;
    Ok(())
}

/// Gives everything back that a replica still has and ends it as `closed` or `reaped`. Its row
/// is locked by the caller, and what it still owes is booked.
pub(crate) async fn end(
    link: &mut Link<'_>,
    id: ReplicaId,
    state: &'static str,
) -> Result<(), StoreError> {
    let scope = Scope {
        budgets: leased_budgets(link, id).await?.into_iter().collect(),
        replica: Some(id),
        ..Scope::default()
    };
    let mut loaded = book::load(link, &scope).await?;
    loaded.book.reclaim(id)?;
    loaded.save(link, &EntryNotes::default()).await?;
    for clean in [
        "DELETE FROM leases WHERE replica_id = ?",
        "DELETE FROM checkpoints WHERE replica_id = ?",
    ] {
        link.run(sql(clean).uuid(id.uuid())).await?;
    }
    let end = sql("UPDATE replicas SET state = ? WHERE id = ?");
    link.run(end.text(state).uuid(id.uuid())).await?;
    Ok(())
}

/// The budgets that a replica has leases of.
pub(crate) async fn leased_budgets(
    link: &mut Link<'_>,
    id: ReplicaId,
) -> Result<Vec<BudgetId>, StoreError> {
    let select = sql("SELECT b.kind, b.account_id, b.id FROM leases l \
         JOIN budgets b ON b.account_id = l.account_id AND b.id = l.budget_id \
         WHERE l.replica_id = ?");
    let rows: Vec<(String, Uuid, Uuid)> = link.all(select.uuid(id.uuid())).await?;
    rows.into_iter()
        .map(|(kind, account, id)| budget_id(&kind, account, id))
        .collect()
}
