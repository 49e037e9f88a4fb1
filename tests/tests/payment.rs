//! 402 before and in the middle of a stream, what it says, and what ends it: clamps and top-ups.

use billing::Credits;
use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{
    Books, Customer, Gateway, PROMPT_TOKENS, Plain, TOP_UP_URL, chat, count_tokens, credits,
    metric, streamed, tokens_cost, usage,
};

/// The prompt and one token.
const LEAST: &str = "0.00001";

/// The whole 402 of CONTRACT 3, apart from the message.
#[track_caller]
fn says(answer: &Plain, metadata: &Value) {
    assert_eq!(answer.status, 402, "{:?}", answer.body);
    assert_eq!(answer.header("content-type"), "application/json");
    let mut metadata = metadata.clone();
    metadata["request_id"] = json!(answer.header("x-request-id"));
    metadata["top_up_url"] = json!(TOP_UP_URL);
    let body = answer.json();
    let message = body["error"]["message"].as_str().unwrap();
    assert!(message.len() > 40, "{message}");
    let expected = json!({"error": {
        "message": message,
        "type": "insufficient_quota",
        "param": null,
        "code": "insufficient_quota",
        "metadata": metadata,
    }});
    assert_eq!(body, expected);
    let waits = metadata["reason"] == "held_by_running_requests";
    assert_eq!(answer.header("x-should-retry"), waits.to_string());
    assert_eq!(answer.headers.contains_key("retry-after"), waits);
}

#[tokio::test(flavor = "multi_thread")]
async fn o3_o4_an_empty_account_is_told_so_the_same_way_every_time() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for (has, body) in [
            ("0", chat("m", json!({}))),
            ("0", streamed("m")),
            ("0.000009999", chat("m", json!({"max_tokens": 7}))),
        ] {
            let customer = gateway.customer(has).await;
            for _ in 0..2 {
                let metadata = json!({"reason": "credits_exhausted", "scope": "account",
                    "available": has, "held": "0", "required": LEAST, "affordable_tokens": 0});
                says(&gateway.chat(&customer, &body).await, &metadata);
            }
        }
        assert_eq!(gateway.provider.stats().requests, 0);
        let text = gateway.metrics().await;
        let name = r#"tollway_payment_required_total{code="credits_exhausted",stage="admission"}"#;
        assert_eq!(metric(&text, name), Some(6.0), "{text}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn o4_a_key_at_its_limit_is_told_that_it_is_the_key() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let call = json!({"name": "limited", "credits": "5", "limit": "0.000005"});
        let customer = gateway.customer_with(call).await;
        let metadata = json!({"reason": "key_limit_reached", "scope": "key",
            "available": "0.000005", "held": "0", "required": LEAST, "affordable_tokens": 0});
        says(&gateway.chat(&customer, streamed("m")).await, &metadata);
        // Raised, it works at once; without it too.
        let path = format!("/keys/{}", customer.key_id);
        gateway
            .provider
            .script("m", Script::new().tokens(1).finish("stop"));
        for limit in [json!("0.00001"), json!(null)] {
            let patch = Some(json!({"limit": limit}));
            let _ = gateway.admin(Method::PATCH, &path, patch).await.expect(200);
            let answer = tests::eventually("the new limit holds", async || {
                let answer = gateway
                    .chat(&customer, chat("m", json!({"max_tokens": 1})))
                    .await;
                (answer.status == 200).then_some(answer)
            })
            .await;
            assert_eq!(answer.json()["usage"]["cost"], LEAST);
        }
        gateway.finish().await;
    }
}

/// A request that holds all that its customer has, until the gate `end` opens.
async fn hold_everything(
    gateway: &Gateway,
    customer: &Customer,
    output: u64,
) -> tokio::task::JoinHandle<Plain> {
    let script = Script::new()
        .gate_before_head("end")
        .tokens(2)
        .finish("stop")
        .usage_json(&usage(PROMPT_TOKENS, 2));
    gateway.provider.script_once("m", script);
    let body = chat("m", json!({"max_tokens": output}));
    let sent = gateway.chat_request(customer, body).send();
    let running = tokio::spawn(async move { Plain::read(sent.await.unwrap()).await });
    gateway
        .provider
        .wait_for(|stats| stats.at_gates == 1)
        .await
        .unwrap();
    running
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_credit_that_running_requests_hold_is_no_reason_to_give_up() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        gateway
            .provider
            .script("m", Script::new().tokens(1).finish("stop"));
        let all = tokens_cost(PROMPT_TOKENS + 100);
        let customer = gateway.customer(all).await;
        let running = hold_everything(&gateway, &customer, 100).await;
        assert_eq!(gateway.balance(&customer).await.held, all);
        let metadata = json!({"reason": "held_by_running_requests", "scope": "account",
            "available": "0", "held": all, "required": LEAST, "affordable_tokens": 0});
        let refused = gateway
            .chat(&customer, chat("m", json!({"max_tokens": 1})))
            .await;
        says(&refused, &metadata);
        let body = refused.json();
        let message = body["error"]["message"].as_str().unwrap();
        assert!(message.contains("still running"), "{message}");
        gateway.provider.open("end");
        assert_eq!(running.await.unwrap().status, 200);
        // What it did not use is there for the next.
        let answer = gateway
            .chat(&customer, chat("m", json!({"max_tokens": 1})))
            .await;
        let _ = answer.expect(200);
        let left = tokens_cost(100 - 2 - PROMPT_TOKENS - 1);
        assert_eq!(gateway.settled_balance(&customer).await, left);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l1_a_request_that_waits_for_held_credit_gets_it_when_it_comes_back() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", Script::new().tokens(1).finish("stop"));
    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 100)).await;
    let running = hold_everything(&gateway, &customer, 100).await;
    let waiting = gateway
        .chat_request(&customer, chat("m", json!({"max_tokens": 1})))
        .send();
    let waiting = tokio::spawn(waiting);
    // It has been admitted to the queue when it has its permit.
    tests::eventually("it waits", async || {
        (gateway.app().ledger.stats().in_flight == 2).then_some(())
    })
    .await;
    gateway.provider.open("end");
    assert_eq!(running.await.unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().unwrap().status(), 200);
    gateway.finish().await;
}

/// What lies leased is so much that the prompt is not counted at first, and what there is in all
/// pays for the prompt as it is, and not for its bound.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_refused_for_the_bound_of_a_prompt() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let script = || Script::new().tokens(1).finish("stop");
    gateway.provider.script("m", script());
    gateway.provider.script("dear", script());
    let a_token_of_output = 1_000_000;
    let both = 2 * PROMPT_TOKENS + 1 + a_token_of_output;
    let customer = gateway.customer(tokens_cost(both)).await;
    let cheap = chat("m", json!({"max_tokens": 5000}));
    assert_eq!(gateway.chat(&customer, &cheap).await.status, 200);
    let dear = chat("dear", json!({"max_tokens": 1}));
    let answer = gateway.chat(&customer, &dear).await;
    assert_eq!(answer.status, 200, "{:?}", answer.body);
    assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_402_in_the_middle_of_a_stream_has_the_contracts_form() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for ask in [true, false] {
            gateway
                .provider
                .script("m", Script::new().role().tokens(9).gate("never"));
            let aborted = gateway.provider.stats().streams_aborted;
            let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 6)).await;
            let body = chat(
                "m",
                json!({"stream": true, "stream_options": {"include_usage": ask}}),
            );
            let events = gateway.stream(&customer, body).await.rest().await;
            assert_eq!(count_tokens(&events.text()), 6);
            assert!(events.finish_reasons().is_empty() && events.is_done());
            let spent = tokens_cost(PROMPT_TOKENS + 6);
            let [.., usage_chunk, error, done] = &events.data[..] else {
                panic!("{:?}", events.data)
            };
            assert_eq!(done, "[DONE]");
            let usage_chunk: Value = serde_json::from_str(usage_chunk).unwrap();
            let told = json!({"prompt_tokens": PROMPT_TOKENS, "completion_tokens": 6,
                "total_tokens": PROMPT_TOKENS + 6,
                "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": 0},
                "completion_tokens_details": {"reasoning_tokens": 0, "audio_tokens": 0},
                "cost": spent,
                "cost_details": {"prompt": tokens_cost(PROMPT_TOKENS), "completion": tokens_cost(6)}});
            if ask {
                assert_eq!(usage_chunk["choices"], json!([]));
                assert_eq!(usage_chunk["usage"], told);
                // One chunk of usage, of the same stream.
                assert_eq!(events.usages().len(), 1);
                assert_eq!(usage_chunk["id"], events.chunks()[0]["id"]);
            } else {
                assert_eq!(events.usages(), Vec::<Value>::new());
            }
            let error: Value = serde_json::from_str(error).unwrap();
            let message = error["error"]["message"].as_str().unwrap();
            let expected = json!({"error": {"message": message, "type": "insufficient_quota",
                "param": null, "code": "insufficient_quota", "status": 402, "usage": told,
                "metadata": {"reason": "credits_exhausted", "scope": "account",
                    "available": error["error"]["metadata"]["available"],
                    "held": error["error"]["metadata"]["held"],
                    "required": error["error"]["metadata"]["required"],
                    "affordable_tokens": 0, "top_up_url": TOP_UP_URL,
                    "request_id": events.headers["x-request-id"].to_str().unwrap()}}});
            assert_eq!(error, expected);
            let hung_up = gateway
                .provider
                .wait_for(|stats| stats.streams_aborted > aborted);
            hung_up.await.unwrap();
            assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
        }
        let text = gateway.metrics().await;
        let name = r#"tollway_payment_required_total{code="credits_exhausted",stage="midstream"}"#;
        assert_eq!(metric(&text, name), Some(2.0), "{text}");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_s_limit_ends_a_stream_as_credit_does() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", Script::new().role().tokens(40).gate("never"));
    let limit = tokens_cost(PROMPT_TOKENS + 12);
    let call = json!({"name": "limited", "credits": "5", "limit": limit});
    let customer = gateway.customer_with(call).await;
    let events = gateway.stream(&customer, streamed("m")).await.rest().await;
    assert_eq!(count_tokens(&events.text()), 12);
    let error = events.error().unwrap();
    assert_eq!(
        error["metadata"]["reason"], "key_limit_reached",
        "{error:#}"
    );
    assert_eq!(error["metadata"]["scope"], "key");
    let left = credits("5").checked_sub(limit).unwrap();
    assert_eq!(gateway.settled_balance(&customer).await, left);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_a_top_up_while_a_stream_runs_lets_it_go_on() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new()
            .role()
            .tokens(20)
            .gate("more")
            .tokens(20)
            .finish("stop")
            .done();
        gateway.provider.script("m", script);
        // Enough for the first half and a little.
        let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 25)).await;
        let mut stream = gateway.stream(&customer, streamed("m")).await;
        stream.read_tokens(20).await;
        gateway.top_up(&customer, tokens_cost(15)).await;
        gateway.provider.open("more");
        let events = stream.rest().await;
        assert_eq!(events.error(), None, "{:?}", events.data);
        assert_eq!(events.finish_reasons(), ["stop"]);
        assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["end"], "completed");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_a_top_up_is_there_for_the_next_request() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        gateway
            .provider
            .script("m", Script::new().tokens(1).finish("stop"));
        let customer = gateway.customer("0").await;
        for _ in 0..3 {
            let body = chat("m", json!({"max_tokens": 1}));
            let _ = gateway.chat(&customer, &body).await.expect(402);
            gateway.top_up(&customer, credits(LEAST)).await;
            let _ = gateway.chat(&customer, &body).await.expect(200);
        }
        assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l7_a_top_up_at_one_gateway_is_seen_by_the_other() {
    let one = Gateway::start(Books::Postgres).await;
    let two = one.beside().await;
    one.provider
        .script("m", Script::new().tokens(1).finish("stop"));
    let customer = one.customer("0").await;
    for (paid_at, used_at) in [(&one, &two), (&two, &one)] {
        let body = chat("m", json!({"max_tokens": 1}));
        let _ = used_at.chat(&customer, &body).await.expect(402);
        paid_at.top_up(&customer, credits(LEAST)).await;
        let _ = used_at.chat(&customer, &body).await.expect(200);
    }
    two.leave().await;
    one.finish().await;
}

/// What the provider was sent last.
fn sent(gateway: &Gateway) -> Value {
    gateway.provider.requests().last().unwrap().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_output_that_cannot_be_watched_is_clamped_to_what_is_affordable() {
    let plain = |more: Value| chat("m", more);
    let hidden = |more: Value| {
        let mut body = chat("hidden", more);
        body["stream"] = json!(true);
        body
    };
    let rows = [
        ("none asked for", plain(json!({})), "max_completion_tokens"),
        (
            "more asked for",
            plain(json!({"max_tokens": 4_000})),
            "max_tokens",
        ),
        (
            "by the new name",
            plain(json!({"max_completion_tokens": 4_000})),
            "max_completion_tokens",
        ),
        (
            "hidden, streamed",
            hidden(json!({"max_tokens": 4_000})),
            "max_tokens",
        ),
    ];
    let gateway = Gateway::start(Books::Sqlite).await;
    for (name, body, field) in rows {
        let model = body["model"].as_str().unwrap();
        let script = Script::new().role().tokens(50).finish("length");
        let script = script.usage_json(&usage(PROMPT_TOKENS, 50)).done();
        gateway.provider.script(model, script);
        let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 50)).await;
        let answer = gateway.chat(&customer, &body).await.expect(200);
        assert_eq!(answer.header("x-tollway-max-tokens"), "50", "{name}");
        let sent = sent(&gateway);
        let limits = [&sent["max_tokens"], &sent["max_completion_tokens"]];
        let given: Vec<&Value> = limits
            .into_iter()
            .filter(|limit| !limit.is_null())
            .collect();
        assert_eq!(given, [&json!(50)], "{name}: {sent}");
        if body.get(field).is_some() {
            assert_eq!(sent[field], 50, "{name}");
        }
        assert_eq!(
            gateway.settled_balance(&customer).await,
            Credits::ZERO,
            "{name}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_where_credit_is_plenty_nothing_is_clamped() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", Script::new().tokens(3).finish("stop").usage().done());
    let customer = gateway.customer("10").await;
    for body in [
        chat("m", json!({})),
        chat("m", json!({"max_tokens": 700})),
        chat("m", json!({"stream": true})),
    ] {
        let answer = gateway.chat(&customer, &body).await.expect(200);
        assert_eq!(answer.header("x-tollway-max-tokens"), "");
        let sent = sent(&gateway);
        assert_eq!(sent["max_tokens"], body["max_tokens"]);
        assert_eq!(sent["max_completion_tokens"], Value::Null);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l5_choices_share_what_is_affordable() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", Script::new().tokens(10).finish("length"));
    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 47)).await;
    let answer = gateway
        .chat(&customer, chat("m", json!({"n": 4, "max_tokens": 400})))
        .await;
    assert_eq!(answer.expect(200).header("x-tollway-max-tokens"), "11");
    assert_eq!(sent(&gateway)["max_tokens"], 11);
    let left = tokens_cost(47 - 40);
    assert_eq!(gateway.settled_balance(&customer).await, left);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l9_a_free_model_works_without_credit() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new()
            .role()
            .tokens(700)
            .finish("stop")
            .usage()
            .done();
        gateway.provider.script("free", script);
        let customer = gateway.customer("0").await;
        let answer = gateway
            .chat(&customer, chat("free", json!({})))
            .await
            .expect(200);
        assert_eq!(answer.json()["usage"]["cost"], "0");
        assert_eq!(answer.header("x-tollway-max-tokens"), "");
        let events = gateway
            .stream(&customer, streamed("free"))
            .await
            .rest()
            .await;
        assert_eq!((events.error(), count_tokens(&events.text())), (None, 700));
        for charge in gateway.charges(&customer, 2).await {
            assert_eq!(
                (&charge["cost"], &charge["end"]),
                (&json!("0"), &json!("completed"))
            );
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l8_an_empty_key_can_read_models_key_credits_and_quotes() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("0").await;
    let read = async |path: &str| gateway.get(&customer.secret, path).await.expect(200).json();
    let models = read("/v1/models").await;
    let ids: Vec<&str> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["id"].as_str().unwrap())
        .collect();
    for id in ["m", "mock/m", "nick", "shared", "backup/shared"] {
        assert!(ids.contains(&id), "{ids:?}");
    }
    assert_eq!(read("/v1/models/mock/m").await["id"], "mock/m");
    assert_eq!(read("/v1/key").await["remaining"], "0");
    let view = read("/v1/credits").await;
    assert_eq!(
        (&view["total"], &view["remaining"]),
        (&json!("0"), &json!("0"))
    );
    let quote = gateway.call(Method::POST, "/v1/quote", &customer.secret);
    let quote = quote
        .body(chat("m", json!({"max_tokens": 100})).to_string())
        .send()
        .await;
    let quote = Plain::read(quote.unwrap()).await.expect(200).json();
    assert_eq!(quote["prompt_tokens"], PROMPT_TOKENS);
    assert_eq!(quote["lowest_cost"], LEAST);
    assert_eq!(
        quote["highest_cost"],
        json!(tokens_cost(PROMPT_TOKENS + 100))
    );
    assert_eq!(quote["affordable_output_tokens"], 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn p5_a_model_without_a_price_is_refused_and_costs_nothing() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("10").await;
    let answer = gateway
        .chat(&customer, chat("unpriced", json!({})))
        .await
        .expect(503);
    assert_eq!(answer.code(), "unavailable");
    assert_eq!(gateway.provider.stats().requests, 0);
    assert_eq!(gateway.settled_balance(&customer).await, credits("10"));
    gateway.finish().await;
}
