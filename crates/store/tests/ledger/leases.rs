//! Leases: all of an account's credit can be used from any replica, and comes back from all.

use std::time::{Duration, Instant};

use billing::{Reserved, rules::EntryKind};
use store::LedgerOptions;

use crate::{
    admin::credits,
    world::{World, eventually, flushed, hold_from, n, on_both, quick, settlement, soon},
};

/// Nothing goes back by itself.
fn hoarding() -> LedgerOptions {
    LedgerOptions {
        idle: Duration::from_secs(3600),
        ..LedgerOptions::default()
    }
}

async fn all_credit_can_be_used_from_either_replica(world: World) {
    let ledgers = [
        world.other_ledger(hoarding()).await,
        world.other_ledger(hoarding()).await,
    ];
    let key = world.key(1000, None).await;
    let mut records = Vec::new();
    for ledger in &ledgers {
        records.push(ledger.authenticate(key.secret.expose()).await.unwrap());
    }
    // Both take slices that they do not use up …
    for (ledger, record) in ledgers.iter().zip(&records) {
        for _ in 0..2 {
            world.spend(ledger, record, 5, 5).await.unwrap();
        }
    }
    flushed(&ledgers[0]).await;
    let (available, leased, _) = world.budget(key.account.id.uuid()).await;
    assert!(leased > 0 && available < 980, "{available} {leased}");
    // … and yet the last nano-credit can be spent on one of them.
    let asked = Instant::now();
    world
        .spend(&ledgers[0], &records[0], 980, 980)
        .await
        .unwrap();
    assert!(asked.elapsed() < Duration::from_secs(5));
    let short = world
        .spend(&ledgers[1], &records[1], 1, 1)
        .await
        .unwrap_err();
    assert!(!short.unavailable);
    for ledger in &ledgers {
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
    }
    assert_eq!(world.budget(key.account.id.uuid()).await, (0, 0, 1000));
    world.balanced().await;
}

async fn a_nearly_empty_account_is_leased_exactly(world: World) {
    let ledger = world.ledger(hoarding()).await;
    let key = world.key(10, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let _held = hold_from(&ledger, &record.path, n(4), soon())
        .await
        .unwrap();
    assert_eq!(world.budget(key.account.id.uuid()).await, (6, 4, 0));
}

async fn a_rich_account_is_leased_a_slice(world: World) {
    let ledger = world.ledger(hoarding()).await;
    let key = world.key(1_000_000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let _held = hold_from(&ledger, &record.path, n(100), soon())
        .await
        .unwrap();
    let (_, leased, _) = world.budget(key.account.id.uuid()).await;
    assert_eq!(leased, 800, "for so many more requests");
    // The next ones ask nobody.
    let batches = "SELECT MAX(last_batch) FROM replicas";
    let before = world.number(batches).await;
    for _ in 0..7 {
        Reserved::take(&record.path, n(100), Instant::now())
            .unwrap()
            .spend(n(0));
    }
    assert!(
        world.number(batches).await <= before + 1,
        "at most a heartbeat"
    );
}

async fn idle_leases_go_back(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(1_000_000, Some(500_000)).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 100, 60).await.unwrap();
    eventually("all is back", || async {
        world.budget(key.account.id.uuid()).await == (999_940, 0, 60)
            && world.budget(key.key.id.uuid()).await == (499_940, 0, 60)
    })
    .await;
    world.balanced().await;
}

async fn who_asks_seldom_gives_back_with_the_settlement(world: World) {
    let ledger = world.ledger(hoarding()).await;
    let key = world.key(1_000_000, Some(500_000)).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let budgets = async || {
        flushed(&ledger).await;
        (
            world.budget(key.account.id.uuid()).await,
            world.budget(key.key.id.uuid()).await,
        )
    };
    // One request, and none before it: nothing stays leased once it is booked …
    world.spend(&ledger, &record, 100, 60).await.unwrap();
    assert_eq!(budgets().await, ((999_940, 0, 60), (499_940, 0, 60)));
    // … but where requests come one after the other, the next one finds the lease.
    let mut running = Vec::new();
    for _ in 0..3 {
        let held = hold_from(&ledger, &record.path, n(100), soon()).await;
        running.push(held.unwrap());
    }
    for held in running {
        let settlement = settlement(&world.facts(&record), held.replica(), 60, 0);
        held.spend(n(60));
        ledger.reserve().unwrap().send(settlement);
    }
    let ((_, leased, spent), (_, key_leased, _)) = budgets().await;
    assert_eq!((leased > 0, key_leased > 0, spent), (true, true, 240));
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (999_760, 0, 240));
    world.balanced().await;
}

async fn what_came_for_the_next_request_stays(world: World) {
    let ledger = world.ledger(hoarding()).await;
    let key = world.key(1_000_000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(100), soon()).await;
    let held = held.unwrap();
    // Another request has fetched what it needs, and has not taken it yet …
    let fetched = ledger.obtain(&record.path, n(5000), n(0), soon()).await;
    fetched.unwrap();
    // … when the only one so far is settled.
    let settlement = settlement(&world.facts(&record), held.replica(), 60, 0);
    held.spend(n(60));
    ledger.reserve().unwrap().send(settlement);
    flushed(&ledger).await;
    assert!(Reserved::take(&record.path, n(5000), Instant::now()).is_ok());
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.total(key.account.id).await, 999_940);
    world.balanced().await;
}

async fn l7_a_top_up_is_seen_by_the_next_request(world: World) {
    let ledgers = [
        world.other_ledger(quick()).await,
        world.other_ledger(quick()).await,
    ];
    let key = world.key(10, None).await;
    for ledger in &ledgers {
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        assert!(world.spend(ledger, &record, 11, 11).await.is_err());
        let one = credits(1, EntryKind::Purchase);
        world
            .store
            .add_credits(key.account.id, one, None)
            .await
            .unwrap();
        world.spend(ledger, &record, 11, 11).await.unwrap();
        let more = credits(10, EntryKind::Purchase);
        world
            .store
            .add_credits(key.account.id, more, None)
            .await
            .unwrap();
    }
}

async fn a_top_up_wakes_who_waits(world: World) {
    // A stream waits long for credit: the account holds everything for itself.
    let options = LedgerOptions {
        short_wait: Duration::from_secs(20),
        ..quick()
    };
    let ledger = world.ledger(options).await;
    let key = world.key(10, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let _held = hold_from(&ledger, &record.path, n(10), soon())
        .await
        .unwrap();
    let waiting = {
        let (ledger, path) = (ledger.clone(), record.path.clone());
        tokio::spawn(async move {
            hold_from(&ledger, &path, n(5), soon())
                .await
                .map(|h| h.amount())
        })
    };
    eventually("it waits", || async { ledger.stats().journal_queue == 0 }).await;
    assert!(!waiting.is_finished());
    let asked = Instant::now();
    world
        .store
        .add_credits(key.account.id, credits(5, EntryKind::Purchase), None)
        .await
        .unwrap();
    assert_eq!(waiting.await.unwrap().unwrap(), n(5));
    assert!(asked.elapsed() < Duration::from_secs(5));
}

async fn credit_held_by_a_running_request_is_waited_for(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(10, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(10), soon())
        .await
        .unwrap();
    let asked = Instant::now();
    let short = hold_from(&ledger, &record.path, n(5), soon())
        .await
        .unwrap_err();
    assert_eq!(
        (short.available, short.held),
        (n(0), n(10)),
        "held, so it may come back"
    );
    assert!(
        asked.elapsed() >= Duration::from_millis(200),
        "after a short wait"
    );
    let waiting = {
        let (ledger, path) = (ledger.clone(), record.path.clone());
        tokio::spawn(async move {
            hold_from(&ledger, &path, n(5), soon())
                .await
                .map(|h| h.amount())
        })
    };
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), n(5));
}

async fn withdrawing_leased_credit_recalls_it(world: World) {
    let ledger = world.ledger(hoarding()).await;
    let key = world.key(1000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(50), soon())
        .await
        .unwrap();
    let (_, leased, _) = world.budget(key.account.id.uuid()).await;
    assert!(leased > 50);
    eventually("the hold is known", || async {
        world
            .store
            .account(key.account.id)
            .await
            .unwrap()
            .balance
            .held
            == n(50)
    })
    .await;
    let too_much = world
        .store
        .add_credits(key.account.id, credits(-951, EntryKind::Refund), None)
        .await;
    assert!(matches!(too_much, Err(store::StoreError::BelowZero { .. })));
    world
        .store
        .add_credits(key.account.id, credits(-950, EntryKind::Refund), None)
        .await
        .unwrap();
    drop(held);
    world.spend(&ledger, &record, 50, 50).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 0);
    world.balanced().await;
}

async fn the_balance_is_exact_at_any_moment(world: World) {
    let ledger = world.ledger(hoarding()).await;
    let key = world.key(1000, None).await;
    let account = key.account.id;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(50), soon())
        .await
        .unwrap();
    let balance = ledger.balance(account).await.unwrap();
    assert_eq!(
        (balance.available, balance.held, balance.total),
        (n(950), n(50), n(1000))
    );
    ledger
        .reserve()
        .unwrap()
        .send(settlement(&world.facts(&record), held.replica(), 30, 0));
    held.spend(n(30));
    let balance = ledger.balance(account).await.unwrap();
    assert_eq!(
        (balance.available, balance.held, balance.total),
        (n(970), n(0), n(970))
    );
    assert_eq!(balance.used, n(30));
}

async fn l9_nothing_needs_no_credit(world: World) {
    let ledger = world.ledger(quick()).await;
    let key = world.key(0, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 0, 0).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 1);
    let short = world.spend(&ledger, &record, 1, 1).await.unwrap_err();
    assert_eq!(
        (short.available, short.held, short.leased_elsewhere),
        (n(0), n(0), n(0))
    );
    world.balanced().await;
}

on_both!(
    all_credit_can_be_used_from_either_replica,
    a_nearly_empty_account_is_leased_exactly,
    a_rich_account_is_leased_a_slice,
    idle_leases_go_back,
    who_asks_seldom_gives_back_with_the_settlement,
    what_came_for_the_next_request_stays,
    l7_a_top_up_is_seen_by_the_next_request,
    a_top_up_wakes_who_waits,
    credit_held_by_a_running_request_is_waited_for,
    withdrawing_leased_credit_recalls_it,
    the_balance_is_exact_at_any_moment,
    l9_nothing_needs_no_credit,
);
