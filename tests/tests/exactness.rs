//! Exactly what was paid for, never more and never less: crowds on little credit, and streams cut at the token.

use std::sync::Arc;

use billing::Credits;
use mock_provider::Script;
use serde_json::json;
use tests::{
    Books, Customer, Gateway, PROMPT_TOKENS, Plain, chat, count_tokens, streamed, tokens_cost,
    usage,
};
use tokio::sync::Barrier;

/// Requests at once.
const CROWD: usize = 200;
/// As many as the credit is for.
const PAID: usize = 20;
/// Output tokens of each.
const OUTPUT: u64 = 5;

/// An answer that costs exactly what the hold of `max_tokens: 5` is.
fn exact_answer() -> Script {
    Script::new()
        .tokens(OUTPUT)
        .finish("length")
        .usage_json(&usage(PROMPT_TOKENS, OUTPUT))
        .done()
}

/// A crowd released by a barrier, spread over the gateways: the statuses.
async fn crowd(gateways: &[&Gateway], customer: &Customer) -> Vec<Plain> {
    let barrier = Arc::new(Barrier::new(CROWD));
    let body = chat("m", json!({"max_tokens": OUTPUT})).to_string();
    let tasks: Vec<_> = (0..CROWD)
        .map(|place| {
            let gateway = gateways[place % gateways.len()];
            let request = gateway.chat_request(customer, &body);
            let barrier = barrier.clone();
            tokio::spawn(async move {
                barrier.wait().await;
                Plain::read(request.send().await.unwrap()).await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await.unwrap());
    }
    answers
}

#[track_caller]
fn exactly_the_paid_ones_succeeded(answers: &[Plain]) {
    let count = |status| answers.iter().filter(|a| a.status == status).count();
    assert_eq!(
        (count(200), count(402)),
        (PAID, CROWD - PAID),
        "of {}",
        answers.len()
    );
    for refused in answers.iter().filter(|answer| answer.status == 402) {
        assert_eq!(refused.code(), "insufficient_quota");
    }
}

fn credit_for_the_paid() -> Credits {
    tokens_cost((PROMPT_TOKENS + OUTPUT) * PAID as u64)
}

/// The books after a crowd: all is spent, each paid request is one charge of its cost.
async fn all_is_spent(gateway: &Gateway, customer: &Customer) {
    assert_eq!(gateway.settled_balance(customer).await, Credits::ZERO);
    for charge in gateway.charges(customer, PAID).await {
        let cost = tokens_cost(PROMPT_TOKENS + OUTPUT).to_string();
        assert_eq!(charge["charged"], json!(cost));
        assert_eq!(charge["house_loss"], "0");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_c5_two_hundred_at_once_on_credit_for_twenty() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        gateway.provider.script("m", exact_answer());
        let customer = gateway.customer(credit_for_the_paid()).await;
        let answers = crowd(&[&gateway], &customer).await;
        exactly_the_paid_ones_succeeded(&answers);
        all_is_spent(&gateway, &customer).await;
        assert_eq!(gateway.provider.stats().requests, PAID as u64);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_two_hundred_at_once_while_the_provider_takes_its_time() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = exact_answer().gate_before_head("answer");
        gateway.provider.script("m", script);
        let customer = gateway.customer(credit_for_the_paid()).await;
        let provider = gateway.provider.clone();
        let opened = tokio::spawn(async move {
            let all = provider
                .wait_for(|stats| stats.at_gates == PAID as u64)
                .await;
            // Everybody else is refused before the first answer comes.
            all.unwrap();
            provider
        });
        let gateways = [&gateway];
        let (answers, ()) = tokio::join!(crowd(&gateways, &customer), async {
            let provider = opened.await.unwrap();
            tests::eventually("all others are refused", async || {
                let text = gateway.metrics().await;
                let refused = text
                    .lines()
                    .filter(|line| line.starts_with("tollway_payment_required_total"))
                    .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                    .sum::<f64>();
                (refused >= (CROWD - PAID) as f64).then_some(())
            })
            .await;
            provider.open("answer");
        });
        exactly_the_paid_ones_succeeded(&answers);
        for refused in answers.iter().filter(|answer| answer.status == 402) {
            let metadata = &refused.json()["error"]["metadata"];
            assert_eq!(metadata["reason"], "held_by_running_requests");
        }
        all_is_spent(&gateway, &customer).await;
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c4_two_gateways_on_one_database_spend_no_more_than_one() {
    let one = Gateway::start(Books::Postgres).await;
    let two = one.beside().await;
    one.provider.script("m", exact_answer());
    let customer = one.customer(credit_for_the_paid()).await;
    let answers = crowd(&[&one, &two], &customer).await;
    exactly_the_paid_ones_succeeded(&answers);
    all_is_spent(&one, &customer).await;
    assert_eq!(two.settled_balance(&customer).await, Credits::ZERO);
    two.leave().await;
    one.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c3_what_one_gateway_spent_the_other_does_not_spend_again() {
    let one = Gateway::start(Books::Postgres).await;
    let two = one.beside().await;
    one.provider.script("m", exact_answer());
    let body = chat("m", json!({"max_tokens": OUTPUT}));
    let each = tokens_cost(PROMPT_TOKENS + OUTPUT);
    let customer = one.customer(each.checked_add(each).unwrap()).await;
    // Both have seen the key and its credit.
    let _ = two.chat(&customer, &body).await.expect(200);
    let _ = one.chat(&customer, &body).await.expect(200);
    let _ = one.chat(&customer, &body).await.expect(402);
    let _ = two.chat(&customer, &body).await.expect(402);
    assert_eq!(one.settled_balance(&customer).await, Credits::ZERO);
    two.leave().await;
    one.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c5_a_new_customers_first_requests_race_for_the_key_s_limit() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        gateway.provider.script("m", exact_answer());
        let call = json!({"name": "limited", "credits": "1", "limit": credit_for_the_paid()});
        let customer = gateway.customer_with(call).await;
        let answers = crowd(&[&gateway], &customer).await;
        exactly_the_paid_ones_succeeded(&answers);
        // Answers do not wait for their settlement to be written.
        let _ = gateway.settled_balance(&customer).await;
        let key = gateway
            .get(&customer.secret, "/v1/key")
            .await
            .expect(200)
            .json();
        assert_eq!(key["remaining"], "0", "{key}");
        assert_eq!(key["usage"], json!(credit_for_the_paid()));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_exactly_the_limit_is_allowed_and_one_nano_less_is_not() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let least = tokens_cost(PROMPT_TOKENS + 1);
        let short = least.checked_sub(Credits::from_nanos(1)).unwrap();
        gateway.provider.script(
            "m",
            Script::new()
                .tokens(1)
                .finish("length")
                .usage_json(&usage(PROMPT_TOKENS, 1))
                .done(),
        );
        for body in [chat("m", json!({"max_tokens": 1})), streamed("m")] {
            let enough = gateway.customer(least).await;
            let _ = gateway.chat(&enough, &body).await.expect(200);
            assert_eq!(gateway.settled_balance(&enough).await, Credits::ZERO);
            let lacking = gateway.customer(short).await;
            let _ = gateway.chat(&lacking, &body).await.expect(402);
            assert_eq!(gateway.settled_balance(&lacking).await, short);
        }
        gateway.finish().await;
    }
}

/// Streams on credit for exactly `n` tokens of output; the script has more.
async fn delivers_exactly(gateway: &Gateway, n: u64, script: Script) {
    gateway.provider.script("m", script);
    let aborted = gateway.provider.stats().streams_aborted;
    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + n)).await;
    let events = gateway.stream(&customer, streamed("m")).await.rest().await;
    assert_eq!(count_tokens(&events.text()), n, "{:?}", events.text());
    let error = events.error().unwrap();
    assert_eq!(error["code"], "insufficient_quota");
    assert_eq!(error["usage"]["completion_tokens"], n);
    assert!(events.is_done() && events.finish_reasons().is_empty());
    assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["end"], "credits_exhausted");
    assert_eq!(charge["usage_source"], "counted");
    assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + n)));
    assert_eq!(charge["house_loss"], "0");
    let hung_up = gateway
        .provider
        .wait_for(|stats| stats.streams_aborted > aborted);
    hung_up.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_stream_on_credit_for_n_tokens_delivers_n() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for n in [1, 2, 17, 511, 512, 513, 1300] {
            // It waits after the last token that is paid for and one more: nothing else stops it.
            let script = Script::new().role().tokens(n + 1).gate("never").tokens(50);
            delivers_exactly(&gateway, n, script).await;
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_a_delta_of_many_tokens_is_cut_at_the_last_paid_one() {
    let text = "Counting words is easy, while unbelievably long compounds such as \
                Donaudampfschifffahrtsgesellschaft need several tokens each; 1234567 too.";
    let whole = count_tokens(text);
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for n in [1, 3, 9, whole - 1] {
            let script = Script::new().role().text(text).gate("never");
            delivers_exactly(&gateway, n, script).await;
        }
        // Across deltas: four of the first, the rest of the second.
        let script = Script::new().role().tokens(4).text(text).gate("never");
        gateway.provider.script("m", script);
        let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 10)).await;
        let events = gateway.stream(&customer, streamed("m")).await.rest().await;
        assert_eq!(count_tokens(&events.text()), 10);
        assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_credit_for_the_whole_answer_is_enough_to_the_token() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for n in [1, 40, 600] {
            let script = Script::new().role().tokens(n).finish("stop").done();
            gateway.provider.script("m", script);
            let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + n)).await;
            let events = gateway.stream(&customer, streamed("m")).await.rest().await;
            assert_eq!(events.error(), None);
            assert_eq!(events.finish_reasons(), ["stop"]);
            assert_eq!(count_tokens(&events.text()), n);
            assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
            assert_eq!(gateway.charge(&customer).await["end"], "completed");
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn c1_streams_at_once_share_what_there_is_and_no_more() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        gateway
            .provider
            .script("m", Script::new().role().tokens(300).finish("stop").done());
        // Credit for all prompts and for half of the output.
        let paid = 8 * (PROMPT_TOKENS + 150);
        let customer = gateway.customer(tokens_cost(paid)).await;
        let barrier = Arc::new(Barrier::new(8));
        let tasks: Vec<_> = (0..8)
            .map(|_| {
                let request = gateway.chat_request(&customer, streamed("m"));
                let barrier = barrier.clone();
                tokio::spawn(async move {
                    barrier.wait().await;
                    let response = request.send().await.unwrap();
                    match response.status().as_u16() {
                        200 => count_tokens(&tests::Streaming::new(response).rest().await.text()),
                        status => {
                            assert_eq!(status, 402);
                            0
                        }
                    }
                })
            })
            .collect();
        let mut delivered = 0;
        for task in tasks {
            delivered += task.await.unwrap();
        }
        let left = gateway.settled_balance(&customer).await;
        let usage = gateway
            .admin(
                http::Method::GET,
                &format!("/usage?account_id={}", customer.account_id),
                None,
            )
            .await
            .expect(200)
            .json();
        let sum = &usage["data"][0];
        assert_eq!(sum["usage"]["completion_tokens"], delivered, "{sum}");
        let charged: Credits = sum["charged"].as_str().unwrap().parse().unwrap();
        assert_eq!(charged.checked_add(left).unwrap(), tokens_cost(paid));
        assert_eq!(sum["house_loss"], "0");
        gateway.finish().await;
    }
}
