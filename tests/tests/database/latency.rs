//! How soon a top-up and a revocation are known to every other replica, with LISTEN and without.

use std::time::{Duration, Instant};

use http::Method;
use serde_json::json;
use tests::{Customer, Gateway, LIMIT, Place, chat, credits};

use super::{Rig, blocking, median, on_this_machine, pooler::Pooled, traffic::script};

/// The promise.
const KNOWN_WITHIN: Duration = Duration::from_secs(1);
const ROUNDS: usize = 50;

/// The time from `begun` to the first answer of this status.
async fn until(gateway: &Gateway, customer: &Customer, status: u16, begun: Instant) -> Duration {
    loop {
        let answer = gateway
            .chat(customer, chat("m", json!({"max_tokens": 20})))
            .await;
        if answer.status == status {
            return begun.elapsed();
        }
        assert!(
            begun.elapsed() < LIMIT,
            "still {} {:?}",
            answer.status,
            answer.body
        );
    }
}

/// The slowest of the gateways.
async fn all_until(
    gateways: &[Gateway],
    customer: &Customer,
    status: u16,
    begun: Instant,
) -> Duration {
    let waits = gateways
        .iter()
        .map(|gateway| until(gateway, customer, status, begun));
    let took = futures_util::future::join_all(waits).await;
    took.into_iter().max().unwrap_or_default()
}

/// Fifty top-ups and revocations by way of the first gateway, seen from all others.
async fn measure(what: &str, gateways: Vec<Gateway>) {
    script(&gateways[0]);
    let (first, others) = gateways.split_first().unwrap();
    let (mut top_ups, mut revocations) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let customer = first.customer("0").await;
        // Everybody knows the key, and that nothing is there.
        all_until(others, &customer, 402, Instant::now()).await;
        first.top_up(&customer, credits("1")).await;
        top_ups.push(all_until(others, &customer, 200, Instant::now()).await);
        let path = format!("/keys/{}", customer.key_id);
        let _ = first.admin(Method::DELETE, &path, None).await.expect(200);
        revocations.push(all_until(others, &customer, 401, Instant::now()).await);
    }
    let slowest = |figures: &[Duration]| figures.iter().max().copied().unwrap_or_default();
    println!(
        "{what}, {} replicas, {ROUNDS} rounds: top-up p50 {:?}, at most {:?}; revocation p50 {:?}, at most {:?}",
        gateways.len(),
        median(&mut top_ups),
        slowest(&top_ups),
        median(&mut revocations),
        slowest(&revocations),
    );
    for mut figures in [top_ups, revocations] {
        assert!(median(&mut figures) < KNOWN_WITHIN, "{figures:?}");
        assert!(
            slowest(&figures) < on_this_machine(KNOWN_WITHIN),
            "{figures:?}"
        );
    }
    let mut gateways = gateways;
    let last = gateways.remove(0);
    for gateway in gateways {
        gateway.leave().await;
    }
    last.finish().await;
}

async fn gateways(url: &str, count: usize) -> Vec<Gateway> {
    let mut gateways = vec![Gateway::start_at(Place::at(url.to_owned()), |_| ()).await];
    while gateways.len() < count {
        gateways.push(gateways[0].beside().await);
    }
    gateways
}

#[tokio::test(flavor = "multi_thread")]
async fn news_reach_two_replicas_within_a_second() {
    let rig = Rig::new().await;
    measure("listening", gateways(&rig.url, 2).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_reach_four_replicas_within_a_second() {
    let rig = Rig::new().await;
    measure("listening", gateways(&rig.url, 4).await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_reach_replicas_whose_listening_is_kept_dead() {
    let rig = Rig::new().await;
    let gateways = gateways(&rig.url, 4).await;
    // None can be made again …
    rig.proxy.ban("tollway-listen");
    let cluster = std::sync::Arc::clone(&rig.cluster);
    let listening = "FROM pg_stat_activity WHERE application_name = 'tollway-listen'";
    let left = blocking(move || {
        // … and those that were there are ended by the server, if the proxy left any.
        cluster
            .sql(&format!("SELECT pg_terminate_backend(pid) {listening}"))
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = cluster
                .sql(&format!("SELECT count(*) {listening}"))
                .unwrap();
            if left == "0" || Instant::now() > deadline {
                return left;
            }
        }
    })
    .await;
    assert_eq!(left, "0");
    measure("deaf", gateways).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn news_reach_replicas_behind_a_transaction_pooler() {
    let pooled = Pooled::new().await;
    measure("pooled", gateways(&pooled.url, 4).await).await;
}
