//! Commits whose answer is lost, and commits that take long: each has its effect once.

use std::{sync::Arc, time::Duration};

use http::Method;
use serde_json::json;
use tests::{Gateway, Place, Plain, credits, eventually};
use throwaway_postgres::AtCommit;

use super::{
    Rig, long,
    traffic::{Log, Traffic, books_agree, script},
};

/// Cuts at every `every`th commit of the journal until so many batches went by.
async fn exactly_once(fault: AtCommit, every: u64) {
    let batches = if long() { 2_000 } else { 100 };
    let rig = Rig::new().await;
    let gateway = Gateway::start_at(Place::at(rig.url.clone()), |_| ()).await;
    script(&gateway);
    let (one, two) = (gateway.customer("100").await, gateway.customer("100").await);
    let log = Arc::new(Log::default());
    rig.proxy.only_commits_of("tollway-journal");
    let before = rig.proxy.commits();
    rig.proxy.at_commits(every, fault);
    let traffic = [
        Traffic::start(&[&gateway], &one, &log, 1),
        Traffic::start(&[&gateway], &two, &log, 1),
    ];
    // However long that takes: what must not happen is that nobody is served any more.
    while rig.proxy.commits() < before + batches {
        let served = log.served();
        eventually("served on", async || (log.served() > served).then_some(())).await;
    }
    rig.proxy.spare_commits();
    for traffic in traffic {
        traffic.end().await;
    }
    println!(
        "{fault:?} at every {every}. of {} batches: {} cut, {} answers, each charged once",
        rig.proxy.commits() - before,
        rig.proxy.faults(),
        log.served()
    );
    assert!(rig.proxy.faults() >= batches / every);
    let paid_in = credits("100");
    books_agree(&gateway, &[(&one, paid_in), (&two, paid_in)], &log).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_whose_commit_is_unknown_count_once() {
    exactly_once(AtCommit::CutAfter, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_whose_commit_was_lost_count_once() {
    exactly_once(AtCommit::CutBefore, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn top_ups_whose_commit_is_unknown_count_once() {
    let rig = Rig::new().await;
    let gateway = Gateway::start_at(Place::at(rig.url.clone()), |_| ()).await;
    let customer = gateway.customer("1").await;
    // The operator's calls, not the journal's batches.
    rig.proxy.only_commits_of("tollway");
    let mut unknown = 0;
    for round in 0..20 {
        let fault = if round % 2 == 0 {
            AtCommit::CutAfter
        } else {
            AtCommit::CutBefore
        };
        rig.proxy.at_next_commit(fault);
        let path = format!("/admin/v1/accounts/{}/credits", customer.account_id);
        let tried = eventually("the top-up is there", async || {
            let request = gateway
                .call(Method::POST, &path, tests::ADMIN_KEY)
                .header("idempotency-key", format!("payment-{round}"))
                .body(json!({"amount": "1"}).to_string());
            let answer = Plain::read(request.send().await.unwrap()).await;
            match answer.status {
                200 => Some(1),
                201 => Some(0),
                _ => {
                    assert_eq!(answer.status, 503, "{:?}", answer.body);
                    assert_eq!(answer.code(), "unavailable");
                    None
                }
            }
        })
        .await;
        unknown += tried;
    }
    rig.proxy.spare_commits();
    // A chore may have caught one in its stead.
    assert!(unknown >= 8, "{unknown}");
    println!("20 top-ups, {unknown} of them found done after an unknown commit");
    assert_eq!(gateway.settled_balance(&customer).await, credits("21"));
    gateway.finish().await;
}

/// A slow disk, told by the answers to COMMIT: a shim before fsync would need another language.
#[tokio::test(flavor = "multi_thread")]
async fn slow_commits_cost_time_and_nothing_else() {
    let rig = Rig::new().await;
    let gateway = Gateway::start_at(Place::at(rig.url.clone()), |_| ()).await;
    script(&gateway);
    let hot = gateway.customer("100").await;
    let log = Arc::new(Log::default());
    for delay_ms in [0, 20, 200, 1500] {
        rig.proxy
            .at_commits(1, AtCommit::Delay(Duration::from_millis(delay_ms)));
        let round = Arc::new(Log::default());
        let traffic = Traffic::start(&[&gateway], &hot, &round, 4);
        eventually("served", async || (round.served() >= 60).then_some(())).await;
        traffic.end().await;
        let waits = round.waits();
        println!(
            "commits {delay_ms} ms later: {} served, plain answers p50 {:?}, slowest {:?}, {} refused",
            round.served(),
            waits[waits.len() / 2],
            waits[waits.len() - 1],
            round.refused()
        );
        log.take(&round);
    }
    rig.proxy.spare_commits();
    books_agree(&gateway, &[(&hot, credits("100"))], &log).await;
    gateway.finish().await;
}
