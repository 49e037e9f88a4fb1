//! The primary dies and its standby is promoted: every confirmed commit is there, and the gateway follows the address.

use std::{sync::Arc, time::Instant};

use tests::{Gateway, Place, credits, eventually};
use throwaway_postgres::Cluster;

use super::{
    RECOVERED_WITHIN, Rig, blocking, on_this_machine,
    traffic::{InFlight, Log, Traffic, books_agree, script, serves_again},
};

/// How the old primary goes.
#[derive(Clone, Copy, Debug)]
enum Going {
    /// Its machine says goodbye: connections break.
    Loudly,
    /// Its machine is gone from the network: connections hang for ever.
    Silently,
}

async fn follows_a_promotion(going: Going) {
    let rig = Rig::new().await;
    let primary = Arc::clone(&rig.cluster);
    let standby: Arc<Cluster> = blocking(move || Arc::new(primary.standby(true).unwrap())).await;
    let gateway = Gateway::start_at(Place::at(rig.url.clone()), |_| ()).await;
    script(&gateway);
    let (hot, fresh) = (gateway.customer("100").await, gateway.customer("100").await);
    let log = Arc::new(Log::default());
    let traffic = Traffic::start(&[&gateway], &hot, &log, 4);
    eventually("the traffic flows", async || {
        (log.served() >= 40).then_some(())
    })
    .await;
    let in_flight = InFlight::start(&gateway, &hot).await;

    match going {
        Going::Loudly => {}
        Going::Silently => rig.proxy.strand(),
    }
    // The address moves before the promotion is through: until then the standby only reads.
    rig.proxy.point_at(standby.address());
    let primary = Arc::clone(&rig.cluster);
    blocking(move || primary.kill9()).await.unwrap();
    in_flight.end_well(&gateway, &log).await;
    let promoted = Arc::clone(&standby);
    let promoting = async {
        blocking(move || promoted.promote()).await.unwrap();
        Instant::now()
    };
    let (at, first) = tokio::join!(promoting, serves_again(&gateway, &fresh, &log));
    let recovered = first.saturating_duration_since(at);
    println!(
        "{going:?}: {} served, {} refused, serving {recovered:?} after the promotion",
        log.served(),
        log.refused()
    );
    assert!(
        recovered < on_this_machine(RECOVERED_WITHIN),
        "{recovered:?}"
    );
    let served = log.served();
    eventually("the traffic flows again", async || {
        (log.served() >= served + 20).then_some(())
    })
    .await;
    traffic.end().await;
    let paid_in = credits("100");
    books_agree(&gateway, &[(&hot, paid_in), (&fresh, paid_in)], &log).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promoted_standby_goes_on_with_the_same_books() {
    follows_a_promotion(Going::Loudly).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_falls_silent_is_left_for_its_standby() {
    follows_a_promotion(Going::Silently).await;
}
