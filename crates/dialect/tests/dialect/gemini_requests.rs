//! Requests to Google: what each of the client's members becomes, and what is refused by name.

use dialect::{
    ChatRequest, Dialect, Edit, Features, Quirks, RequestError, RequestLimits, WireRequest,
};
use proptest::prelude::*;
use serde_json::{Value, json};

/// What the models of a request can do, and the quirks of their provider, as their file writes it.
#[derive(Clone, Copy, Default)]
struct Provider {
    features: &'static str,
    quirks: &'static str,
    affordable: Option<u64>,
}

const PLAIN: Provider = Provider {
    features: "",
    quirks: "",
    affordable: None,
};
const FLASH: Provider = Provider {
    features: "thinking = \"on\"",
    ..PLAIN
};
const PRO: Provider = Provider {
    features: "thinking = \"always\"",
    ..PLAIN
};
const LEVELS: Provider = Provider {
    features: "thinking = \"always\"\neffort = [\"low\", \"high\"]",
    ..PLAIN
};
const LENIENT: Provider = Provider {
    quirks: "drop_unsupported = true",
    ..PLAIN
};

fn encode(body: &Value, provider: Provider) -> Result<WireRequest, RequestError> {
    let text = body.to_string();
    let request = ChatRequest::parse(text.as_bytes(), &RequestLimits::default())?;
    let features: Features = toml::from_str(provider.features).unwrap();
    let edit = Edit {
        upstream_model: "gemini-x",
        output_limit: provider.affordable,
        output_tokens_max: 64_000,
        features: &features,
        ask_stream_usage: true,
    };
    let quirks: Quirks = toml::from_str(provider.quirks).unwrap();
    Dialect::Gemini.encode(&request, &edit, &quirks)
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

/// The members of the wire beside the one message.
#[track_caller]
fn check(more: Value, provider: Provider, expected: Value) {
    let mut wire = sent(more.clone(), provider);
    let members = wire.as_object_mut().unwrap();
    let said = json!([{"role": "user", "parts": [{"text": "hi"}]}]);
    assert_eq!(members.remove("contents"), Some(said));
    assert_eq!(wire, expected, "{more}");
}

/// The `generationConfig`, which is all that there is beside the message.
#[track_caller]
fn config(more: Value, provider: Provider, expected: Value) {
    check(more, provider, json!({"generationConfig": expected}));
}

/// The contents of these messages.
#[track_caller]
fn contents(messages: Value, provider: Provider, expected: Value) {
    let wire = sent(json!({"messages": messages}), provider);
    assert_eq!(wire["contents"], expected);
}

#[track_caller]
fn refused(more: Value, provider: Provider, param: &str) {
    let error = encode(&body(&more), provider).expect_err(&more.to_string());
    assert_eq!(error.param.as_deref(), Some(param), "{more}: {error}");
}

#[test]
fn the_whole_surface_in_one_request() {
    let full = json!({
        "model": "m",
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "name": "ann", "content": [
                {"type": "text", "text": "What is \"this\"? é"},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,iVBORw0KGgo=", "detail": "low"}},
                {"type": "image_url", "image_url": {"url": "https://a.example/b.webp?x=1"}},
                {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "video_url", "video_url": {"url": "https://youtu.be/abc"}}
            ]},
            {"role": "assistant", "content": "Let me look.", "reasoning_content": "Hm",
             "extra_content": {"google": {"thought_signature": "TEXT="}}, "tool_calls": [
                {"id": "call_1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": \"Z\\u00fcrich\"}"}, "extra_content": {"google": {"thought_signature": "CALL="}}},
                {"id": "call_2", "type": "function", "function": {"name": "look", "arguments": ""}},
                {"id": "call_3", "type": "function", "function": {"name": "now", "arguments": "{}"}}
            ]},
            {"role": "tool", "tool_call_id": "call_3", "content": [{"type": "text", "text": "noon"}]},
            {"role": "tool", "tool_call_id": "call_1", "content": "{\"sky\": \"clear\"}"},
            {"role": "tool", "tool_call_id": "call_2", "content": ""},
            {"role": "user", "content": "And now?"},
            {"role": "user", "content": ["Once more."]}
        ],
        "stream": true,
        "stream_options": {"include_usage": true},
        "max_completion_tokens": 9000,
        "temperature": 1.10, "top_p": 0.9, "top_k": 40, "seed": 7,
        "presence_penalty": 0.5, "frequency_penalty": -0.5,
        "n": 2, "logprobs": true, "top_logprobs": 3,
        "stop": ["END", "STOP"],
        "tools": [
            {"type": "function", "function": {"name": "look", "description": "Looks.", "strict": true, "parameters": {"type": "object", "properties": {"at": {"type": "string"}}, "required": ["at"], "additionalProperties": false}}},
            {"type": "function", "function": {"name": "now"}}
        ],
        "tool_choice": {"type": "function", "function": {"name": "look"}},
        "parallel_tool_calls": true,
        "reasoning_effort": "medium",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "strict": true, "schema": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}}}},
        "safety_identifier": "ann-1", "user": "ann", "metadata": {"a": "b"}, "store": false,
        "google": {"safety_settings": [{"category": "HARM_CATEGORY_HARASSMENT", "threshold": "BLOCK_NONE"}]}
    });
    let provider = Provider {
        quirks: "headers = { \"x-goog-user-project\" = \"p\" }",
        affordable: Some(8_000),
        ..LEVELS
    };
    let wire = encode(&full, provider).unwrap();
    let body: Value = serde_json::from_slice(&wire.body).unwrap();
    let shown = format!(
        "{}\n{:?}\n{}\n",
        wire.path,
        wire.headers,
        serde_json::to_string_pretty(&body).unwrap()
    );
    insta::assert_snapshot!("gemini_the_whole_surface", shown);
}

#[test]
fn a_plain_request_goes_to_another_place_than_a_stream() {
    let path = |more: Value| encode(&body(&more), PLAIN).unwrap().path;
    assert_eq!(path(json!({})), "/models/gemini-x:generateContent");
    assert_eq!(
        path(json!({"stream": true})),
        "/models/gemini-x:streamGenerateContent?alt=sse"
    );
    check(json!({}), PLAIN, json!({}));
}

#[test]
fn limits_are_the_lower_of_what_is_asked_and_affordable() {
    config(
        json!({"max_tokens": 50}),
        PLAIN,
        json!({"maxOutputTokens": 50}),
    );
    let poor = Provider {
        affordable: Some(9),
        ..PLAIN
    };
    config(
        json!({"max_tokens": 50}),
        poor,
        json!({"maxOutputTokens": 9}),
    );
    config(json!({}), poor, json!({"maxOutputTokens": 9}));
}

#[test]
fn thinking_is_said_in_budgets_or_in_levels() {
    let budget = |tokens: u32| json!({"thinkingConfig": {"thinkingBudget": tokens, "includeThoughts": true}});
    for (effort, tokens) in [
        ("minimal", 1_024),
        ("low", 1_024),
        ("medium", 8_192),
        ("high", 24_576),
        ("max", 24_576),
    ] {
        config(json!({"reasoning_effort": effort}), FLASH, budget(tokens));
        config(json!({"reasoning_effort": effort}), PRO, budget(tokens));
    }
    let level =
        |level: &str| json!({"thinkingConfig": {"thinkingLevel": level, "includeThoughts": true}});
    for (effort, nearest) in [
        ("minimal", "LOW"),
        ("low", "LOW"),
        ("medium", "LOW"),
        ("high", "HIGH"),
        ("xhigh", "HIGH"),
    ] {
        config(json!({"reasoning_effort": effort}), LEVELS, level(nearest));
    }
    config(
        json!({"reasoning_effort": "none"}),
        FLASH,
        json!({"thinkingConfig": {"thinkingBudget": 0}}),
    );
    check(json!({"reasoning_effort": "none"}), PLAIN, json!({}));
    for provider in [PRO, LEVELS] {
        refused(
            json!({"reasoning_effort": "none"}),
            provider,
            "reasoning_effort",
        );
    }
    refused(
        json!({"reasoning_effort": "low"}),
        PLAIN,
        "reasoning_effort",
    );
    refused(
        json!({"reasoning_effort": "some"}),
        FLASH,
        "reasoning_effort",
    );
}

#[test]
fn googles_own_words_are_taken_over() {
    let own = json!({"thinking_config": {"thinking_budget": 800, "include_thoughts": true}});
    let expected = json!({"thinkingConfig": {"thinkingBudget": 800, "includeThoughts": true}});
    config(json!({"google": own}), FLASH, expected.clone());
    config(json!({"extra_body": {"google": own}}), FLASH, expected);
    let camel = json!({"google": {"thinkingConfig": {"thinkingLevel": "low"}}});
    config(
        camel,
        LEVELS,
        json!({"thinkingConfig": {"thinkingLevel": "low"}}),
    );
    refused(
        json!({"google": own, "reasoning_effort": "low"}),
        FLASH,
        "google.thinking_config",
    );
    // What is cached is the operator's.
    refused(
        json!({"google": {"cached_content": "cachedContents/1"}}),
        FLASH,
        "google.cached_content",
    );
    refused(
        json!({"extra_body": {"other": 1}}),
        FLASH,
        "extra_body.other",
    );
}

#[test]
fn what_is_hidden_is_known_before_it_is_sent() {
    let hides = |more: Value, provider: Provider| {
        let text = body(&more).to_string();
        let request = ChatRequest::parse(text.as_bytes(), &RequestLimits::default()).unwrap();
        Dialect::Gemini.hides_output(&request, &toml::from_str(provider.features).unwrap())
    };
    let lite = Provider {
        features: "thinking = \"budget\"",
        ..PLAIN
    };
    let none = json!({"reasoning_effort": "none"});
    let low = json!({"reasoning_effort": "low"});
    let zero = json!({"google": {"thinking_config": {"thinking_budget": 0}}});
    let some = json!({"extra_body": {"google": {"thinkingConfig": {"thinkingBudget": 9}}}});
    for (more, plain, budget, on, always) in [
        (json!({}), false, false, true, true),
        (none, false, false, false, true),
        (low, true, true, true, true),
        (zero, false, false, false, true),
        (some, true, true, true, true),
    ] {
        assert_eq!(hides(more.clone(), PLAIN), plain, "{more}");
        assert_eq!(hides(more.clone(), lite), budget, "{more}");
        assert_eq!(hides(more.clone(), FLASH), on, "{more}");
        assert_eq!(hides(more.clone(), PRO), always, "{more}");
    }
}

#[test]
fn tools_and_the_choice_among_them() {
    let tools = json!([{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]);
    let declared = json!([{"functionDeclarations": [{"name": "f", "parametersJsonSchema": {"type": "object", "properties": {}}}]}]);
    let choice = |choice: Value| json!({"tools": tools, "tool_choice": choice});
    let mode =
        |mode: Value| json!({"tools": declared, "toolConfig": {"functionCallingConfig": mode}});
    check(choice(json!("auto")), PLAIN, json!({"tools": declared}));
    check(choice(json!("none")), PLAIN, mode(json!({"mode": "NONE"})));
    check(
        choice(json!("required")),
        PLAIN,
        mode(json!({"mode": "ANY"})),
    );
    check(
        choice(json!({"type": "function", "function": {"name": "f"}})),
        PLAIN,
        mode(json!({"mode": "ANY", "allowedFunctionNames": ["f"]})),
    );
    refused(json!({"tool_choice": "required"}), PLAIN, "tool_choice");
    refused(
        json!({"tools": [{"type": "google_search"}]}),
        PLAIN,
        "tools[0]",
    );
    let single = json!({"tools": tools, "parallel_tool_calls": false});
    refused(single.clone(), PLAIN, "parallel_tool_calls");
    check(single, LENIENT, json!({"tools": declared}));
    check(json!({"parallel_tool_calls": false}), PLAIN, json!({}));
}

#[test]
fn the_form_of_the_answer() {
    config(
        json!({"response_format": {"type": "json_object"}}),
        PLAIN,
        json!({"responseMimeType": "application/json"}),
    );
    let schema = json!({"type": "object", "additionalProperties": false});
    config(
        json!({"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": schema}}}),
        PLAIN,
        json!({"responseMimeType": "application/json", "responseJsonSchema": schema}),
    );
    check(
        json!({"response_format": {"type": "text"}}),
        PLAIN,
        json!({}),
    );
    refused(
        json!({"response_format": {"type": "grammar"}}),
        PLAIN,
        "response_format",
    );
    config(
        json!({"modalities": ["text", "image"]}),
        PLAIN,
        json!({"responseModalities": ["TEXT", "IMAGE"]}),
    );
    refused(
        json!({"modalities": ["text", "audio"]}),
        PLAIN,
        "modalities",
    );
}

#[test]
fn a_conversation_that_another_model_began_goes_on() {
    let messages = json!([
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": null, "tool_calls": [
            {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}},
            {"id": "b", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "tool", "tool_call_id": "a", "content": "1"}
    ]);
    let call = json!({"functionCall": {"name": "f", "args": {}}});
    let mut signed = call.clone();
    signed["thoughtSignature"] = json!("skip_thought_signature_validator");
    let result =
        |said: &str| json!({"functionResponse": {"name": "f", "response": {"output": said}}});
    let conversation = |first: &Value| {
        json!([
            {"role": "user", "parts": [{"text": "hi"}]},
            {"role": "model", "parts": [first, call]},
            {"role": "user", "parts": [result("1"), result("2")]}
        ])
    };
    contents(messages.clone(), LEVELS, conversation(&signed));
    // Models without levels check no signatures.
    contents(messages, FLASH, conversation(&call));
}

#[test]
fn results_need_their_call() {
    let result = |id: Value| json!({"messages": [{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": id, "content": "1"}]});
    refused(result(json!("x")), PLAIN, "messages[1].tool_call_id");
    refused(result(json!(null)), PLAIN, "messages[1].tool_call_id");
    // Older clients name the function.
    contents(
        json!([{"role": "user", "content": "hi"}, {"role": "tool", "tool_call_id": "x", "name": "f", "content": "1"}]),
        PLAIN,
        json!([{"role": "user", "parts": [{"text": "hi"}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": {"output": "1"}}}]}]),
    );
}

#[test]
fn instructions_alone_are_a_message() {
    let wire = sent(
        json!({"messages": [{"role": "system", "content": "Say hi."}]}),
        PLAIN,
    );
    let said = json!([{"role": "user", "parts": [{"text": "Say hi."}]}]);
    assert_eq!(wire, json!({"contents": said}));
    refused(
        json!({"messages": [{"role": "user", "content": ""}]}),
        PLAIN,
        "messages",
    );
}

#[test]
fn what_nobody_may_fetch_is_refused() {
    let image = |url: &str| {
        json!({"messages": [{"role": "user", "content": [
            {"type": "text", "text": "hi"}, {"type": "image_url", "image_url": {"url": url}}
        ]}]})
    };
    for url in [
        "http://a.example/b.png",
        "gs://the-operators-bucket/a.png",
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "https://x@GenerativeLanguage.googleapis.com.:443/v1beta/files/abc",
        "https://www.youtube.com/watch?v=1",
        "https://a.example/b.mp4",
        "https://",
        "data:image/tiff;base64,AA==",
        "data:image/png,AA==",
        "file:///etc/passwd",
    ] {
        refused(image(url), PLAIN, "messages[0].content[1]");
        check(image(url), LENIENT, json!({}));
    }
    let part = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    for other in [
        json!({"type": "file", "file": {"file_id": "file-1"}}),
        json!({"type": "file", "file": {"file_data": "gs://b/a.pdf"}}),
        json!({"type": "input_audio", "input_audio": {"data": "AA==", "format": "midi"}}),
        json!({"type": "video_url", "video_url": {"url": "gs://b/a.mp4"}}),
        json!({"type": "text"}),
        json!({"type": "hologram"}),
    ] {
        refused(part(other), PLAIN, "messages[0].content[0]");
    }
}

#[test]
fn what_google_does_not_have_is_refused_by_name() {
    for (more, param) in [
        (json!({"logit_bias": {"1": 2}}), "logit_bias"),
        (json!({"verbosity": "low"}), "verbosity"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (
            json!({"prediction": {"type": "content", "content": "x"}}),
            "prediction",
        ),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"unheard_of": 1}), "unheard_of"),
        (json!({"stop": ["a", "b", "c", "d", "e", "f"]}), "stop"),
        (json!({"audio": {"voice": "x", "format": "wav"}}), "audio"),
    ] {
        refused(more.clone(), PLAIN, param);
        let lenient = encode(&body(&more), LENIENT);
        assert!(lenient.is_ok(), "{more}");
    }
    for (more, param) in [
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"stop": [7]}), "stop"),
    ] {
        refused(more.clone(), PLAIN, param);
        refused(more, LENIENT, param);
    }
    refused(
        json!({"messages": [{"role": "function", "name": "f", "content": "x"}]}),
        PLAIN,
        "messages[0].role",
    );
}

#[test]
fn quirks_leave_out_set_and_clamp() {
    let provider = Provider {
        quirks: "drop = [\"seed\"]\nset = { labels = { app = \"x\" } }\nclamp = { temperature = { max = 1 } }\nunsupported = [\"top_k\"]",
        ..PLAIN
    };
    check(
        json!({"seed": 1, "temperature": 1.5}),
        provider,
        json!({"generationConfig": {"temperature": 1}, "labels": {"app": "x"}}),
    );
    refused(json!({"top_k": 1}), provider, "top_k");
}

proptest! {
    /// Whatever a client says travels unchanged, and what is written is JSON.
    #[test]
    fn texts_travel_unchanged(text in any::<String>(), said in any::<String>()) {
        let messages = json!([
            {"role": "user", "content": format!("x{text}")},
            {"role": "assistant", "content": "", "tool_calls": [{"id": text, "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": text, "content": said}
        ]);
        let wire = sent(json!({"messages": messages}), PLAIN);
        prop_assert_eq!(&wire["contents"][0]["parts"][0]["text"], &json!(format!("x{text}")));
        let response = &wire["contents"][2]["parts"][0]["functionResponse"]["response"];
        let own: Value = serde_json::from_str(said.trim_ascii()).unwrap_or_default();
        if own.is_object() {
            prop_assert_eq!(response, &own);
        } else {
            prop_assert_eq!(&response["output"], &json!(said));
        }
    }
}
