//! Ollama's dialect: what is sent, what comes back line by line, and what is billed.
//!
//! Every fixture is written for this test after the examples of Ollama's API reference.

use dialect::{DecodeError, Dialect, Ending, UsageFault};
use serde_json::{Value, json};
use tokens::Usage;

use crate::played::{
    Provider, added_up, cut_anywhere, decode, decoded, encode, play, reasons, refuses, sent,
};

const OLLAMA: Dialect = Dialect::Ollama;

fn lines(all: &[Value]) -> String {
    all.iter().map(|line| format!("{line}\n")).collect()
}

fn line(message: Value) -> Value {
    json!({"model": "qwen3", "created_at": "2025-08-14T15:15:22.1Z", "message": message, "done": false})
}

fn says(text: &str) -> Value {
    line(json!({"role": "assistant", "content": text}))
}

fn done(reason: &str) -> Value {
    json!({"model": "qwen3", "created_at": "2025-08-14T15:15:23.1Z", "message": {"role": "assistant", "content": ""},
        "done": true, "done_reason": reason, "total_duration": 4883583458_u64, "load_duration": 1334875,
        "prompt_eval_count": 26, "prompt_eval_duration": 342546000, "eval_count": 282, "eval_duration": 4535599000_u64})
}

fn thinking() -> String {
    lines(&[
        line(json!({"role": "assistant", "content": "", "thinking": "Two \"plus\""})),
        line(json!({"role": "assistant", "content": "", "thinking": " two."})),
        says("It is"),
        says(" fö\nur."),
        done("stop"),
    ])
}

fn calling() -> String {
    let call =
        |name: &str, arguments: Value| json!({"function": {"name": name, "arguments": arguments}});
    lines(&[
        line(
            json!({"role": "assistant", "content": "", "tool_calls": [call("weather", json!({"at": "Bern"})), call("now", json!({}))]}),
        ),
        line(
            json!({"role": "assistant", "content": "", "tool_calls": [{"id": "call_7", "function": {"index": 0, "name": "now"}}]}),
        ),
        done("stop"),
    ])
}

fn evaluated() -> Usage {
    Usage {
        prompt: 26,
        completion: 282,
        ..Usage::default()
    }
}

#[test]
fn a_stream_says_what_it_says() {
    let played = play(OLLAMA, &[thinking().as_bytes()]);
    assert_eq!(played.wrong, None);
    assert_eq!(played.said, "It is fö\nur.");
    assert_eq!(played.thought, "Two \"plus\" two.");
    assert_eq!(played.usage, Some(Ok(evaluated())));
    assert_eq!(played.ending, Ending::Done);
    assert_eq!(reasons(&played.chunks), ["stop"]);
    let first = &played.chunks[0];
    assert_eq!(
        (&first["id"], &first["model"]),
        (&json!("req_1"), &json!("qwen3"))
    );
    assert_eq!(played.chunks.last().unwrap()["usage"]["total_tokens"], 308);
}

#[test]
fn calls_without_ids_get_some_that_are_the_same_each_time() {
    let played = play(OLLAMA, &[calling().as_bytes()]);
    assert_eq!(played.wrong, None);
    assert_eq!(reasons(&played.chunks), ["tool_calls"]);
    let call = |index: u32, id: &str, name: &str, arguments: &str| json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        added_up(&played.chunks)["tool_calls"],
        json!([
            call(0, "call_req_1_0", "weather", "{\"at\":\"Bern\"}"),
            call(1, "call_req_1_1", "now", "{}"),
            call(2, "call_7", "now", "{}")
        ])
    );
    assert_eq!(play(OLLAMA, &[calling().as_bytes()]), played);
}

#[test]
fn any_cut_gives_the_same_and_garbage_never_panics() {
    cut_anywhere(OLLAMA, thinking().as_bytes());
    cut_anywhere(OLLAMA, calling().as_bytes());
}

#[test]
fn an_error_is_a_line_and_no_success() {
    let failed = lines(&[
        says("It"),
        json!({"error": "an error was encountered while running the model"}),
    ]);
    let played = play(OLLAMA, &[failed.as_bytes()]);
    assert_eq!((played.errors, played.ending), (1, Ending::Cut));
    assert_eq!(
        play(OLLAMA, &[says("It").to_string().as_bytes()]).ending,
        Ending::Cut
    );
    for wrong in [
        "{}\n",
        "[]\n",
        "{\"message\":{\"content\":7}}\n",
        "{\"message\":{\"tool_calls\":[{}]}}\n",
    ] {
        assert!(play(OLLAMA, &[wrong.as_bytes()]).wrong.is_some(), "{wrong}");
    }
}

#[test]
fn counts_that_are_left_out_are_zero_or_a_fault() {
    let report = |members: Value| {
        let mut last = json!({"model": "m", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "length"});
        for (name, value) in members.as_object().unwrap() {
            last[name] = value.clone();
        }
        play(OLLAMA, &[lines(&[last]).as_bytes()]).usage
    };
    let nothing_said = Usage {
        prompt: 5,
        ..Usage::default()
    };
    assert_eq!(
        report(json!({"prompt_eval_count": 5})),
        Some(Ok(nothing_said))
    );
    assert_eq!(
        report(json!({"eval_count": 5})),
        Some(Err(UsageFault::Missing {
            field: "prompt_eval_count"
        }))
    );
    assert_eq!(report(json!({})), None);
    assert_eq!(
        report(json!({"prompt_eval_count": -5})),
        Some(Err(UsageFault::NotACount {
            field: "prompt_eval_count"
        }))
    );
}

#[test]
fn a_plain_answer_is_a_completion() {
    let mut body = done("length");
    body["message"] = json!({"role": "assistant", "content": "Four.", "thinking": "Hm.", "tool_calls": [{"function": {"name": "now", "arguments": {"a": [1]}}}]});
    let answer = decoded(OLLAMA, &body.to_string());
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "Four.");
    assert_eq!(choice["message"]["reasoning_content"], "Hm.");
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([{"id": "call_req_1_0", "type": "function", "function": {"name": "now", "arguments": "{\"a\":[1]}"}}])
    );
    assert_eq!(choice["finish_reason"], "length");
    let read = decode(OLLAMA, &body.to_string()).unwrap();
    assert_eq!(read.usage(), Some(Ok(evaluated())));
    assert_eq!(
        read.usage_text(),
        Some(r#"{"prompt_eval_count":26,"eval_count":282}"#)
    );
    let failed = decode(OLLAMA, r#"{"error":"model 'x' not found"}"#);
    assert!(
        matches!(failed, Err(DecodeError::Upstream(error)) if error.message.as_deref() == Some("model 'x' not found"))
    );
    for body in ["[]", "{}", "", "{\"message\":{\"content\":7}}"] {
        assert!(decode(OLLAMA, body).is_err(), "{body}");
    }
}

#[test]
fn the_whole_surface_in_one_request() {
    let full = json!({
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [
                {"type": "text", "text": "What is \"this\"?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
                "And this?"]},
            {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": 1}"}}]},
            {"role": "tool", "tool_call_id": "c1", "content": "sunny"}],
        "stream": true, "stream_options": {"include_usage": true},
        "max_tokens": 900, "temperature": 0.3, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 7,
        "frequency_penalty": 0.5, "presence_penalty": 0.25, "repeat_penalty": 1.1, "stop": ["END", "STOP"],
        "options": {"num_ctx": 8192, "temperature": 0.9},
        "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"properties": {}}}}],
        "tool_choice": "auto", "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "reasoning_effort": "xhigh", "keep_alive": "10m", "user": "u"
    });
    let provider = Provider {
        features: "thinking = 'on'\neffort = ['low', 'medium', 'high']",
        ..Provider::default()
    };
    let wire = encode(OLLAMA, &full, provider).unwrap();
    assert_eq!(wire.path, "/api/chat");
    assert_eq!(
        serde_json::from_slice::<Value>(&wire.body).unwrap(),
        json!({
            "model": "up/m:1", "stream": true,
            "messages": [
                {"role": "system", "content": "Be brief."},
                {"role": "user", "content": "What is \"this\"?\nAnd this?", "images": ["iVBORw0KGgo="]},
                {"role": "assistant", "content": "", "thinking": "Hm.", "tool_calls": [{"id": "c1", "function": {"name": "look", "arguments": {"at": 1}}}]},
                {"role": "tool", "tool_call_id": "c1", "tool_name": "look", "content": "sunny"}],
            "tools": [{"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}}],
            "think": "high", "format": {"type": "object"},
            "options": {"num_ctx": 8192, "temperature": 0.3, "top_p": 0.9, "top_k": 40, "min_p": 0.05, "seed": 7,
                "frequency_penalty": 0.5, "presence_penalty": 0.25, "repeat_penalty": 1.1, "stop": ["END", "STOP"], "num_predict": 900},
            "keep_alive": "10m"
        })
    );
}

#[test]
fn thinking_is_a_level_or_on_or_off() {
    let think = |features: &'static str, more: Value| {
        let provider = Provider {
            features,
            ..Provider::default()
        };
        sent(OLLAMA, more, provider)["think"].clone()
    };
    let effort = |word: &str| json!({"reasoning_effort": word});
    assert_eq!(think("thinking = 'on'", effort("low")), true);
    assert_eq!(think("thinking = 'on'", effort("none")), false);
    assert_eq!(think("thinking = 'on'", json!({})), Value::Null);
    assert_eq!(think("", effort("none")), Value::Null);
    assert_eq!(think("", json!({"think": true})), true);
}

#[test]
fn limits_formats_and_choices() {
    let affordable = Provider {
        affordable: Some(5),
        ..Provider::default()
    };
    let wire = sent(
        OLLAMA,
        json!({"max_tokens": 50, "response_format": {"type": "json_object"}}),
        affordable,
    );
    assert_eq!(wire["options"], json!({"num_predict": 5}));
    assert_eq!(wire["format"], "json");
    let open = sent(OLLAMA, json!({}), Provider::default());
    assert_eq!(open.get("options"), None);
    assert_eq!(open["stream"], false);
    let tools = json!([{"type": "function", "function": {"name": "a"}}]);
    let none = sent(
        OLLAMA,
        json!({"tools": tools, "tool_choice": "none"}),
        Provider::default(),
    );
    assert_eq!(none.get("tools"), None);
    for demand in [
        json!("required"),
        json!({"type": "function", "function": {"name": "a"}}),
    ] {
        let error = encode(
            OLLAMA,
            &json!({"tools": tools, "tool_choice": demand}),
            Provider::default(),
        );
        assert_eq!(error.unwrap_err().param.as_deref(), Some("tool_choice"));
    }
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let user = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    refuses(
        OLLAMA,
        &[
            ("n", json!({"n": 2})),
            ("logprobs", json!({"logprobs": true})),
            ("parallel_tool_calls", json!({"parallel_tool_calls": false})),
            ("logit_bias", json!({"logit_bias": {"1": 2}})),
            ("reasoning_effort", json!({"reasoning_effort": "low"})),
            (
                "messages[0].content[0]",
                user(json!({"type": "image_url", "image_url": {"url": "https://a.example/b.png"}})),
            ),
            (
                "messages[0].content[0]",
                user(json!({"type": "file", "file": {"file_id": "f"}})),
            ),
        ],
    );
    for name in ["num_predict", "NUM_PREDICT"] {
        let error =
            encode(OLLAMA, &json!({"options": {name: -1}}), Provider::default()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some("options.num_predict"));
    }
}
