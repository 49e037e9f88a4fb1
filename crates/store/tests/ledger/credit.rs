//! Grants: the soonest-expiring are used first, and expire when their time comes.

use std::time::Duration;

use billing::{AccountId, rules::EntryKind};
use jiff::{SignedDuration, Timestamp};
use store::{NewCredits, Page, StoreError};

use crate::world::{World, eventually, flushed, hold_from, n, on_both, quick, settlement, soon};

async fn grant(world: &World, account: AccountId, amount: i64, ms: Option<i64>) {
    let until = ms.map(|ms| Timestamp::now() + SignedDuration::from_millis(ms));
    grant_until(world, account, amount, until).await.unwrap();
}

async fn grant_until(
    world: &World,
    account: AccountId,
    amount: i64,
    expires_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let credits = NewCredits {
        amount: n(amount),
        kind: EntryKind::Promo,
        expires_at,
        reference: None,
        note: None,
    };
    let added = world.store.add_credits(account, credits, None).await;
    added.map(|_| ())
}

/// Tries what has to be done before credit expires, with ever later an end: `None` from the
/// attempt says that it was too slow for this one.
async fn before_it_expires<T>(attempt: impl AsyncFn(Timestamp) -> Option<T>) -> T {
    for doublings in 0..7 {
        let life = SignedDuration::from_millis(400 << doublings);
        let until = Timestamp::now() + life;
        if let Some(done) = attempt(until).await
            && Timestamp::now() < until
        {
            return done;
        }
    }
    panic!("not within half a minute");
}

async fn remaining(world: &World) -> Vec<i64> {
    let mut all = Vec::new();
    for amount in [100, 50, 30] {
        let text = format!("SELECT remaining FROM grants WHERE amount = {amount}");
        all.push(world.number(&text).await);
    }
    all
}

async fn the_soonest_expiring_credit_is_used_first(world: World) {
    let key = world.key(100, None).await;
    grant(&world, key.account.id, 50, Some(3_600_000)).await;
    grant(&world, key.account.id, 30, Some(7_200_000)).await;
    let ledger = world.ledger(quick()).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 20, 20).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(remaining(&world).await, [100, 30, 30]);
    world.spend(&ledger, &record, 45, 45).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(remaining(&world).await, [100, 0, 15]);
    world.spend(&ledger, &record, 20, 20).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(remaining(&world).await, [95, 0, 0]);
    world.balanced().await;
}

async fn what_is_left_expires(world: World) {
    let ledger = world.ledger(quick()).await;
    let (account, record) = before_it_expires(async |until| {
        let key = world.key(0, None).await;
        let granted = grant_until(&world, key.account.id, 50, Some(until)).await;
        granted.ok()?;
        grant(&world, key.account.id, 100, None).await;
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        world.spend(&ledger, &record, 20, 20).await.unwrap();
        flushed(&ledger).await;
        Some((key.account.id, record))
    })
    .await;
    eventually("the grant has expired", || async {
        world.total(account).await == 100
    })
    .await;
    let entries = world
        .store
        .entries(account, Page::default())
        .await
        .unwrap()
        .data;
    let expiry = entries.iter().find(|e| e.kind == "expiry").unwrap();
    assert_eq!(expiry.amount, n(-30));
    let granted = entries.iter().find(|e| e.amount == n(50)).unwrap();
    assert_eq!(
        expiry.grant_id, granted.grant_id,
        "it names the grant that it ended"
    );
    assert!(world.spend(&ledger, &record, 101, 101).await.is_err());
    world.spend(&ledger, &record, 100, 100).await.unwrap();
    flushed(&ledger).await;
    assert_eq!(world.total(account).await, 0);
    world.balanced().await;
}

async fn what_a_running_request_holds_stays_usable(world: World) {
    let ledger = world.ledger(quick()).await;
    let (account, record, held) = before_it_expires(async |until| {
        let key = world.key(0, None).await;
        let granted = grant_until(&world, key.account.id, 50, Some(until)).await;
        granted.ok()?;
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        let held = hold_from(&ledger, &record.path, n(30), soon()).await.ok()?;
        Some((key.account.id, record, held))
    })
    .await;
    eventually("the rest has expired", || async {
        world.total(account).await == 30
    })
    .await;
    // Nothing new on expired credit, but the request that holds it goes on.
    assert!(world.spend(&ledger, &record, 1, 1).await.is_err());
    ledger
        .reserve()
        .unwrap()
        .send(settlement(&world.facts(&record), held.replica(), 25, 0));
    held.spend(n(25));
    eventually("what came back has expired", || async {
        world.total(account).await == 0
    })
    .await;
    world.balanced().await;
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.budget(account.uuid()).await, (0, 0, 25));
}

async fn expired_credit_is_not_leased_before_the_chores_see_it(world: World) {
    let key = world.key(0, None).await;
    let options = store::LedgerOptions {
        chores: Duration::from_secs(3600),
        ..quick()
    };
    // The first round of the chores finds nothing; there is no second one.
    let ledger = world.ledger(options).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    assert!(world.spend(&ledger, &record, 1, 1).await.is_err());
    grant(&world, key.account.id, 30, Some(3_600_000)).await;
    world.raw("UPDATE grants SET expires_at = 1").await;
    let short = world.spend(&ledger, &record, 1, 1).await.unwrap_err();
    assert_eq!(short.available, n(0));
    // A refusal changes the books too: what had expired is gone from them.
    assert_eq!(world.total(key.account.id).await, 0);
    world.balanced().await;
}

on_both!(
    the_soonest_expiring_credit_is_used_first,
    what_is_left_expires,
    what_a_running_request_holds_stays_usable,
    expired_credit_is_not_leased_before_the_chores_see_it,
);
