//! Every way an answer that is not streamed can end.

use std::time::Duration;

use billing::Credits;
use mock_provider::{Cut, Script};
use serde_json::{Value, json};
use tests::{Books, Gateway, PROMPT_TOKENS, chat, credits, tokens_cost, usage};

const PLENTY: &str = "10";

fn said(tokens: u64) -> Script {
    Script::new().role().tokens(tokens).finish("stop")
}

#[track_caller]
fn is_charged(name: &str, charge: &Value, end: &str, source: &str, charged: Credits) {
    assert_eq!(charge["end"], end, "{name}: {charge:#}");
    assert_eq!(charge["usage_source"], source, "{name}: {charge:#}");
    assert_eq!(charge["charged"], json!(charged), "{name}: {charge:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn completed_answers() {
    let zero = r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}"#;
    let negative = r#"{"prompt_tokens":-9,"completion_tokens":-4,"total_tokens":-13}"#;
    let strings = r#"{"prompt_tokens":"9","completion_tokens":"4","total_tokens":"13"}"#;
    let rows = [
        (
            "reported",
            said(4).usage_json(&usage(PROMPT_TOKENS, 6)),
            "reported",
            PROMPT_TOKENS + 6,
        ),
        ("nothing reported", said(4), "counted", PROMPT_TOKENS + 4),
        ("zero", said(4).usage_json(zero), "reported", 0),
        (
            "negative",
            said(4).usage_json(negative),
            "counted",
            PROMPT_TOKENS + 4,
        ),
        (
            "strings",
            said(4).usage_json(strings),
            "counted",
            PROMPT_TOKENS + 4,
        ),
    ];
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for (name, script, source, tokens) in rows.clone() {
            gateway.provider.script("m", script);
            let customer = gateway.customer(PLENTY).await;
            let answer = gateway
                .chat(&customer, chat("m", json!({})))
                .await
                .expect(200);
            let charge = gateway.charge(&customer).await;
            is_charged(name, &charge, "completed", source, tokens_cost(tokens));
            let shown = &answer.json()["usage"];
            assert_eq!(shown["cost"], charge["charged"], "{name}");
            assert_eq!(shown["total_tokens"], tokens, "{name}: {shown}");
            let left = credits(PLENTY).checked_sub(tokens_cost(tokens)).unwrap();
            assert_eq!(gateway.settled_balance(&customer).await, left, "{name}");
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn l4_answers_that_fail_cost_nothing() {
    let html = "<html>502</html>";
    let half = r#"{"id":"x","choices":[{"index":0,"message":{"content":"hello"#;
    let rows = [
        (
            "reset before",
            Script::new().cut_before_head(Cut::Reset),
            502,
            "upstream_error",
        ),
        (
            "closed before",
            Script::new().cut_before_head(Cut::Close),
            502,
            "upstream_error",
        ),
        (
            "cut inside",
            said(40).cut(Cut::Close),
            502,
            "upstream_error",
        ),
        (
            "reset inside",
            said(40).cut(Cut::Reset),
            502,
            "upstream_error",
        ),
        ("empty", Script::new().raw(""), 502, "upstream_error"),
        ("half of it", Script::new().raw(half), 502, "upstream_error"),
        (
            "html",
            Script::new().header("content-type", "text/html").raw(html),
            502,
            "upstream_error",
        ),
        ("a list", Script::new().raw("[]"), 502, "upstream_error"),
        (
            "an error with 200",
            Script::new().raw(r#"{"error":{"message":"SECRET"}}"#),
            502,
            "upstream_error",
        ),
        (
            "too long",
            Script::new().role().endless(Duration::ZERO),
            502,
            "upstream_error",
        ),
        (
            "never a head",
            Script::new().stall_before_head(),
            504,
            "upstream_timeout",
        ),
    ];
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.first_byte_timeout = Duration::from_millis(500);
        settings.answer_bytes_max = 1 << 20;
    })
    .await;
    for (name, script, status, code) in rows {
        gateway.provider.script("m", script);
        let customer = gateway.customer(PLENTY).await;
        let answer = gateway.chat(&customer, chat("m", json!({}))).await;
        assert_eq!(
            (answer.status, answer.code()),
            (status, code.into()),
            "{name}"
        );
        assert!(!format!("{:?}", answer.body).contains("SECRET"), "{name}");
        let charge = gateway.charge(&customer).await;
        is_charged(name, &charge, "upstream_failed", "counted", Credits::ZERO);
        assert_eq!(
            gateway.settled_balance(&customer).await,
            credits(PLENTY),
            "{name}"
        );
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_a_client_that_does_not_wait_pays_the_prompt() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("m", said(4).gate_before_head("never"));
    let customer = gateway.customer(PLENTY).await;
    let sending = tokio::spawn(gateway.chat_request(&customer, chat("m", json!({}))).send());
    let waits = gateway.provider.wait_for(|stats| stats.at_gates == 1);
    waits.await.unwrap();
    sending.abort();
    let left = gateway
        .provider
        .wait_for(|stats| stats.requests_aborted == 1);
    left.await.unwrap();
    let charge = gateway.charge(&customer).await;
    is_charged(
        "gone",
        &charge,
        "client_gone",
        "counted",
        tokens_cost(PROMPT_TOKENS),
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_reported_usage_above_the_hold() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let above = PROMPT_TOKENS + 900;
        gateway
            .provider
            .script("m", said(4).usage_json(&usage(PROMPT_TOKENS, 900)));
        let body = chat("m", json!({"max_tokens": 5}));
        let rich = gateway.customer(PLENTY).await;
        let _ = gateway.chat(&rich, &body).await.expect(200);
        let charge = gateway.charge(&rich).await;
        is_charged(
            "extended",
            &charge,
            "completed",
            "reported",
            tokens_cost(above),
        );
        assert_eq!(charge["house_loss"], "0");
        let had = tokens_cost(PROMPT_TOKENS + 50);
        let poor = gateway.customer(had).await;
        let answer = gateway.chat(&poor, &body).await.expect(200);
        assert_eq!(answer.json()["usage"]["cost"], json!(had));
        let charge = gateway.charge(&poor).await;
        is_charged("loss", &charge, "completed", "reported", had);
        let loss = tokens_cost(above).checked_sub(had).unwrap();
        assert_eq!(charge["house_loss"], json!(loss));
        assert_eq!(gateway.settled_balance(&poor).await, Credits::ZERO);
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fee_per_request_is_charged_with_an_answer_and_not_without() {
    let gateway = Gateway::start(Books::Sqlite).await;
    gateway
        .provider
        .script("fee", said(4).usage_json(&usage(PROMPT_TOKENS, 4)));
    let customer = gateway.customer(PLENTY).await;
    let _ = gateway
        .chat(&customer, chat("fee", json!({})))
        .await
        .expect(200);
    let fee = credits("0.001");
    let cost = tokens_cost(PROMPT_TOKENS + 4).checked_add(fee).unwrap();
    is_charged(
        "fee",
        &gateway.charge(&customer).await,
        "completed",
        "reported",
        cost,
    );
    gateway.provider.script("fee", Script::error(500));
    let customer = gateway.customer(PLENTY).await;
    let _ = gateway
        .chat(&customer, chat("fee", json!({})))
        .await
        .expect(502);
    let charge = gateway.charge(&customer).await;
    is_charged(
        "no fee",
        &charge,
        "upstream_failed",
        "counted",
        Credits::ZERO,
    );
    gateway.finish().await;
}
