//! Anthropic's dialect from end to end: a client speaks OpenAI's, the scripted provider Anthropic's.

use billing::Credits;
use gateway::settings::RouteSetting;
use mock_provider::{Cut, Script, SeenRequest};
use serde_json::{Value, json};
use tests::{
    Books, CANARY_PROVIDER_KEY, Gateway, PROMPT_TOKENS, chat, count_tokens, credits, streamed,
    tokens_cost,
};

/// Far more credit than any of these needs.
const PLENTY: &str = "10";

fn usage(input: u64, output: u64) -> String {
    json!({"input_tokens": input, "output_tokens": output}).to_string()
}

fn started() -> Script {
    Script::new().message_start(&usage(PROMPT_TOKENS, 1))
}

/// A whole message with this content, as Anthropic answers it.
fn message(content: Value, reason: &str, usage: Value) -> Script {
    let body = json!({"id": "msg_1", "type": "message", "role": "assistant", "model": "claude-x",
        "content": content, "stop_reason": reason, "stop_sequence": null, "usage": usage});
    Script::new().raw(body.to_string())
}

fn last_request(gateway: &Gateway) -> SeenRequest {
    gateway.provider.requests().pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_answer_is_charged_by_every_kind_of_token() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let reported = json!({"input_tokens": 7, "cache_read_input_tokens": 1001, "cache_creation_input_tokens": 30,
            "cache_creation": {"ephemeral_5m_input_tokens": 20, "ephemeral_1h_input_tokens": 10},
            "output_tokens": 13, "output_tokens_details": {"thinking_tokens": 4},
            "server_tool_use": {"web_search_requests": 0}, "service_tier": "standard"});
        let said = json!([{"type": "text", "text": "Hello"}]);
        gateway.provider.script(
            "claude-thinking",
            message(said, "end_turn", reported.clone()),
        );
        let customer = gateway.customer(PLENTY).await;
        let answer = gateway
            .chat(
                &customer,
                chat("claude-thinking", json!({"max_tokens": 50})),
            )
            .await
            .expect(200)
            .json();
        assert_eq!(answer["object"], "chat.completion");
        assert_eq!(answer["id"], "msg_1");
        assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
        assert_eq!(answer["choices"][0]["finish_reason"], "stop");
        let shown = &answer["usage"];
        assert_eq!(shown["prompt_tokens"], 7 + 1001 + 30);
        assert_eq!(shown["prompt_tokens_details"]["cached_tokens"], 1001);
        assert_eq!(shown["prompt_tokens_details"]["cache_write_tokens"], 30);
        assert_eq!(shown["completion_tokens"], 13);
        assert_eq!(shown["completion_tokens_details"]["reasoning_tokens"], 4);
        // Nano-credits: 3 000, 300, 3 750, 6 000 and 15 000 a token.
        let nanos = 7 * 3_000 + 1001 * 300 + 20 * 3_750 + 10 * 6_000 + 13 * 15_000;
        let cost = json!(Credits::from_nanos(nanos));
        assert_eq!(shown["cost"], cost);
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["charged"], cost);
        assert_eq!(charge["usage_source"], "reported");
        assert_eq!(charge["provider"], "messages");
        let seen = last_request(&gateway);
        assert_eq!(seen.path, "/v1/messages");
        assert_eq!(seen.header("x-api-key"), Some(CANARY_PROVIDER_KEY));
        assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(
            seen.json(),
            json!({"model": "claude-thinking", "max_tokens": 50,
                "messages": [{"role": "user", "content": [{"type": "text", "text": "one two"}]}]})
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_a_stream_of_chunks() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let script = started()
        .says(0, &["Hello", ", ", "wörld"])
        .message_ends("max_tokens", &usage(PROMPT_TOKENS, 21))
        .split(7);
    gateway.provider.script("claude", script);
    let customer = gateway.customer(PLENTY).await;
    let events = gateway
        .stream(&customer, streamed("claude"))
        .await
        .rest()
        .await;
    assert_eq!(events.text(), "Hello, wörld");
    assert_eq!(events.finish_reasons(), ["length"]);
    assert_eq!(events.error(), None);
    assert!(events.is_done());
    let chunks = events.chunks();
    assert_eq!(chunks[0]["choices"][0]["delta"]["role"], "assistant");
    for chunk in &chunks {
        assert_eq!(chunk["object"], "chat.completion.chunk");
        assert_eq!(chunk["id"], "msg_mock");
        assert!(chunk["created"].as_u64().unwrap() > 1_700_000_000);
    }
    let [usage] = &events.usages()[..] else {
        panic!("{:?}", events.data)
    };
    assert_eq!(usage["total_tokens"], PROMPT_TOKENS + 21);
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + 21)));
    assert_eq!(charge["usage_source"], "reported");
    // Without being asked for, the usage is not shown.
    let quiet = chat("claude", json!({"stream": true}));
    let events = gateway.stream(&customer, quiet).await.rest().await;
    assert!(events.usages().is_empty() && events.is_done());
    assert_eq!(last_request(&gateway).json()["stream"], true);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_answered_with_the_thinking_between() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let script = started()
        .thinks(0, &["Which", " city?"], "EvQB+/8=")
        .says(1, &["I'll look."])
        .uses_tool(2, "toolu_1", "weather", r#"{"city":"Zürich"}"#)
        .uses_tool(3, "toolu_2", "now", "{}")
        .message_ends("tool_use", &usage(PROMPT_TOKENS, 80));
    gateway.provider.script("claude-thinking", script);
    let customer = gateway.customer(PLENTY).await;
    let tools = json!([
        {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}},
        {"type": "function", "function": {"name": "now"}}
    ]);
    let asked =
        json!({"stream": true, "tools": tools, "reasoning_effort": "high", "max_tokens": 400});
    let events = gateway
        .stream(&customer, chat("claude-thinking", asked))
        .await
        .rest()
        .await;
    assert_eq!(events.finish_reasons(), ["tool_calls"]);
    let message = added_up(&events.chunks());
    assert_eq!(message["content"], "I'll look.");
    assert_eq!(message["reasoning_content"], "Which city?");
    assert_eq!(
        message["reasoning_details"],
        json!([{"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", "text": "Which city?", "signature": "EvQB+/8="}])
    );
    let calls = message["tool_calls"].as_array().unwrap();
    assert_eq!(calls[0]["id"], "toolu_1");
    assert_eq!(
        calls[0]["function"],
        json!({"name": "weather", "arguments": "{\"city\":\"Zürich\"}"})
    );
    assert_eq!(
        calls[1]["function"],
        json!({"name": "now", "arguments": "{}"})
    );
    let wire = last_request(&gateway).json();
    assert_eq!(
        wire["thinking"],
        json!({"type": "adaptive", "display": "summarized"})
    );
    assert_eq!(wire["output_config"], json!({"effort": "high"}));
    assert_eq!(
        wire["tools"][1]["input_schema"],
        json!({"type": "object", "properties": {}})
    );
    // The answer goes back as it came, with the results.
    let said = json!([{"type": "text", "text": "Sunny."}]);
    let answer = message_of(&said, json!({"input_tokens": 5, "output_tokens": 2}));
    gateway.provider.script("claude-thinking", answer);
    let body = json!({"model": "claude-thinking", "tools": tools, "reasoning_effort": "high", "max_tokens": 400, "messages": [
        {"role": "user", "content": "Weather?"}, message,
        {"role": "tool", "tool_call_id": "toolu_1", "content": "sunny"},
        {"role": "tool", "tool_call_id": "toolu_2", "content": "noon"}]});
    let answer = gateway.chat(&customer, body).await.expect(200).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Sunny.");
    let turns = last_request(&gateway).json()["messages"].clone();
    assert_eq!(
        turns[1],
        json!({"role": "assistant", "content": [
            {"type": "thinking", "thinking": "Which city?", "signature": "EvQB+/8="},
            {"type": "text", "text": "I'll look."},
            {"type": "tool_use", "id": "toolu_1", "name": "weather", "input": {"city": "Zürich"}},
            {"type": "tool_use", "id": "toolu_2", "name": "now", "input": {}}]})
    );
    let result = |id: &str, text: &str| json!({"type": "tool_result", "tool_use_id": id, "content": [{"type": "text", "text": text}]});
    assert_eq!(
        turns[2],
        json!({"role": "user", "content": [result("toolu_1", "sunny"), result("toolu_2", "noon")]})
    );
    gateway.finish().await;
}

fn message_of(said: &Value, usage: Value) -> Script {
    message(said.clone(), "end_turn", usage)
}

/// A message out of its deltas, added up as openai-python does: texts joined, lists by `index`.
fn added_up(chunks: &[Value]) -> Value {
    let mut message = json!({});
    for chunk in chunks {
        add(&mut message, &chunk["choices"][0]["delta"]);
    }
    message
}

fn add(to: &mut Value, delta: &Value) {
    let Some(members) = delta.as_object() else {
        return;
    };
    for (name, value) in members {
        let known = &mut to[name];
        match (&mut *known, value) {
            (Value::String(_), _) if matches!(name.as_str(), "type" | "role") => {}
            (Value::String(text), Value::String(more)) => text.push_str(more),
            (_, Value::Array(items)) => {
                if known.is_null() {
                    *known = json!([]);
                }
                let list = known.as_array_mut().unwrap();
                for item in items {
                    match list
                        .iter_mut()
                        .find(|other| other["index"] == item["index"])
                    {
                        Some(other) => add(other, item),
                        None => list.push(item.clone()),
                    }
                }
            }
            (Value::Object(_), Value::Object(_)) => add(known, value),
            _ => *known = value.clone(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn images_travel_as_they_are_and_are_never_fetched() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let content = json!([
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "image_url", "image_url": {"url": "https://images.example/b.jpg"}},
        {"type": "file", "file": {"file_data": "data:application/pdf;base64,JVBERi0=", "filename": "a.pdf"}}
    ]);
    let body = json!({"model": "claude", "max_tokens": 5, "messages": [{"role": "user", "content": content}]});
    let _ = gateway.chat(&customer, body).await.expect(200);
    let sent = last_request(&gateway).json()["messages"][0]["content"].clone();
    assert_eq!(sent[1]["source"]["data"], "iVBORw0KGgo=");
    assert_eq!(
        sent[2]["source"],
        json!({"type": "url", "url": "https://images.example/b.jpg"})
    );
    assert_eq!(sent[3]["type"], "document");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_are_the_clients_the_providers_or_the_operators() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let refusal = |status, kind: &str, message: &str| {
        let body = json!({"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_1"});
        Script::error(status).raw(body.to_string())
    };
    let low = "Your credit balance is too low to access the Anthropic API.";
    for (script, status, code) in [
        (
            refusal(400, "invalid_request_error", "messages: odd"),
            400,
            "invalid_request",
        ),
        (
            refusal(400, "invalid_request_error", low),
            502,
            "upstream_error",
        ),
        (
            refusal(401, "authentication_error", "invalid x-api-key"),
            502,
            "upstream_error",
        ),
        (refusal(402, "billing_error", "no"), 502, "upstream_error"),
        (
            refusal(403, "permission_error", "no"),
            502,
            "upstream_error",
        ),
        (refusal(404, "not_found_error", "no"), 502, "upstream_error"),
        (
            refusal(413, "request_too_large", "no"),
            413,
            "request_too_large",
        ),
        (
            refusal(429, "rate_limit_error", "slow").header("retry-after", "17"),
            429,
            "rate_limit_exceeded",
        ),
        (refusal(500, "api_error", "no"), 502, "upstream_error"),
        (refusal(504, "timeout_error", "no"), 504, "upstream_timeout"),
        (
            refusal(529, "overloaded_error", "Overloaded"),
            502,
            "upstream_error",
        ),
        // Inside a success: before anything was said it is an answer of its own.
        (
            Script::new()
                .raw(r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#),
            502,
            "upstream_error",
        ),
        (Script::new().raw("<html>"), 502, "upstream_error"),
    ] {
        gateway.provider.script("claude", script);
        let answer = gateway.chat(&customer, chat("claude", json!({}))).await;
        assert_eq!((answer.status, answer.code().as_str()), (status, code));
        if status == 429 {
            assert_eq!(answer.header("retry-after"), "17");
        }
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(
            !text.contains("credit balance") && !text.contains("x-api-key"),
            "{text}"
        );
    }
    gateway
        .provider
        .script("claude", Script::new().message_error("overloaded_error"));
    let answer = gateway.chat(&customer, streamed("claude")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (502, "upstream_error")
    );
    // Nothing was charged for any of them.
    assert_eq!(gateway.settled_balance(&customer).await, credits(PLENTY));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_breaks_never_looks_whole_and_is_charged_as_delivered() {
    let gateway = Gateway::start(Books::Sqlite).await;
    // The provider's own count of the prompt is known from the first event, and holds.
    let prompt = PROMPT_TOKENS + 30;
    let begun = || {
        Script::new()
            .message_start(&usage(prompt, 1))
            .text_begins(0)
            .says_tokens(0, 6, std::time::Duration::ZERO)
    };
    for script in [
        begun().message_error("overloaded_error"),
        begun().block_ends(0).message_error("api_error"),
        begun().raw("event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\n\n"),
        begun().cut(Cut::Close),
        begun(),
        begun().message_start(&usage(1, 1)),
    ] {
        gateway.provider.script("claude", script);
        let customer = gateway.customer(PLENTY).await;
        let events = gateway
            .stream(&customer, streamed("claude"))
            .await
            .rest()
            .await;
        assert_eq!(count_tokens(&events.text()), 6);
        assert_eq!(events.error().unwrap()["code"], "upstream_error");
        assert!(events.finish_reasons().is_empty() && events.is_done());
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["end"], "upstream_failed");
        assert_eq!(charge["usage_source"], "counted");
        assert_eq!(charge["charged"], json!(tokens_cost(prompt + 6)));
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_credit_for_n_tokens_delivers_n() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for n in [1, 17, 513] {
            let script = started()
                .text_begins(0)
                .says_tokens(0, n + 1, std::time::Duration::ZERO)
                .gate("never");
            gateway.provider.script("claude", script);
            let aborted = gateway.provider.stats().streams_aborted;
            let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + n)).await;
            let events = gateway
                .stream(&customer, streamed("claude"))
                .await
                .rest()
                .await;
            assert_eq!(count_tokens(&events.text()), n);
            let error = events.error().unwrap();
            assert_eq!(error["code"], "insufficient_quota");
            assert_eq!(error["usage"]["completion_tokens"], n);
            assert!(events.is_done() && events.finish_reasons().is_empty());
            assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
            let charge = gateway.charge(&customer).await;
            assert_eq!(charge["end"], "credits_exhausted");
            assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + n)));
            let hung_up = gateway
                .provider
                .wait_for(|stats| stats.streams_aborted > aborted);
            hung_up.await.unwrap();
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_a_client_that_hangs_up_pays_for_what_it_got() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let prompt = PROMPT_TOKENS + 5;
    let script = Script::new()
        .message_start(&usage(prompt, 1))
        .text_begins(0)
        .says_tokens(0, 8, std::time::Duration::ZERO)
        .gate("never");
    gateway.provider.script("claude", script);
    let customer = gateway.customer(PLENTY).await;
    let mut stream = gateway.stream(&customer, streamed("claude")).await;
    stream.read_tokens(8).await;
    drop(stream);
    let charge = gateway.charge(&customer).await;
    assert_eq!(charge["end"], "client_gone");
    assert_eq!(charge["charged"], json!(tokens_cost(prompt + 8)));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn thinking_sets_the_worst_case_aside_and_the_limit_is_what_is_affordable() {
    let gateway = Gateway::start(Books::Sqlite).await;
    // Little is enough for a visible stream, which grows as it goes …
    let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + 2000)).await;
    let _ = gateway
        .stream(&customer, streamed("claude"))
        .await
        .rest()
        .await;
    assert_eq!(last_request(&gateway).json()["max_tokens"], 16_384);
    // … and what cannot be watched is told what is affordable, of which the budget is a part.
    let left = gateway.settled_balance(&customer).await;
    let mut body = streamed("claude");
    body["reasoning_effort"] = json!("high");
    let stream = gateway.stream(&customer, body).await;
    let told = stream.headers["x-tollway-max-tokens"].clone();
    let _ = stream.rest().await;
    let wire = last_request(&gateway).json();
    let limit = wire["max_tokens"].as_u64().unwrap();
    assert_eq!(told, limit.to_string().as_str());
    assert_eq!(tokens_cost(PROMPT_TOKENS + limit), left);
    assert_eq!(
        wire["thinking"],
        json!({"type": "enabled", "budget_tokens": limit * 80 / 100})
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_is_named_or_left_out_by_the_route() {
    let gateway = Gateway::start_with(Books::Sqlite, |settings| {
        settings.routes.push(RouteSetting {
            model: "lenient".into(),
            targets: vec!["messages/claude".into()],
            drop_unsupported: true,
        });
    })
    .await;
    let customer = gateway.customer(PLENTY).await;
    for (name, value) in [("seed", 7), ("n", 2)] {
        let body = chat("claude", json!({name: value, "max_tokens": 5}));
        let refused = gateway.chat(&customer, body).await.expect(400);
        assert_eq!(refused.code(), "invalid_request");
        assert_eq!(refused.json()["error"]["param"], name);
    }
    let more = json!({"seed": 7, "n": 2, "max_tokens": 5});
    assert_eq!(gateway.provider.stats().requests, 0);
    let _ = gateway
        .chat(&customer, chat("lenient", more))
        .await
        .expect(200);
    let wire = last_request(&gateway).json();
    assert_eq!(wire.get("seed").or(wire.get("n")), None);
    gateway.finish().await;
}
