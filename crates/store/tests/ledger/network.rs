//! What stands between the ledger and its database: a pooler without sessions, a network that swallows connections.

use std::time::{Duration, Instant};

use billing::Reserved;
use store::{Ledger, LedgerOptions};
use throwaway_postgres::{AtCommit, Cluster, Pooler, Proxy};

use crate::world::{World, eventually, flushed, hold_from, n, open, quick, settlement, soon};

async fn cluster() -> Cluster {
    tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap()
}

/// A world whose store goes through PgBouncer in transaction mode, found out by itself.
async fn pooled() -> (Cluster, Pooler, World) {
    let cluster = cluster().await;
    let (cluster, pooler, url) = tokio::task::spawn_blocking(move || {
        let pooler = Pooler::before(&cluster).unwrap();
        let url = cluster.fresh_database().unwrap();
        let name = url.rsplit('/').next().unwrap().to_owned();
        let through = pooler.url(&name);
        (cluster, pooler, through)
    })
    .await
    .unwrap();
    let world = World::at(url, None).await;
    (cluster, pooler, world)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_ledger_works_through_a_transaction_pooler() {
    let (_cluster, _pooler, world) = pooled().await;
    // More connections than the pooler has sessions, all in use at once.
    let ledgers = [
        world.ledger(quick()).await,
        world.other_ledger(quick()).await,
        world.other_ledger(quick()).await,
    ];
    let mut spenders = Vec::new();
    let mut keys = Vec::new();
    for turn in 0..12 {
        let key = world.key(10_000, Some(9_000)).await;
        let ledger = ledgers[turn % 3].clone();
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        keys.push(key);
        let facts: Vec<_> = (0..10).map(|_| world.facts(&record)).collect();
        spenders.push(tokio::spawn(async move {
            for facts in facts {
                let held = hold_from(&ledger, &record.path, n(100), soon()).await;
                let held = held.unwrap();
                let permit = ledger.reserve().unwrap();
                permit.send(settlement(&facts, held.replica(), 70, 0));
                held.spend(n(70));
            }
        }));
    }
    for spender in spenders {
        spender.await.unwrap();
    }
    for ledger in &ledgers {
        flushed(ledger).await;
    }
    for key in &keys {
        assert_eq!(world.total(key.account.id).await, 10_000 - 700);
    }
    // What another replica changes is heard of without LISTEN.
    let record = ledgers[1]
        .authenticate(keys[0].secret.expose())
        .await
        .unwrap();
    world.store.revoke_key(record.key_id).await.unwrap();
    eventually("the revocation is known", || async {
        ledgers[1]
            .authenticate(keys[0].secret.expose())
            .await
            .is_err()
    })
    .await;
    for ledger in ledgers {
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
    }
    world.balanced().await;
}

/// A ledger that reaches its database through a proxy, with a key that has credit.
async fn proxied(options: LedgerOptions) -> (World, Proxy, Ledger) {
    let world = World::postgres().await;
    let (_, rest) = world.url.split_once("127.0.0.1:").unwrap();
    let port: u16 = rest.split('/').next().unwrap().parse().unwrap();
    let proxy = Proxy::before(([127, 0, 0, 1], port).into()).await.unwrap();
    let store = open(&proxy.url(&world.url)).await;
    let ledger = Ledger::start(store, options).await.unwrap();
    (world, proxy, ledger)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swallowed_connection_is_left_within_seconds() {
    let (world, proxy, ledger) = proxied(LedgerOptions::default()).await;
    let keys = [world.key(1000, None).await, world.key(1000, None).await];
    let record = ledger.authenticate(keys[0].secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 100, 50).await.unwrap();
    flushed(&ledger).await;
    for round in 0..3 {
        // Nobody says that these connections are dead: not the server, not the network.
        proxy.strand();
        let begun = Instant::now();
        world.spend(&ledger, &record, 200, 50).await.unwrap();
        flushed(&ledger).await;
        println!("round {round}: written after {:?}", begun.elapsed());
        // The server's own bound on a statement is fifteen seconds.
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
    }
    // Nor do dead connections of the pool keep a key from being looked up.
    proxy.strand();
    let begun = Instant::now();
    let _ = ledger.authenticate(keys[1].secret.expose()).await.unwrap();
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
    assert!(ledger.shutdown(Duration::from_secs(20)).await);
    assert_eq!(world.total(keys[0].account.id).await, 800);
    world.balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_cut_off_by_the_same_outage_is_not_taken_for_dead() {
    let options = LedgerOptions {
        lease_ttl: Duration::from_secs(3),
        lease_margin: Duration::from_millis(500),
        ..quick()
    };
    let (world, first_proxy, first) = proxied(options.clone()).await;
    let (_, rest) = world.url.split_once("127.0.0.1:").unwrap();
    let port: u16 = rest.split('/').next().unwrap().parse().unwrap();
    let second_proxy = Proxy::before(([127, 0, 0, 1], port).into()).await.unwrap();
    let second = Ledger::start(open(&second_proxy.url(&world.url)).await, options.clone());
    let second = second.await.unwrap();
    let key = world.key(1000, None).await;
    let record = first.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&first, &record.path, n(100), soon())
        .await
        .unwrap();
    flushed(&first).await;
    // Each sees the other live.
    let alive = "SELECT COUNT(*) FROM replicas WHERE state = 'alive'";
    assert_eq!(world.number(alive).await, 2);
    first_proxy.refuse();
    second_proxy.refuse();
    let begun = Instant::now();
    eventually("a whole life without the database", || async {
        begun.elapsed() > options.lease_ttl + options.lease_margin * 3
    })
    .await;
    // The other one is back first, and looks around.
    second_proxy.open();
    eventually("the other one is back", || async { !second.stats().fenced }).await;
    let back = Instant::now();
    eventually("the other one has looked around", || async {
        back.elapsed() > options.lease_margin * 2
    })
    .await;
    first_proxy.open();
    first
        .reserve()
        .unwrap()
        .send(settlement(&world.facts(&record), held.replica(), 60, 0));
    held.spend(n(60));
    flushed(&first).await;
    assert_eq!(world.number(alive).await, 2);
    assert_eq!(
        world
            .number("SELECT COUNT(*) FROM charges WHERE late")
            .await,
        0
    );
    for ledger in [first, second] {
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
    }
    assert_eq!(world.total(key.account.id).await, 940);
    world.balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_commit_is_waited_for() {
    let (world, proxy, ledger) = proxied(LedgerOptions::default()).await;
    let key = world.key(1000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    // Not the first request: what that leaves goes back with its settlement.
    world.spend(&ledger, &record, 100, 50).await.unwrap();
    flushed(&ledger).await;
    // A lock that somebody has: the server is at work, and the journal does not start over.
    proxy.only_commits_of("tollway-journal");
    let before = proxy.commits();
    proxy.at_next_commit(AtCommit::Delay(Duration::from_millis(300)));
    let begun = Instant::now();
    world.spend(&ledger, &record, 100, 50).await.unwrap();
    flushed(&ledger).await;
    assert!(begun.elapsed() >= Duration::from_millis(300));
    assert!(proxy.commits() > before);
    assert!(Reserved::take(&record.path, n(1), Instant::now()).is_ok());
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.total(key.account.id).await, 900);
    world.balanced().await;
}
