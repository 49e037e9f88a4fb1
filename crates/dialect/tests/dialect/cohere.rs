//! Cohere's dialect: what is sent, what comes back, and what is billed.
//!
//! Every fixture is written for this test after the shape of a recording in the vercel/ai project
//! (Apache-2.0), which is named beside it, or after Cohere's API reference.

use dialect::{DecodeError, Dialect, Ending};
use serde_json::{Value, json};
use tokens::Usage;

use crate::played::{
    Provider, added_up, cut_anywhere, decode, decoded, encode, play, reasons, refuses, sent,
};

const COHERE: Dialect = Dialect::Cohere;

fn sse(events: &[Value]) -> String {
    let framed = |event: &Value| {
        let name = event["type"].as_str().unwrap_or("error");
        format!("event: {name}\ndata: {event}\n\n")
    };
    events.iter().map(framed).collect::<String>() + "data: [DONE]\n\n"
}

fn start() -> Value {
    json!({"id": "c-1", "type": "message-start", "delta": {"message": {"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []}}})
}

fn end(reason: &str) -> Value {
    json!({"type": "message-end", "delta": {"finish_reason": reason, "usage": {
        "billed_units": {"input_tokens": 12, "output_tokens": 7},
        "tokens": {"input_tokens": 507, "output_tokens": 10}, "cached_tokens": 448}}})
}

fn says(index: u32, member: &str, text: &str) -> Value {
    json!({"type": "content-delta", "index": index, "delta": {"message": {"content": {member: text}}}})
}

/// cohere-text, cohere-reasoning.
fn thinking() -> String {
    sse(&[
        start(),
        json!({"type": "content-start", "index": 0, "delta": {"message": {"content": {"type": "thinking", "thinking": ""}}}}),
        says(0, "thinking", "Two \"plus\""),
        says(0, "thinking", " two."),
        json!({"type": "content-end", "index": 0}),
        json!({"type": "content-start", "index": 1, "delta": {"message": {"content": {"type": "text", "text": ""}}}}),
        says(1, "text", "It is"),
        says(1, "text", " fö\nur."),
        json!({"type": "citation-start", "index": 0, "delta": {"message": {"citations": {"start": 0, "end": 2, "text": "It", "sources": []}}}}),
        json!({"type": "citation-end", "index": 0}),
        json!({"type": "content-end", "index": 1}),
        end("COMPLETE"),
    ])
}

/// cohere-tool-call and cohere-empty-tool-call.
fn calling() -> String {
    let plan =
        |text: &str| json!({"type": "tool-plan-delta", "delta": {"message": {"tool_plan": text}}});
    let begin = |index: u32, name: &str| {
        json!({"type": "tool-call-start", "index": index, "delta": {"message": {"tool_calls": {
            "id": format!("{name}_x1"), "type": "function", "function": {"name": name, "arguments": ""}}}}})
    };
    let part = |index: u32, text: &str| json!({"type": "tool-call-delta", "index": index, "delta": {"message": {"tool_calls": {"function": {"arguments": text}}}}});
    let close = |index: u32| json!({"type": "tool-call-end", "index": index});
    sse(&[
        start(),
        plan("I will"),
        plan(" look."),
        begin(0, "weather"),
        part(0, "{\"at\":"),
        part(0, "\"Bern\"}"),
        close(0),
        begin(1, "now"),
        close(1),
        end("TOOL_CALL"),
    ])
}

fn billed() -> Usage {
    Usage {
        prompt: 12,
        completion: 7,
        ..Usage::default()
    }
}

#[test]
fn a_stream_says_what_it_says_and_bills_what_is_billed() {
    let played = play(COHERE, &[thinking().as_bytes()]);
    assert_eq!(played.wrong, None);
    assert_eq!(played.said, "It is fö\nur.");
    assert_eq!(played.thought, "Two \"plus\" two.");
    assert_eq!(played.usage, Some(Ok(billed())));
    assert_eq!(played.ending, Ending::Done);
    assert_eq!(reasons(&played.chunks), ["stop"]);
    let first = &played.chunks[0];
    assert_eq!(
        (&first["id"], &first["model"]),
        (&json!("c-1"), &json!("m"))
    );
    assert_eq!(first["created"], 1_700_000_000);
    let cited = played
        .chunks
        .iter()
        .find(|chunk| !chunk["choices"][0]["delta"]["citations"].is_null());
    assert_eq!(
        cited.unwrap()["choices"][0]["delta"]["citations"][0]["end"],
        2
    );
    let last = played.chunks.last().unwrap();
    assert_eq!(last["usage"]["prompt_tokens"], 12);
    assert_eq!(last["choices"], json!([]));
}

#[test]
fn calls_come_in_pieces_and_without_arguments() {
    let played = play(COHERE, &[calling().as_bytes()]);
    assert_eq!(played.wrong, None);
    assert_eq!(reasons(&played.chunks), ["tool_calls"]);
    assert_eq!(
        added_up(&played.chunks),
        json!({"role": "assistant", "content": "", "reasoning_content": "I will look.", "tool_calls": [
            {"index": 0, "id": "weather_x1", "type": "function", "function": {"name": "weather", "arguments": "{\"at\":\"Bern\"}"}},
            {"index": 1, "id": "now_x1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]})
    );
    assert_eq!(played.called, "weather{\"at\":\"Bern\"}now{}");
}

#[test]
fn any_cut_gives_the_same_and_garbage_never_panics() {
    cut_anywhere(COHERE, thinking().as_bytes());
    cut_anywhere(COHERE, calling().as_bytes());
}

#[test]
fn what_breaks_off_or_fails_does_not_look_complete() {
    let half = sse(&[start(), says(0, "text", "It")]);
    assert_eq!(play(COHERE, &[half.as_bytes()]).ending, Ending::Cut);
    for last in [
        end("ERROR"),
        json!({"type": "message-end", "delta": {"error": "out of memory", "finish_reason": "TIMEOUT"}}),
        json!({"message": "internal server error", "id": "x"}),
    ] {
        let failed = sse(&[start(), says(0, "text", "It"), last]);
        let played = play(COHERE, &[failed.as_bytes()]);
        assert_eq!((played.errors, played.ending), (1, Ending::Cut));
        assert_eq!(reasons(&played.chunks), [""; 0]);
    }
    for events in [
        vec![says(0, "text", "It")],
        vec![start(), start()],
        vec![
            start(),
            json!({"type": "tool-call-delta", "index": 3, "delta": {"message": {"tool_calls": {"function": {"arguments": "x"}}}}}),
        ],
        vec![
            start(),
            says(0, "text", "x"),
            json!({"type": "content-delta", "delta": {"message": {"content": {"text": 7}}}}),
        ],
    ] {
        assert!(
            play(COHERE, &[sse(&events).as_bytes()]).wrong.is_some(),
            "{events:?}"
        );
    }
}

#[test]
fn why_it_ended_in_openais_words() {
    for (native, expected) in [
        ("COMPLETE", "stop"),
        ("STOP_SEQUENCE", "stop"),
        ("MAX_TOKENS", "length"),
        ("TOOL_CALL", "tool_calls"),
        ("ERROR_TOXIC", "content_filter"),
        ("NEW_WORD", "stop"),
    ] {
        let played = play(COHERE, &[sse(&[start(), end(native)]).as_bytes()]);
        assert_eq!(reasons(&played.chunks), [expected], "{native}");
    }
}

#[test]
fn a_plain_answer_is_a_completion() {
    // cohere-reasoning, cohere-tool-call, cohere-null-args and cohere-citations in one.
    let body = json!({"id": "c-2", "message": {"role": "assistant",
            "content": [{"type": "thinking", "thinking": "Hm."}, {"type": "text", "text": "It is "}, {"type": "text", "text": "four."}],
            "tool_plan": " I call.",
            "tool_calls": [{"id": "now_1", "type": "function", "function": {"name": "now", "arguments": "null"}}],
            "citations": [{"start": 0, "end": 2, "text": "It", "sources": [], "type": "TEXT_CONTENT"}]},
        "finish_reason": "TOOL_CALL",
        "usage": {"billed_units": {"input_tokens": 12, "output_tokens": 7}, "tokens": {"input_tokens": 507, "output_tokens": 10}}});
    let answer = decoded(COHERE, &body.to_string());
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "It is four.");
    assert_eq!(choice["message"]["reasoning_content"], "Hm. I call.");
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([{"id": "now_1", "type": "function", "function": {"name": "now", "arguments": "{}"}}])
    );
    assert_eq!(choice["message"]["citations"][0]["end"], 2);
    assert_eq!(choice["finish_reason"], "tool_calls");
    assert_eq!(choice["native_finish_reason"], "TOOL_CALL");
    assert_eq!(answer["usage"]["total_tokens"], 19);
    let read = decode(COHERE, &body.to_string()).unwrap();
    assert_eq!(read.usage(), Some(Ok(billed())));
    assert!(read.usage_text().unwrap().contains("billed_units"));
}

#[test]
fn an_answer_that_failed_is_none() {
    for body in [
        json!({"id": "x", "message": {"role": "assistant", "content": []}, "finish_reason": "ERROR"}),
        json!({"id": "x", "message": "too many tokens"}),
    ] {
        let read = decode(COHERE, &body.to_string());
        assert!(matches!(read, Err(DecodeError::Upstream(_))), "{body}");
    }
    for body in ["[]", "{}", "", "{\"message\":{\"content\":[{\"text\":7}]}}"] {
        assert!(decode(COHERE, body).is_err(), "{body}");
    }
}

#[test]
fn the_whole_surface_in_one_request() {
    let full = json!({
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What is \"this\"?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                {"type": "image_url", "image_url": "https://a.example/b.jpg"}]},
            {"role": "assistant", "content": null, "reasoning_content": "I will look.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": 1}"}},
                {"id": "c2", "type": "function", "function": {"name": "now", "arguments": ""}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}, {"type": "text", "text": "sharp"}]},
            {"role": "assistant", "content": "Sunny.", "reasoning_content": "left out"}],
        "stream": true, "stream_options": {"include_usage": true},
        "max_completion_tokens": 900, "temperature": 0.3, "top_p": 0.9, "top_k": 40, "seed": 7,
        "frequency_penalty": 0.5, "presence_penalty": 0.25, "stop": "END",
        "tools": [
            {"type": "function", "function": {"name": "look", "description": "Looks.", "strict": true, "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}}}},
            {"type": "function", "function": {"name": "now"}}],
        "tool_choice": "required", "parallel_tool_calls": true,
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "reasoning_effort": "high", "safety_mode": "STRICT", "documents": ["a text"], "citation_options": {"mode": "FAST"},
        "user": "u", "store": true, "n": 1, "logprobs": false
    });
    let provider = Provider {
        features: "thinking = 'on'",
        ..Provider::default()
    };
    let wire = encode(COHERE, &full, provider).unwrap();
    assert_eq!(wire.path, "/chat");
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        serde_json::from_slice::<Value>(&wire.body).unwrap(),
        json!({
            "model": "up/m:1", "stream": true,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "system", "content": "Be kind."},
                {"role": "user", "content": [
                    {"type": "text", "text": "What is \"this\"?"},
                    {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                    {"type": "image_url", "image_url": {"url": "https://a.example/b.jpg"}}]},
                {"role": "assistant", "tool_plan": "I will look.", "tool_calls": [call("c1", "look", "{\"at\": 1}"), call("c2", "now", "{}")]},
                {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
                {"role": "tool", "tool_call_id": "c2", "content": [{"type": "text", "text": "noon"}, {"type": "text", "text": "sharp"}]},
                {"role": "assistant", "content": "Sunny."}],
            "tools": [
                {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}}}},
                {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}],
            "strict_tools": true, "tool_choice": "REQUIRED",
            "max_tokens": 900, "temperature": 0.3, "p": 0.9, "k": 40, "seed": 7,
            "frequency_penalty": 0.5, "presence_penalty": 0.25, "stop_sequences": ["END"],
            "response_format": {"type": "json_object", "json_schema": {"type": "object"}},
            "thinking": {"type": "enabled"},
            "documents": ["a text"], "citation_options": {"mode": "FAST"}, "safety_mode": "STRICT"
        })
    );
}

#[test]
fn a_function_by_name_is_the_only_one_that_is_offered() {
    let tools = json!([{"type": "function", "function": {"name": "a"}}, {"type": "function", "function": {"name": "b"}}]);
    let named = |name: &str| json!({"tools": tools, "tool_choice": {"type": "function", "function": {"name": name}}});
    let wire = sent(COHERE, named("b"), Provider::default());
    assert_eq!(wire["tools"].as_array().unwrap().len(), 1);
    assert_eq!(wire["tools"][0]["function"]["name"], "b");
    assert_eq!(wire["tool_choice"], "REQUIRED");
    assert!(encode(COHERE, &named("c"), Provider::default()).is_err());
    let none = sent(
        COHERE,
        json!({"tools": tools, "tool_choice": "none"}),
        Provider::default(),
    );
    assert_eq!(none["tool_choice"], "NONE");
}

#[test]
fn limits_and_the_providers_file_are_obeyed() {
    let affordable = Provider {
        affordable: Some(5),
        quirks: "set = { safety_mode = \"OFF\" }\nclamp = { temperature = { max = 1 } }\ndrop = [\"seed\"]",
        ..Provider::default()
    };
    let wire = sent(
        COHERE,
        json!({"max_tokens": 50, "temperature": 1.5, "seed": 3, "safety_mode": "STRICT"}),
        affordable,
    );
    assert_eq!(wire["max_tokens"], 5);
    assert_eq!(wire["temperature"], 1);
    assert_eq!(wire["safety_mode"], "OFF");
    assert_eq!(wire.get("seed"), None);
    let open = sent(COHERE, json!({}), Provider::default());
    assert_eq!(open.get("max_tokens"), None);
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let user = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    refuses(
        COHERE,
        &[
            ("n", json!({"n": 2})),
            ("logprobs", json!({"logprobs": true})),
            ("parallel_tool_calls", json!({"parallel_tool_calls": false})),
            ("logit_bias", json!({"logit_bias": {"1": 2}})),
            ("reasoning_effort", json!({"reasoning_effort": "low"})),
            ("unheard_of", json!({"unheard_of": 1})),
            ("tools[0]", json!({"tools": [{"type": "web_search"}]})),
            (
                "messages[0].content[0]",
                user(json!({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}})),
            ),
            (
                "messages[0].content[0]",
                user(json!({"type": "file", "file": {"file_id": "f"}})),
            ),
        ],
    );
    for (param, more) in [
        (
            "messages[0].role",
            json!({"messages": [{"role": "critic", "content": "x"}]}),
        ),
        (
            "messages[0].tool_call_id",
            json!({"messages": [{"role": "tool", "content": "x"}]}),
        ),
        ("temperature", json!({"temperature": "hot"})),
        ("stop", json!({"stop": [1]})),
        ("tool_choice", json!({"tool_choice": "required"})),
    ] {
        let error = encode(COHERE, &more, Provider::default()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param));
    }
}
