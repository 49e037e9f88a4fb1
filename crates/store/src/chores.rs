//! Chores that any replica does for all: reap the dead, end expired grants, delete what is no longer needed.

use std::{collections::BTreeSet, time::Duration};

use billing::{AccountId, BudgetId, Credits, Escrow, ReplicaId, RequestId, rules::Booked};
use uuid::Uuid;

use crate::{
    LedgerOptions, Store, StoreError,
    book::{self, EntryNotes, Scope},
    booking::{self, Dead, NewCharge},
    closing::{self, MONTH_CLOSED},
    credit::new_entry_id,
    journal::PERIOD_MIN,
    link::Link,
    month, replica,
    sql::sql,
    watch::CHANGES_KEPT,
};

/// Accounts whose grants expire in one transaction.
const EXPIRE_MAX: i64 = 200;
/// Rounds between two deletions of old rows.
const PRUNE_EVERY: u64 = 30;
/// Empty leases and ended replicas are kept so long, for whoever looks for them.
const LEASES_KEPT: Duration = Duration::from_secs(600);
const REPLICAS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Does the chores until it is aborted with its ledger.
pub(crate) async fn run(store: Store, options: LedgerOptions, escrow: Escrow) {
    let mut tick = tokio::time::interval(options.chores.max(PERIOD_MIN));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut round: u64 = 0;
    let mut failing = false;
    loop {
        tick.tick().await;
        let done = async {
            let me = escrow.replica();
            while reap(&store, Some(me), options.lease_margin)
                .await?
                .is_some()
            {}
            expire(&store).await?;
            // Not in the first round: a start has better to do.
            if round % PRUNE_EVERY == PRUNE_EVERY - 1 {
                prune(&store).await?;
                month::make_ahead(&store).await?;
                escrow.forget_unused();
            }
            Ok::<(), StoreError>(())
        };
        let done = done.await;
        if let Err(error) = &done
            && !failing
        {
            tracing::warn!(%error, "chores of the ledger are left undone");
        }
        failing = done.is_err();
        round = round.wrapping_add(1);
    }
}

/// Ends one replica whose leases have run out: what its requests had consumed at their last
/// checkpoint is charged, everything else it had goes back. Returns which one it was.
///
/// `me` is never reaped. Its rows are safe to read before the accounts are locked, because the
/// journal of a replica takes the replica's own row first, and that row is locked here.
pub(crate) async fn reap(
    store: &Store,
    me: Option<ReplicaId>,
    grace: Duration,
) -> Result<Option<ReplicaId>, StoreError> {
    let mut tx = store.begin().await?;
    let mut link = tx.link();
    let grace = i64::try_from(grace.as_micros()).unwrap_or(i64::MAX);
    let find = sql("SELECT id FROM replicas WHERE state = 'alive' AND id <> ? \
         AND heartbeat_at < {now} - ttl - ? ORDER BY id LIMIT 1 {free}");
    let me = me.map_or(Uuid::nil(), ReplicaId::uuid);
    let found: Option<(Uuid,)> = link.maybe(find.uuid(me).int(grace)).await?;
    let Some((id,)) = found else {
        return Ok(None);
    };
    let dead = ReplicaId::from_uuid(id);
    let (charged, loss) = end_dead(&mut link, dead).await?;
    tx.commit().await?;
    store.note_loss(loss);
    tracing::warn!(replica = %dead, charged, house_loss = %loss, "a replica was taken for dead; its leases are back");
    Ok(Some(dead))
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
    let mut requests: BTreeSet<(AccountId, RequestId)> = BTreeSet::new();
    for checkpoint in &checkpoints {
        let due = checkpoint.due(dead);
        scope.budgets.insert(BudgetId::Account(due.account));
        scope.budgets.insert(BudgetId::Key(due.key));
        requests.insert((due.account, due.request));
    }
    scope.requests = requests;
    let mut loaded = book::load(link, &scope).await?;
    let now = loaded.book.now().0;
    let closed = closing::closed(link, &scope.requests, now).await?;
    let mut charges: Vec<NewCharge<'_>> = Vec::new();
    let mut aside = Vec::new();
    let mut losses = Credits::ZERO;
    for checkpoint in &checkpoints {
        if closed.contains(&checkpoint.due(dead).request) {
            aside.push(Dead::of(&checkpoint.put_aside(dead), MONTH_CLOSED.into()));
            continue;
        }
        match loaded.book.settle(&checkpoint.due(dead), false) {
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

/// Ends grants whose time is over, as far as no replica has them leased.
pub(crate) async fn expire(store: &Store) -> Result<(), StoreError> {
    let find = sql("SELECT DISTINCT g.account_id FROM grants g \
         JOIN budgets b ON b.id = g.account_id \
         WHERE g.remaining > 0 AND g.expires_at <= {now} AND b.available > 0 LIMIT ?");
    let due: Vec<(Uuid,)> = {
        let mut reader = store.read().await?;
        reader.link().all(find.int(EXPIRE_MAX)).await?
    };
    if due.is_empty() {
        return Ok(());
    }
    let accounts: Vec<AccountId> = due.iter().map(|(id,)| AccountId::from_uuid(*id)).collect();
    let scope = Scope {
        budgets: accounts.iter().copied().map(BudgetId::Account).collect(),
        ..Scope::default()
    };
    let mut tx = store.begin().await?;
    let mut link = tx.link();
    let mut loaded = book::load(&mut link, &scope).await?;
    for account in accounts {
        loaded.book.expire(account, &mut new_entry_id)?;
    }
    loaded.save(&mut link, &EntryNotes::default()).await?;
    tx.commit().await
}

/// Deletes rows that nobody needs any more.
async fn prune(store: &Store) -> Result<(), StoreError> {
    let us = |kept: Duration| i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    let old = [
        ("DELETE FROM changes WHERE at < {now} - ?", CHANGES_KEPT),
        (
            "DELETE FROM leases WHERE amount = 0 AND held = 0 AND updated_at < {now} - ?",
            LEASES_KEPT,
        ),
        (
            "DELETE FROM replicas WHERE state <> 'alive' AND heartbeat_at < {now} - ?",
            REPLICAS_KEPT,
        ),
    ];
    for (text, kept) in old {
        let mut tx = store.begin().await?;
        tx.link().run(sql(text).int(us(kept))).await?;
        tx.commit().await?;
    }
    Ok(())
}
