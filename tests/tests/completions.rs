//! Text completions: plain, streamed, cut in the middle, and what many prompts and choices cost.

use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{Books, Customer, Gateway, Plain, Streaming, count_tokens, tokens_cost};

fn call(gateway: &Gateway, customer: &Customer, body: &Value) -> reqwest::RequestBuilder {
    gateway
        .call(Method::POST, "/v1/completions", &customer.secret)
        .body(body.to_string())
}

/// The text of a stream of completions.
fn text(chunks: &[Value]) -> String {
    chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["text"].as_str())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_completion_is_answered_plain_and_streamed() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let customer = gateway.customer("1").await;
        let body = json!({"model": "text", "prompt": "one two", "max_tokens": 5, "logit_bias": {}});
        let answer = Plain::read(call(&gateway, &customer, &body).send().await.unwrap()).await;
        let answer = answer.expect(200).json();
        assert_eq!(answer["object"], "text_completion");
        assert_eq!(answer["usage"]["prompt_tokens"], 2);
        assert_eq!(answer["usage"]["completion_tokens"], 5);
        assert_eq!(answer["usage"]["cost"], tokens_cost(7).to_string());
        assert_eq!(gateway.provider.requests().last().unwrap().json(), body);

        let body = json!({"model": "text", "prompt": ["one two"], "max_tokens": 5, "stream": true,
            "stream_options": {"include_usage": true}});
        let events = Streaming::new(call(&gateway, &customer, &body).send().await.unwrap());
        let events = events.rest().await;
        assert_eq!(count_tokens(&text(&events.chunks())), 5);
        assert!(events.is_done() && events.error().is_none());
        let usages = events.usages();
        assert_eq!(usages.last().unwrap()["cost"], tokens_cost(7).to_string());
        let charges = gateway.charges(&customer, 2).await;
        assert!(
            charges
                .iter()
                .all(|charge| charge["endpoint"] == "completions")
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_402_in_the_middle_of_a_completion_has_the_form_of_a_chats() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("text", Script::new().tokens(9).gate("never"));
    let customer = gateway.customer(tokens_cost(2 + 6)).await;
    let body = json!({"model": "text", "prompt": "one two", "stream": true});
    let events = Streaming::new(call(&gateway, &customer, &body).send().await.unwrap());
    let events = events.rest().await;
    let error = events.error().unwrap();
    assert_eq!(
        (&error["code"], &error["status"]),
        (&json!("insufficient_quota"), &json!(402))
    );
    assert_eq!(error["usage"]["cost"], tokens_cost(8).to_string());
    assert!(events.is_done());
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["end"], "credits_exhausted");
    assert_eq!(gateway.settled_balance(&customer).await.to_string(), "0");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_prompt_and_choice_is_held_for() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let prompts = json!(["one two", "three four"]);
    for (more, outputs) in [
        (json!({}), 2),
        (json!({"n": 2}), 4),
        (json!({"best_of": 3}), 6),
    ] {
        let mut body = json!({"model": "text", "prompt": prompts, "max_tokens": 5});
        body.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        // Less than the worst case lowers the limit of each; the header says so.
        let customer = gateway.customer(tokens_cost(4 + outputs * 3)).await;
        let answer = Plain::read(call(&gateway, &customer, &body).send().await.unwrap()).await;
        assert_eq!(
            answer.expect(200).header("x-tollway-max-tokens"),
            "3",
            "{body}"
        );
        assert_eq!(
            gateway.provider.requests().last().unwrap().json()["max_tokens"],
            3
        );
    }
    gateway.no_holds_left().await;
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_by_number_are_a_prompt_too() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("text", Script::new().tokens(1).finish("stop"));
    // Nobody reports: the numbers are counted.
    let customer = gateway.customer("1").await;
    let body = json!({"model": "text", "prompt": [[101, 102, 103], [104]], "max_tokens": 1});
    let answer = Plain::read(call(&gateway, &customer, &body).send().await.unwrap()).await;
    assert_eq!(answer.expect(200).json()["usage"]["prompt_tokens"], 4);
    gateway.finish().await;
}
