//! Stopped, killed, refused, stalled, cut: what clients see meanwhile, and how soon it is over.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tests::{Gateway, Place, Remote, chat, credits, eventually};
use throwaway_postgres::Stop;

use super::{
    RECOVERED_WITHIN, Rig, blocking, lets_in, on_this_machine,
    traffic::{InFlight, Log, Traffic, ask, books_agree, script, serves_again},
};

#[derive(Clone, Copy, Debug)]
enum Outage {
    StopFast,
    StopImmediate,
    Kill,
    Refuse,
    Stall,
}

impl Outage {
    /// Where the gateway finds its database.
    fn place(self, rig: &Rig) -> Place {
        Place::at(match self {
            Self::StopFast | Self::StopImmediate | Self::Kill => rig.direct.clone(),
            Self::Refuse | Self::Stall => rig.url.clone(),
        })
    }

    async fn begin(self, rig: &Rig) {
        let cluster = Arc::clone(&rig.cluster);
        match self {
            Self::StopFast => blocking(move || cluster.stop(Stop::Fast)).await.unwrap(),
            Self::StopImmediate => blocking(move || cluster.stop(Stop::Immediate))
                .await
                .unwrap(),
            Self::Kill => blocking(move || cluster.kill9()).await.unwrap(),
            Self::Refuse => rig.proxy.refuse(),
            Self::Stall => rig.proxy.stall(),
        }
    }

    /// Ends it; when the database let somebody in.
    async fn end(self, rig: &Rig) -> Instant {
        match self {
            Self::StopFast | Self::StopImmediate | Self::Kill => {
                let cluster = Arc::clone(&rig.cluster);
                let restarting = tokio::task::spawn_blocking(move || cluster.restart());
                let at = lets_in(&rig.cluster).await;
                restarting.await.unwrap().unwrap();
                at
            }
            Self::Refuse | Self::Stall => {
                rig.proxy.open();
                Instant::now()
            }
        }
    }
}

/// One outage under traffic.
async fn survives(outage: Outage) {
    let rig = Rig::new().await;
    let gateway = Gateway::start_at(outage.place(&rig), |_| ()).await;
    script(&gateway);
    let (hot, fresh) = (gateway.customer("100").await, gateway.customer("100").await);
    let log = Arc::new(Log::default());
    let traffic = Traffic::start(&[&gateway], &hot, &log, 4);
    eventually("the traffic flows", async || {
        (log.served() >= 20).then_some(())
    })
    .await;
    let in_flight = InFlight::start(&gateway, &hot).await;

    outage.begin(&rig).await;
    let served = log.served();
    // Holds go on within the lease in hand, and what is under way ends well …
    eventually("served from the lease", async || {
        (log.served() >= served + 8).then_some(())
    })
    .await;
    in_flight.end_well(&gateway, &log).await;
    // … and who has no lease is told so, in time.
    let remote = Remote::new(gateway.addr());
    let begun = Instant::now();
    assert!(
        !ask(&remote, &fresh, &log, false).await,
        "served without books"
    );
    let refused = begun.elapsed();

    let (at, first) = tokio::join!(outage.end(&rig), serves_again(&gateway, &fresh, &log));
    let recovered = first.saturating_duration_since(at);
    let went_on = log.served() - served;
    println!(
        "{outage:?}: {went_on} served meanwhile, {} refused (the slowest after {:?}, one without \
         a lease after {refused:?}), serving {recovered:?} after the database",
        log.refused(),
        log.slowest_refusal()
    );
    assert!(
        recovered < on_this_machine(RECOVERED_WITHIN),
        "{recovered:?}"
    );
    traffic.end().await;
    let paid_in = credits("100");
    books_agree(&gateway, &[(&hot, paid_in), (&fresh, paid_in)], &log).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_server_costs_nobody_anything() {
    survives(Outage::StopFast).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_stopped_at_once_costs_nobody_anything() {
    survives(Outage::StopImmediate).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_server_costs_nobody_anything() {
    survives(Outage::Kill).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_refuses_costs_nobody_anything() {
    survives(Outage::Refuse).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_network_that_swallows_everything_costs_nobody_anything() {
    survives(Outage::Stall).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_connections_are_not_noticed_by_clients() {
    let rig = Rig::new().await;
    let gateway = Gateway::start_at(Place::at(rig.url.clone()), |_| ()).await;
    script(&gateway);
    let hot = gateway.customer("100").await;
    let log = Arc::new(Log::default());
    let traffic = Traffic::start(&[&gateway], &hot, &log, 4);
    for _ in 0..20 {
        let served = log.served();
        rig.proxy.cut();
        eventually("served on", async || {
            (log.served() >= served + 4).then_some(())
        })
        .await;
    }
    traffic.end().await;
    assert_eq!(log.refused(), 0, "a connection that breaks is made again");
    books_agree(&gateway, &[(&hot, credits("100"))], &log).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_longer_than_the_leases_takes_no_living_replica_for_dead() {
    let rig = Rig::new().await;
    let one = Gateway::start_at(Place::at(rig.direct.clone()), |_| ()).await;
    let two = one.beside().await;
    script(&one);
    let hot = one.customer("100").await;
    let log = Arc::new(Log::default());
    let traffic = Traffic::start(&[&one, &two], &hot, &log, 4);
    eventually("the traffic flows", async || {
        (log.served() >= 20).then_some(())
    })
    .await;
    let in_flight = InFlight::start(&one, &hot).await;
    let cluster = Arc::clone(&rig.cluster);
    blocking(move || cluster.stop(Stop::Fast)).await.unwrap();
    let stopped = Instant::now();
    eventually("both stop granting", async || {
        let fenced = |gateway: &Gateway| gateway.app().ledger.stats().fenced;
        (fenced(&one) && fenced(&two)).then_some(())
    })
    .await;
    // Before the ten seconds that their leases are good for.
    assert!(stopped.elapsed() < Duration::from_secs(10));
    // And on until every heartbeat is older than lease and grace together.
    eventually("the leases would have run out", async || {
        (stopped.elapsed() > Duration::from_secs(13)).then_some(())
    })
    .await;
    let (at, first) = tokio::join!(Outage::Kill.end(&rig), serves_again(&one, &hot, &log));
    println!(
        "after 13 s away: serving {:?} after the database",
        first.saturating_duration_since(at)
    );
    in_flight.end_well(&one, &log).await;
    traffic.end().await;
    two.no_holds_left().await;
    // Also what was under way was settled in time, by who had begun it: nobody bore a loss.
    books_agree(&one, &[(&hot, credits("100"))], &log).await;
    let _ = one.chat(&hot, chat("m", json!({}))).await.expect(200);
    two.leave().await;
    one.finish().await;
}
