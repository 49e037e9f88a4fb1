//! Books what earlier lives left in the local journal, under their own leases, and ends them.

use std::collections::{BTreeMap, BTreeSet};

use billing::{Credits, ReplicaId, RequestId, Settlement};

use super::lost::Lost;
use crate::{
    Store, StoreError,
    batch::{self, Batch, Item},
    booking,
    journal::BATCH_MAX,
    link::Link,
    reaper,
    sql::sql,
};

/// Books everything that is owed, each request once however often this is done, and ends the
/// replicas that owed it, so that what else they had leased is back at once.
///
/// # Errors
/// The database's; what was booked until then stays booked.
pub(crate) async fn book(store: &Store, lost: &Lost) -> Result<(), StoreError> {
    let mut by_lease: BTreeMap<ReplicaId, Vec<&Settlement>> =
        lost.replicas.iter().map(|id| (*id, Vec::new())).collect();
    for settlement in lost.settled.iter().chain(&lost.running) {
        by_lease
            .entry(settlement.lease)
            .or_default()
            .push(settlement);
    }
    let running: BTreeSet<RequestId> = lost.running.iter().map(|s| s.facts.request_id).collect();
    let mut dead = 0;
    for (replica, owed) in by_lease {
        for chunk in owed.chunks(BATCH_MAX) {
            let settlements = chunk.iter().map(|settlement| Item {
                settlement: (*settlement).clone(),
                problem: None,
            });
            let batch = Batch {
                settlements: settlements.collect(),
                ..Batch::default()
            };
            dead += book_all(store, replica, batch, &running).await?;
        }
        end(store, replica).await?;
    }
    if dead > 0 {
        tracing::error!(
            settlements = dead,
            "settlements of the local journal were put aside in dead_settlements; `tollway audit` lists them"
        );
    }
    Ok(())
}

/// Books a batch, in smaller pieces where the database refuses it for good, until what it will
/// not take is put aside alone. Returns how many were put aside.
async fn book_all(
    store: &Store,
    replica: ReplicaId,
    batch: Batch,
    running: &BTreeSet<RequestId>,
) -> Result<u64, StoreError> {
    let mut parts = vec![batch];
    let mut dead = 0;
    while let Some(mut part) = parts.pop() {
        match book_one(store, replica, &mut part, running).await {
            Ok(put_aside) => dead += put_aside,
            Err(error) if error.is_refusal() => {
                tracing::error!(%error, "the database refused a batch of the local journal");
                part.split(&mut parts, &error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(dead)
}

async fn book_one(
    store: &Store,
    replica: ReplicaId,
    batch: &mut Batch,
    running: &BTreeSet<RequestId>,
) -> Result<u64, StoreError> {
    let mut tx = store.begin().await?;
    let mut link = tx.link();
    let alive = lock(&mut link, replica).await?;
    leave_to_checkpoints(&mut link, replica, batch, running).await?;
    let outcome = batch::book_lost(&mut link, replica, alive, batch).await?;
    tx.commit().await?;
    let losses = outcome.losses.into_values();
    store.note_loss(losses.fold(Credits::ZERO, Credits::saturating_add));
    Ok(outcome.dead)
}

/// A checkpoint of a running request that is ahead of the journal is the truth: it was written
/// while the journal could not be. The replica's end charges it.
async fn leave_to_checkpoints(
    link: &mut Link<'_>,
    replica: ReplicaId,
    batch: &mut Batch,
    running: &BTreeSet<RequestId>,
) -> Result<(), StoreError> {
    let checkpoints: BTreeMap<RequestId, Credits> = booking::checkpoints_of(link, replica)
        .await?
        .iter()
        .map(|checkpoint| checkpoint.due(replica))
        .map(|due| (due.request, due.cost))
        .collect();
    batch.settlements.retain(|item| {
        let request = item.settlement.facts.request_id;
        let cost = item.settlement.capture.cost;
        let ahead = checkpoints.get(&request).is_some_and(|there| *there > cost);
        !(ahead && running.contains(&request))
    });
    Ok(())
}

/// Ends a replica that this machine knows to be dead, where nobody was quicker.
async fn end(store: &Store, replica: ReplicaId) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let mut link = tx.link();
    let mut loss = Credits::ZERO;
    if lock(&mut link, replica).await? {
        (_, loss) = reaper::end_dead(&mut link, replica).await?;
    }
    tx.commit().await?;
    store.note_loss(loss);
    Ok(())
}

/// Locks a replica's row, which everybody does first who books for it; true where it still has
/// its leases.
async fn lock(link: &mut Link<'_>, replica: ReplicaId) -> Result<bool, StoreError> {
    let look = sql("SELECT state FROM replicas WHERE id = ? {lock}").uuid(replica.uuid());
    let row: Option<(String,)> = link.maybe(look).await?;
    Ok(row.is_some_and(|(state,)| state == "alive"))
}
