//! A retry never pays twice: one request for each Idempotency-Key, whatever happens to it, on any number of gateways.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use mock_provider::{Cut, MockProvider, Script};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tests::{
    Books, Customer, Gateway, PROMPT_TOKENS, Place, Plain, Program, Remote, chat, count_tokens,
    credits, eventually, in_time, streamed, tokens_cost, usage,
};
use tokio::sync::Barrier;

/// Far more credit than any of these needs.
const PLENTY: &str = "10";
/// Callers at once.
const CALLERS: usize = 50;
/// Output tokens of an answer.
const OUTPUT: u64 = 5;

fn said(tokens: u64) -> Script {
    Script::new()
        .tokens(tokens)
        .finish("stop")
        .usage_json(&usage(PROMPT_TOKENS, tokens))
        .done()
}

async fn send(gateway: &Remote, customer: &Customer, key: &str, body: &Value) -> Response {
    let request = gateway
        .chat_request(customer, body)
        .header("idempotency-key", key);
    in_time("the head of an answer", request.send())
        .await
        .unwrap()
}

async fn call(gateway: &Remote, customer: &Customer, key: &str, body: &Value) -> Plain {
    Plain::read(send(gateway, customer, key, body).await).await
}

fn is_replay(answer: &Plain) -> bool {
    answer.header("idempotent-replayed") == "true"
}

/// What was taken for a customer's requests that cost something: there is one.
async fn paid_once(gateway: &Remote, customer: &Customer, tokens: u64) {
    let cost = tokens_cost(tokens);
    let path = format!("/charges?account_id={}", customer.account_id);
    // Another gateway may have run it: what that one has not booked yet does not show here.
    let paid = eventually("the charge is booked", async || {
        let list = gateway.admin(Method::GET, &path, None).await.expect(200);
        let charges = list.json()["data"].as_array().unwrap().clone();
        let paid = charges.into_iter().filter(|c| c["charged"] != "0");
        let paid: Vec<Value> = paid.collect();
        (!paid.is_empty()).then_some(paid)
    })
    .await;
    assert_eq!(paid.len(), 1, "{paid:#?}");
    assert_eq!(paid[0]["charged"], json!(cost), "{paid:#?}");
    let left = gateway.settled_balance(customer).await;
    assert_eq!(left, credits(PLENTY).checked_sub(cost).unwrap());
}

/// Callers with one key, released by a barrier, spread over the gateways.
async fn crowd(gateways: &[&Gateway], customer: &Customer, key: &str, body: &Value) -> Vec<Plain> {
    let barrier = Arc::new(Barrier::new(CALLERS));
    let calls = (0..CALLERS).map(|place| {
        let gateway = gateways[place % gateways.len()];
        let barrier = barrier.clone();
        let request = gateway
            .chat_request(customer, body)
            .header("idempotency-key", key);
        tokio::spawn(async move {
            barrier.wait().await;
            Plain::read(request.send().await.unwrap()).await
        })
    });
    let calls: Vec<_> = calls.collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(in_time("an answer", call).await.unwrap());
    }
    answers
}

/// Fifty callers on these gateways, for a plain answer and for a stream: one request, one charge,
/// one answer.
async fn fifty_are_one(gateways: &[&Gateway]) {
    let first = gateways[0];
    for (key, body) in [("plain", chat("m", json!({}))), ("stream", streamed("m"))] {
        let before = first.provider.stats().requests;
        first
            .provider
            .script("m", said(OUTPUT).gate_before_head(key));
        let customer = first.customer(PLENTY).await;
        let provider = first.provider.clone();
        let open = async {
            let asked = provider.wait_for(|stats| stats.at_gates > 0);
            asked.await.unwrap();
            provider.open(key);
        };
        let (answers, ()) = tokio::join!(crowd(gateways, &customer, key, &body), open);
        assert_eq!(first.provider.stats().requests - before, 1, "{key}");
        let mut bodies: BTreeMap<Bytes, usize> = BTreeMap::new();
        let mut ids: BTreeMap<String, usize> = BTreeMap::new();
        for answer in &answers {
            assert_eq!(answer.status, 200, "{key}: {:?}", answer.body);
            *bodies.entry(answer.body.clone()).or_default() += 1;
            let id = answer.header("x-request-id").to_owned();
            *ids.entry(id).or_default() += 1;
        }
        assert_eq!(bodies.len(), 1, "{key}: {bodies:?}");
        assert_eq!(ids.len(), 1, "{key}: {ids:?}");
        let replays = answers.iter().filter(|answer| is_replay(answer)).count();
        assert_eq!(replays, CALLERS - 1, "{key}");
        for gateway in gateways {
            gateway.no_holds_left().await;
        }
        paid_once(first, &customer, PROMPT_TOKENS + OUTPUT).await;
        // Long after, on any of them, it is still the same.
        for gateway in gateways {
            let again = call(gateway, &customer, key, &body).await.expect(200);
            assert!(is_replay(&again) && bodies.contains_key(&again.body));
        }
        paid_once(first, &customer, PROMPT_TOKENS + OUTPUT).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_fifty_callers_at_once_on_four_gateways_are_one_request() {
    let one = Gateway::start(Books::Postgres).await;
    let (two, three, four) = tokio::join!(one.beside(), one.beside(), one.beside());
    fifty_are_one(&[&one, &two, &three, &four]).await;
    for gateway in [two, three, four] {
        gateway.leave().await;
    }
    one.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_fifty_callers_at_once_on_one_gateway_are_one_request() {
    let gateway = Gateway::start(Books::Sqlite).await;
    fifty_are_one(&[&gateway]).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_stands_for_one_request_of_one_api_key() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        gateway.provider.script("m", said(OUTPUT));
        let customer = gateway.customer(PLENTY).await;
        let body = chat("m", json!({}));
        let first = call(&gateway, &customer, "k", &body).await.expect(200);
        assert!(!is_replay(&first));
        let refused = |answer: Plain| {
            assert_eq!(answer.status, 422, "{:?}", answer.body);
            assert_eq!(answer.code(), "idempotency_key_reused");
        };
        // Another body, and be it a space.
        refused(call(&gateway, &customer, "k", &chat("m", json!({"n": 1}))).await);
        let spaced = gateway
            .chat_request(&customer, format!("{body} "))
            .header("idempotency-key", "k");
        refused(Plain::read(spaced.send().await.unwrap()).await);
        // Another key of the same account, which may be in other hands.
        let more = json!({"name": "second", "account_id": customer.account_id});
        let second = gateway.customer_with(more).await;
        refused(call(&gateway, &second, "k", &body).await);
        // Another account does not even see that the key is taken.
        let other = gateway.customer(PLENTY).await;
        let theirs = call(&gateway, &other, "k", &body).await.expect(200);
        assert!(!is_replay(&theirs));
        assert_ne!(theirs.header("x-request-id"), first.header("x-request-id"));
        assert_eq!(gateway.provider.stats().requests, 2);
        let again = call(&gateway, &customer, "k", &body).await.expect(200);
        assert_eq!(again.body, first.body);
        assert_eq!(again.header("x-request-id"), first.header("x-request-id"));
        assert_eq!(again.header("content-type"), first.header("content-type"));
        paid_once(&gateway, &customer, PROMPT_TOKENS + OUTPUT).await;
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_have_a_form() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway.provider.script("m", said(OUTPUT));
    let customer = gateway.customer(PLENTY).await;
    let body = chat("m", json!({}));
    for bad in ["", " ", "a b", "\u{e4}", &"x".repeat(256)] {
        let answer = call(&gateway, &customer, bad, &body).await.expect(400);
        assert_eq!(
            answer.json()["error"]["param"],
            "Idempotency-Key",
            "{bad:?}"
        );
    }
    let twice = gateway
        .chat_request(&customer, &body)
        .header("idempotency-key", "a")
        .header("idempotency-key", "b");
    let answer = Plain::read(twice.send().await.unwrap()).await.expect(400);
    assert_eq!(answer.json()["error"]["param"], "Idempotency-Key");
    assert_eq!(gateway.provider.stats().requests, 0);
    let longest = "x".repeat(255);
    let _ = call(&gateway, &customer, &longest, &body).await.expect(200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_nothing_frees_its_key() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("0").await;
        let (plain, stream) = (chat("m", json!({})), streamed("m"));
        // Not admitted.
        let _ = call(&gateway, &customer, "a", &plain).await.expect(402);
        gateway.top_up(&customer, credits(PLENTY)).await;
        // Refused before it is anything.
        let none = chat("no-such", json!({}));
        let _ = call(&gateway, &customer, "a", &none).await.expect(404);
        for (key, body) in [("a", &plain), ("b", &stream)] {
            for (failing, status) in [
                (Script::error(500), 502),
                (Script::error(429), 429),
                (Script::new().cut_before_head(Cut::Reset), 502),
                (Script::new().cut(Cut::Close), 502),
            ] {
                gateway.provider.script("m", failing);
                let answer = call(&gateway, &customer, key, body).await;
                assert_eq!(answer.status, status, "{:?}", answer.body);
            }
        }
        // Broken off in the open stream, but before any output.
        let role = Script::new().role().gate("role").cut(Cut::Close);
        gateway.provider.script("m", role);
        let mut broken = tests::Streaming::new(send(&gateway, &customer, "b", &stream).await);
        let _ = broken.next().await.unwrap();
        gateway.provider.open("role");
        let broken = broken.rest().await;
        assert_eq!(broken.error().unwrap()["code"], "upstream_error");
        gateway.provider.script("m", said(OUTPUT));
        let answer = call(&gateway, &customer, "a", &plain).await.expect(200);
        assert!(!is_replay(&answer));
        paid_once(&gateway, &customer, PROMPT_TOKENS + OUTPUT).await;
        let answer = call(&gateway, &customer, "b", &stream).await.expect(200);
        assert!(!is_replay(&answer));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_broke_is_replayed_with_its_error_and_not_charged_again() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        // The provider fails in the middle.
        let script = Script::new().role().tokens(OUTPUT).cut(Cut::Close);
        gateway.provider.script("m", script);
        let customer = gateway.customer(PLENTY).await;
        let body = streamed("m");
        let first = call(&gateway, &customer, "k", &body).await.expect(200);
        let text = String::from_utf8_lossy(&first.body).into_owned();
        assert!(text.contains("upstream_error") && text.ends_with("data: [DONE]\n\n"));
        gateway.provider.script("m", said(OUTPUT));
        let again = call(&gateway, &customer, "k", &body).await.expect(200);
        assert!(is_replay(&again));
        assert_eq!(again.body, first.body);
        paid_once(&gateway, &customer, PROMPT_TOKENS + OUTPUT).await;
        // The credits run out in the middle; after a top-up it is still the same answer.
        let poor = gateway.customer(tokens_cost(PROMPT_TOKENS + 3)).await;
        let script = Script::new().role().tokens(40).finish("stop").done();
        gateway.provider.script("m", script);
        let first = call(&gateway, &poor, "k", &body).await.expect(200);
        let text = String::from_utf8_lossy(&first.body).into_owned();
        assert!(text.contains("insufficient_quota"), "{text}");
        gateway.top_up(&poor, credits("1")).await;
        let before = gateway.provider.stats().requests;
        let again = call(&gateway, &poor, "k", &body).await.expect(200);
        assert_eq!(again.body, first.body);
        assert_eq!(gateway.provider.stats().requests, before);
        assert_eq!(gateway.settled_balance(&poor).await, credits("1"));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_comes_back_for_the_whole_answer() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer(PLENTY).await;
        // In the middle of a stream.
        let script = Script::new().role().tokens(3).gate("rest");
        let script = script.tokens(4).finish("stop");
        let script = script.usage_json(&usage(PROMPT_TOKENS, 7)).done();
        gateway.provider.script("m", script);
        let body = streamed("m");
        let mut stream = tests::Streaming::new(send(&gateway, &customer, "s", &body).await);
        stream.read_tokens(3).await;
        let id = stream.headers["x-request-id"].clone();
        drop(stream);
        let back = tokio::spawn({
            let sent = gateway
                .chat_request(&customer, &body)
                .header("idempotency-key", "s");
            async move {
                tests::Streaming::new(sent.send().await.unwrap())
                    .rest()
                    .await
            }
        });
        gateway.provider.open("rest");
        let events = in_time("the replay", back).await.unwrap();
        assert_eq!(count_tokens(&events.text()), 7, "{:?}", events.data);
        assert!(events.is_done() && events.error().is_none());
        assert_eq!(events.headers["x-request-id"], id);
        paid_once(&gateway, &customer, PROMPT_TOKENS + 7).await;
        // Before a plain answer.
        let customer = gateway.customer(PLENTY).await;
        let body = chat("m", json!({}));
        let script = said(OUTPUT).gate_before_head("head");
        gateway.provider.script("m", script);
        let before = gateway.provider.stats().requests;
        let left = tokio::spawn({
            let sent = gateway
                .chat_request(&customer, &body)
                .header("idempotency-key", "p");
            async move { sent.send().await.map(|_| ()) }
        });
        let asked = gateway.provider.wait_for(|stats| stats.at_gates == 1);
        asked.await.unwrap();
        left.abort();
        let _ = left.await;
        gateway.provider.open("head");
        let answer = call(&gateway, &customer, "p", &body).await.expect(200);
        assert!(is_replay(&answer));
        assert_eq!(gateway.provider.stats().requests - before, 1);
        paid_once(&gateway, &customer, PROMPT_TOKENS + OUTPUT).await;
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_waited_for_is_cut_and_says_so() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.drain_max = Duration::from_millis(200);
    })
    .await;
    let script = Script::new().role().tokens(3).gate("never");
    gateway.provider.script("m", script);
    let customer = gateway.customer(PLENTY).await;
    let body = streamed("m");
    let mut stream = tests::Streaming::new(send(&gateway, &customer, "s", &body).await);
    stream.read_tokens(3).await;
    drop(stream);
    let again = tests::Streaming::new(send(&gateway, &customer, "s", &body).await);
    let again = again.rest().await;
    assert_eq!(count_tokens(&again.text()), 3);
    assert_eq!(again.error().unwrap()["code"], "answer_cut");
    assert!(again.is_done());
    paid_once(&gateway, &customer, PROMPT_TOKENS + 3).await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_to_come_back() {
    for books in Books::ALL {
        let one = Gateway::start_with(books, |settings| {
            settings.idempotency_wait = Duration::from_millis(200);
        })
        .await;
        let script = said(OUTPUT).gate_before_head("go");
        one.provider.script("m", script);
        let customer = one.customer(PLENTY).await;
        let body = chat("m", json!({}));
        let running = tokio::spawn({
            let sent = one
                .chat_request(&customer, &body)
                .header("idempotency-key", "k");
            async move { Plain::read(sent.send().await.unwrap()).await }
        });
        let asked = one.provider.wait_for(|stats| stats.at_gates == 1);
        asked.await.unwrap();
        let two = match books {
            Books::Sqlite => None,
            Books::Postgres => Some(one.beside().await),
        };
        for gateway in [Some(&one), two.as_ref()].into_iter().flatten() {
            let early = call(gateway, &customer, "k", &body).await.expect(409);
            assert_eq!(early.code(), "request_still_running");
            assert_eq!(early.header("retry-after"), "1");
            assert_eq!(early.header("x-should-retry"), "true");
            let other = chat("m", json!({"n": 1}));
            let _ = call(gateway, &customer, "k", &other).await.expect(422);
        }
        one.provider.open("go");
        let first = running.await.unwrap().expect(200);
        let again = eventually("the answer is kept", async || {
            let again = call(&one, &customer, "k", &body).await;
            (again.status == 200).then_some(again)
        })
        .await;
        assert_eq!(again.body, first.body);
        paid_once(&one, &customer, PROMPT_TOKENS + OUTPUT).await;
        if let Some(two) = two {
            two.leave().await;
        }
        one.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_kept_has_bounds() {
    for books in Books::ALL {
        let gateway = Gateway::start_with(books, |settings| {
            settings.idempotency_answer_bytes_max = 4_000;
            settings.idempotency_account_bytes_max = 800;
            settings.idempotency_keys_max = 5;
        })
        .await;
        let customer = gateway.customer(PLENTY).await;
        let body = chat("m", json!({}));
        // One that is too long to be kept.
        gateway.provider.script("m", said(4_000));
        let long = call(&gateway, &customer, "long", &body).await.expect(200);
        assert!(long.body.len() > 4_000);
        gateway.provider.script("m", said(OUTPUT));
        let not_kept = async |key: &str, id: &str| {
            let answer = call(&gateway, &customer, key, &body).await.expect(409);
            assert_eq!(answer.code(), "answer_not_kept");
            assert_eq!(answer.header("x-should-retry"), "false");
            let text = answer.json()["error"]["message"].to_string();
            assert!(text.contains(id), "{text}");
        };
        not_kept("long", long.header("x-request-id")).await;
        // So many that the oldest are dropped: they are not served, nor charged again.
        let mut ids = Vec::new();
        for key in ["1", "2", "3", "4"] {
            let answer = call(&gateway, &customer, key, &body).await.expect(200);
            // One fits and four do not.
            assert!((201..=800).contains(&answer.body.len()));
            ids.push(answer.header("x-request-id").to_owned());
        }
        let last = call(&gateway, &customer, "4", &body).await.expect(200);
        assert!(is_replay(&last));
        not_kept("1", &ids[0]).await;
        // And no more keys than that, while requests without one are served.
        let full = call(&gateway, &customer, "5", &body).await.expect(429);
        assert_eq!(full.code(), "rate_limit_exceeded");
        assert!(!full.header("retry-after").is_empty());
        assert_eq!(full.header("x-should-retry"), "false");
        let _ = gateway.chat(&customer, &body).await.expect(200);
        let other = gateway.customer(PLENTY).await;
        let _ = call(&gateway, &other, "5", &body).await.expect(200);
        assert_eq!(gateway.provider.stats().requests, 7);
        gateway.charges(&customer, 6).await;
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_time_a_key_is_new() {
    for books in Books::ALL {
        let gateway = Gateway::start_with(books, |settings| {
            settings.idempotency_kept = Duration::from_secs(2);
        })
        .await;
        gateway.provider.script("m", said(OUTPUT));
        let customer = gateway.customer(PLENTY).await;
        let body = chat("m", json!({}));
        let first = call(&gateway, &customer, "k", &body).await.expect(200);
        let again = call(&gateway, &customer, "k", &body).await.expect(200);
        assert!(is_replay(&again));
        let new = eventually("the key expires", async || {
            let new = call(&gateway, &customer, "k", &body).await.expect(200);
            (!is_replay(&new)).then_some(new)
        })
        .await;
        assert_ne!(new.header("x-request-id"), first.header("x-request-id"));
        gateway.charges(&customer, 2).await;
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_limit_is_named_in_the_replay_too() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway.provider.script("m", said(OUTPUT));
    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 100)).await;
    let body = chat("m", json!({"max_tokens": 1000}));
    let first = call(&gateway, &customer, "k", &body).await.expect(200);
    let again = call(&gateway, &customer, "k", &body).await.expect(200);
    assert!(is_replay(&again));
    let limit = first.header("x-tollway-max-tokens");
    assert!(!limit.is_empty());
    assert_eq!(again.header("x-tollway-max-tokens"), limit);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateways_request_runs_anew_or_stays_charged() {
    let place = Place::new(Books::Sqlite).await;
    let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    let program = Program::start(place.url(), &provider.url());
    let customer = program.customer(PLENTY).await;
    let (plain, stream) = (chat("m", json!({})), streamed("m"));
    // One that has delivered nothing.
    provider.script("m", said(OUTPUT).gate_before_head("never"));
    let waiting = tokio::spawn({
        let sent = program
            .chat_request(&customer, &plain)
            .header("idempotency-key", "nothing");
        async move { sent.send().await.map(|_| ()) }
    });
    let asked = provider.wait_for(|stats| stats.at_gates == 1);
    asked.await.unwrap();
    // One that has delivered and was written down.
    let script = Script::new()
        .role()
        .tokens(3)
        .pause(Duration::from_millis(3_200));
    provider.script("m", script.tokens(3).gate("never"));
    let mut begun = tests::Streaming::new(send(&program, &customer, "some", &stream).await);
    begun.read_tokens(6).await;
    let id = begun.headers["x-request-id"].to_str().unwrap().to_owned();
    eventually("the checkpoint is written", async || {
        let text = program.metrics().await;
        (tests::metric(&text, "tollway_journal_queue") == Some(0.0)).then_some(())
    })
    .await;
    // Kept by one batch of the journal, which a heartbeat follows within two seconds.
    // tidy: sleeps because a checkpoint shows itself to nobody until the replica is dead.
    tokio::time::sleep(Duration::from_millis(500)).await;
    program.kill();
    drop(begun);
    let _ = waiting.await;
    let program = Program::start(place.url(), &provider.url());
    let before = provider.stats().requests;
    let charged = call(&program, &customer, "some", &stream).await.expect(409);
    assert_eq!(charged.code(), "answer_not_kept");
    assert_eq!(charged.header("x-should-retry"), "false");
    assert!(charged.json()["error"]["message"].to_string().contains(&id));
    assert_eq!(provider.stats().requests, before, "nothing ran anew");
    let left = program.settled_balance(&customer).await;
    assert!(left < credits(PLENTY), "the checkpoint was charged");
    provider.script("m", said(OUTPUT));
    let anew = call(&program, &customer, "nothing", &plain)
        .await
        .expect(200);
    assert!(!is_replay(&anew));
    assert_eq!(provider.stats().requests - before, 1);
    let cost = tokens_cost(PROMPT_TOKENS + OUTPUT);
    let paid = left.checked_sub(program.settled_balance(&customer).await);
    assert_eq!(paid.unwrap(), cost);
    program.audit().await;
    let (status, _) = program.terminate();
    assert!(status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_and_its_credits_are_made_once() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let make = async |once: &str, call: Value| {
            let request = gateway
                .call(Method::POST, "/admin/v1/keys", tests::ADMIN_KEY)
                .header("idempotency-key", once)
                .body(call.to_string());
            Plain::read(request.send().await.unwrap()).await
        };
        let body = json!({"name": "k", "credits": "5"});
        let calls = (0..16).map(|_| make("order-1", body.clone()));
        let answers = futures_util::future::join_all(calls).await;
        let made: Vec<&Plain> = answers.iter().filter(|a| a.status == 201).collect();
        assert_eq!(made.len(), 1, "{answers:?}");
        let first = made[0].json();
        assert!(first["secret"].as_str().unwrap().starts_with("sk-tw-"));
        for answer in answers.iter().filter(|answer| answer.status != 201) {
            assert_eq!(answer.status, 200, "{:?}", answer.body);
            assert!(is_replay(answer));
            let again = answer.json();
            assert_eq!(again["id"], first["id"]);
            assert_eq!(again["secret"], Value::Null);
            assert_eq!(again["account"]["id"], first["account_id"]);
        }
        let customer = Customer::of(&first);
        assert_eq!(gateway.settled_balance(&customer).await, credits("5"));
        let keys = gateway.admin(Method::GET, "/keys", None).await.expect(200);
        let named = |key: &&Value| key["name"] == "k";
        let keys = keys.json()["data"].as_array().unwrap().clone();
        assert_eq!(keys.iter().filter(named).count(), 1);
        let accounts = gateway.admin(Method::GET, "/accounts", None).await;
        let accounts = accounts.json()["data"].as_array().unwrap().clone();
        assert_eq!(accounts.iter().filter(named).count(), 1);
        let other = make("order-1", json!({"name": "k", "credits": "6"})).await;
        assert_eq!((other.status, other.code()), (409, "conflict".into()));
        let _ = make("order 1", body.clone()).await.expect(400);
        let _ = make("order-2", body.clone()).await.expect(201);
        gateway.finish().await;
    }
}
