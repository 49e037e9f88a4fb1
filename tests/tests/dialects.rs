//! Cohere's, Ollama's, Google's and Bedrock's dialects from end to end: a client speaks OpenAI's, the scripted provider theirs.

use billing::Credits;
use mock_provider::{Cut, Script};
use serde_json::{Value, json};
use tests::{
    Books, CANARY_PROVIDER_KEY, Gateway, PROMPT_TOKENS, chat, count_tokens, credits, streamed,
    tokens_cost,
};

/// Far more credit than any of these needs.
const PLENTY: &str = "10";

/// What a provider of a dialect sends. Every model costs what `m` does.
struct Speaker {
    model: &'static str,
    path: &'static str,
    stream_path: &'static str,
    content_type: &'static str,
    /// The events before what is said.
    begins: fn() -> Vec<u8>,
    says: fn(&str) -> Vec<u8>,
    calls: fn() -> Vec<u8>,
    /// The end, with the counts of the prompt and the output; with a call before it or without.
    ends: fn(u64, u64, bool) -> Vec<u8>,
    fails: fn() -> Vec<u8>,
    plain: fn(&str, u64, u64) -> Value,
    /// The arguments in the request that the call goes back in.
    sent_back: fn(&Value) -> Value,
}

fn sse(event: &Value) -> Vec<u8> {
    format!(
        "event: {}\ndata: {event}\n\n",
        event["type"].as_str().unwrap_or("x")
    )
    .into_bytes()
}

fn line(line: &Value) -> Vec<u8> {
    format!("{line}\n").into_bytes()
}

const COHERE: Speaker = Speaker {
    model: "command",
    path: "/v1/chat",
    stream_path: "/v1/chat",
    content_type: "text/event-stream",
    begins: || {
        let message = json!({"role": "assistant", "content": [], "tool_plan": "", "tool_calls": [], "citations": []});
        let text = json!({"message": {"content": {"type": "text", "text": ""}}});
        [
            sse(&json!({"id": "c-1", "type": "message-start", "delta": {"message": message}})),
            sse(&json!({"type": "content-start", "index": 0, "delta": text})),
        ]
        .concat()
    },
    says: |text| {
        sse(
            &json!({"type": "content-delta", "index": 0, "delta": {"message": {"content": {"text": text}}}}),
        )
    },
    calls: || {
        let call = |arguments: &str| json!({"message": {"tool_calls": {"id": "now_1", "type": "function", "function": {"name": "now", "arguments": arguments}}}});
        let part = json!({"message": {"tool_calls": {"function": {"arguments": "{\"at\":1}"}}}});
        [
            sse(&json!({"type": "tool-call-start", "index": 0, "delta": call("")})),
            sse(&json!({"type": "tool-call-delta", "index": 0, "delta": part})),
            sse(&json!({"type": "tool-call-end", "index": 0})),
        ]
        .concat()
    },
    ends: |input, output, called| {
        let reason = if called { "TOOL_CALL" } else { "COMPLETE" };
        let usage = json!({"billed_units": {"input_tokens": input, "output_tokens": output}, "tokens": {"input_tokens": input + 500, "output_tokens": output + 3}});
        sse(&json!({"type": "message-end", "delta": {"finish_reason": reason, "usage": usage}}))
    },
    fails: || {
        sse(&json!({"type": "message-end", "delta": {"finish_reason": "ERROR", "error": "no"}}))
    },
    plain: |text, input, output| {
        json!({"id": "c-2", "message": {"role": "assistant", "content": [{"type": "text", "text": text}]}, "finish_reason": "COMPLETE",
            "usage": {"billed_units": {"input_tokens": input, "output_tokens": output}, "tokens": {"input_tokens": input + 500, "output_tokens": output}}})
    },
    sent_back: |wire| {
        let arguments = &wire["messages"][1]["tool_calls"][0]["function"]["arguments"];
        serde_json::from_str(arguments.as_str().unwrap()).unwrap()
    },
};

const OLLAMA: Speaker = Speaker {
    model: "local",
    path: "/v1/api/chat",
    stream_path: "/v1/api/chat",
    content_type: "application/x-ndjson",
    begins: Vec::new,
    says: |text| {
        line(
            &json!({"model": "local", "message": {"role": "assistant", "content": text}, "done": false}),
        )
    },
    calls: || {
        let call = json!({"function": {"name": "now", "arguments": {"at": 1}}});
        line(
            &json!({"model": "local", "message": {"role": "assistant", "content": "", "tool_calls": [call]}, "done": false}),
        )
    },
    ends: |input, output, _| {
        line(
            &json!({"model": "local", "message": {"role": "assistant", "content": ""}, "done": true, "done_reason": "stop", "prompt_eval_count": input, "eval_count": output}),
        )
    },
    fails: || line(&json!({"error": "the runner ended"})),
    plain: |text, input, output| json!({"model": "local", "message": {"role": "assistant", "content": text}, "done": true, "done_reason": "stop", "prompt_eval_count": input, "eval_count": output}),
    sent_back: |wire| wire["messages"][1]["tool_calls"][0]["function"]["arguments"].clone(),
};

/// Google frames by CRLF and has no last event of its own.
fn crlf(event: &Value) -> Vec<u8> {
    format!("data: {event}\r\n\r\n").into_bytes()
}

/// An answer of Google's with one candidate.
fn candidate(parts: Value) -> Value {
    let content = json!({"role": "model", "parts": parts});
    json!({"candidates": [{"content": content, "index": 0}], "modelVersion": "gem", "responseId": "g-1"})
}

fn google_usage(input: u64, output: u64) -> Value {
    json!({"promptTokenCount": input, "candidatesTokenCount": output, "totalTokenCount": input + output})
}

const GEMINI: Speaker = Speaker {
    model: "gem",
    path: "/v1/models/gem:generateContent",
    stream_path: "/v1/models/gem:streamGenerateContent",
    content_type: "text/event-stream",
    begins: Vec::new,
    says: |text| crlf(&candidate(json!([{"text": text}]))),
    calls: || {
        crlf(&candidate(
            json!([{"functionCall": {"name": "now", "args": {"at": 1}}}]),
        ))
    },
    ends: |input, output, _| {
        let mut end = candidate(json!([{"text": ""}]));
        end["candidates"][0]["finishReason"] = json!("STOP");
        end["usageMetadata"] = google_usage(input, output);
        crlf(&end)
    },
    fails: || crlf(&json!({"error": {"code": 503, "message": "secret", "status": "UNAVAILABLE"}})),
    plain: |text, input, output| {
        let mut answer = candidate(json!([{"text": text}]));
        answer["candidates"][0]["finishReason"] = json!("STOP");
        answer["usageMetadata"] = google_usage(input, output);
        answer
    },
    sent_back: |wire| wire["contents"][1]["parts"][0]["functionCall"]["args"].clone(),
};

const BEDROCK: Speaker = Speaker {
    model: "nova",
    path: "/v1/model/nova/converse",
    stream_path: "/v1/model/nova/converse-stream",
    content_type: "application/vnd.amazon.eventstream",
    begins: || frame("event", "messageStart", &json!({"role": "assistant"})),
    says: |text| {
        let delta = json!({"contentBlockIndex": 0, "delta": {"text": text}});
        frame("event", "contentBlockDelta", &delta)
    },
    calls: || {
        let begun = json!({"contentBlockIndex": 1, "start": {"toolUse": {"toolUseId": "t-1", "name": "now"}}});
        let part = json!({"contentBlockIndex": 1, "delta": {"toolUse": {"input": "{\"at\":1}"}}});
        [
            frame("event", "contentBlockStart", &begun),
            frame("event", "contentBlockDelta", &part),
            frame(
                "event",
                "contentBlockStop",
                &json!({"contentBlockIndex": 1}),
            ),
        ]
        .concat()
    },
    ends: |input, output, called| {
        let reason = if called { "tool_use" } else { "end_turn" };
        let usage =
            json!({"inputTokens": input, "outputTokens": output, "totalTokens": input + output});
        [
            frame("event", "messageStop", &json!({"stopReason": reason})),
            frame(
                "event",
                "metadata",
                &json!({"usage": usage, "metrics": {"latencyMs": 1}}),
            ),
        ]
        .concat()
    },
    fails: || {
        frame(
            "exception",
            "throttlingException",
            &json!({"message": "slow down"}),
        )
    },
    plain: |text, input, output| {
        json!({"output": {"message": {"role": "assistant", "content": [{"text": text}]}}, "stopReason": "end_turn",
            "usage": {"inputTokens": input, "outputTokens": output, "totalTokens": input + output}})
    },
    sent_back: |wire| wire["messages"][1]["content"][0]["toolUse"]["input"].clone(),
};

/// A frame of AWS's event stream.
fn frame(kind: &str, name: &str, data: &Value) -> Vec<u8> {
    let mut head = Vec::new();
    for (key, value) in [(":message-type", kind), (&format!(":{kind}-type"), name)] {
        head.push(u8::try_from(key.len()).unwrap());
        head.extend(key.as_bytes());
        head.push(7);
        head.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        head.extend(value.as_bytes());
    }
    let payload = data.to_string();
    let total = u32::try_from(16 + head.len() + payload.len()).unwrap();
    let mut out = total.to_be_bytes().to_vec();
    out.extend(u32::try_from(head.len()).unwrap().to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(head);
    out.extend(payload.as_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

const SPEAKERS: [Speaker; 4] = [COHERE, OLLAMA, GEMINI, BEDROCK];

impl Speaker {
    /// A stream that says this many words of a token each.
    fn said(&self, words: u64) -> Script {
        let says = (0..words).flat_map(|_| (self.says)(" the"));
        self.script([(self.begins)(), says.collect()].concat())
    }

    fn script(&self, bytes: Vec<u8>) -> Script {
        let script = Script::new().header("content-type", self.content_type);
        script.always_stream().raw(bytes)
    }

    fn plays(&self, gateway: &Gateway, script: Script) {
        gateway.provider.script(self.stream_path, script);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_and_a_plain_answer_are_charged_as_reported() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for speaker in SPEAKERS {
        let customer = gateway.customer(PLENTY).await;
        let end = (speaker.ends)(41, 17, false);
        speaker.plays(&gateway, speaker.said(3).raw(end).split(5));
        let events = gateway
            .stream(&customer, streamed(speaker.model))
            .await
            .rest()
            .await;
        assert_eq!(events.text(), " the the the", "{}", speaker.model);
        assert_eq!(events.finish_reasons(), ["stop"]);
        assert!(events.error().is_none() && events.is_done());
        assert_eq!(events.usages()[0]["total_tokens"], 58);
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["charged"], json!(tokens_cost(58)));
        assert_eq!(charge["usage_source"], "reported");
        for chunk in events.chunks() {
            assert_eq!(chunk["model"], speaker.model);
            assert!(chunk["created"].as_u64().unwrap() > 1_700_000_000);
        }
        let seen = gateway.provider.requests().pop().unwrap();
        assert_eq!(seen.path.split('?').next(), Some(speaker.stream_path));
        let key = format!("Bearer {CANARY_PROVIDER_KEY}");
        assert_eq!(seen.header("authorization"), Some(key.as_str()));

        let plain = (speaker.plain)("Hello", 41, 2).to_string();
        gateway
            .provider
            .script(speaker.path, Script::new().raw(plain));
        let customer = gateway.customer(PLENTY).await;
        let body = chat(speaker.model, json!({"max_tokens": 50}));
        let answer = gateway.chat(&customer, body).await.expect(200).json();
        assert_eq!(answer["object"], "chat.completion");
        assert_eq!(answer["model"], speaker.model);
        assert_eq!(answer["choices"][0]["message"]["content"], "Hello");
        assert_eq!(answer["usage"]["cost"], json!(tokens_cost(43)));
        let charge = gateway.charge(&customer).await;
        assert_eq!(charge["charged"], json!(tokens_cost(43)));
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tools_are_called_and_answered() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for speaker in SPEAKERS {
        let customer = gateway.customer(PLENTY).await;
        let bytes = [
            (speaker.begins)(),
            (speaker.calls)(),
            (speaker.ends)(9, 9, true),
        ]
        .concat();
        speaker.plays(&gateway, speaker.script(bytes));
        let tools = json!([{"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {"at": {"type": "integer"}}}}}]);
        let body = chat(speaker.model, json!({"stream": true, "tools": tools}));
        let events = gateway.stream(&customer, body).await.rest().await;
        assert_eq!(events.finish_reasons(), ["tool_calls"], "{}", speaker.model);
        let (mut id, mut arguments) = (String::new(), String::new());
        for chunk in events.chunks() {
            for call in chunk["choices"][0]["delta"]["tool_calls"]
                .as_array()
                .into_iter()
                .flatten()
            {
                id.push_str(call["id"].as_str().unwrap_or_default());
                arguments.push_str(call["function"]["arguments"].as_str().unwrap());
            }
        }
        assert_eq!(arguments, "{\"at\":1}");
        let plain = (speaker.plain)("Noon.", 9, 2).to_string();
        gateway
            .provider
            .script(speaker.path, Script::new().raw(plain));
        let call = json!({"id": id, "type": "function", "function": {"name": "now", "arguments": arguments}});
        let body = json!({"model": speaker.model, "tools": tools, "max_tokens": 50, "messages": [
            {"role": "user", "content": "When?"},
            {"role": "assistant", "content": null, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": id, "content": "noon"}]});
        let answer = gateway.chat(&customer, body).await.expect(200).json();
        assert_eq!(answer["choices"][0]["message"]["content"], "Noon.");
        let wire = gateway.provider.requests().pop().unwrap().json();
        assert_eq!((speaker.sent_back)(&wire), json!({"at": 1}), "{wire}");
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn c9_credit_for_n_tokens_delivers_n_in_every_dialect() {
    for books in Books::ALL {
        let gateway = Gateway::start(books).await;
        for speaker in SPEAKERS {
            for n in [1, 17, 200] {
                speaker.plays(&gateway, speaker.said(n + 1).gate("never"));
                let customer = gateway.customer(tokens_cost(PROMPT_TOKENS + n)).await;
                let events = gateway
                    .stream(&customer, streamed(speaker.model))
                    .await
                    .rest()
                    .await;
                assert_eq!(count_tokens(&events.text()), n, "{}", speaker.model);
                let error = events.error().unwrap();
                assert_eq!(error["code"], "insufficient_quota");
                assert_eq!(error["usage"]["completion_tokens"], n);
                assert!(events.is_done() && events.finish_reasons().is_empty());
                assert_eq!(gateway.settled_balance(&customer).await, Credits::ZERO);
                let charge = gateway.charge(&customer).await;
                assert_eq!(charge["end"], "credits_exhausted");
                assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + n)));
            }
        }
        gateway.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_fails_or_breaks_never_looks_whole() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for speaker in SPEAKERS {
        for script in [
            speaker.said(6).raw((speaker.fails)()),
            speaker.said(6).raw("garbage\n\ndata: garbage\n\n"),
            speaker.said(6).cut(Cut::Close),
            speaker.said(6),
        ] {
            speaker.plays(&gateway, script);
            let customer = gateway.customer(PLENTY).await;
            let events = gateway
                .stream(&customer, streamed(speaker.model))
                .await
                .rest()
                .await;
            assert_eq!(count_tokens(&events.text()), 6, "{}", speaker.model);
            assert_eq!(events.error().unwrap()["code"], "upstream_error");
            assert!(events.finish_reasons().is_empty() && events.is_done());
            let charge = gateway.charge(&customer).await;
            assert_eq!(charge["end"], "upstream_failed");
            assert_eq!(charge["charged"], json!(tokens_cost(PROMPT_TOKENS + 6)));
        }
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_before_it_begins_has_a_status_and_costs_nothing() {
    let gateway = Gateway::start(Books::Sqlite).await;
    for speaker in SPEAKERS {
        let customer = gateway.customer(PLENTY).await;
        let refusal = |status| Script::error(status).raw(r#"{"message":"secret words"}"#);
        for (script, status) in [
            (refusal(400), 400),
            (refusal(401), 502),
            (refusal(429), 429),
            (refusal(500), 502),
            (speaker.script((speaker.fails)()), 502),
            (
                Script::new()
                    .header("content-type", "text/html")
                    .always_stream()
                    .raw("<p>"),
                502,
            ),
        ] {
            speaker.plays(&gateway, script);
            let answer = gateway.chat(&customer, streamed(speaker.model)).await;
            assert_eq!(answer.status, status, "{}", speaker.model);
            assert!(!String::from_utf8_lossy(&answer.body).contains("secret"));
        }
        assert_eq!(gateway.settled_balance(&customer).await, credits(PLENTY));
    }
    gateway.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_requests_to_bedrock_are_signed() {
    let gateway = Gateway::start(Books::Sqlite).await;
    let customer = gateway.customer(PLENTY).await;
    let plain = (BEDROCK.plain)("Hello", 41, 2).to_string();
    let path = "/v1/model/nova-signed/converse";
    gateway.provider.script(path, Script::new().raw(plain));
    let body = chat("nova-signed", json!({"max_tokens": 50}));
    let _ = gateway.chat(&customer, body).await.expect(200);
    let seen = gateway.provider.requests().pop().unwrap();
    let authorization = seen.header("authorization").unwrap();
    let (start, rest) = authorization.split_once('/').unwrap();
    assert_eq!(start, "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE");
    let scope =
        "/us-east-1/bedrock/aws4_request, SignedHeaders=content-type;host;x-amz-date, Signature=";
    let (day, signature) = rest.split_once(scope).unwrap();
    assert_eq!((day.len(), signature.len()), (8, 64));
    assert!(seen.header("x-amz-date").unwrap().starts_with(day));
    assert!(!authorization.contains(CANARY_PROVIDER_KEY));
    gateway.finish().await;
}
