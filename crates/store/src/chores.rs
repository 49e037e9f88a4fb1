//! Chores that any replica does for all: reap the dead, end expired grants, delete what is no longer needed.

use std::time::Duration;

use billing::{AccountId, BudgetId, Escrow};
use uuid::Uuid;

use crate::{
    LedgerOptions, Store, StoreError,
    book::{self, EntryNotes, Scope},
    changes::{self, CHANGES_KEPT, Marks},
    credit::new_entry_id,
    idempotency,
    journal::PERIOD_MIN,
    month,
    reaper::Reaper,
    response,
    sql::sql,
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
    let mut reaper = Reaper::default();
    let mut changes = Marks::new(CHANGES_KEPT);
    let mut round: u64 = 0;
    let mut failing = false;
    loop {
        tick.tick().await;
        let done = async {
            let me = escrow.replica();
            reaper.reap(&store, me, options.lease_margin).await?;
            expire(&store).await?;
            // Not in the first round: a start has better to do.
            if round % PRUNE_EVERY == PRUNE_EVERY - 1 {
                prune(&store, &mut changes).await?;
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

/// Ends grants whose time is over, as far as no replica has them leased.
pub(crate) async fn expire(store: &Store) -> Result<(), StoreError> {
    let find = sql("SELECT DISTINCT g.account_id FROM grants g \
         JOIN budgets b ON b.account_id = g.account_id AND b.id = g.account_id \
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
async fn prune(store: &Store, changes: &mut Marks) -> Result<(), StoreError> {
    // By numbers known long ago, not by the wall clock: a jump of it must not take a change away
    // from a watcher that has not seen it.
    changes::forget_old(store, changes).await?;
    let us = |kept: Duration| i64::try_from(kept.as_micros()).unwrap_or(i64::MAX);
    let old = [
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
    idempotency::prune(store).await?;
    response::prune(store).await
}
