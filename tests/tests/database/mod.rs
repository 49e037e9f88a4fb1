//! The database goes away, in every way: nothing is given away, nothing is lost, and it recovers by itself.

mod commits;
mod disk;
mod failover;
mod latency;
mod outage;
mod pooler;
mod traffic;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use throwaway_postgres::{Cluster, Options, Proxy};

/// The longest that a request may be kept waiting for books that are away, on a busy machine: the
/// gateway itself gives up after five seconds, and a key's look-up after as many before that.
const REFUSED_WITHIN: Duration = Duration::from_secs(13);
/// From the moment when the database lets somebody in to the first answered request.
const RECOVERED_WITHIN: Duration = Duration::from_secs(1);

/// True in the long forms of these tests, which `TOLLWAY_TEST_LONG=1` asks for.
fn long() -> bool {
    std::env::var_os("TOLLWAY_TEST_LONG").is_some_and(|value| value == "1")
}

/// What a bound is on this machine: `TOLLWAY_TEST_SLACK` times as long. The long forms hold
/// themselves to the bound; elsewhere a machine that is busy with other tests gets five times that.
fn on_this_machine(bound: Duration) -> Duration {
    let given = std::env::var("TOLLWAY_TEST_SLACK").ok();
    let slack = given.and_then(|text| text.parse().ok());
    bound * slack.unwrap_or(if long() { 1 } else { 5 })
}

/// Runs what blocks off the async threads.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// A server of the test's own, a database in it, and a proxy before it.
struct Rig {
    cluster: Arc<Cluster>,
    proxy: Proxy,
    /// The database's address through the proxy.
    url: String,
    /// Past it: a server that is down refuses, where the proxy accepts and breaks off.
    direct: String,
}

impl Rig {
    async fn new() -> Self {
        Self::with(Options::default()).await
    }

    async fn with(options: Options) -> Self {
        let (cluster, direct) = blocking(move || {
            let cluster = Cluster::start_with(options).unwrap();
            let url = cluster.fresh_database().unwrap();
            (Arc::new(cluster), url)
        })
        .await;
        let proxy = Proxy::before(cluster.address()).await.unwrap();
        Self {
            cluster,
            url: proxy.url(&direct),
            direct,
            proxy,
        }
    }
}

/// The moment when a server lets somebody in, however short it was ago.
async fn lets_in(cluster: &Arc<Cluster>) -> Instant {
    let cluster = Arc::clone(cluster);
    blocking(move || {
        let deadline = Instant::now() + tests::LIMIT;
        while !cluster.accepts() {
            assert!(Instant::now() < deadline, "the server lets nobody in");
            // tidy: sleeps because it looks again, with a deadline, for what comes by itself.
            std::thread::sleep(Duration::from_millis(2));
        }
        Instant::now()
    })
    .await
}

/// Half of the figures are not above this one.
fn median(figures: &mut [Duration]) -> Duration {
    figures.sort_unstable();
    figures.get(figures.len() / 2).copied().unwrap_or_default()
}
