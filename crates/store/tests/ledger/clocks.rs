//! The wall clock of the database jumps: nobody is taken for dead, and no change goes unheard.

use std::time::{Duration, Instant};

use store::AuthError;

use crate::world::{World, eventually, flushed, on_both, quick};

/// An hour, in microseconds.
const HOUR_US: i64 = 3_600_000_000;

/// A clock that jumped ahead makes every heartbeat an hour old.
async fn a_living_replica_with_an_old_heartbeat_is_not_reaped(world: World) {
    let ledgers = [
        world.other_ledger(quick()).await,
        world.other_ledger(quick()).await,
    ];
    let key = world.key(1000, None).await;
    let record = ledgers[0].authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledgers[0], &record, 50, 50).await.unwrap();
    let names = ledgers.each_ref().map(|ledger| ledger.escrow().replica());
    let life = quick().lease_ttl + quick().lease_margin * 2;
    let until = Instant::now() + life * 2;
    while Instant::now() < until {
        let back = format!("UPDATE replicas SET heartbeat_at = heartbeat_at - {HOUR_US}");
        world.raw(&back).await;
        // tidy: sleeps because the clock is wrong again and again, for longer than a lease lives.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for ledger in &ledgers {
        flushed(ledger).await;
    }
    assert_eq!(
        names,
        ledgers.each_ref().map(|ledger| ledger.escrow().replica())
    );
    let reaped = "SELECT COUNT(*) FROM replicas WHERE state = 'reaped'";
    assert_eq!(world.number(reaped).await, 0);
    world.balanced().await;
}

/// A clock that jumped back stamps heartbeats with a time that comes in an hour.
async fn a_dead_replica_with_a_heartbeat_of_the_future_is_reaped(world: World) {
    let dead = world.other_ledger(quick()).await;
    let key = world.key(1000, None).await;
    let record = dead.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&dead, &record, 50, 50).await.unwrap();
    flushed(&dead).await;
    drop((dead, record));
    let ahead = format!("UPDATE replicas SET heartbeat_at = heartbeat_at + {HOUR_US}");
    world.raw(&ahead).await;
    let _living = world.other_ledger(quick()).await;
    eventually("it is reaped", || async {
        let reaped = "SELECT COUNT(*) FROM replicas WHERE state = 'reaped'";
        world.number(reaped).await == 1
    })
    .await;
    let (available, _, spent) = world.budget(key.account.id.uuid()).await;
    assert_eq!((available, spent), (950, 50));
    world.balanced().await;
}

/// What was changed is heard by its number, whatever time it is stamped with.
async fn a_revocation_stamped_an_hour_ago_is_heard(world: World) {
    let ledger = world.ledger(quick()).await;
    for jump in [-HOUR_US, HOUR_US] {
        let key = world.key(100, None).await;
        let secret = key.secret.expose();
        ledger.authenticate(secret).await.unwrap();
        // The first look is over: from here on changes are acted on.
        flushed(&ledger).await;
        let id = world.literal(key.key.id.uuid());
        let at = world.number("SELECT MAX(heartbeat_at) FROM replicas").await + jump;
        world
            .raw(&format!(
                "UPDATE keys SET revoked_at = {at} WHERE id = {id}; \
                 INSERT INTO changes (kind, id, source, at) VALUES ('key', {id}, NULL, {at})"
            ))
            .await;
        eventually("it is revoked", || async {
            ledger.authenticate(secret).await.err() == Some(AuthError::Revoked)
        })
        .await;
    }
}

on_both!(
    a_living_replica_with_an_old_heartbeat_is_not_reaped,
    a_dead_replica_with_a_heartbeat_of_the_future_is_reaped,
    a_revocation_stamped_an_hour_ago_is_heard,
);
