//! Behind PgBouncer in transaction mode: found out by itself, and everything works without sessions.

use std::sync::Arc;

use serde_json::json;
use store::Pooler as PoolerSetting;
use tests::{Gateway, Place, chat, credits, eventually, tokens_cost};
use throwaway_postgres::{Cluster, Pooler};

use super::{
    blocking,
    traffic::{InFlight, Log, Traffic, books_agree, script, serves_again},
};

/// A server, a pooler before it, and the address of a database through both.
pub(super) struct Pooled {
    pub(super) url: String,
    pub(super) cluster: Arc<Cluster>,
    _pooler: Pooler,
}

impl Pooled {
    pub(super) async fn new() -> Self {
        blocking(|| {
            let cluster = Cluster::start().unwrap();
            let pooler = Pooler::before(&cluster).unwrap();
            let url = cluster.fresh_database().unwrap();
            let name = url.rsplit('/').next().unwrap().to_owned();
            Self {
                url: pooler.url(&name),
                cluster: Arc::new(cluster),
                _pooler: pooler,
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_gateways_serve_behind_a_transaction_pooler() {
    let pooled = Pooled::new().await;
    let one = Gateway::start_at(Place::at(pooled.url.clone()), |_| ()).await;
    let two = one.beside().await;
    script(&one);
    let hot = one.customer("100").await;
    let poor = one.customer("0").await;
    let log = Arc::new(Log::default());
    let traffic = Traffic::start(&[&one, &two], &hot, &log, 6);
    eventually("the traffic flows", async || {
        (log.served() >= 100).then_some(())
    })
    .await;
    let in_flight = InFlight::start(&one, &hot).await;
    // A top-up by one is there for the next request at the other.
    let body = chat("m", json!({"max_tokens": 3}));
    let _ = two.chat(&poor, &body).await.expect(402);
    one.top_up(&poor, tokens_cost(12)).await;
    let answer = two.chat(&poor, &body).await.expect(200);
    log.give(answer.header("x-request-id"), tokens_cost(12));
    // The server goes and comes while the pooler stays.
    let cluster = Arc::clone(&pooled.cluster);
    blocking(move || {
        cluster.kill9().unwrap();
        cluster.restart().unwrap();
    })
    .await;
    let fresh = one.customer("100").await;
    serves_again(&one, &fresh, &log).await;
    in_flight.end_well(&one, &log).await;
    traffic.end().await;
    two.no_holds_left().await;
    let paid_in = [
        (&hot, credits("100")),
        (&poor, tokens_cost(12)),
        (&fresh, credits("100")),
    ];
    books_agree(&one, &paid_in, &log).await;
    two.leave().await;
    // A second start finds its tables there, and no lock left behind.
    let one = one.restart().await;
    let _ = one.chat(&hot, chat("m", json!({}))).await.expect(200);
    one.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_can_be_named_instead_of_found() {
    let pooled = Pooled::new().await;
    let named = |settings: &mut gateway::settings::Settings| {
        settings.database_pooler = PoolerSetting::Transaction;
    };
    let gateway = Gateway::start_at(Place::at(pooled.url.clone()), named).await;
    script(&gateway);
    let customer = gateway.customer("1").await;
    let _ = gateway
        .chat(&customer, chat("m", json!({})))
        .await
        .expect(200);
    gateway.finish().await;
}
