//! Google from end to end, where it differs from others: every kind of token, thinking, signatures, safety, Vertex AI.

use billing::Credits;
use http::Method;
use mock_provider::Script;
use serde_json::{Value, json};
use tests::{Books, CANARY_PROVIDER_KEY, Gateway, Plain, chat, credits, streamed, tokens_cost};

/// Far more credit than any of these needs.
const PLENTY: &str = "10";
const MODEL: &str = "gem-thinking";
const PLAIN_PATH: &str = "/v1/models/gem-thinking:generateContent";
const STREAM_PATH: &str = "/v1/models/gem-thinking:streamGenerateContent";

fn stream(events: &[Value]) -> Script {
    let bytes: String = events
        .iter()
        .map(|event| format!("data: {event}\r\n\r\n"))
        .collect();
    let script = Script::new().header("content-type", "text/event-stream");
    script.always_stream().raw(bytes).split(11)
}

fn last_request(gateway: &Gateway) -> mock_provider::SeenRequest {
    gateway.provider.requests().pop().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_charged_by_every_kind_of_token() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        let usage = json!({"promptTokenCount": 1000, "cachedContentTokenCount": 600, "toolUsePromptTokenCount": 7,
            "candidatesTokenCount": 20, "thoughtsTokenCount": 300, "totalTokenCount": 1327,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 750}, {"modality": "AUDIO", "tokenCount": 200},
                {"modality": "IMAGE", "tokenCount": 50}],
            "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 550}, {"modality": "AUDIO", "tokenCount": 50}],
            "candidatesTokensDetails": [{"modality": "TEXT", "tokenCount": 16}, {"modality": "IMAGE", "tokenCount": 4}]});
        let answer = json!({"candidates": [{"content": {"role": "model", "parts": [{"text": "Hm.", "thought": true}, {"text": "Hello"}]},
            "finishReason": "STOP", "index": 0}], "usageMetadata": usage, "modelVersion": "gem-x", "responseId": "g-9"});
        gateway
            .provider
            .script(PLAIN_PATH, Script::new().raw(answer.to_string()));
        let customer = gateway.customer(PLENTY).await;
        let asked = json!({"max_tokens": 50, "reasoning_effort": "medium", "temperature": 0.5});
        let answer = gateway
            .chat(&customer, chat(MODEL, asked))
            .await
            .expect(200)
            .json();
        let message = &answer["choices"][0]["message"];
        assert_eq!(answer["id"], "g-9");
        assert_eq!(message["content"], "Hello");
        assert_eq!(message["reasoning_content"], "Hm.");
        // Text 200 and 7 of tools, cached 600, audio 150, images 50; output 16, images 4, thoughts 300.
        let nanos = (200 + 7) * 3_000 + 600 * 300 + 150 * 7_000 + 50 * 4_000;
        let nanos = nanos + 16 * 15_000 + 4 * 60_000 + 300 * 15_000;
        let cost = json!(Credits::from_nanos(nanos));
        let shown = &answer["usage"];
        assert_eq!(shown["cost"], cost);
        assert_eq!(shown["prompt_tokens"], 1007);
        assert_eq!(shown["completion_tokens"], 320);
        assert_eq!(shown["completion_tokens_details"]["reasoning_tokens"], 300);
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["charged"], cost);
        assert_eq!(charge["usage_source"], "reported");
        assert_eq!(charge["provider"], "google");
        let seen = last_request(&gateway);
        assert_eq!(seen.path, PLAIN_PATH);
        assert_eq!(seen.header("x-goog-api-key"), Some(CANARY_PROVIDER_KEY));
        assert_eq!(seen.header("authorization"), None);
        assert_eq!(
            seen.json(),
            json!({"contents": [{"role": "user", "parts": [{"text": "one two"}]}],
                "generationConfig": {"maxOutputTokens": 50, "temperature": 0.5,
                    "thinkingConfig": {"thinkingLevel": "LOW", "includeThoughts": true}}})
        );
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signatures_come_back_with_their_calls() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let call = |at: u32, signature: Value| {
        let mut part = json!({"functionCall": {"name": "look", "args": {"at": at}}});
        if !signature.is_null() {
            part["thoughtSignature"] = signature;
        }
        part
    };
    let parts = json!([call(1, json!("EpEg/+=")), call(2, json!(null))]);
    let events = [
        json!({"candidates": [{"content": {"role": "model", "parts": parts}, "index": 0}], "usageMetadata": {"promptTokenCount": 9}, "responseId": "g-2"}),
        json!({"candidates": [{"content": {"role": "model", "parts": [{"text": ""}]}, "finishReason": "STOP", "index": 0}],
            "usageMetadata": {"promptTokenCount": 9, "candidatesTokenCount": 12, "thoughtsTokenCount": 40, "totalTokenCount": 61}}),
    ];
    gateway.provider.script(STREAM_PATH, stream(&events));
    let customer = gateway.customer(PLENTY).await;
    let tools = json!([{"type": "function", "function": {"name": "look"}}]);
    let asked = json!({"stream": true, "tools": tools, "stream_options": {"include_usage": true}});
    let events = gateway
        .stream(&customer, chat(MODEL, asked))
        .await
        .rest()
        .await;
    assert_eq!(events.finish_reasons(), ["tool_calls"]);
    assert!(events.error().is_none() && events.is_done());
    assert_eq!(events.usages()[0]["completion_tokens"], 52);
    let mut calls: Vec<Value> = Vec::new();
    for chunk in events.chunks() {
        let new = chunk["choices"][0]["delta"]["tool_calls"].as_array();
        calls.extend(new.into_iter().flatten().cloned());
    }
    let [first, second] = &calls[..] else {
        panic!("{calls:?}")
    };
    assert_ne!(first["id"], second["id"]);
    let results: Vec<Value> = [second, first]
        .iter()
        .map(|call| {
            let said = format!("{}", call["index"]);
            json!({"role": "tool", "tool_call_id": call["id"], "content": said})
        })
        .collect();
    let answer = json!({"candidates": [{"content": {"parts": [{"text": "Done."}]}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 30, "candidatesTokenCount": 2}});
    gateway
        .provider
        .script(PLAIN_PATH, Script::new().raw(answer.to_string()));
    let mut messages = vec![
        json!({"role": "user", "content": "Look."}),
        json!({"role": "assistant", "content": null, "tool_calls": calls}),
    ];
    messages.extend(results);
    let body = json!({"model": MODEL, "tools": tools, "max_tokens": 50, "messages": messages});
    let answer = gateway.chat(&customer, body).await.expect(200).json();
    assert_eq!(answer["choices"][0]["message"]["content"], "Done.");
    let wire = last_request(&gateway).json();
    assert_eq!(wire["contents"][1]["parts"], parts);
    // In the order of the calls, which is all that tells them apart.
    let output =
        |said: &str| json!({"functionResponse": {"name": "look", "response": {"output": said}}});
    assert_eq!(
        wire["contents"][2]["parts"],
        json!([output("0"), output("1")])
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_thinks_unseen_sets_its_worst_case_aside() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let answer = json!({"candidates": [{"content": {"parts": [{"text": "x"}]}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1, "thoughtsTokenCount": 60}});
    gateway
        .provider
        .script(PLAIN_PATH, Script::new().raw(answer.to_string()));
    // Enough for the prompt and for some thirty tokens of output at their dearest, which are images.
    let customer = gateway.customer("0.002").await;
    let answer = gateway.chat(&customer, chat(MODEL, json!({}))).await;
    let clamped: u64 = answer.header("x-tollway-max-tokens").parse().unwrap();
    assert!((25..35).contains(&clamped), "{clamped}");
    let wire = last_request(&gateway).json();
    assert_eq!(wire["generationConfig"]["maxOutputTokens"], clamped);
    let charge = gateway.charge(&customer).await;
    let nanos = 5 * 3_000 + 61 * 15_000;
    assert_eq!(charge["charged"], json!(Credits::from_nanos(nanos)));
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_google_blocks_is_an_answer_of_its_own() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let blocked = json!({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 12, "totalTokenCount": 12}, "responseId": "g-3"});
    gateway
        .provider
        .script(STREAM_PATH, stream(std::slice::from_ref(&blocked)));
    gateway
        .provider
        .script(PLAIN_PATH, Script::new().raw(blocked.to_string()));
    let customer = gateway.customer(PLENTY).await;
    let asked = chat(MODEL, json!({"stream": true}));
    let events = gateway.stream(&customer, asked).await.rest().await;
    assert_eq!(events.finish_reasons(), ["content_filter"]);
    assert!(events.error().is_none() && events.is_done());
    let cost = json!(Credits::from_nanos(12 * 3_000));
    assert_eq!(gateway.charge(&customer).await["charged"], cost);
    let answer = gateway
        .chat(&customer, chat(MODEL, json!({"max_tokens": 5})))
        .await
        .expect(200)
        .json();
    assert_eq!(answer["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(answer["choices"][0]["native_finish_reason"], "SAFETY");
    assert_eq!(answer["usage"]["cost"], cost);
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_say_whose_trouble_they_are() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let error = |status: u16, word: &str, message: &str, details: Value| {
        let error = json!({"code": status, "message": message, "status": word, "details": details});
        Script::error(status).raw(json!({"error": error}).to_string())
    };
    let delay =
        json!([{"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34.4s"}]);
    let none = json!([]);
    for (script, status, retry) in [
        (
            error(400, "INVALID_ARGUMENT", "API key not valid.", none.clone()),
            502,
            "",
        ),
        (
            error(400, "FAILED_PRECONDITION", "Enable billing.", none.clone()),
            502,
            "",
        ),
        (error(400, "INVALID_ARGUMENT", "Bad.", none), 400, ""),
        (error(429, "RESOURCE_EXHAUSTED", "Quota.", delay), 429, "35"),
    ] {
        gateway.provider.script(PLAIN_PATH, script);
        let answer = gateway
            .chat(&customer, chat(MODEL, json!({"max_tokens": 5})))
            .await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("retry-after"), retry);
        if status == 400 {
            let message = answer.json()["error"]["message"].to_string();
            assert!(message.contains("invalid_argument"), "{message}");
        }
    }
    assert_eq!(gateway.settled_balance(&customer).await, credits(PLENTY));
    gateway.finish().await;
}

/// Below the address that has the project and the location.
const VERTEX: &str = "/v1/projects/p/locations/l/publishers";

#[tokio::test(flavor = "multi_thread")]
async fn vertex_is_asked_with_a_token_that_is_fetched_once() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let token = json!({"access_token": "ya29.canary", "expires_in": 3599, "token_type": "Bearer"});
    gateway
        .provider
        .script("/v1/token", Script::new().raw(token.to_string()));
    let plain = json!({"candidates": [{"content": {"parts": [{"text": "Hi"}]}, "finishReason": "STOP"}], "usageMetadata": {"promptTokenCount": 5, "candidatesTokenCount": 1}});
    let path = format!("{VERTEX}/google/models/gem-vertex:generateContent");
    gateway
        .provider
        .script(&path, Script::new().raw(plain.to_string()));
    let customer = gateway.customer(PLENTY).await;
    for _ in 0..2 {
        let asked = chat("gem-vertex", json!({"max_tokens": 5}));
        let answer = gateway.chat(&customer, asked).await.expect(200).json();
        assert_eq!(answer["choices"][0]["message"]["content"], "Hi");
        assert_eq!(answer["usage"]["cost"], json!(tokens_cost(6)));
        let seen = last_request(&gateway);
        assert_eq!(seen.path, path);
        assert_eq!(seen.header("authorization"), Some("Bearer ya29.canary"));
    }
    let asked = gateway.provider.requests();
    let asked: Vec<_> = asked
        .iter()
        .filter(|seen| seen.path == "/v1/token")
        .collect();
    assert_eq!(asked.len(), 1);
    assert_eq!(
        asked[0].body,
        "grant_type=refresh_token&client_id=c&client_secret=s&refresh_token=r"
    );
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claude_on_vertex_is_the_same_in_other_places() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let token = json!({"access_token": "ya29.canary", "expires_in": 3599});
    gateway
        .provider
        .script("/v1/token", Script::new().raw(token.to_string()));
    let claude = format!("{VERTEX}/anthropic/models/claude-vertex%4020251001");
    let message = json!({"id": "msg_vrtx_1", "type": "message", "role": "assistant", "model": "claude-vertex",
        "content": [{"type": "text", "text": "Hi"}], "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 1}});
    gateway.provider.script(
        &format!("{claude}:rawPredict"),
        Script::new().raw(message.to_string()),
    );
    let stream = Script::new()
        .header("content-type", "text/event-stream")
        .always_stream()
        .message_start(r#"{"input_tokens":5,"output_tokens":1}"#)
        .says(0, &["Hi"])
        .message_ends("end_turn", r#"{"input_tokens":5,"output_tokens":2}"#);
    gateway
        .provider
        .script(&format!("{claude}:streamRawPredict"), stream);
    let customer = gateway.customer(PLENTY).await;
    let asked = chat("claude-vertex", json!({"max_tokens": 5}));
    let answer = gateway.chat(&customer, asked).await.expect(200).json();
    assert_eq!(answer["usage"]["cost"], json!(tokens_cost(6)));
    let seen = last_request(&gateway);
    assert_eq!(seen.header("anthropic-version"), None);
    assert_eq!(
        seen.json(),
        json!({"anthropic_version": "vertex-2023-10-16", "max_tokens": 5,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "one two"}]}]})
    );
    let events = gateway
        .stream(&customer, streamed("claude-vertex"))
        .await
        .rest()
        .await;
    assert_eq!(events.text(), "Hi");
    assert!(events.error().is_none() && events.is_done());
    assert_eq!(events.usages()[0]["total_tokens"], 7);
    assert_eq!(
        last_request(&gateway).path,
        format!("{claude}:streamRawPredict")
    );
    // A client that speaks Messages itself: what it marks to be kept travels.
    let said = json!([{"role": "user", "content": [
        {"type": "text", "text": "one two", "cache_control": {"type": "ephemeral"}}]}]);
    for stream in [false, true] {
        let asked =
            json!({"model": "claude-vertex", "max_tokens": 5, "messages": said, "stream": stream});
        let sent = gateway
            .call(Method::POST, "/v1/messages", &customer.secret)
            .header(
                "anthropic-beta",
                "interleaved-thinking-2025-05-14,effort-2025-11-24",
            )
            .body(asked.to_string());
        let answer = Plain::read(sent.send().await.unwrap()).await.expect(200);
        let seen = last_request(&gateway);
        assert_eq!(
            seen.json(),
            json!({"anthropic_version": "vertex-2023-10-16", "max_tokens": 5, "messages": said, "stream": stream})
        );
        assert_eq!(
            seen.header("anthropic-beta"),
            Some("interleaved-thinking-2025-05-14")
        );
        let path = if stream {
            "streamRawPredict"
        } else {
            "rawPredict"
        };
        assert_eq!(seen.path, format!("{claude}:{path}"));
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains("Hi") && text.contains(r#""cost":"#), "{text}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_token_nothing_is_sent_and_nothing_is_owed() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let refused = Script::error(400).raw(r#"{"error":"invalid_grant"}"#);
    gateway.provider.script("/v1/token", refused);
    let customer = gateway.customer(PLENTY).await;
    let asked = chat("gem-vertex", json!({"max_tokens": 5}));
    let answer = gateway.chat(&customer, asked).await.expect(502).json();
    assert_eq!(answer["error"]["code"], "upstream_error");
    let message = answer["error"]["message"].as_str().unwrap();
    assert!(message.contains("operator"), "{message}");
    assert_eq!(last_request(&gateway).path, "/v1/token");
    assert_eq!(gateway.settled_balance(&customer).await, credits(PLENTY));
    gateway.finish().await;
}
