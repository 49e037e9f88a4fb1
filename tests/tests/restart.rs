//! Starting again: the books are as they were, and nobody is the poorer for a crash.

use std::time::{Duration, Instant};

use billing::Credits;
use http::Method;
use mock_provider::{MockProvider, Script};
use serde_json::{Value, json};
use tests::{
    Books, Customer, Gateway, PROMPT_TOKENS, Place, Plain, Program, chat, count_tokens, credits,
    eventually, form, streamed, tokens_cost, usage,
};

#[tokio::test(flavor = "multi_thread")]
async fn c8_books_keys_and_limits_survive_a_restart() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new()
            .tokens(1)
            .finish("stop")
            .usage_json(&usage(PROMPT_TOKENS, 1));
        gateway.provider.script("m", script);
        let limit = tokens_cost(2 * (PROMPT_TOKENS + 1));
        let call = json!({"name": "limited", "credits": "1", "limit": limit});
        let customer = gateway.customer_with(call).await;
        let body = chat("m", json!({"max_tokens": 1}));
        let _ = gateway.chat(&customer, &body).await.expect(200);
        let before = gateway.charge(&customer).await;
        let gateway = gateway.restart().await;
        assert!(!gateway.welcome.contains("sk-tw-"), "{}", gateway.welcome);
        assert_eq!(gateway.charge(&customer).await, before);
        let _ = gateway.chat(&customer, &body).await.expect(200);
        let refused = gateway.chat(&customer, &body).await.expect(402);
        assert_eq!(
            refused.json()["error"]["metadata"]["reason"],
            "key_limit_reached"
        );
        let gateway = gateway.restart().await;
        let _ = gateway.chat(&customer, &body).await.expect(402);
        let left = credits("1").checked_sub(limit).unwrap();
        assert_eq!(gateway.settled_balance(&customer).await, left);
        gateway.finish().await;
    }
}

async fn program(
    place: &Place,
    provider: &MockProvider,
    variables: &'static [(&str, &str)],
) -> Program {
    let (database, provider) = (place.url().to_owned(), provider.url());
    tokio::task::spawn_blocking(move || {
        if variables.is_empty() {
            Program::start(&database, &provider)
        } else {
            Program::start_with(&database, &provider, variables)
        }
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_start_prints_no_secret_and_the_first_ones_still_work() {
    for books in Books::ALL {
        let place = Place::new(books).await;
        let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let first = program(&place, &provider, &[("RUST_LOG", "warn")]).await;
        let (status, printed) = tokio::task::spawn_blocking(|| first.terminate())
            .await
            .unwrap();
        assert!(status.success(), "{status}");
        let words = || printed.split(|c: char| c.is_whitespace() || c == '"');
        let secrets: Vec<&str> = words().filter(|word| word.starts_with("sk-tw-")).collect();
        let admin = printed
            .lines()
            .find(|line| line.starts_with("Admin key"))
            .unwrap();
        let admin = admin.split_whitespace().last().unwrap();
        let demo = *secrets.iter().find(|secret| **secret != admin).unwrap();

        let second = program(&place, &provider, &[("RUST_LOG", "warn")]).await;
        let _ = second.get(demo, "/v1/key").await.expect(200);
        let _ = second.get(admin, "/admin/v1/audit").await.expect(200);
        let (status, printed) = tokio::task::spawn_blocking(|| second.terminate())
            .await
            .unwrap();
        assert!(status.success(), "{status}");
        assert!(
            !printed.contains("sk-tw-") && !printed.contains(admin),
            "{printed}"
        );
    }
}

/// A stream that is read until its text has `tokens`.
async fn open_stream(program: &Program, customer: &Customer, tokens: u64) -> tests::Streaming {
    let mut stream = program.stream(customer, streamed("m")).await;
    stream.read_tokens(tokens).await;
    stream
}

fn charged(charges: &[Value]) -> Credits {
    charges
        .iter()
        .map(|charge| {
            charge["charged"]
                .as_str()
                .unwrap()
                .parse::<Credits>()
                .unwrap()
        })
        .fold(Credits::ZERO, |sum, one| sum.checked_add(one).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_gateway_loses_no_settlement_and_overcharges_nobody() {
    for books in Books::ALL {
        let place = Place::new(books).await;
        let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let first = program(&place, &provider, &[]).await;

        // One that was settled before, one that holds all its customer has, one that has run for long.
        let said = usage(PROMPT_TOKENS, 2);
        provider.script_once(
            "m",
            Script::new().tokens(2).finish("stop").usage_json(&said),
        );
        let settled = first.customer("1").await;
        let _ = first.chat(&settled, chat("m", json!({}))).await.expect(200);
        let row = first.charge(&settled).await;

        provider.script_once("m", Script::new().role().tokens(5).gate("never"));
        let tight = first.customer(tokens_cost(PROMPT_TOKENS + 20)).await;
        let tight_stream = open_stream(&first, &tight, 5).await;

        let pace = Duration::from_millis(20);
        provider.script_once("m", Script::new().role().tokens_paced(100_000, pace));
        let long = first.customer("1").await;
        let mut long_stream = open_stream(&first, &long, 1).await;
        let begun = Instant::now();
        // A checkpoint is written every three seconds.
        while begun.elapsed() < Duration::from_secs(5) {
            long_stream.next().await.unwrap();
        }
        tokio::task::spawn_blocking(|| first.kill()).await.unwrap();
        // What was on its way may still arrive: the end of the connection is not in order.
        let delivered = count_tokens(&long_stream.text());
        drop((tight_stream, long_stream));

        let second = program(&place, &provider, &[]).await;
        let left = eventually("the dead one's holds are gone", async || {
            let (tight, long) = (second.balance(&tight).await, second.balance(&long).await);
            let free = tight.held == Credits::ZERO && long.held == Credits::ZERO;
            free.then_some((tight.available, long.available))
        })
        .await;
        second.audit().await;
        assert_eq!(second.charge(&settled).await, row);

        let rows = |customer: &Customer| format!("/charges?account_id={}", customer.account_id);
        let list = async |customer: &Customer| {
            let list = second
                .admin(Method::GET, &rows(customer), None)
                .await
                .expect(200)
                .json();
            list["data"].as_array().unwrap().clone()
        };
        let (tight_rows, long_rows) = (list(&tight).await, list(&long).await);
        // It was written down although nothing more came.
        assert_eq!(
            charged(&tight_rows),
            tokens_cost(PROMPT_TOKENS + 5),
            "{tight_rows:#?}"
        );
        assert!(
            charged(&long_rows) <= tokens_cost(PROMPT_TOKENS + delivered + 1),
            "{long_rows:#?}"
        );
        assert!(
            charged(&long_rows) > tokens_cost(PROMPT_TOKENS),
            "no checkpoint: {long_rows:#?}"
        );
        assert_eq!(long_rows[0]["end"], "gateway_lost");
        let had = tokens_cost(PROMPT_TOKENS + 20);
        assert_eq!(left.0.checked_add(charged(&tight_rows)).unwrap(), had);
        assert_eq!(
            left.1.checked_add(charged(&long_rows)).unwrap(),
            credits("1")
        );
        // And it serves.
        let _ = second
            .chat(&settled, chat("m", json!({})))
            .await
            .expect(200);
        let (status, _) = tokio::task::spawn_blocking(|| second.terminate())
            .await
            .unwrap();
        assert!(status.success(), "{status}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o1_sigterm_writes_what_every_running_stream_has_cost() {
    let place = Place::new(Books::Sqlite).await;
    let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
        .await
        .unwrap();
    provider.script("m", Script::new().role().tokens(6).gate("never"));
    let variables = &[
        ("TOLLWAY_ADMIN_KEY", tests::ADMIN_KEY),
        ("TOLLWAY_SHUTDOWN_GRACE_SECONDS", "1"),
    ];
    let first = program(&place, &provider, variables).await;
    let mut customers = Vec::new();
    for _ in 0..4 {
        let customer = first.customer("1").await;
        let stream = open_stream(&first, &customer, 6).await;
        customers.push((customer, stream));
    }
    let stopping = tokio::task::spawn_blocking(|| first.terminate());
    let mut paid = Vec::new();
    for (customer, stream) in customers {
        let events = stream.rest().await;
        assert_eq!(events.error().unwrap()["code"], "unavailable");
        paid.push(customer);
    }
    assert!(stopping.await.unwrap().0.success());
    let second = program(&place, &provider, variables).await;
    for customer in &paid {
        let charge = second.charge(customer).await;
        assert_eq!(
            charge["charged"],
            json!(tokens_cost(PROMPT_TOKENS + 6)),
            "{charge:#}"
        );
    }
    second.audit().await;
    let (status, _) = tokio::task::spawn_blocking(|| second.terminate())
        .await
        .unwrap();
    assert!(status.success(), "{status}");
}

/// Requests of a batch that are booked, by the admin API.
async fn booked(program: &Program) -> u64 {
    let sums = program
        .admin(Method::GET, "/usage?group_by=model", None)
        .await
        .expect(200)
        .json();
    let rows = sums["data"].as_array().unwrap();
    let of_batches = rows.iter().filter(|row| row["model"] == "batched");
    of_batches
        .map(|row| row["requests"].as_u64().unwrap())
        .sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_a_killed_gateway_was_charging_are_charged_once() {
    const REQUESTS: u64 = 4_000;
    for books in Books::ALL {
        let place = Place::new(books).await;
        let provider = MockProvider::start(([127, 0, 0, 1], 0).into())
            .await
            .unwrap();
        let first = program(&place, &provider, &[]).await;
        let customer = first.customer("1").await;
        let lines: String = (0..REQUESTS).map(batch_line).collect();
        let secret = customer.secret.as_str();
        let sent = first.call(Method::POST, "/v1/files", secret);
        let sent = form(&[("purpose", "batch")], &[("file", lines.as_bytes())]).onto(sent);
        let sent = Plain::read(sent.send().await.unwrap()).await.expect(200);
        let body = json!({"input_file_id": sent.json()["id"], "endpoint": "/v1/chat/completions",
            "completion_window": "24h"});
        let begun = first.call(Method::POST, "/v1/batches", secret);
        let begun = begun.body(body.to_string()).send().await.unwrap();
        let begun = Plain::read(begun).await.expect(200).json();
        let held = first.balance(&customer).await.held;
        assert!(held > Credits::ZERO);
        let batch = format!("/v1/batches/{}", begun["id"].as_str().unwrap());
        let over = first.get(secret, &batch).await.expect(200).json();
        let content = format!(
            "/v1/files/{}/content",
            over["output_file_id"].as_str().unwrap()
        );
        let fetch = first.call(Method::GET, &content, secret).send();
        let fetching = tokio::spawn(fetch);
        eventually("some are charged", async || {
            (booked(&first).await > 0).then_some(())
        })
        .await;
        tokio::task::spawn_blocking(|| first.kill()).await.unwrap();
        let _ = fetching.await.unwrap();

        let second = program(&place, &provider, &[]).await;
        let before = booked(&second).await;
        let balance = second.balance(&customer).await;
        println!("{books:?}: {before} of {REQUESTS} were booked when it was killed");
        if before < REQUESTS {
            assert!(balance.held > Credits::ZERO, "{balance:?}");
        }
        let results = eventually("the results are there", async || {
            let answer = second.get(secret, &content).await;
            match answer.status {
                200 => Some(answer.body),
                // The killed one has the claim until it is taken for dead.
                409 => None,
                status => panic!("{status}: {:?}", answer.body),
            }
        })
        .await;
        let lines = results.split(|byte| *byte == b'\n');
        assert_eq!(lines.filter(|line| !line.is_empty()).count(), 4_000);
        assert_eq!(booked(&second).await, REQUESTS);
        let left = second.settled_balance(&customer).await;
        let spent = credits("1").checked_sub(left).unwrap();
        assert!(spent <= held, "{spent} of {held}");
        second.audit().await;
    }
}

fn batch_line(n: u64) -> String {
    let body = chat("batched", json!({"max_tokens": 10}));
    let request = json!({"custom_id": format!("r{n}"), "method": "POST",
        "url": "/v1/chat/completions", "body": body});
    format!("{request}\n")
}
