//! Anthropic's Messages as clients speak it: over any model, and through to a provider that speaks it too.

use http::Method;
use mock_provider::{Script, SeenRequest};
use serde_json::{Value, json};
use tests::{
    Books, Customer, Events, Gateway, PROMPT, PROMPT_TOKENS, Plain, Streaming, TOP_UP_URL,
    count_tokens, in_time, tokens_cost, usage,
};

const PLENTY: &str = "10";
const PATH: &str = "/v1/messages";

/// A message's request with the usual prompt, and `more` members.
fn ask(model: &str, more: Value) -> Value {
    let mut body = json!({"model": model, "max_tokens": 100,
        "messages": [{"role": "user", "content": PROMPT}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn request(gateway: &Gateway, customer: &Customer, body: &Value) -> reqwest::RequestBuilder {
    // As Anthropic's SDKs send the key.
    let url = format!("http://{}{PATH}", gateway.addr());
    gateway
        .client
        .post(url)
        .header("x-api-key", &customer.secret)
        .header("anthropic-version", "2023-06-01")
        .body(body.to_string())
}

async fn plain(gateway: &Gateway, customer: &Customer, body: &Value) -> Plain {
    let sent = request(gateway, customer, body).send();
    Plain::read(in_time("the head of an answer", sent).await.unwrap()).await
}

async fn stream(gateway: &Gateway, customer: &Customer, body: &Value) -> Events {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let sent = request(gateway, customer, &body).send();
    let sent = in_time("the head of a stream", sent).await.unwrap();
    Streaming::new(sent).rest().await
}

/// The events' types, with deltas of one kind in a row told once.
fn types(events: &Events) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    for event in events.chunks() {
        let kind = event["delta"]["type"].as_str().or(event["type"].as_str());
        let kind = kind.unwrap_or_default().to_owned();
        if !(kind.ends_with("_delta") && types.last() == Some(&kind)) {
            types.push(kind);
        }
    }
    types
}

fn text(events: &Events) -> String {
    events
        .chunks()
        .iter()
        .filter_map(|event| event["delta"]["text"].as_str().map(str::to_owned))
        .collect()
}

fn find<'e>(events: &'e [Value], kind: &str) -> &'e Value {
    let found = events.iter().find(|event| event["type"] == kind);
    found.unwrap_or_else(|| panic!("no {kind} in {events:?}"))
}

fn last_request(gateway: &Gateway) -> SeenRequest {
    gateway.provider.requests().pop().unwrap()
}

fn messages_usage(input: u64, output: u64) -> String {
    json!({"input_tokens": input, "output_tokens": output}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_over_a_chat_model_is_charged_as_a_chat() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new()
            .text("Hello")
            .finish("length")
            .usage_json(&usage(PROMPT_TOKENS, 7));
        gateway.provider.script("m", script);
        let customer = gateway.customer(PLENTY).await;
        let answer = plain(&gateway, &customer, &ask("m", json!({}))).await;
        let answer = answer.expect(200);
        let id = answer.header("x-request-id").replace("req_", "msg_");
        assert_eq!(
            answer.json(),
            json!({"id": id, "type": "message", "role": "assistant", "model": "m",
                "content": [{"type": "text", "text": "Hello", "citations": null}],
                "stop_reason": "max_tokens", "stop_sequence": null, "stop_details": null, "container": null,
                "usage": {"input_tokens": PROMPT_TOKENS, "cache_creation_input_tokens": 0,
                    "cache_read_input_tokens": 0,
                    "cache_creation": {"ephemeral_5m_input_tokens": 0, "ephemeral_1h_input_tokens": 0},
                    "output_tokens": 7, "output_tokens_details": {"thinking_tokens": 0},
                    "inference_geo": null, "server_tool_use": null, "service_tier": null,
                    "cost": tokens_cost(PROMPT_TOKENS + 7),
                    "cost_details": {"prompt": tokens_cost(PROMPT_TOKENS), "completion": tokens_cost(7)}}})
        );
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["endpoint"], "messages");
        assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + 7)));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_translated_in_all_its_parts() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let body = json!({
        "model": "m", "max_tokens": 60, "temperature": 0.5, "top_p": 0.9,
        "stop_sequences": ["END"], "metadata": {"user_id": "u1"}, "service_tier": "auto",
        "system": [{"type": "text", "text": "Be\n", "cache_control": {"type": "ephemeral"}}, {"type": "text", "text": "brief"}],
        "thinking": {"type": "enabled", "budget_tokens": 2000},
        "tools": [{"name": "weather", "description": "d", "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}}}],
        "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
        "messages": [
            {"role": "user", "content": [
                {"type": "text", "text": "see"},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                {"type": "document", "title": "a.pdf", "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}},
                {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "plain"}}]},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "hm", "signature": "EvQB"},
                {"type": "text", "text": "I look"}, {"type": "text", "text": " now."},
                {"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "Bern"}}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "rain"},
                    {"type": "image", "source": {"type": "url", "url": "https://e.example/i.png"}}]},
                {"type": "text", "text": "go on"}]}
        ]
    });
    let _ = plain(&gateway, &customer, &body).await.expect(200);
    assert_eq!(
        last_request(&gateway).json(),
        json!({
            "model": "m", "max_tokens": 60, "temperature": 0.5, "top_p": 0.9,
            "stop": ["END"], "user": "u1",
            "tools": [{"type": "function", "function": {"name": "weather", "description": "d",
                "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}],
            "tool_choice": "required", "parallel_tool_calls": false,
            "messages": [
                {"role": "system", "content": "Be\n\n\nbrief"},
                {"role": "user", "content": [
                    {"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                    {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,QUJD"}},
                    {"type": "text", "text": "plain"}]},
                {"role": "assistant", "content": "I look now.", "tool_calls": [
                    {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": "{\"city\":\"Bern\"}"}}]},
                {"role": "tool", "tool_call_id": "t1", "content": "rain"},
                {"role": "user", "content": [
                    {"type": "image_url", "image_url": {"url": "https://e.example/i.png"}},
                    {"type": "text", "text": "go on"}]}
            ]
        })
    );
    // A model that reasons is told how much.
    let thinks = ask(
        "hidden",
        json!({"thinking": {"type": "enabled", "budget_tokens": 2000}}),
    );
    let _ = plain(&gateway, &customer, &thinks).await.expect(200);
    assert_eq!(last_request(&gateway).json()["reasoning_effort"], "low");
    for (more, named) in [
        (
            json!({"mcp_servers": [{"url": "https://x"}]}),
            "mcp_servers",
        ),
        (
            json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
            "tools[0]",
        ),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "container_upload", "file_id": "f"}]}]}),
            "messages[0].content[0]",
        ),
        (
            json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}),
            "messages",
        ),
    ] {
        let answer = plain(&gateway, &customer, &ask("m", more))
            .await
            .expect(400);
        assert_eq!(answer.json()["error"]["param"], named);
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_over_a_chat_model_has_anthropics_events() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let calls = |json: &str| {
        format!(r#"[{{"index":0,"delta":{{"tool_calls":[{json}]}},"finish_reason":null}}]"#)
    };
    let script = Script::new()
        .role()
        .chunk(r#"[{"index":0,"delta":{"reasoning_content":"Hm"},"finish_reason":null}]"#, None)
        .text("Hel")
        .text("lo")
        .chunk(&calls(r#"{"index":0,"id":"c1","type":"function","function":{"name":"weather","arguments":""}}"#), None)
        .chunk(&calls(r#"{"index":0,"function":{"arguments":"{\"city\":"}}"#), None)
        .chunk(&calls(r#"{"index":0,"function":{"arguments":"\"Bern\"}"}}"#), None)
        .chunk(&calls(r#"{"index":1,"id":"c2","type":"function","function":{"name":"now","arguments":"{}"}}"#), None)
        .finish("tool_calls")
        .usage_json(&usage(PROMPT_TOKENS, 21))
        .done()
        .split(9);
    gateway.provider.script("m", script);
    let customer = gateway.customer(PLENTY).await;
    let events = stream(&gateway, &customer, &ask("m", json!({}))).await;
    assert_eq!(
        types(&events),
        [
            "message_start",
            "content_block_start",
            "thinking_delta",
            "content_block_stop",
            "content_block_start",
            "text_delta",
            "content_block_stop",
            "content_block_start",
            "input_json_delta",
            "content_block_stop",
            "content_block_start",
            "input_json_delta",
            "content_block_stop",
            "message_delta",
            "message_stop"
        ]
    );
    assert_eq!(text(&events), "Hello");
    let all = events.chunks();
    let starts: Vec<&Value> = all
        .iter()
        .filter(|e| e["type"] == "content_block_start")
        .collect();
    assert_eq!(starts[2]["index"], 2);
    assert_eq!(
        starts[2]["content_block"],
        json!({"type": "tool_use", "id": "c1", "name": "weather", "input": {}, "caller": {"type": "direct"}})
    );
    let arguments: String = all
        .iter()
        .filter(|e| e["index"] == 2)
        .filter_map(|e| e["delta"]["partial_json"].as_str())
        .collect();
    assert_eq!(arguments, r#"{"city":"Bern"}"#);
    let end = find(&all, "message_delta");
    assert_eq!(end["delta"]["stop_reason"], "tool_use");
    assert_eq!(end["usage"]["input_tokens"], PROMPT_TOKENS);
    assert_eq!(end["usage"]["output_tokens"], 21);
    assert_eq!(end["usage"]["cost"], json!(tokens_cost(PROMPT_TOKENS + 21)));
    // It was asked for the usage of its stream.
    assert_eq!(
        last_request(&gateway).json()["stream_options"]["include_usage"],
        true
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_for_so_many_tokens_delivers_them_and_then_a_402() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let chat = Script::new().role().tokens(40).gate("never");
        gateway.provider.script("m", chat);
        let native = Script::new()
            .message_start(&messages_usage(PROMPT_TOKENS, 1))
            .text_begins(0)
            .says_tokens(0, 40, std::time::Duration::ZERO)
            .gate("never");
        gateway.provider.script("claude", native);
        for (model, paid) in [("m", 1), ("m", 23), ("claude", 1), ("claude", 23)] {
            let spent = tokens_cost(PROMPT_TOKENS + paid);
            let customer = gateway.customer(spent).await;
            let events = stream(&gateway, &customer, &ask(model, json!({}))).await;
            assert_eq!(count_tokens(&text(&events)), paid, "{model}");
            assert_eq!(
                types(&events)[types(&events).len() - 3..],
                ["content_block_stop", "message_delta", "error"],
                "{model}"
            );
            let all = events.chunks();
            let delta = find(&all, "message_delta");
            assert_eq!(delta["delta"]["stop_reason"], Value::Null);
            assert_eq!(delta["usage"]["input_tokens"], PROMPT_TOKENS);
            assert_eq!(delta["usage"]["output_tokens"], paid);
            assert_eq!(delta["usage"]["cost"], json!(spent));
            let error = find(&all, "error");
            let details = &error["error"];
            assert_eq!(details["type"], "billing_error");
            assert_eq!(details["code"], "insufficient_quota");
            assert_eq!(details["status"], 402);
            assert_eq!(details["usage"], delta["usage"]);
            assert_eq!(details["metadata"]["reason"], "credits_exhausted");
            assert_eq!(details["metadata"]["top_up_url"], TOP_UP_URL);
            assert_eq!(
                error["request_id"],
                events.headers["x-request-id"].to_str().unwrap()
            );
            assert_eq!(gateway.charge(&customer).await["charged"], json!(spent));
            assert_eq!(gateway.settled_balance(&customer).await, tokens_cost(0));
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_of_the_clients_own_dialect_gets_and_gives_every_byte() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let reported = r#"{"input_tokens":9,"output_tokens":40,"output_tokens_details":{"thinking_tokens":4},"server_tool_use":null}"#;
    let odd = r#"{"type":"content_block_delta","index":1,"delta":{"type":"citations_delta","citation":{"x":1.10}}}"#;
    let script = Script::new()
        .message_start(&messages_usage(PROMPT_TOKENS, 1))
        .thinks(0, &["Which", " city?"], "EvQB+/8=")
        .text_begins(1)
        .says_on(1, &["I'll"])
        .message_event("content_block_delta", odd)
        .block_ends(1)
        .uses_tool(2, "toolu_1", "weather", r#"{"city":"Zürich"}"#)
        .message_event("future_event", r#"{"type":"future_event","x":1}"#)
        .message_ends("tool_use", reported)
        .split(11);
    gateway.provider.script("claude-thinking", script);
    let body = ask(
        "claude-thinking",
        json!({"thinking": {"type": "adaptive"}, "x_unknown": {"a": [1.10]}, "stream": true,
        "messages": [
            {"role": "user", "content": "one"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "t", "signature": "c2ln"}, {"type": "text", "text": "b"}]},
            {"role": "user", "content": [{"type": "text", "text": "two", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]}]}),
    );
    let sent = request(&gateway, &customer, &body).header(
        "anthropic-beta",
        "interleaved-thinking-2025-05-14,fast-mode-2026-02-01",
    );
    let events = Streaming::new(sent.send().await.unwrap()).rest().await;
    let seen = last_request(&gateway);
    assert_eq!(seen.path, "/v1/messages");
    assert_eq!(seen.json(), body);
    assert_eq!(
        seen.header("anthropic-beta"),
        Some("interleaved-thinking-2025-05-14")
    );
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    assert!(events.data.contains(&odd.to_owned()));
    let all = events.chunks();
    find(&all, "future_event");
    find(&all, "ping");
    let signed = all
        .iter()
        .any(|event| event["delta"]["signature"] == "EvQB+/8=");
    assert!(signed, "{all:?}");
    assert_eq!(find(&all, "message_start")["message"]["id"], "msg_mock");
    let end = &find(&all, "message_delta")["usage"];
    assert_eq!(end["server_tool_use"], Value::Null);
    // Nano-credits: 3 000 and 15 000 a token.
    let cost = billing::Credits::from_nanos(9 * 3_000 + 40 * 15_000);
    assert_eq!(end["cost"], json!(cost));
    assert_eq!(gateway.charge(&customer).await["charged"], json!(cost));
    // And the same at once.
    let whole = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x", "x": 1,
        "content": [{"type": "text", "text": "Hello"}], "stop_reason": "pause_turn", "stop_sequence": null,
        "usage": {"input_tokens": 9, "output_tokens": 2, "service_tier": "standard"}});
    gateway
        .provider
        .script("claude", Script::new().raw(whole.to_string()));
    let mut expected = whole;
    expected["usage"]["cost"] = json!(tokens_cost(11));
    expected["usage"]["cost_details"] =
        json!({"prompt": tokens_cost(9), "completion": tokens_cost(2)});
    let answer = plain(&gateway, &customer, &ask("claude", json!({}))).await;
    assert_eq!(answer.expect(200).json(), expected);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_anthropics_shape() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let poor = gateway.customer("0").await;
    gateway.provider.script("aliased", Script::error(529));
    gateway.provider.script("free", Script::error(429));
    gateway.provider.script("cached", Script::error(500));
    let stranger = Customer {
        secret: "sk-tw-nobody".to_owned(),
        ..customer.clone()
    };
    for (who, body, status, kind) in [
        (&stranger, ask("m", json!({})), 401, "authentication_error"),
        (&poor, ask("m", json!({})), 402, "billing_error"),
        (
            &poor,
            ask("claude", json!({"stream": true})),
            402,
            "billing_error",
        ),
        (&customer, ask("nobody", json!({})), 404, "not_found_error"),
        (
            &customer,
            ask("m", json!({"max_tokens": null})),
            400,
            "invalid_request_error",
        ),
        (
            &customer,
            ask("m", json!({"max_tokens": 0})),
            400,
            "invalid_request_error",
        ),
        (
            &customer,
            ask("m", json!({"messages": []})),
            400,
            "invalid_request_error",
        ),
        (
            &customer,
            ask(
                "m",
                json!({"messages": [{"role": "system", "content": "x"}]}),
            ),
            400,
            "invalid_request_error",
        ),
        (
            &customer,
            ask("aliased", json!({})),
            529,
            "overloaded_error",
        ),
        (&customer, ask("free", json!({})), 429, "rate_limit_error"),
        (&customer, ask("cached", json!({})), 502, "api_error"),
    ] {
        gateway.provider.script("real-name", Script::error(529));
        let answer = plain(&gateway, who, &body).await.expect(status);
        let id = answer.header("x-request-id").to_owned();
        let error = answer.json();
        assert_eq!(error["type"], "error", "{error}");
        assert_eq!(error["error"]["type"], kind, "{error}");
        assert!(error["error"]["message"].is_string());
        assert_eq!(error["request_id"], id);
        if status == 402 {
            assert_eq!(error["error"]["metadata"]["reason"], "credits_exhausted");
        }
    }
    // Refused before the body is read, and by the routes themselves.
    let twice = request(&gateway, &customer, &ask("m", json!({})))
        .header("content-encoding", "gzip")
        .send();
    let refused = Plain::read(twice.await.unwrap()).await.expect(400).json();
    assert_eq!(refused["type"], "error");
    let wrong = gateway.call(Method::DELETE, PATH, &customer.secret).send();
    let wrong = Plain::read(wrong.await.unwrap()).await.expect(405);
    assert_eq!(wrong.json()["error"]["type"], "invalid_request_error");
    let nothing = gateway.get(&customer.secret, "/v1/messages/nothing").await;
    assert_eq!(
        nothing.expect(404).json()["error"]["type"],
        "not_found_error"
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_are_counted_without_any_credit() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let poor = gateway.customer("0").await;
    for model in ["m", "claude"] {
        let mut body = ask(model, json!({}));
        body.as_object_mut().unwrap().remove("max_tokens");
        let sent = gateway
            .call(Method::POST, "/v1/messages/count_tokens", &poor.secret)
            .body(body.to_string())
            .send();
        let counted = Plain::read(sent.await.unwrap()).await.expect(200).json();
        assert_eq!(counted, json!({"input_tokens": PROMPT_TOKENS}));
    }
    assert_eq!(gateway.provider.stats().requests, 0);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_message_is_charged_once_and_answered_alike() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    for stream in [false, true] {
        let body = ask("m", json!({"stream": stream}));
        let key = format!("once-{stream}");
        let mut answers = Vec::new();
        for _ in 0..2 {
            let sent = request(&gateway, &customer, &body).header("idempotency-key", &key);
            answers.push(Plain::read(sent.send().await.unwrap()).await.expect(200));
        }
        assert_eq!(answers[0].body, answers[1].body);
        assert_eq!(answers[1].header("idempotent-replayed"), "true");
    }
    assert_eq!(gateway.charges(&customer, 2).await.len(), 2);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_ends_with_an_error() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let native = Script::new()
        .message_start(&messages_usage(PROMPT_TOKENS, 1))
        .text_begins(0)
        .says_on(0, &["Hello"])
        .message_error("overloaded_error");
    gateway.provider.script("claude", native);
    let chat = Script::new().role().text("Hello").error_event("broken");
    gateway.provider.script("m", chat);
    for model in ["m", "claude"] {
        let events = stream(&gateway, &customer, &ask(model, json!({}))).await;
        assert_eq!(text(&events), "Hello");
        let kinds = types(&events);
        assert_eq!(
            kinds[kinds.len() - 3..],
            ["content_block_stop", "message_delta", "error"]
        );
        assert!(!kinds.contains(&"message_stop".to_owned()));
        assert_eq!(
            find(&events.chunks(), "error")["error"]["type"],
            "api_error"
        );
    }
    gateway.finish().await;
}
