//! Embeddings, moderations and reranking: what travels, what it costs, and who serves it.

use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{Books, Customer, Gateway, Plain, count_tokens, credits, tokens_cost};

async fn post(gateway: &Gateway, customer: &Customer, path: &str, body: &Value) -> Plain {
    let request = gateway.call(Method::POST, path, &customer.secret);
    Plain::read(request.body(body.to_string()).send().await.unwrap()).await
}

/// The body that the provider saw last.
fn sent(gateway: &Gateway) -> Value {
    gateway.provider.requests().last().unwrap().json()
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_of_every_shape_are_charged_as_reported() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("1").await;
        let mut spent = 0;
        for (input, tokens) in [
            (json!("one two three"), 3),
            (json!(["one two", "three"]), 3),
            (json!([5, 6, 7, 8]), 4),
            (json!([[5, 6], [7]]), 3),
        ] {
            let body = json!({"model": "embed", "input": input, "dimensions": 3, "user": "u"});
            let answer = post(&gateway, &customer, "/v1/embeddings", &body)
                .await
                .expect(200);
            let answer = answer.json();
            assert_eq!(answer["usage"]["prompt_tokens"], tokens);
            assert_eq!(answer["usage"]["cost"], tokens_cost(tokens).to_string());
            assert_eq!(answer["data"][0]["embedding"].as_array().unwrap().len(), 3);
            // What the gateway does not know travels on.
            assert_eq!(sent(&gateway), body);
            spent += tokens;
        }
        let body = json!({"model": "mock/embed", "input": "a", "encoding_format": "base64"});
        let answer = post(&gateway, &customer, "/v1/embeddings", &body)
            .await
            .expect(200);
        assert!(answer.json()["data"][0]["embedding"].is_string());
        assert_eq!(sent(&gateway)["model"], "embed");
        let left = credits("1").checked_sub(tokens_cost(spent + 1)).unwrap();
        assert_eq!(gateway.settled_balance(&customer).await, left);
        let charges = gateway.charges(&customer, 5).await;
        assert_eq!(charges[0]["endpoint"], "embeddings");
        assert_eq!(charges[0]["end"], "completed");
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_an_embedding_without_a_report_is_charged_as_counted() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let text = "Counting, where nobody says how much it was.";
    gateway
        .provider
        .script("embed", Script::new().raw(r#"{"object":"list","data":[]}"#));
    let body = json!({"model": "embed", "input": [text, text]});
    let answer = post(&gateway, &customer, "/v1/embeddings", &body)
        .await
        .expect(200);
    let cost = tokens_cost(2 * count_tokens(text));
    assert_eq!(answer.json()["usage"]["cost"], cost.to_string());
    assert_eq!(gateway.charge(&customer).await["usage_source"], "counted");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_credit_for_the_tokens_of_an_embedding_is_enough_and_less_is_not() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let text = "one two three four";
    let body = json!({"model": "embed", "input": text});
    let exact = tokens_cost(count_tokens(text));
    let customer = gateway.customer(exact).await;
    let _ = post(&gateway, &customer, "/v1/embeddings", &body)
        .await
        .expect(200);
    let less = exact.checked_sub(tokens_cost(1)).unwrap();
    let customer = gateway.customer(less).await;
    let refused = post(&gateway, &customer, "/v1/embeddings", &body)
        .await
        .expect(402);
    assert_eq!(refused.code(), "insufficient_quota");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn moderations_and_searches_cost_by_the_piece() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let body = json!({"model": "moderate", "input": ["fine", {"type": "text", "text": "too"}]});
    let answer = post(&gateway, &customer, "/v1/moderations", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(answer["results"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["cost"], "0.001");
    // A search covers a hundred documents.
    let documents: Vec<String> = (0..101).map(|n| format!("document {n}")).collect();
    let body = json!({"model": "rerank", "query": "which", "documents": documents, "top_n": 2});
    let answer = post(&gateway, &customer, "/v1/rerank", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(answer["results"].as_array().unwrap().len(), 2);
    assert_eq!(answer["usage"]["cost"], "0.004");
    // Where the answer does not say, the documents are counted.
    gateway
        .provider
        .script("rerank", Script::new().raw(r#"{"results":[]}"#));
    let answer = post(&gateway, &customer, "/v1/rerank", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(answer["usage"]["cost"], "0.004");
    // By tokens, as Voyage and Jina report them.
    let voyage = r#"{"data":[],"usage":{"total_tokens":26}}"#;
    gateway
        .provider
        .script("rerank-tokens", Script::new().raw(voyage));
    let body = json!({"model": "rerank-tokens", "query": "which", "documents": ["a"]});
    let answer = post(&gateway, &customer, "/v1/rerank", &body)
        .await
        .expect(200)
        .json();
    assert_eq!(answer["usage"]["cost"], tokens_cost(26).to_string());
    let charges = gateway.charges(&customer, 4).await;
    assert_eq!(charges[3]["endpoint"], "moderations");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_served_where_it_says_and_nowhere_else() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    for (path, body, does) in [
        (
            "/v1/embeddings",
            json!({"model": "m", "input": "a"}),
            "POST /v1/chat/completions",
        ),
        (
            "/v1/completions",
            json!({"model": "m", "prompt": "a"}),
            "POST /v1/chat/completions",
        ),
        (
            "/v1/completions",
            json!({"model": "claude", "prompt": "a"}),
            "POST /v1/chat/completions",
        ),
        (
            "/v1/chat/completions",
            json!({"model": "embed", "messages": [{"role": "user", "content": "a"}]}),
            "POST /v1/embeddings",
        ),
        (
            "/v1/quote",
            json!({"model": "embed", "messages": [{"role": "user", "content": "a"}]}),
            "POST /v1/embeddings",
        ),
        (
            "/v1/moderations",
            json!({"model": "rerank", "input": "a"}),
            "POST /v1/rerank",
        ),
    ] {
        let refused = post(&gateway, &customer, path, &body)
            .await
            .expect(400)
            .json();
        assert_eq!(refused["error"]["param"], "model", "{path}");
        let message = refused["error"]["message"].as_str().unwrap();
        assert!(message.contains(does), "{message}");
    }
    assert_eq!(gateway.provider.stats().requests, 0);
    let list = gateway
        .get(&customer.secret, "/v1/models")
        .await
        .expect(200)
        .json();
    let embed = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .find(|m| m["id"] == "embed");
    assert_eq!(embed.unwrap()["endpoints"], json!(["embeddings"]));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_an_embedding_that_fails_costs_nothing() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let body = json!({"model": "embed", "input": "a"});
    for (script, status) in [
        (Script::error(500), 502),
        (Script::error(401), 502),
        (Script::error(400), 400),
        (Script::error(429), 429),
        (Script::new().raw("no JSON"), 502),
        (Script::new().raw(r#"{"error":{"message":"no"}}"#), 502),
    ] {
        gateway.provider.script("embed", script);
        let _ = post(&gateway, &customer, "/v1/embeddings", &body)
            .await
            .expect(status);
    }
    assert_eq!(gateway.settled_balance(&customer).await, credits("1"));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn x1_a_repeated_embedding_is_charged_once() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer("1").await;
    let body = json!({"model": "embed", "input": "one two"}).to_string();
    let mut answers = Vec::new();
    for _ in 0..2 {
        let request = gateway.call(Method::POST, "/v1/embeddings", &customer.secret);
        let sent = request
            .header("idempotency-key", "once")
            .body(body.clone())
            .send();
        answers.push(Plain::read(sent.await.unwrap()).await.expect(200));
    }
    assert_eq!(answers[0].body, answers[1].body);
    assert_eq!(answers[1].header("idempotent-replayed"), "true");
    let _ = gateway.charge(&customer).await;
    gateway.finish().await;
}
