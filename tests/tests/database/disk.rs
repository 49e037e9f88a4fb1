//! No space left: closed, readable, healed by itself, and nothing lost.

use std::{sync::Arc, time::Instant};

use billing::Credits;
use http::Method;
use serde_json::json;
use tests::{Customer, Gateway, LIMIT, Place, Plain, credits, eventually, in_time};
use throwaway_postgres::{Disk, Options};

use super::{
    RECOVERED_WITHIN, Rig, blocking, on_this_machine,
    traffic::{InFlight, Log, Traffic, books_agree, script, serves_again},
};

/// Traffic before, while and after the disk is full.
async fn survives_a_full_disk(
    gateway: Gateway,
    fill: impl AsyncFn(),
    free: impl AsyncFn() -> Instant,
) {
    script(&gateway);
    let (hot, fresh) = (gateway.customer("100").await, gateway.customer("100").await);
    let log = Arc::new(Log::default());
    let traffic = Traffic::start(&[&gateway], &hot, &log, 2);
    eventually("the traffic flows", async || {
        (log.served() >= 20).then_some(())
    })
    .await;
    let in_flight = InFlight::start(&gateway, &hot).await;
    fill().await;
    in_flight.end_well(&gateway, &log).await;
    let paid = until_refused(&gateway, &fresh).await;
    let (served, refused) = (log.served(), log.refused());
    // On a slow machine the lease has ended by now.
    eventually(
        "served from the lease, or refused without one",
        async || (log.served() > served || log.refused() > refused).then_some(()),
    )
    .await;

    let at = free().await;
    // The same payment again: whatever became of it, it counts once.
    let paid_again = async {
        let again = async || (top_up(&gateway, &fresh, paid).await.status < 300).then_some(());
        eventually("the top-up is taken", again).await;
        Instant::now()
    };
    let (taken, first) = tokio::join!(paid_again, serves_again(&gateway, &fresh, &log));
    let recovered = first.max(taken).saturating_duration_since(at);
    println!(
        "{paid} top-ups until the disk was full, {} served, {} refused (the slowest after {:?}), \
         all well {recovered:?} after there was room",
        log.served(),
        log.refused(),
        log.slowest_refusal()
    );
    assert!(
        recovered < on_this_machine(RECOVERED_WITHIN),
        "{recovered:?}"
    );
    traffic.end().await;
    let paid_in = Credits::from_nanos(1_000_000_000 * (100 + i64::from(paid) + 1));
    let paid_in = [(&hot, credits("100")), (&fresh, paid_in)];
    books_agree(&gateway, &paid_in, &log).await;
    gateway.finish().await;
}

async fn top_up(gateway: &Gateway, customer: &Customer, payment: u32) -> Plain {
    let path = format!("/admin/v1/accounts/{}/credits", customer.account_id);
    // Long, so that the disk is soon full to the last byte of every file.
    let body = json!({"amount": "1", "note": "n".repeat(200)});
    let request = gateway
        .call(Method::POST, &path, tests::ADMIN_KEY)
        .header("idempotency-key", format!("payment-{payment}"))
        .body(body.to_string());
    Plain::read(request.send().await.unwrap()).await
}

/// Pays in until that cannot be written any more, and the operator is told so, without what is
/// nobody's business; how many payments were taken.
async fn until_refused(gateway: &Gateway, customer: &Customer) -> u32 {
    let deadline = Instant::now() + LIMIT * 2;
    for payment in 0.. {
        let answer = top_up(gateway, customer, payment).await;
        if answer.status == 201 {
            assert!(Instant::now() < deadline, "the disk is never full");
            continue;
        }
        let refused = answer.expect(503);
        assert_eq!(refused.code(), "unavailable");
        assert!(!refused.header("retry-after").is_empty());
        let text = String::from_utf8_lossy(&refused.body).into_owned();
        assert!(
            !text.contains("/proc/") && !text.contains("relation"),
            "{text}"
        );
        return payment;
    }
    unreachable!("it counts on")
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
