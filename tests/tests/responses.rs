//! OpenAI's Responses as clients speak them, over any model.

mod native;
mod stored;

use billing::Credits;
use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{
    Books, Customer, Events, Gateway, PROMPT, PROMPT_TOKENS, Plain, Streaming, count_tokens,
    in_time, tokens_cost, usage,
};

const PLENTY: &str = "10";
const PATH: &str = "/v1/responses";

/// A request with the usual prompt, and `more` members.
fn ask(model: &str, more: Value) -> Value {
    let mut body = json!({"model": model, "input": PROMPT});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

async fn plain(gateway: &Gateway, customer: &Customer, body: &Value) -> Plain {
    let request = gateway.call(Method::POST, PATH, &customer.secret);
    let sent = request.body(body.to_string()).send();
    Plain::read(in_time("the head of an answer", sent).await.unwrap()).await
}

async fn stream(gateway: &Gateway, customer: &Customer, body: &Value) -> Events {
    let mut body = body.clone();
    body["stream"] = json!(true);
    let request = gateway.call(Method::POST, PATH, &customer.secret);
    let sent = request.body(body.to_string()).send();
    let sent = in_time("the head of a stream", sent).await.unwrap();
    Streaming::new(sent).rest().await
}

/// The events' types, with deltas of one kind in a row told once.
fn types(events: &Events) -> Vec<String> {
    let mut types: Vec<String> = Vec::new();
    for event in events.chunks() {
        let kind = event["type"].as_str().unwrap().to_owned();
        if !(kind.ends_with(".delta") && types.last() == Some(&kind)) {
            types.push(kind);
        }
    }
    types
}

fn text(events: &Events) -> String {
    let all = events.chunks();
    let deltas = all
        .iter()
        .filter(|event| event["type"] == "response.output_text.delta");
    deltas.filter_map(|event| event["delta"].as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_is_charged_as_a_chat() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let message = json!({"role": "assistant", "content": "Hello", "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}]});
        let told: Value = serde_json::from_str(&usage(PROMPT_TOKENS, 7)).unwrap();
        let whole = json!({"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": told,
            "choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]});
        let script = Script::new().raw(whole.to_string());
        gateway.provider.script("m", script);
        let customer = gateway.customer(PLENTY).await;
        let tools = json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": true}]);
        let body = ask(
            "m",
            json!({"tools": tools, "metadata": {"a": "b"}, "instructions": "Be brief"}),
        );
        let answer = plain(&gateway, &customer, &body).await.expect(200);
        let id = answer.header("x-request-id").replace("req_", "");
        let answer = answer.json();
        assert_eq!(answer["id"], format!("resp_{id}"));
        assert_eq!(answer["store"], true);
        assert_eq!(answer["object"], "response");
        assert_eq!(answer["status"], "completed");
        let mut shown = tools;
        shown[0]["description"] = Value::Null;
        assert_eq!(answer["tools"], shown);
        assert!(answer["completed_at"].as_u64() >= answer["created_at"].as_u64());
        for (member, value) in [
            ("temperature", json!(1)),
            ("top_p", json!(1)),
            ("top_logprobs", json!(0)),
            ("presence_penalty", json!(0)),
            ("service_tier", json!("default")),
            ("safety_identifier", Value::Null),
        ] {
            assert_eq!(answer[member], value, "{member}");
        }
        assert_eq!(answer["metadata"], json!({"a": "b"}));
        assert_eq!(
            answer["output"],
            json!([
                {"id": format!("msg_{id}_0"), "type": "message", "status": "completed", "role": "assistant",
                    "content": [{"type": "output_text", "text": "Hello", "annotations": [], "logprobs": []}]},
                {"id": format!("fc_{id}_1"), "type": "function_call", "status": "completed",
                    "call_id": "c1", "name": "weather", "arguments": "{}"}
            ])
        );
        assert_eq!(
            answer["usage"],
            json!({"input_tokens": PROMPT_TOKENS, "input_tokens_details": {"cached_tokens": 0},
                "output_tokens": 7, "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": PROMPT_TOKENS + 7, "cost": tokens_cost(PROMPT_TOKENS + 7),
                "cost_details": {"prompt": tokens_cost(PROMPT_TOKENS), "completion": tokens_cost(7)}})
        );
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["endpoint"], "responses");
        assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + 7)));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_translated_item_by_item() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let body = json!({
        "model": "m", "max_output_tokens": 60, "temperature": 0.5, "store": false, "include": ["reasoning.encrypted_content"],
        "instructions": "Be brief", "reasoning": {"effort": "low", "summary": "auto"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": {"type": "object"}, "strict": true}, "verbosity": "low"},
        "tools": [{"type": "function", "name": "f", "description": "d", "parameters": {"type": "object"}},
            {"type": "custom", "name": "g", "format": {"type": "grammar", "syntax": "lark", "definition": "x"}}],
        "tool_choice": {"type": "function", "name": "f"}, "parallel_tool_calls": false,
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "see"},
                {"type": "input_image", "image_url": "data:image/png;base64,QUJD", "detail": "low"}]},
            {"type": "reasoning", "id": "rs_1", "summary": []},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "ok"}]},
            {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
            {"type": "function_call_output", "call_id": "c1", "output": "rain"},
            {"role": "developer", "content": "go on"}
        ]
    });
    let _ = plain(&gateway, &customer, &body).await.expect(200);
    let sent = gateway.provider.requests().pop().unwrap();
    assert_eq!(sent.path, "/v1/chat/completions");
    assert_eq!(
        sent.json(),
        json!({
            "model": "m", "max_tokens": 60, "temperature": 0.5, "reasoning_effort": "low", "verbosity": "low",
            "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}, "strict": true}},
            "tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}},
                {"type": "custom", "custom": {"name": "g", "format": {"type": "grammar", "grammar": {"syntax": "lark", "definition": "x"}}}}],
            "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false,
            "messages": [
                {"role": "system", "content": "Be brief"},
                {"role": "user", "content": [{"type": "text", "text": "see"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD", "detail": "low"}}]},
                {"role": "assistant", "content": "ok", "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
                {"role": "tool", "tool_call_id": "c1", "content": "rain"},
                {"role": "developer", "content": "go on"}
            ]
        })
    );
    for (more, named) in [
        (
            json!({"previous_response_id": "resp_1"}),
            "previous_response_id",
        ),
        (json!({"background": true}), "background"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0]"),
        (
            json!({"input": [{"type": "item_reference", "id": "x"}]}),
            "input[0]",
        ),
        (json!({"input": []}), "input"),
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"service_tier": "priority"}), "service_tier"),
    ] {
        let answer = plain(&gateway, &customer, &ask("m", more))
            .await
            .expect(400);
        assert_eq!(answer.json()["error"]["param"], named);
        assert_eq!(answer.code(), "invalid_request");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tier_travels_and_the_one_that_is_named_is_charged() {
    let gateway = Gateway::start(Books::Sqlite).await;
    // What is asked for, what travels, what the provider serves by, thousandths of the plain price.
    for (asked, sent, served, thousandths) in [
        ("flex", json!("flex"), "flex", 500),
        ("flex", json!("flex"), "default", 1_000),
        ("priority", json!("priority"), "priority", 3_000),
        ("priority", json!("priority"), "default", 1_000),
        ("default", json!("default"), "default", 1_000),
        ("auto", Value::Null, "priority", 3_000),
    ] {
        let customer = gateway.customer(PLENTY).await;
        let mut told: Value = serde_json::from_str(&usage(PROMPT_TOKENS, 5)).unwrap();
        told["service_tier"] = json!(served);
        let script = Script::new().tokens(5).finish("stop");
        let script = script.usage_json(&told.to_string()).done();
        gateway.provider.script("tiered", script);
        let body = ask("tiered", json!({"service_tier": asked}));
        let answer = plain(&gateway, &customer, &body).await.expect(200).json();
        let events = stream(&gateway, &customer, &body).await.chunks();
        let begun = &events.first().unwrap()["response"];
        assert_eq!(begun["service_tier"], asked.replace("auto", "default"));
        let cost = tokens_cost(PROMPT_TOKENS + 5).nanos() * thousandths / 1_000;
        for response in [&answer, &events.last().unwrap()["response"]] {
            assert_eq!(response["service_tier"], served, "{asked}");
            let told: Credits = response["usage"]["cost"].as_str().unwrap().parse().unwrap();
            assert_eq!(told.nanos(), cost, "{asked} {served}");
        }
        for request in gateway.provider.requests().iter().rev().take(2) {
            assert_eq!(request.json()["service_tier"], sent, "{asked}");
        }
        for charge in gateway.charges(&customer, 2).await {
            let charged: Credits = charge["charged"].as_str().unwrap().parse().unwrap();
            assert_eq!(charged.nanos(), cost);
        }
    }
    let customer = gateway.customer(PLENTY).await;
    for (model, tier) in [
        ("claude", "flex"),
        ("tiered", "scale-up"),
        ("m", "priority"),
    ] {
        let body = ask(model, json!({"service_tier": tier}));
        let refused = plain(&gateway, &customer, &body).await.expect(400);
        assert_eq!(refused.json()["error"]["param"], "service_tier", "{model}");
    }
    let body = ask("claude", json!({"service_tier": "default"}));
    let _ = plain(&gateway, &customer, &body).await.expect(200);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_has_the_events_of_a_response() {
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
        .finish("length")
        .usage_json(&usage(PROMPT_TOKENS, 21))
        .done()
        .split(9);
    gateway.provider.script("m", script);
    let customer = gateway.customer(PLENTY).await;
    let events = stream(&gateway, &customer, &ask("m", json!({}))).await;
    assert_eq!(
        types(&events),
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.reasoning_text.delta",
            "response.reasoning_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.output_item.added",
            "response.function_call_arguments.delta",
            "response.function_call_arguments.done",
            "response.output_item.done",
            "response.incomplete"
        ]
    );
    let all = events.chunks();
    for (place, event) in all.iter().enumerate() {
        assert_eq!(event["sequence_number"], place);
    }
    assert_eq!(text(&events), "Hello");
    let last = &all.last().unwrap()["response"];
    assert_eq!(last["incomplete_details"]["reason"], "max_output_tokens");
    assert_eq!(last["output"].as_array().unwrap().len(), 3);
    assert_eq!(last["output"][2]["arguments"], r#"{"city":"Bern"}"#);
    assert_eq!(
        last["usage"]["cost"],
        json!(tokens_cost(PROMPT_TOKENS + 21))
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_for_so_many_tokens_delivers_them_and_then_a_402() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new().role().tokens(40).gate("never");
        gateway.provider.script("m", script);
        for paid in [1, 23] {
            let spent = tokens_cost(PROMPT_TOKENS + paid);
            let customer = gateway.customer(spent).await;
            let events = stream(&gateway, &customer, &ask("m", json!({}))).await;
            assert_eq!(count_tokens(&text(&events)), paid);
            let all = events.chunks();
            let [.., failed, error] = &all[..] else {
                panic!("{all:?}")
            };
            assert_eq!(failed["type"], "response.failed");
            let response = &failed["response"];
            assert_eq!(response["status"], "failed");
            assert_eq!(response["error"]["code"], "insufficient_quota");
            assert_eq!(response["output"][0]["content"][0]["text"], text(&events));
            assert_eq!(response["usage"]["output_tokens"], paid);
            assert_eq!(response["usage"]["cost"], json!(spent));
            assert_eq!(error["type"], "error");
            assert_eq!(error["code"], "insufficient_quota");
            assert_eq!(error["error"]["code"], "insufficient_quota");
            assert_eq!(error["error"]["status"], 402);
            assert_eq!(error["error"]["message"], error["message"]);
            assert_eq!(error["error"]["usage"], response["usage"]);
            assert_eq!(error["error"]["metadata"]["reason"], "credits_exhausted");
            assert_eq!(gateway.charge(&customer).await["charged"], json!(spent));
            assert_eq!(gateway.settled_balance(&customer).await, tokens_cost(0));
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_response_is_charged_once_and_answered_alike() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    for stream in [false, true] {
        let body = ask("claude", json!({"stream": stream}));
        let mut answers = Vec::new();
        for _ in 0..2 {
            let request = gateway.call(Method::POST, PATH, &customer.secret);
            let request = request.header("idempotency-key", format!("once-{stream}"));
            let sent = request.body(body.to_string()).send().await.unwrap();
            answers.push(Plain::read(sent).await.expect(200));
        }
        assert_eq!(answers[0].body, answers[1].body);
        assert_eq!(answers[1].header("idempotent-replayed"), "true");
    }
    assert_eq!(gateway.charges(&customer, 2).await.len(), 2);
    gateway.finish().await;
}
