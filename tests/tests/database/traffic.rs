//! Traffic that knows what it was given, and the books that must say the same.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use billing::Credits;
use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{
    Customer, Gateway, PROMPT_TOKENS, Plain, Remote, Streaming, chat, count_tokens, eventually,
    in_time, streamed, tokens_cost, usage,
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::REFUSED_WITHIN;

/// Output of an ordinary answer.
const OUTPUT: u64 = 3;
/// Between two requests that look whether the gateway serves again.
const PROBE_EVERY: Duration = Duration::from_millis(20);

/// What requests came to, as their clients saw it.
#[derive(Default)]
pub(super) struct Log {
    given: Mutex<BTreeMap<String, Credits>>,
    refused: Mutex<Vec<Duration>>,
    served: AtomicUsize,
    waits: Mutex<Vec<Duration>>,
}

impl Log {
    pub(super) fn served(&self) -> usize {
        self.served.load(Ordering::SeqCst)
    }

    pub(super) fn refused(&self) -> usize {
        self.refused.lock().unwrap().len()
    }

    /// How long the slowest refusal took.
    pub(super) fn slowest_refusal(&self) -> Duration {
        let refused = self.refused.lock().unwrap();
        refused.iter().max().copied().unwrap_or_default()
    }

    /// How long served requests took, the longest last.
    pub(super) fn waits(&self) -> Vec<Duration> {
        let mut waits = self.waits.lock().unwrap().clone();
        waits.sort_unstable();
        waits
    }

    /// Adds what another log has noted.
    pub(super) fn take(&self, other: &Self) {
        for (request, cost) in other.given.lock().unwrap().iter() {
            self.give(request, *cost);
        }
    }

    /// Notes an answer that delivered something.
    pub(super) fn give(&self, request: &str, cost: Credits) {
        let before = self.given.lock().unwrap().insert(request.to_owned(), cost);
        assert!(before.is_none(), "two answers to {request}");
        self.served.fetch_add(1, Ordering::SeqCst);
    }

    /// Notes a plain answer. Only books that are away are a reason to refuse.
    pub(super) fn note(&self, answer: &Plain, took: Duration) -> bool {
        if answer.status == 200 {
            let told = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
            self.give(answer.header("x-request-id"), tokens_cost(told));
            self.waits.lock().unwrap().push(took);
            return true;
        }
        assert_eq!(answer.status, 503, "{:?}", answer.body);
        assert_eq!(answer.code(), "unavailable");
        assert!(!answer.header("retry-after").is_empty());
        assert!(took < REFUSED_WITHIN, "kept waiting for {took:?}");
        self.refused.lock().unwrap().push(took);
        false
    }

    /// Notes a stream that has ended.
    pub(super) fn note_stream(&self, stream: &tests::Events) {
        let request = stream.headers["x-request-id"].to_str().unwrap();
        match stream.error() {
            None => {
                assert!(stream.is_done(), "{:?}", stream.data);
                let told = stream.usages()[0]["total_tokens"].as_u64().unwrap();
                self.give(request, tokens_cost(told));
            }
            Some(error) => {
                assert_eq!(error["code"], "unavailable", "{error}");
                let delivered = count_tokens(&stream.text());
                self.give(request, tokens_cost(PROMPT_TOKENS + delivered));
            }
        }
    }
}

/// The scripts of all tests here: `m` answers at once, `aliased` streams up to a gate, `shared`
/// answers behind one.
pub(super) fn script(gateway: &Gateway) {
    let said = |tokens| usage(PROMPT_TOKENS, tokens);
    let answer = Script::new()
        .pause_before_head(Duration::from_millis(10))
        .role()
        .tokens(OUTPUT)
        .finish("stop")
        .usage_json(&said(OUTPUT))
        .done();
    gateway.provider.script("m", answer);
    let stream = Script::new()
        .role()
        .tokens(5)
        .gate("stream")
        .tokens(5)
        .finish("stop")
        .usage_json(&said(10))
        .done();
    gateway.provider.script("real-name", stream);
    let plain = Script::new()
        .gate_before_head("plain")
        .tokens(OUTPUT)
        .finish("stop")
        .usage_json(&said(OUTPUT));
    gateway.provider.script("shared-a", plain);
}

/// Requests that are under way while the database goes.
pub(super) struct InFlight {
    stream: Streaming,
    plain: JoinHandle<Plain>,
}

impl InFlight {
    pub(super) async fn start(gateway: &Gateway, customer: &Customer) -> Self {
        let mut stream = gateway.stream(customer, streamed("aliased")).await;
        stream.read_tokens(5).await;
        let request = gateway.chat_request(customer, chat("shared", json!({"max_tokens": 20})));
        let plain = tokio::spawn(async move { Plain::read(request.send().await.unwrap()).await });
        eventually("the provider has it", async || {
            let seen = gateway.provider.requests();
            let there = seen.iter().any(|seen| seen.json()["model"] == "shared-a");
            there.then_some(())
        })
        .await;
        Self { stream, plain }
    }

    /// Lets the provider go on: both end as if nothing had happened.
    pub(super) async fn end_well(self, gateway: &Gateway, log: &Log) {
        gateway.provider.open("stream");
        gateway.provider.open("plain");
        let stream = self.stream.rest().await;
        assert!(stream.error().is_none(), "{:?}", stream.data);
        log.note_stream(&stream);
        let plain = in_time("the plain answer", self.plain).await.unwrap();
        assert!(log.note(&plain.expect(200), Duration::ZERO));
    }
}

/// Clients that ask on and on, plainly and for streams in turn.
pub(super) struct Traffic {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

impl Traffic {
    pub(super) fn start(
        gateways: &[&Gateway],
        customer: &Customer,
        log: &Arc<Log>,
        count: usize,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..count)
            .map(|place| {
                let remote = Remote::new(gateways[place % gateways.len()].addr());
                let (customer, log) = (customer.clone(), Arc::clone(log));
                let stop = Arc::clone(&stop);
                tokio::spawn(async move {
                    let mut turn = place;
                    while !stop.load(Ordering::SeqCst) {
                        turn += 1;
                        ask(&remote, &customer, &log, turn.is_multiple_of(2)).await;
                    }
                })
            })
            .collect();
        Self { stop, clients }
    }

    /// Lets every client finish its last request.
    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::SeqCst);
        for client in self.clients {
            in_time("the clients' last requests", client).await.unwrap();
        }
    }
}

/// One request; true when it was served.
pub(super) async fn ask(remote: &Remote, customer: &Customer, log: &Log, stream: bool) -> bool {
    let begun = Instant::now();
    let body = if stream {
        streamed("m")
    } else {
        chat("m", json!({"max_tokens": 20}))
    };
    let sent = remote.chat_request(customer, body).send();
    let response = in_time("the head of an answer", sent).await.unwrap();
    if stream && response.status() == 200 {
        log.note_stream(&Streaming::new(response).rest().await);
        return true;
    }
    log.note(&Plain::read(response).await, begun.elapsed())
}

/// Asks again and again, without waiting for answers, until one is served: when that was.
pub(super) async fn serves_again(
    gateway: &Gateway,
    customer: &Customer,
    log: &Arc<Log>,
) -> Instant {
    let remote = Arc::new(Remote::new(gateway.addr()));
    let (tell, mut told) = mpsc::unbounded_channel();
    let mut probes = Vec::new();
    let mut tick = tokio::time::interval(PROBE_EVERY);
    let deadline = Instant::now() + tests::LIMIT;
    let first = loop {
        tokio::select! {
            first = told.recv() => break first.unwrap(),
            _ = tick.tick() => {
                assert!(Instant::now() < deadline, "it never served again");
                let (remote, customer) = (Arc::clone(&remote), customer.clone());
                let (log, tell) = (Arc::clone(log), tell.clone());
                probes.push(tokio::spawn(async move {
                    if ask(&remote, &customer, &log, false).await {
                        let _ = tell.send(Instant::now());
                    }
                }));
            }
        }
    };
    for probe in probes {
        in_time("the answer to a probe", probe).await.unwrap();
    }
    first
}

/// Everything that was charged to a customer.
async fn charges(gateway: &Gateway, customer: &Customer) -> Vec<Value> {
    let mut rows = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!(
            "/charges?limit=1000&account_id={}{cursor}",
            customer.account_id
        );
        let page = gateway
            .admin(Method::GET, &path, None)
            .await
            .expect(200)
            .json();
        rows.extend(page["data"].as_array().unwrap().iter().cloned());
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

/// The books say what the clients saw, to the nano: one charge for each answer, none for a
/// refusal, nothing for the operator to bear; what is left is what was paid in less that.
pub(super) async fn books_agree(gateway: &Gateway, customers: &[(&Customer, Credits)], log: &Log) {
    gateway.no_holds_left().await;
    let answers = log.given.lock().unwrap().len();
    eventually("every answer is booked", async || {
        let mut rows = 0;
        for (customer, _) in customers {
            rows += charges(gateway, customer).await.len();
        }
        (rows >= answers).then_some(())
    })
    .await;
    let mut booked = BTreeMap::new();
    for (customer, paid_in) in customers {
        let mut spent = Credits::ZERO;
        for row in charges(gateway, customer).await {
            let amount = |name: &str| row[name].as_str().unwrap().parse::<Credits>().unwrap();
            assert_eq!(amount("house_loss"), Credits::ZERO, "{row:#}");
            spent = spent.checked_add(amount("charged")).unwrap();
            let id = row["id"].as_str().unwrap().to_owned();
            assert!(booked.insert(id, amount("charged")).is_none(), "{row:#}");
        }
        let left = gateway.settled_balance(customer).await;
        assert_eq!(left.checked_add(spent).unwrap(), *paid_in);
    }
    let given = log.given.lock().unwrap().clone();
    for (request, cost) in &given {
        assert_eq!(booked.get(request), Some(cost), "{request}");
    }
    assert_eq!(booked.len(), given.len(), "charged, and never answered");
    gateway.audit().await;
}
