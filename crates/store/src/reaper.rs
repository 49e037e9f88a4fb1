//! The reaper: takes replicas for dead that have not been heard of, charges their checkpoints and gives their leases back.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use billing::{BudgetId, Credits, ReplicaId, rules::Booked};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    book::{self, EntryNotes, Scope},
    booking::{self, Dead, NewCharge},
    clock,
    closing::{self, MONTH_CLOSED},
    idempotency,
    link::Link,
    replica,
    sql::sql,
};

/// What one reaper has seen of the other replicas. Every batch of a journal raises the number in
/// its replica's row, heartbeats included; a number that stands still while the reaper's own
/// monotonic clock counts a whole life means that the replica is dead. No wall clock takes part,
/// so a jump of one reaps nobody.
#[derive(Debug, Default)]
pub(crate) struct Reaper {
    seen: BTreeMap<Uuid, Seen>,
    /// When the last look was answered.
    looked: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Seen {
    last_batch: i64,
    /// When this number was known to be there: after the first look that showed it.
    since: Instant,
}

#[derive(sqlx::FromRow)]
struct Living {
    id: Uuid,
    last_batch: i64,
    ttl: i64,
}

impl Reaper {
    /// Looks at all living replicas and ends those that stood still for their leases' life and
    /// `grace`; never `me`. Returns how many that were.
    ///
    /// A replica counts its leases' life from before it asked for a batch, the reaper from after
    /// it saw the batch, so the replica has always stopped granting first.
    ///
    /// Where this reaper could not see for half a life, because the database was away, nobody
    /// could write either: then everybody gets a whole life from its return.
    pub(crate) async fn reap(
        &mut self,
        store: &Store,
        me: ReplicaId,
        grace: Duration,
    ) -> Result<usize, StoreError> {
        let asked = clock::now();
        let find = sql("SELECT id, last_batch, ttl FROM replicas \
             WHERE state = 'alive' AND id <> ? ORDER BY id");
        let living: Vec<Living> = {
            let mut reader = store.read().await?;
            reader.link().all(find.uuid(me.uuid())).await?
        };
        let answered = clock::now();
        let looked = self.looked.replace(answered);
        let gap = looked.map_or(Duration::ZERO, |at| answered.saturating_duration_since(at));
        let mut seen = BTreeMap::new();
        let mut due = Vec::new();
        for replica in living {
            let now = Seen {
                last_batch: replica.last_batch,
                since: answered,
            };
            let life = Duration::from_micros(u64::try_from(replica.ttl).unwrap_or(0)) + grace;
            let before = self.seen.get(&replica.id).filter(|_| gap <= life / 2);
            let same = before.filter(|before| before.last_batch == replica.last_batch);
            let kept = same.copied().unwrap_or(now);
            if asked.saturating_duration_since(kept.since) >= life {
                due.push((ReplicaId::from_uuid(replica.id), kept.last_batch));
            }
            seen.insert(replica.id, kept);
        }
        self.seen = seen;
        let mut reaped = 0;
        for (dead, last_batch) in due {
            reaped += usize::from(reap(store, dead, last_batch).await?);
        }
        Ok(reaped)
    }
}

/// Ends one replica, if it still stands where it stood: what its requests had consumed at their
/// last checkpoint is charged, everything else it had goes back.
///
/// Its rows are safe to read before the accounts are locked, because the journal of a replica
/// takes the replica's own row first, and that row is locked here. Whoever has it locked now is
/// the replica itself, or another reaper.
async fn reap(store: &Store, dead: ReplicaId, last_batch: i64) -> Result<bool, StoreError> {
    let mut tx = store.begin().await?;
    let mut link = tx.link();
    let take = sql("SELECT id FROM replicas \
         WHERE id = ? AND state = 'alive' AND last_batch = ? {free}");
    let take = take.uuid(dead.uuid()).int(last_batch);
    if link.maybe::<(Uuid,)>(take).await?.is_none() {
        return Ok(false);
    }
    let (charged, loss) = end_dead(&mut link, dead).await?;
    tx.commit().await?;
    store.note_loss(loss);
    tracing::warn!(replica = %dead, charged, house_loss = %loss, "a replica was taken for dead; its leases are back");
    Ok(true)
}

/// Ends every replica of a database that only this process can open: they are all dead.
pub(crate) async fn reap_all(store: &Store) -> Result<(), StoreError> {
    let mut tx = store.begin().await?;
    let mut link = tx.link();
    let find = sql("SELECT id FROM replicas WHERE state = 'alive' ORDER BY id");
    let dead: Vec<(Uuid,)> = link.all(find).await?;
    let mut losses = Credits::ZERO;
    for (id,) in dead {
        let (_, loss) = end_dead(&mut link, ReplicaId::from_uuid(id)).await?;
        losses = losses.saturating_add(loss);
    }
    tx.commit().await?;
    store.note_loss(losses);
    Ok(())
}

/// Charges the checkpoints of a dead replica, whose row is locked, and ends it. Tells how many
/// were charged and what of them the operator bears.
pub(crate) async fn end_dead(
    link: &mut Link<'_>,
    dead: ReplicaId,
) -> Result<(usize, Credits), StoreError> {
    let checkpoints = booking::checkpoints_of(link, dead).await?;
    let mut scope = Scope {
        replica: Some(dead),
        ..Scope::default()
    };
    scope
        .budgets
        .extend(replica::leased_budgets(link, dead).await?);
    for checkpoint in &checkpoints {
        let due = checkpoint.due(dead);
        scope.budgets.insert(BudgetId::Account(due.account));
        scope.budgets.insert(BudgetId::Key(due.account, due.key));
        scope.requests.insert((due.account, due.request));
        scope.maybe_booked.insert((due.account, due.request));
    }
    let mut loaded = book::load(link, &scope).await?;
    let now = loaded.book.now().0;
    let superseded = idempotency::superseded(link, scope.requests.iter().copied()).await?;
    let closed = closing::closed(link, &scope.requests, now).await?;
    let mut charges: Vec<NewCharge<'_>> = Vec::new();
    let mut aside = Vec::new();
    let mut losses = Credits::ZERO;
    for checkpoint in &checkpoints {
        let mut due = checkpoint.due(dead);
        if closed.contains(&due.request) {
            aside.push(Dead::of(&checkpoint.put_aside(dead), MONTH_CLOSED.into()));
            continue;
        }
        if superseded.contains(&due.request) {
            due = booking::borne_by_the_house(due);
        }
        match loaded.book.settle(&due, false) {
            Ok(Booked::Charge {
                charged,
                house_loss,
                late: _,
            }) => {
                losses = losses.saturating_add(house_loss);
                charges.push(checkpoint.charge(dead, charged, house_loss));
            }
            // Settled by the replica itself before it died, or under a later name.
            Ok(Booked::Replayed | Booked::LateCharge { .. } | Booked::LateRefund(_)) => {}
            // One bad row must not keep the leases of all others from coming back.
            Err(error) => tracing::error!(?checkpoint, %error, "a checkpoint cannot be charged"),
        }
    }
    loaded.save(link, &EntryNotes::default()).await?;
    booking::insert_charges(link, &charges, now).await?;
    booking::insert_dead(link, &aside, now).await?;
    replica::end(link, dead, "reaped").await?;
    Ok((charges.len(), losses))
}
