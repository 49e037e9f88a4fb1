//! Responses before a provider that has them itself: its bytes travel, metered and cut like any other.

use mock_provider::Script;
use serde_json::{Value, json};
use tests::{Books, Events, Gateway, PROMPT_TOKENS, count_tokens, tokens_cost};

use super::{PLENTY, ask, plain, stream, text};

/// The events of OpenAI's API reference ("Streaming events" of Responses, the document of August
/// 2026) that a response may have between its beginning and its end, each with members of its own.
fn events_of_the_reference() -> Vec<Value> {
    let text = json!({"item_id": "i", "output_index": 0, "content_index": 0});
    let item = json!({"item_id": "i", "output_index": 1});
    let summary = json!({"item_id": "i", "output_index": 2, "summary_index": 0});
    let part = json!({"type": "output_text", "text": "", "annotations": []});
    let with = |kind: &str, place: &Value, more: Value| {
        let mut event = place.clone();
        event["type"] = json!(format!("response.{kind}"));
        for (name, value) in more.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    };
    let mut all = Vec::new();
    let mut add = |kinds: &[&str], place: &Value, more: Value| {
        for kind in kinds {
            all.push(with(kind, place, more.clone()));
        }
    };
    let response = json!({"response": {"id": "resp_1", "object": "response", "status": "in_progress",
        "output": [], "usage": null}});
    let none = json!({});
    add(&["queued", "created", "in_progress"], &none, response);
    add(
        &["output_item.added"],
        &none,
        json!({"output_index": 0,
        "item": {"id": "i", "type": "message", "status": "in_progress", "role": "assistant", "content": []}}),
    );
    add(&["content_part.added"], &text, json!({"part": part}));
    add(
        &["output_text.delta"],
        &text,
        json!({"delta": "one", "logprobs": [], "obfuscation": "xyz"}),
    );
    add(
        &["output_text.annotation.added"],
        &text,
        json!({"annotation_index": 0, "annotation": {"url": "u"}}),
    );
    add(
        &["output_text.done"],
        &text,
        json!({"text": "one", "logprobs": []}),
    );
    add(&["refusal.delta"], &text, json!({"delta": "one"}));
    add(&["refusal.done"], &text, json!({"refusal": "one"}));
    add(&["content_part.done"], &text, json!({"part": part}));
    add(&["reasoning_text.delta"], &text, json!({"delta": "one"}));
    add(&["reasoning_text.done"], &text, json!({"text": "one"}));
    add(
        &[
            "reasoning_summary_part.added",
            "reasoning_summary_part.done",
        ],
        &summary,
        json!({"part": {"type": "summary_text", "text": ""}}),
    );
    add(
        &["reasoning_summary_text.delta"],
        &summary,
        json!({"delta": "one"}),
    );
    add(
        &["reasoning_summary_text.done"],
        &summary,
        json!({"text": "one"}),
    );
    for call in ["function_call_arguments", "mcp_call_arguments"] {
        add(&[&format!("{call}.delta")], &item, json!({"delta": "one"}));
        add(
            &[&format!("{call}.done")],
            &item,
            json!({"arguments": "one"}),
        );
    }
    add(
        &["custom_tool_call_input.delta"],
        &item,
        json!({"delta": "one"}),
    );
    add(
        &["custom_tool_call_input.done"],
        &item,
        json!({"input": "one"}),
    );
    add(
        &["code_interpreter_call_code.delta"],
        &item,
        json!({"delta": "one"}),
    );
    add(
        &["code_interpreter_call_code.done"],
        &item,
        json!({"code": "one"}),
    );
    add(
        &["shell_call_command.added", "shell_call_command.done"],
        &item,
        json!({"command_index": 0, "command": "one"}),
    );
    add(
        &["shell_call_command.delta"],
        &item,
        json!({"command_index": 0, "delta": "one"}),
    );
    add(
        &[
            "shell_call_output_content.delta",
            "shell_call_output_content.done",
        ],
        &item,
        json!({"command_index": 0}),
    );
    add(&["audio.transcript.delta"], &none, json!({"delta": "one"}));
    add(&["audio.transcript.done", "audio.done"], &none, json!({}));
    add(&["audio.delta"], &none, json!({"delta": "QUJD"}));
    add(
        &["image_generation_call.partial_image"],
        &item,
        json!({"partial_image_b64": "QUJD"}),
    );
    let steps = [
        "code_interpreter_call.in_progress",
        "code_interpreter_call.interpreting",
        "code_interpreter_call.completed",
        "file_search_call.in_progress",
        "file_search_call.searching",
        "file_search_call.completed",
        "web_search_call.in_progress",
        "web_search_call.searching",
        "web_search_call.completed",
        "image_generation_call.in_progress",
        "image_generation_call.generating",
        "image_generation_call.completed",
        "mcp_call.in_progress",
        "mcp_call.completed",
        "mcp_call.failed",
        "mcp_list_tools.in_progress",
        "mcp_list_tools.completed",
        "mcp_list_tools.failed",
    ];
    add(&steps, &item, json!({}));
    add(
        &["output_item.done"],
        &none,
        json!({"output_index": 0, "item": {"id": "i", "type": "message", "content": []}}),
    );
    // The three that end a response are not among them, nor is `error`.
    assert_eq!(all.len(), 58 - 4);
    all
}

fn usage(input: u64, output: u64) -> Value {
    json!({"input_tokens": input, "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": output, "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": input + output})
}

fn end(usage: Value) -> Value {
    json!({"type": "response.completed", "response": {"id": "resp_1", "object": "response",
        "status": "completed", "output": [], "usage": usage, "unknown": [1.10]}})
}

/// A stream that says words of a token each.
pub(super) fn words(count: u64) -> Vec<Value> {
    let place = |kind: &str| json!({"type": kind, "item_id": "msg_1", "output_index": 0, "content_index": 0});
    let mut events = vec![
        json!({"type": "response.created", "response": {"id": "resp_1", "object": "response", "model": "native",
            "status": "in_progress", "output": [], "usage": null, "metadata": {"a": "b"}}}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": {"id": "msg_1", "type": "message",
            "status": "in_progress", "role": "assistant", "content": []}}),
    ];
    for _ in 0..count {
        let mut delta = place("response.output_text.delta");
        delta["delta"] = json!(" word");
        delta["logprobs"] = json!([{"token": " word", "logprob": -0.1}]);
        events.push(delta);
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_of_the_reference_travels_untouched() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let mut sent = events_of_the_reference();
        sent.push(json!({"type": "response.of_next_year", "delta": {"a": 1}}));
        sent.push(end(usage(PROMPT_TOKENS, 30)));
        let script = Script::new().response_events(&sent).split(7);
        gateway.provider.script("native", script);
        let customer = gateway.customer(PLENTY).await;
        let events = stream(&gateway, &customer, &ask("native", json!({}))).await;
        let got = events.chunks();
        assert_eq!(got.len(), sent.len());
        for (place, (mut sent, got)) in sent.into_iter().zip(&got).enumerate() {
            sent["sequence_number"] = json!(place);
            if sent["type"] == "response.completed" {
                let bill = &mut sent["response"]["usage"];
                bill["cost"] = json!(tokens_cost(PROMPT_TOKENS + 30));
                bill["cost_details"] = got["response"]["usage"]["cost_details"].clone();
            }
            assert_eq!(&sent, got);
        }
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["endpoint"], "responses");
        assert_eq!(charge["usage_source"], "reported");
        assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + 30)));
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_travels_but_for_what_must_change() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let body = json!({"model": "open/native", "input": [{"role": "user", "content": "Hi"},
            {"type": "next_year", "a": [1.10]}], "include": ["reasoning.encrypted_content"],
        "tools": [{"type": "local_shell"}], "store": false, "unknown": {"b": null}});
    let answer = plain(&gateway, &customer, &body).await.expect(200).json();
    let sent = gateway.provider.requests().pop().unwrap();
    assert_eq!(sent.path, "/v1/responses");
    let mut expected = body.clone();
    expected["model"] = json!("native");
    assert_eq!(sent.json(), expected);
    assert_eq!(answer["id"], "resp_mock_0");
    let cost = answer["usage"]["cost"].clone();
    assert_eq!(gateway.charge(&customer).await["charged"], cost);
    for (more, named) in [
        (json!({"background": true}), "background"),
        (json!({"conversation": "conv_1"}), "conversation"),
        (json!({"prompt": {"id": "pmpt_1"}}), "prompt"),
        (json!({"tools": [{"type": "file_search"}]}), "tools[0]"),
        (json!({"tools": [{"type": "web_search"}]}), "tools[0]"),
        (
            json!({"input": [{"type": "item_reference", "id": "x"}]}),
            "input[0]",
        ),
    ] {
        let answer = plain(&gateway, &customer, &ask("native", more)).await;
        assert_eq!(answer.expect(400).json()["error"]["param"], named);
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tier_inside_the_response_is_the_one_that_is_charged() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for (asked, served, times) in [
        ("auto", "priority", 3),
        ("priority", "priority", 3),
        ("priority", "default", 1),
    ] {
        let customer = gateway.customer(PLENTY).await;
        let mut last = end(usage(PROMPT_TOKENS, 3));
        last["response"]["service_tier"] = json!(served);
        let whole = last["response"].to_string();
        let mut events = words(3);
        events.push(last);
        let cost = json!(tokens_cost(times * (PROMPT_TOKENS + 3)));
        let body = ask("native-tiered", json!({"service_tier": asked}));
        let script = Script::new().response_events(&events).done();
        gateway.provider.script("native-tiered", script);
        let events = stream(&gateway, &customer, &body).await.chunks();
        let streamed = &events.last().unwrap()["response"];
        assert_eq!(streamed["usage"]["cost"], cost, "{asked} {served}");
        gateway
            .provider
            .script("native-tiered", Script::new().raw(whole));
        let answer = plain(&gateway, &customer, &body).await.expect(200).json();
        assert_eq!(answer["usage"]["cost"], cost, "{asked} {served}");
        for charge in gateway.charges(&customer, 2).await {
            assert_eq!(charge["charged"], cost);
        }
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn credit_for_so_many_tokens_delivers_them_natively_too() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let script = Script::new().response_events(&words(40)).gate("never");
        gateway.provider.script("native", script);
        for paid in [1, 23] {
            let spent = tokens_cost(PROMPT_TOKENS + paid);
            let customer = gateway.customer(spent).await;
            let events = stream(&gateway, &customer, &ask("native", json!({}))).await;
            assert_eq!(count_tokens(&text(&events)), paid);
            let all = events.chunks();
            let [.., failed, error] = &all[..] else {
                panic!("{all:?}")
            };
            numbered(&events);
            assert_eq!(failed["type"], "response.failed");
            let response = &failed["response"];
            assert_eq!(response["id"], "resp_1");
            assert_eq!(response["status"], "failed");
            assert_eq!(response["metadata"], json!({"a": "b"}));
            assert_eq!(response["error"]["code"], "insufficient_quota");
            assert_eq!(response["output"][0]["status"], "incomplete");
            assert_eq!(response["output"][0]["content"][0]["text"], text(&events));
            assert_eq!(response["usage"]["output_tokens"], paid);
            assert_eq!(response["usage"]["cost"], json!(spent));
            assert_eq!(error["type"], "error");
            assert_eq!(error["error"]["code"], "insufficient_quota");
            assert_eq!(error["error"]["status"], 402);
            assert_eq!(error["error"]["usage"], response["usage"]);
            assert_eq!(gateway.settled_balance(&customer).await, tokens_cost(0));
        }
        gateway.finish().await;
    }
}

/// The numbers of events rise by one, ours included.
fn numbered(events: &Events) {
    for (place, event) in events.chunks().iter().enumerate() {
        assert_eq!(event["sequence_number"], place, "{event}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_provider_fails_at_never_looks_complete() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let error = json!({"code": "server_error", "message": "theirs"});
    let failed = json!({"type": "response.failed", "response": {"id": "resp_1", "status": "failed",
        "error": error, "output": [], "usage": null}});
    let flat = json!({"type": "error", "code": "server_error", "message": "theirs", "param": null});
    for last in [Some(failed), Some(flat), None] {
        let mut events = words(3);
        events.extend(last);
        let script = Script::new().response_events(&events).done();
        gateway.provider.script("native", script);
        let events = stream(&gateway, &customer, &ask("native", json!({}))).await;
        let all = events.chunks();
        let [.., failed, error] = &all[..] else {
            panic!("{all:?}")
        };
        assert_eq!(failed["response"]["status"], "failed");
        assert_eq!(
            failed["response"]["output"][0]["content"][0]["text"],
            " word word word"
        );
        assert_eq!(error["error"]["code"], "upstream_error");
        // What the provider says of it is for the log alone.
        assert!(
            all.iter()
                .all(|event| !event.to_string().contains("theirs"))
        );
    }
    let whole = json!({"id": "resp_1", "object": "response", "status": "failed", "output": [],
        "error": {"code": "server_error", "message": "theirs"}});
    gateway
        .provider
        .script("native", Script::new().raw(whole.to_string()));
    let answer = plain(&gateway, &customer, &ask("native", json!({}))).await;
    assert_eq!(answer.expect(502).code(), "upstream_error");
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_came_without_deltas_or_usage_is_counted() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let said = json!({"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": " word word word"}]});
    let thought = json!({"id": "rs_1", "type": "reasoning", "summary": [{"type": "summary_text", "text": " word word"}]});
    let item = |item: &Value, index: u64| json!({"type": "response.output_item.done", "output_index": index, "item": item});
    let mut bare = end(Value::Null);
    let mut full = bare.clone();
    full["response"]["output"] = json!([thought, said]);
    bare["response"]["output"] = json!([]);
    let whole = full["response"].to_string();
    let mut repeated = words(3);
    repeated.extend([item(&said, 0), item(&thought, 1), full.clone()]);
    for script in [
        Script::new().response_events(&[item(&thought, 0), item(&said, 1), bare]),
        Script::new().response_events(&[full]),
        Script::new().response_events(&repeated),
    ] {
        let customer = gateway.customer(PLENTY).await;
        gateway.provider.script("native", script);
        let events = stream(&gateway, &customer, &ask("native", json!({}))).await;
        let all = events.chunks();
        let last = &all.last().unwrap()["response"];
        assert_eq!(last["usage"]["output_tokens"], 5);
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + 5)));
        assert_eq!(charge["usage_source"], "counted");
    }
    let customer = gateway.customer(PLENTY).await;
    gateway.provider.script("native", Script::new().raw(whole));
    let answer = plain(&gateway, &customer, &ask("native", json!({}))).await;
    let spent = json!(tokens_cost(PROMPT_TOKENS + 5));
    assert_eq!(answer.expect(200).json()["usage"]["cost"], spent);
    assert_eq!(gateway.charge(&customer).await["charged"], spent);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_watched_is_clamped_to_what_is_affordable() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for (output, status) in [(50, 200), (16, 200), (15, 402)] {
        let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + output)).await;
        let answer = plain(&gateway, &customer, &ask("native-hidden", json!({}))).await;
        let answer = answer.expect(status);
        if status == 200 {
            let sent = gateway.provider.requests().pop().unwrap().json();
            assert_eq!(sent["max_output_tokens"], output);
            assert_eq!(answer.header("x-tollway-max-tokens"), output.to_string());
        }
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn searches_are_charged_by_the_piece() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let search = |kind: &str| json!({"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": kind}});
    let output = json!([search("search"), search("open_page"), search("search"),
        {"id": "msg_1", "type": "message", "content": [{"type": "output_text", "text": "found"}]}]);
    let mut whole = end(usage(PROMPT_TOKENS, 4))["response"].clone();
    whole["output"] = output.clone();
    gateway
        .provider
        .script_once("native-search", Script::new().raw(whole.to_string()));
    let mut events: Vec<Value> = output.as_array().unwrap().iter().enumerate().map(|(place, item)|
        json!({"type": "response.output_item.done", "output_index": place, "item": item})).collect();
    events.push(end(usage(PROMPT_TOKENS, 4)));
    gateway
        .provider
        .script_once("native-search", Script::new().response_events(&events));
    let body = ask("native-search", json!({"tools": [{"type": "web_search"}]}));
    let answer = plain(&gateway, &customer, &body).await.expect(200).json();
    let sent = gateway.provider.requests().pop().unwrap().json();
    assert_eq!(sent["max_tool_calls"], 8);
    // Two searches at a hundredth of a credit each, and the tokens at a millionth.
    let spent = format!("0.02{:04}", PROMPT_TOKENS + 4);
    assert_eq!(answer["usage"]["cost"], json!(spent));
    let events = stream(&gateway, &customer, &body).await;
    let all = events.chunks();
    assert_eq!(
        all.last().unwrap()["response"]["usage"]["cost"],
        json!(spent)
    );
    for charge in gateway.charges(&customer, 2).await {
        assert_eq!(charge["charged"], json!(spent));
    }
    gateway.finish().await;
}
