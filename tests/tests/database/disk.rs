//! No space left: closed, readable, healed by itself, and nothing lost, on both databases.

use std::{sync::Arc, time::Instant};

use http::Method;
use serde_json::json;
use tests::{Customer, Gateway, Place, credits, eventually, in_time};
use throwaway_postgres::{Disk, Options, SmallDisk};

use super::{
    RECOVERED_WITHIN, Rig, blocking, on_this_machine,
    traffic::{InFlight, Log, Traffic, books_agree, script, serves_again},
};

/// Traffic before, while and after `full` has its way with the disk.
async fn survives_a_full_disk(
    gateway: Gateway,
    fill: impl AsyncFn(),
    free: impl AsyncFn() -> Instant,
) {
    script(&gateway);
    let (hot, fresh) = (gateway.customer("100").await, gateway.customer("100").await);
    let log = Arc::new(Log::default());
    let traffic = Traffic::start(&[&gateway], &hot, &log, 4);
    eventually("the traffic flows", async || {
        (log.served() >= 20).then_some(())
    })
    .await;
    let in_flight = InFlight::start(&gateway, &hot).await;
    fill().await;
    in_flight.end_well(&gateway, &log).await;
    // Requests go on until the lease is used up; then they are told.
    eventually("refused", async || (log.refused() > 0).then_some(())).await;
    refused_readably(&gateway, &fresh).await;

    let at = free().await;
    let first = serves_again(&gateway, &hot, &log).await;
    let recovered = first.saturating_duration_since(at);
    println!(
        "{} served, {} refused (the slowest after {:?}), serving {recovered:?} after there was room",
        log.served(),
        log.refused(),
        log.slowest_refusal()
    );
    assert!(
        recovered < on_this_machine(RECOVERED_WITHIN),
        "{recovered:?}"
    );
    traffic.end().await;
    gateway.top_up(&fresh, credits("1")).await;
    let paid_in = [(&hot, credits("100")), (&fresh, credits("101"))];
    books_agree(&gateway, &paid_in, &log).await;
    gateway.finish().await;
}

/// A top-up cannot be written, and the operator is told what to do without what is nobody's
/// business.
async fn refused_readably(gateway: &Gateway, customer: &Customer) {
    let path = format!("/accounts/{}/credits", customer.account_id);
    // A statement that still fits is done: what is asked for takes more than what may be left.
    let note = "n".repeat(200_000);
    let body = json!({"amount": "1", "note": note});
    let begun = Instant::now();
    let refused = gateway.admin(Method::POST, &path, Some(body)).await;
    if refused.status == 400 {
        return;
    }
    let refused = refused.expect(503);
    assert_eq!(refused.code(), "unavailable");
    assert!(!refused.header("retry-after").is_empty());
    let text = String::from_utf8_lossy(&refused.body).into_owned();
    assert!(
        !text.contains("/proc/") && !text.contains("relation"),
        "{text}"
    );
    println!("a top-up is refused after {:?}: {text}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_postgres_costs_nobody_anything() {
    // Not the log of writes: its next piece is made before the disk is full.
    let rig = Rig::with(Options::default().disk(Disk::Data(96 << 20))).await;
    let gateway = Gateway::start_at(Place::at(rig.url.clone()), |_| ()).await;
    let (filled, freed) = (Arc::clone(&rig.cluster), Arc::clone(&rig.cluster));
    survives_a_full_disk(
        gateway,
        async || {
            let cluster = Arc::clone(&filled);
            blocking(move || cluster.disk().unwrap().fill())
                .await
                .unwrap();
        },
        async || {
            let cluster = Arc::clone(&freed);
            blocking(move || cluster.disk().unwrap().free())
                .await
                .unwrap();
            Instant::now()
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_log_of_writes_costs_nobody_anything() {
    let options = Options::default()
        .disk(Disk::Log(16 << 20))
        .setting("wal_recycle", "off")
        .setting("min_wal_size", "2MB")
        .setting("max_wal_size", "4MB");
    let rig = Rig::with(options).await;
    let gateway = Gateway::start_at(Place::at(rig.url.clone()), |_| ()).await;
    let (filled, freed) = (Arc::clone(&rig.cluster), Arc::clone(&rig.cluster));
    survives_a_full_disk(
        gateway,
        async || {
            let cluster = Arc::clone(&filled);
            let panicked = blocking(move || {
                cluster.disk().unwrap().fill().unwrap();
                // To the next piece, for which there is no room: the server ends itself, and
                // does not come up again.
                let deadline = Instant::now() + tests::LIMIT;
                while cluster.pid().is_some() && Instant::now() < deadline {
                    let _ = cluster.sql("SELECT pg_switch_wal()");
                }
                cluster.pid().is_none()
            });
            assert!(in_time("the server gives up", panicked).await);
        },
        async || {
            let cluster = Arc::clone(&freed);
            blocking(move || cluster.disk().unwrap().free())
                .await
                .unwrap();
            let cluster = Arc::clone(&freed);
            let restarting = tokio::task::spawn_blocking(move || cluster.restart());
            let at = super::lets_in(&freed).await;
            restarting.await.unwrap().unwrap();
            at
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_of_sqlite_costs_nobody_anything() {
    let disk = Arc::new(blocking(|| SmallDisk::new(8 << 20)).await.unwrap());
    let url = format!("sqlite://{}/books.db", disk.path().display());
    let gateway = Gateway::start_at(Place::at(url), |_| ()).await;
    let (filled, freed) = (Arc::clone(&disk), Arc::clone(&disk));
    survives_a_full_disk(
        gateway,
        async || {
            let disk = Arc::clone(&filled);
            blocking(move || disk.fill()).await.unwrap();
        },
        async || {
            let disk = Arc::clone(&freed);
            blocking(move || disk.free()).await.unwrap();
            Instant::now()
        },
    )
    .await;
}
