//! Requests to Anthropic: what each of the client's members becomes, and what is refused by name.

use dialect::{
    ChatRequest, Dialect, Edit, Features, Quirks, RequestError, RequestLimits, WireRequest,
};
use proptest::prelude::*;
use serde_json::{Value, json};

const MAX: u64 = 64_000;

/// What the models of a request can do, and the quirks of their provider, as their file writes it.
#[derive(Clone, Copy, Default)]
struct Provider {
    features: &'static str,
    quirks: &'static str,
    affordable: Option<u64>,
}

fn encode(body: &Value, provider: Provider) -> Result<WireRequest, RequestError> {
    let text = body.to_string();
    let request = ChatRequest::parse(text.as_bytes(), &RequestLimits::default())?;
    let features: Features = toml::from_str(provider.features).unwrap();
    let edit = Edit {
        upstream_model: "claude-x",
        output_limit: provider.affordable,
        output_tokens_max: MAX,
        features: &features,
        ask_stream_usage: true,
    };
    let quirks: Quirks = toml::from_str(provider.quirks).unwrap();
    Dialect::Anthropic.encode(&request, &edit, &quirks)
}

fn body(more: &Value) -> Value {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[track_caller]
fn sent(more: Value, provider: Provider) -> Value {
    let wire = encode(&body(&more), provider).unwrap_or_else(|error| panic!("{more}: {error:?}"));
    serde_json::from_slice(&wire.body).unwrap_or_else(|e| panic!("{e}: {:?}", wire.body))
}

/// The members of the wire beside the model, the limit and the one message.
#[track_caller]
fn check(more: Value, provider: Provider, expected: Value) {
    let mut wire = sent(more.clone(), provider);
    let members = wire.as_object_mut().unwrap();
    assert_eq!(members.remove("model"), Some(json!("claude-x")));
    if !expected.as_object().unwrap().contains_key("max_tokens") {
        members.remove("max_tokens").unwrap();
    }
    if more.get("messages").is_none() {
        let said = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
        assert_eq!(members.remove("messages"), Some(said));
    }
    assert_eq!(wire, expected, "{more}");
}

#[track_caller]
fn refused(more: Value, provider: Provider, param: &str) {
    let error = encode(&body(&more), provider).expect_err(&more.to_string());
    assert_eq!(error.param.as_deref(), Some(param), "{more}: {error}");
}

const PLAIN: Provider = Provider {
    features: "",
    quirks: "",
    affordable: None,
};

#[test]
fn the_whole_surface_in_one_request() {
    let full = json!({
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "What is \"this\"? é"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://a.example/b.jpg"}, "cache_control": {"type": "ephemeral"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}}
            ]},
            {"role": "assistant", "content": "Let me look.", "reasoning_content": "Hm", "reasoning_details": [
                {"type": "reasoning.text", "index": 0, "format": "anthropic-claude-v1", "text": "Hm", "signature": "EvQB"},
                {"type": "reasoning.encrypted", "index": 1, "format": "anthropic-claude-v1", "data": "Em"},
                {"type": "reasoning.text", "index": 2, "text": "unsigned"},
                {"type": "reasoning.text", "index": 3, "format": "google-gemini-v1", "text": "theirs", "signature": "x"}
            ], "tool_calls": [
                {"id": "call:1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": \"Z\\u00fcrich\"}"}},
                {"id": "call-2", "type": "function", "function": {"name": "now", "arguments": ""}}
            ]},
            {"role": "tool", "tool_call_id": "call:1", "content": "sunny"},
            {"role": "tool", "tool_call_id": "call-2", "content": [{"type": "text", "text": "noon"}]},
            {"role": "user", "content": "And now?"},
            {"role": "user", "content": ["Once more."]}
        ],
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_completion_tokens": 9000,
        "stop": ["END", "STOP"],
        "tools": [
            {"type": "function", "function": {"name": "look", "description": "Looks.", "strict": true, "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"]}}, "cache_control": {"type": "ephemeral"}},
            {"type": "function", "function": {"name": "now"}},
            {"type": "function", "function": {"name": "odd", "parameters": {"properties": {}}}}
        ],
        "tool_choice": "auto",
        "parallel_tool_calls": false,
        "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": {"type": "object", "additionalProperties": false}}},
        "temperature": 1,
        "top_p": 1.0,
        "user": "user-1",
        "store": true,
        "metadata": {"a": "b"},
        "n": 1,
        "logprobs": false,
        "presence_penalty": 0,
        "frequency_penalty": 0.0,
        "logit_bias": {},
        "seed": null,
        "service_tier": "auto"
    });
    let provider = Provider {
        features: "thinking='adaptive'\neffort=['low','medium','high','max']",
        ..PLAIN
    };
    let wire = encode(&full, provider).unwrap();
    let body: Value = serde_json::from_slice(&wire.body).unwrap();
    insta::assert_snapshot!(
        "anthropic_the_whole_surface",
        format!(
            "{}\n---- upstream ----\nPOST {}\n{:?}\n\n{}\n",
            serde_json::to_string_pretty(&full).unwrap(),
            wire.path,
            wire.headers,
            serde_json::to_string_pretty(&body).unwrap()
        )
    );
}

#[test]
fn messages_that_cannot_be_said_are_refused_by_place() {
    let messages = |list: Value| json!({"messages": list});
    for (list, param) in [
        (
            json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}}]}]),
            "messages[0].content[0]",
        ),
        (
            json!([{"role": "user", "content": "a"}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "video_url", "video_url": {"url": "https://a"}}]}]),
            "messages[1].content[1]",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://a.example/b.png"}}]}]),
            "messages[0].content[0]",
        ),
        (
            json!([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/bmp;base64,AA"}}]}]),
            "messages[0].content[0]",
        ),
        (
            json!([{"role": "user", "content": [{"type": "file", "file": {"file_id": "file-1"}}]}]),
            "messages[0].content[0]",
        ),
        (
            json!([{"role": "user", "content": [{"type": "file", "file": {"file_data": "data:text/plain;base64,AA"}}]}]),
            "messages[0].content[0]",
        ),
        (
            json!([{"role": "function", "name": "f", "content": "a"}]),
            "messages[0].role",
        ),
        (json!([{"content": "a"}]), "messages[0].role"),
        (
            json!([{"role": "user", "content": "a"}, {"role": "tool", "content": "a"}]),
            "messages[1].tool_call_id",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "[1]"}}]}]),
            "messages[0].tool_calls",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f", "arguments": "{\"a\":"}}]}]),
            "messages[0].tool_calls",
        ),
        (
            json!([{"role": "assistant", "tool_calls": [{"id": "a", "type": "custom", "custom": {"name": "f", "input": "x"}}]}]),
            "messages[0].tool_calls",
        ),
        (
            json!([{"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}]),
            "messages",
        ),
        (json!([{"role": "user", "content": ""}]), "messages"),
    ] {
        refused(messages(list), PLAIN, param);
    }
}

#[test]
fn turns_alternate_and_say_something() {
    let turns = |list: Value| sent(json!({"messages": list}), PLAIN)["messages"].clone();
    let text = |text: &str| json!({"type": "text", "text": text});
    // Empty messages are left out, and what then stands together is joined.
    assert_eq!(
        turns(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": " \n"},
            {"role": "assistant", "content": null},
            {"role": "user", "content": "b"},
        ])),
        json!([{"role": "user", "content": [text("a"), text("b")]}])
    );
    // Instructions alone are what the user says.
    assert_eq!(
        turns(json!([{"role": "system", "content": "a"}, {"role": "system", "content": "b"}])),
        json!([{"role": "user", "content": [text("a"), text("b")]}])
    );
    // A refusal is what the assistant said.
    assert_eq!(
        turns(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"role": "user", "content": "b"},
        ]))[1],
        json!({"role": "assistant", "content": [text("no")]})
    );
    // Anthropic's own blocks of thinking travel as they are, where they can be read back.
    let own = json!({"type": "thinking", "thinking": "x", "signature": "s"});
    assert_eq!(
        turns(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "content": "b", "thinking_blocks": [own, {"type": "thinking", "thinking": "unsigned"}]},
            {"role": "user", "content": "c"},
        ]))[1]["content"],
        json!([own, text("b")])
    );
    // A result without content is a result.
    assert_eq!(
        turns(json!([
            {"role": "user", "content": "a"},
            {"role": "assistant", "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "t", "content": ""},
        ]))[2],
        json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t"}]})
    );
}

#[test]
fn a_model_without_prefill_must_be_asked_by_the_user() {
    let list = json!({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let without = Provider {
        features: "prefill=false",
        ..PLAIN
    };
    refused(list.clone(), without, "messages");
    sent(list, PLAIN);
}

#[test]
fn a_limit_is_always_sent() {
    let limit = |more, affordable| {
        let provider = Provider {
            affordable,
            ..PLAIN
        };
        sent(more, provider)["max_tokens"].clone()
    };
    assert_eq!(limit(json!({}), None), MAX);
    assert_eq!(limit(json!({}), Some(7)), 7);
    assert_eq!(limit(json!({"max_tokens": 5}), Some(7)), 5);
    assert_eq!(limit(json!({"max_completion_tokens": 9}), Some(7)), 7);
    assert_eq!(limit(json!({"max_tokens": 4_000_000_000_u64}), None), MAX);
}

#[test]
fn what_cannot_be_done_is_refused_or_left_out() {
    let lenient = Provider {
        quirks: "drop_unsupported=true",
        ..PLAIN
    };
    for (name, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("top_logprobs", json!(3)),
        ("frequency_penalty", json!(0.5)),
        ("presence_penalty", json!(-1)),
        ("logit_bias", json!({"50256": -100})),
        ("seed", json!(7)),
        ("modalities", json!(["text", "audio"])),
        ("audio", json!({"voice": "alloy"})),
        ("prediction", json!({"type": "content", "content": "x"})),
        ("web_search_options", json!({})),
        ("verbosity", json!("low")),
        ("functions", json!([{"name": "f"}])),
        ("service_tier", json!("priority")),
        ("speed", json!("fast")),
        ("inference_geo", json!("us")),
        ("container", json!("c")),
        ("mcp_servers", json!([])),
        ("reasoning", json!({"effort": "low"})),
        ("never_heard_of", json!(1)),
        ("temperature", json!(1.5)),
        ("top_p", json!(-0.1)),
        ("reasoning_effort", json!("low")),
        ("stop", json!("\n")),
        ("response_format", json!({"type": "json_object"})),
        ("tool_choice", json!({"type": "allowed_tools"})),
    ] {
        refused(json!({name: value}), PLAIN, name);
        check(json!({name: value}), lenient, json!({}));
        // Nothing is what it is without.
        check(json!({name: null}), PLAIN, json!({}));
    }
    refused(
        json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        PLAIN,
        "tools[0]",
    );
    refused(
        json!({"tools": [{"type": "custom", "custom": {"name": "x"}}]}),
        PLAIN,
        "tools[0]",
    );
    // What is wrong is wrong anywhere.
    refused(
        json!({"reasoning_effort": "huge"}),
        lenient,
        "reasoning_effort",
    );
    refused(json!({"stop": 7}), lenient, "stop");
    refused(json!({"temperature": "hot"}), lenient, "temperature");
    refused(json!({"tool_choice": "required"}), lenient, "tool_choice");
    refused(
        json!({"response_format": {"type": "json_schema"}}),
        lenient,
        "response_format",
    );
}

#[test]
fn quirks_hold_here_too() {
    let provider = Provider {
        quirks: "drop=['seed']\nunsupported=['user']\nset={ top_k=5 }\nclamp={ temperature={ max=1 } }\n\
                 headers={ 'anthropic-beta'='x', 'anthropic-version'='2024-01-01' }\npath='/v1/{model}/messages'",
        ..PLAIN
    };
    check(
        json!({"seed": 1, "top_k": 9, "temperature": 1.7}),
        provider,
        json!({"top_k": 5}),
    );
    refused(json!({"user": "u"}), provider, "user");
    let wire = encode(&body(&json!({})), provider).unwrap();
    assert_eq!(wire.path, "/v1/claude-x/messages");
    assert_eq!(
        wire.headers,
        [("anthropic-beta", "x"), ("anthropic-version", "2024-01-01")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
    );
    let plain = encode(&body(&json!({})), PLAIN).unwrap();
    assert_eq!(plain.path, "/messages");
    let version = ("anthropic-version".to_owned(), "2023-06-01".to_owned());
    assert_eq!(plain.headers, [version]);
}

#[test]
fn sampling_by_model_and_version() {
    check(
        json!({"temperature": 0.5}),
        PLAIN,
        json!({"temperature": 0.5}),
    );
    check(
        json!({"temperature": 1, "top_p": 0.9}),
        PLAIN,
        json!({"top_p": 0.9}),
    );
    check(
        json!({"temperature": 0, "top_k": 5}),
        PLAIN,
        json!({"temperature": 0, "top_k": 5}),
    );
    refused(json!({"temperature": 0.5, "top_p": 0.9}), PLAIN, "top_p");
    let none = Provider {
        features: "sampling=false",
        ..PLAIN
    };
    let newer = Provider {
        quirks: "headers={ 'anthropic-version'='2026-10-21' }",
        ..PLAIN
    };
    for provider in [none, newer] {
        for name in ["temperature", "top_p", "top_k"] {
            refused(json!({name: 0.5}), provider, name);
        }
        check(json!({"temperature": 1.0, "top_p": 1}), provider, json!({}));
    }
}

#[test]
fn effort_becomes_what_the_model_has() {
    let with = |features| Provider { features, ..PLAIN };
    let budget = with("thinking='budget'");
    let both = with("thinking='budget'\neffort=['low','medium','high']");
    let adaptive = with("thinking='adaptive'\neffort=['low','medium','high']");
    let on = with("thinking='on'\neffort=['low','high']");
    let always = with("thinking='always'\neffort=['low','high']");
    let shown = json!({"type": "adaptive", "display": "summarized"});
    let ask = |effort: &str| json!({"reasoning_effort": effort, "max_tokens": 10_000});
    let enabled = |tokens: u64| json!({"type": "enabled", "budget_tokens": tokens});
    check(ask("medium"), budget, json!({"thinking": enabled(5000)}));
    check(ask("minimal"), budget, json!({"thinking": enabled(2000)}));
    check(ask("none"), budget, json!({}));
    check(
        ask("high"),
        both,
        json!({"thinking": enabled(8000), "output_config": {"effort": "high"}}),
    );
    check(
        ask("max"),
        adaptive,
        json!({"thinking": shown, "output_config": {"effort": "high"}}),
    );
    check(ask("none"), adaptive, json!({}));
    check(ask("none"), on, json!({"thinking": {"type": "disabled"}}));
    check(
        ask("medium"),
        on,
        json!({"thinking": shown, "output_config": {"effort": "low"}}),
    );
    check(
        ask("low"),
        always,
        json!({"thinking": shown, "output_config": {"effort": "low"}}),
    );
    refused(ask("none"), always, "reasoning_effort");
    // Too little output to think in.
    check(
        json!({"reasoning_effort": "high", "max_tokens": 1000}),
        budget,
        json!({}),
    );
    // Thinking fixes the temperature.
    refused(
        json!({"reasoning_effort": "high", "temperature": 0.2}),
        budget,
        "temperature",
    );
    // The client's own words travel, with a budget that fits.
    let own = json!({"thinking": {"type": "enabled", "budget_tokens": 20_000}, "max_tokens": 5000});
    check(own.clone(), budget, json!({"thinking": enabled(4999)}));
    refused(
        json!({"thinking": {"type": "adaptive"}, "reasoning_effort": "low"}),
        adaptive,
        "thinking",
    );
    let config =
        json!({"output_config": {"effort": "low", "task_budget": {"type": "tokens", "total": 9}}});
    check(config.clone(), adaptive, config);
    refused(
        json!({"output_config": {"effort": "low"}, "reasoning_effort": "low"}),
        adaptive,
        "output_config",
    );
}

#[test]
fn a_demanded_call_comes_before_thinking() {
    let tool = json!([{"type": "function", "function": {"name": "f"}}]);
    let wire = |features: &'static str, choice: Value| {
        let more = json!({"tools": tool, "tool_choice": choice, "reasoning_effort": "high"});
        encode(&body(&more), Provider { features, ..PLAIN })
            .map(|wire| serde_json::from_slice::<Value>(&wire.body).unwrap())
    };
    let forced = json!({"type": "function", "function": {"name": "f"}});
    for (features, thinking) in [
        ("thinking='budget'", Value::Null),
        ("thinking='adaptive'", Value::Null),
        ("thinking='on'", json!({"type": "disabled"})),
    ] {
        let sent = wire(features, forced.clone()).unwrap();
        assert_eq!(sent["thinking"], thinking, "{features}");
        assert_eq!(sent["tool_choice"], json!({"type": "tool", "name": "f"}));
        let sent = wire(features, json!("auto")).unwrap();
        assert_ne!(sent["thinking"], thinking, "{features}");
    }
    let sent = wire("thinking='budget'", json!("required")).unwrap();
    assert_eq!(sent["tool_choice"], json!({"type": "any"}));
    let sent = wire("thinking='budget'", json!("none")).unwrap();
    assert_eq!(sent["tool_choice"], json!({"type": "none"}));
    let error = wire("thinking='always'\nforced_tools=false", json!("required")).unwrap_err();
    assert_eq!(error.param.as_deref(), Some("tool_choice"));
}

#[test]
fn thinking_that_was_not_sent_back_cannot_go_on() {
    let history = |more: Value| {
        let mut assistant = json!({"role": "assistant", "tool_calls": [{"id": "t", "function": {"name": "f", "arguments": "{}"}}]});
        for (name, value) in more.as_object().unwrap() {
            assistant[name] = value.clone();
        }
        json!({"reasoning_effort": "high", "messages": [
            {"role": "user", "content": "a"}, assistant, {"role": "tool", "tool_call_id": "t", "content": "b"}]})
    };
    let signed =
        json!({"reasoning_details": [{"type": "reasoning.text", "text": "", "signature": "s"}]});
    let budget = Provider {
        features: "thinking='budget'",
        ..PLAIN
    };
    assert_eq!(sent(history(json!({})), budget)["thinking"], Value::Null);
    assert_eq!(sent(history(signed), budget)["thinking"]["type"], "enabled");
    let adaptive = Provider {
        features: "thinking='adaptive'",
        ..PLAIN
    };
    assert_eq!(
        sent(history(json!({})), adaptive)["thinking"]["type"],
        "adaptive"
    );
}

#[test]
fn who_thinks_hides_output() {
    let hides = |features: &str, more: Value| {
        let text = body(&more).to_string();
        let request = ChatRequest::parse(text.as_bytes(), &RequestLimits::default()).unwrap();
        let features: Features = toml::from_str(features).unwrap();
        Dialect::Anthropic.hides_output(&request, &features)
    };
    let effort = |effort: &str| json!({"reasoning_effort": effort});
    let own = |kind: &str| json!({"thinking": {"type": kind}});
    for (features, plain, asked, refused) in [
        ("", false, false, false),
        ("thinking='budget'", false, true, false),
        ("thinking='adaptive'", false, true, false),
        ("thinking='on'", true, true, false),
        ("thinking='always'", true, true, true),
    ] {
        assert_eq!(hides(features, json!({})), plain, "{features}");
        assert_eq!(hides(features, effort("low")), asked, "{features}");
        assert_eq!(hides(features, effort("none")), refused, "{features}");
        assert_eq!(hides(features, own("disabled")), refused, "{features}");
        // Of a model that is said not to think, but is told to, nothing is known.
        assert!(hides(features, own("adaptive")), "{features}");
    }
}

/// Any JSON that a client could send for a message's members.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        prop::sample::select(vec![
            "user",
            "assistant",
            "tool",
            "system",
            "text",
            "image_url",
            "thinking",
            "function",
            "{}",
            "data:image/png;base64,AA==",
            "https://a.example",
            "\u{e9}\"\\\n",
            "",
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 32, 4, |inner| {
        let name = prop::sample::select(vec![
            "role",
            "content",
            "type",
            "text",
            "image_url",
            "url",
            "tool_calls",
            "function",
            "name",
            "arguments",
            "id",
            "tool_call_id",
            "reasoning_details",
            "signature",
            "file",
            "file_data",
            "cache_control",
            "parameters",
            "json_schema",
            "schema",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..4).prop_map(|members| {
                Value::Object(
                    members
                        .into_iter()
                        .map(|(n, v)| (n.to_owned(), v))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    /// Whatever is sent: no panic, and what goes upstream is JSON with a model, a limit and messages.
    #[test]
    fn what_is_encoded_is_sound(
        messages in prop::collection::vec(value(), 1..4),
        tools in value(),
        choice in value(),
        format in value(),
        stop in value(),
        lenient in any::<bool>(),
    ) {
        let body = json!({"model": "m", "messages": messages, "tools": tools, "tool_choice": choice,
            "response_format": format, "stop": stop, "thinking": choice});
        let quirks = if lenient { "drop_unsupported=true" } else { "" };
        let provider = Provider { quirks, ..PLAIN };
        if let Ok(wire) = encode(&body, provider) {
            let sent: Value = serde_json::from_slice(&wire.body).unwrap();
            prop_assert_eq!(&sent["model"], "claude-x");
            prop_assert!(sent["max_tokens"].is_u64());
            let turns = sent["messages"].as_array().unwrap();
            prop_assert!(!turns.is_empty());
            for pair in turns.windows(2) {
                prop_assert_ne!(&pair[0]["role"], &pair[1]["role"]);
            }
        }
    }
}
