//! Faults: commits in doubt, a server that dies, a process that dies, credit in hand while the database is away.

use std::{
    io::{BufRead, BufReader, Read},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use billing::Reserved;
use store::{Ledger, LedgerOptions};
use throwaway_postgres::{AtCommit, Cluster, Proxy};

use crate::world::{World, eventually, flushed, hold_from, n, open, quick, settlement, soon};

/// Only the journal commits: nobody else takes the fault that is meant for it.
fn alone() -> LedgerOptions {
    LedgerOptions {
        poll: Duration::from_secs(3600),
        chores: Duration::from_secs(3600),
        idle: Duration::from_secs(3600),
        lease_ttl: Duration::from_secs(600),
        ..LedgerOptions::default()
    }
}

/// A world, and a ledger that reaches its database through a proxy.
async fn behind_a_proxy() -> (World, Proxy, Ledger) {
    let world = World::postgres().await;
    let (_, rest) = world.url.split_once("127.0.0.1:").unwrap();
    let port: u16 = rest.split('/').next().unwrap().parse().unwrap();
    let cutter = Proxy::before(([127, 0, 0, 1], port).into()).await.unwrap();
    let store = open(&cutter.url(&world.url)).await;
    let ledger = Ledger::start(store, alone()).await.unwrap();
    (world, cutter, ledger)
}

async fn a_settlement_through(fault: AtCommit) {
    let (world, cutter, ledger) = behind_a_proxy().await;
    let key = world.key(100, Some(90)).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    let held = hold_from(&ledger, &record.path, n(30), soon())
        .await
        .unwrap();
    flushed(&ledger).await;
    cutter.at_next_commit(fault);
    ledger
        .reserve()
        .unwrap()
        .send(settlement(&world.facts(&record), held.replica(), 20, 0));
    held.spend(n(20));
    eventually("cut", || async { cutter.faults() == 1 }).await;
    flushed(&ledger).await;
    assert_eq!(world.number("SELECT COUNT(*) FROM charges").await, 1);
    assert_eq!(world.total(key.account.id).await, 80);
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(world.budget(key.account.id.uuid()).await, (80, 0, 20));
    assert_eq!(world.budget(key.key.id.uuid()).await, (70, 0, 20));
    world.balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_commit_was_lost_is_written_again() {
    a_settlement_through(AtCommit::CutBefore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_settlement_whose_commit_was_in_doubt_is_written_once() {
    a_settlement_through(AtCommit::CutAfter).await;
}

async fn a_lease_through(fault: AtCommit) {
    let (world, cutter, ledger) = behind_a_proxy().await;
    let key = world.key(1000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    // The first heartbeat is through: the next commit is the lease's.
    flushed(&ledger).await;
    cutter.at_next_commit(fault);
    let held = hold_from(&ledger, &record.path, n(600), soon())
        .await
        .unwrap();
    assert_eq!(cutter.faults(), 1);
    // What the database says is leased is what is in memory, no more and no less.
    assert_eq!(world.budget(key.account.id.uuid()).await, (400, 600, 0));
    let figures = record.path.budgets()[0].figures();
    assert_eq!((figures.free, figures.held), (n(0), n(600)));
    drop(held);
    // Giving back through the same fault.
    cutter.at_next_commit(fault);
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(cutter.faults(), 2);
    assert_eq!(world.budget(key.account.id.uuid()).await, (1000, 0, 0));
    world.balanced().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_commit_was_lost_is_taken_again() {
    a_lease_through(AtCommit::CutBefore).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_whose_commit_was_in_doubt_is_taken_once() {
    a_lease_through(AtCommit::CutAfter).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_dies_and_comes_back() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    let world = World::at(cluster.fresh_database().unwrap(), None).await;
    let options = LedgerOptions {
        lease_ttl: Duration::from_secs(60),
        ..LedgerOptions::default()
    };
    let ledger = world
        .ledger(LedgerOptions {
            idle: Duration::from_secs(3600),
            ..options
        })
        .await;
    let key = world.key(1_000_000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    // What the first request leaves goes back with its settlement, what the second leaves stays.
    for _ in 0..2 {
        world.spend(&ledger, &record, 100, 25).await.unwrap();
        flushed(&ledger).await;
    }
    cluster.kill9().unwrap();
    // Holds go on within the leases in hand, and settle later …
    for _ in 0..5 {
        let held = Reserved::take(&record.path, n(100), Instant::now()).unwrap();
        ledger
            .reserve()
            .unwrap()
            .send(settlement(&world.facts(&record), held.replica(), 10, 0));
        held.spend(n(10));
    }
    // … and what the leases do not cover is refused as unknown, not as unpaid.
    let deadline = Instant::now() + Duration::from_millis(300);
    let short = hold_from(&ledger, &record.path, n(5000), deadline)
        .await
        .unwrap_err();
    assert!(short.unavailable);
    assert!(world.store.ping(Duration::from_secs(1)).await.is_err());
    assert!(
        world
            .store
            .account(key.account.id)
            .await
            .unwrap_err()
            .is_unavailable()
    );
    let cluster = tokio::task::spawn_blocking(move || {
        cluster.restart().unwrap();
        cluster
    })
    .await
    .unwrap();
    flushed(&ledger).await;
    assert_eq!(world.total(key.account.id).await, 1_000_000 - 100);
    world.spend(&ledger, &record, 5000, 5000).await.unwrap();
    flushed(&ledger).await;
    assert!(ledger.shutdown(Duration::from_secs(10)).await);
    assert_eq!(
        world.budget(key.account.id.uuid()).await,
        (1_000_000 - 5100, 0, 5100)
    );
    world.balanced().await;
    drop(cluster);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_granted_past_the_lease() {
    let cluster = tokio::task::spawn_blocking(Cluster::start)
        .await
        .unwrap()
        .unwrap();
    let world = World::at(cluster.fresh_database().unwrap(), None).await;
    let ledger = world.ledger(quick()).await;
    let key = world.key(1_000_000, None).await;
    let record = ledger.authenticate(key.secret.expose()).await.unwrap();
    world.spend(&ledger, &record, 100, 50).await.unwrap();
    flushed(&ledger).await;
    cluster.kill9().unwrap();
    let killed = Instant::now();
    eventually("fenced", || async { ledger.stats().fenced }).await;
    assert!(
        killed.elapsed() < quick().lease_ttl,
        "before the lease ends"
    );
    assert!(Reserved::take(&record.path, n(1), Instant::now()).is_err());
    let deadline = Instant::now() + Duration::from_millis(100);
    assert!(
        hold_from(&ledger, &record.path, n(1), deadline)
            .await
            .unwrap_err()
            .unavailable
    );
    // A shutdown without a database ends in time, and says that it did not write everything.
    let permit = ledger.reserve().unwrap();
    permit.send(settlement(
        &world.facts(&record),
        ledger.escrow().replica(),
        10,
        0,
    ));
    assert!(!ledger.shutdown(Duration::from_millis(100)).await);
    assert!(killed.elapsed() < Duration::from_secs(15));
}

/// Asks, looks away until the answer is there and the time is up, and looks again.
async fn answered_with_the_deadline(taken_by_others: bool) {
    for world in [World::sqlite().await, World::postgres().await] {
        let ledger = world.ledger(alone()).await;
        let key = world.key(1_000_000, None).await;
        let record = ledger.authenticate(key.secret.expose()).await.unwrap();
        let deadline = Instant::now() + Duration::from_millis(500);
        let mut obtaining = Box::pin(ledger.obtain(&record.path, n(100), n(100), deadline));
        let asked = tokio::time::timeout(Duration::ZERO, &mut obtaining).await;
        assert!(asked.is_err(), "there was credit before it was asked for");
        let budget = &record.path.budgets()[0];
        eventually("the lease is here", || async {
            budget.figures().free >= n(100) && Instant::now() > deadline
        })
        .await;
        let others = taken_by_others
            .then(|| Reserved::take(&record.path, budget.figures().free, Instant::now()).unwrap());
        match obtaining.await {
            Ok(()) => assert!(!taken_by_others),
            // That nothing is known of the account's credit is not that there is none.
            Err(shortfall) => assert!(taken_by_others && shortfall.unavailable),
        }
        drop(others);
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
        world.balanced().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_that_comes_with_the_deadline_is_there() {
    answered_with_the_deadline(false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_that_others_took_at_the_deadline_is_not_refused_as_unpaid() {
    answered_with_the_deadline(true).await;
}

/// The name under which this program starts itself to be killed.
const CHILD: &str = "TOLLWAY_TEST_CHILD_DATABASE";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_loses_no_written_settlement() {
    if let Ok(url) = std::env::var(CHILD) {
        return child(&url).await;
    }
    for world in [World::sqlite().await, World::postgres().await] {
        let World {
            url,
            store,
            price,
            _folder: folder,
        } = world;
        let key = store
            .create_key(store::NewKey {
                name: "k".into(),
                credits: Some(n(1_000_000)),
                ..store::NewKey::default()
            })
            .await
            .unwrap();
        drop(store);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "faults::a_killed_process_loses_no_written_settlement",
                "--nocapture",
            ])
            .env(CHILD, &url)
            .env("TOLLWAY_TEST_CHILD_KEY", key.secret.expose())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut acknowledged = 0;
        let mut line = String::new();
        while acknowledged < 30 && lines.read_line(&mut line).unwrap() > 0 {
            acknowledged += i64::from(line.contains("written"));
            line.clear();
        }
        child.kill().unwrap();
        let mut rest = String::new();
        lines.read_to_string(&mut rest).unwrap();
        acknowledged += i64::try_from(rest.matches("written").count()).unwrap();
        child.wait().unwrap();
        assert!(acknowledged >= 30);
        let world = World::at(url, folder).await;
        assert_eq!(world.price, price);
        let ledger = world.ledger(quick()).await;
        eventually("the dead process is reaped", || async {
            world
                .number("SELECT COUNT(*) FROM replicas WHERE state = 'reaped'")
                .await
                == 1
        })
        .await;
        let charges = world.number("SELECT COUNT(*) FROM charges").await;
        assert!(charges >= acknowledged, "{charges} of {acknowledged}");
        let spent = charges * 7;
        assert_eq!(
            world.budget(key.account.id.uuid()).await,
            (1_000_000 - spent, 0, spent)
        );
        world.balanced().await;
        assert!(ledger.shutdown(Duration::from_secs(10)).await);
    }
}

/// Spends until it is killed, and tells of every settlement that is surely written.
async fn child(url: &str) {
    let world = World::at(url.to_owned(), None).await;
    let ledger = world.ledger(quick()).await;
    let secret = std::env::var("TOLLWAY_TEST_CHILD_KEY").unwrap();
    let record = ledger.authenticate(&secret).await.unwrap();
    loop {
        world.spend(&ledger, &record, 20, 7).await.unwrap();
        flushed(&ledger).await;
        println!("written");
    }
}
