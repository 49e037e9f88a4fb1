//! Oddities of providers that follow OpenAI, each met by the built-in file of its provider: no Rust knows their names.
//!
//! The streams are written after recordings of the vercel/ai project (Apache-2.0) and the providers'
//! own documents.

use std::sync::Arc;

use bytes::Bytes;
use dialect::{
    ChatRequest, DecodeError, Delta, Dialect, Edit, Ending, Features, Quirks, RequestLimits,
    TextKind,
};
use tokens::Usage;

/// The quirks that a built-in provider file has.
fn quirks_of(provider: &str) -> Quirks {
    let path = format!(
        "{}/../../providers/{provider}.toml",
        env!("CARGO_MANIFEST_DIR")
    );
    let file: toml::Table = toml::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    file.get("quirks")
        .map_or_else(Quirks::default, |quirks| quirks.clone().try_into().unwrap())
}

struct Row {
    provider: &'static str,
    stream: &'static str,
    said: &'static str,
    thought: &'static str,
    usage: Usage,
}

fn usage(prompt: u64, cached_prompt: u64, completion: u64, reasoning: u64) -> Usage {
    Usage {
        prompt,
        cached_prompt,
        completion,
        reasoning,
        ..Usage::default()
    }
}

fn rows() -> Vec<Row> {
    vec![
        // The first chunk has no choices, only what the content filter thinks of the prompt.
        Row {
            provider: "azure-openai",
            stream: concat!(
                r#"data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{}}]}"#,
                "\n\n",
                r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"},"finish_reason":null,"content_filter_results":{}}],"id":"c"}"#,
                "\n\n",
                r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"id":"c"}"#,
                "\n\n",
                r#"data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#,
                "\n\ndata: [DONE]\n\n",
            ),
            said: "Hi",
            thought: "",
            usage: usage(9, 0, 2, 0),
        },
        // The content is a list of parts, of which some think.
        Row {
            provider: "mistral",
            stream: concat!(
                r#"data: {"choices":[{"index":0,"delta":{"content":[{"type":"thinking","thinking":[{"type":"text","text":"Hm."}]}]}}]}"#,
                "\n\n",
                r#"data: {"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"Hi"}]}}]}"#,
                "\n\n",
                r#"data: {"choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"total_tokens":14,"completion_tokens":5}}"#,
                "\n\ndata: [DONE]\n\n",
            ),
            said: "Hi!",
            thought: "Hm.",
            usage: usage(9, 0, 5, 0),
        },
        // Usage stands under a name of its own, and in newer answers under both.
        Row {
            provider: "groq",
            stream: concat!(
                r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":"Hi"}}],"x_groq":{"id":"req_1"}}"#,
                "\n\n",
                r#"data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"x_groq":{"id":"req_1","usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11,"queue_time":0.1}}}"#,
                "\n\ndata: [DONE]\n\n",
            ),
            said: "Hi",
            thought: "",
            usage: usage(9, 0, 2, 0),
        },
        // Every chunk has the usage so far: the last one counts, never the sum.
        Row {
            provider: "perplexity",
            stream: concat!(
                r#"data: {"choices":[{"index":0,"delta":{"content":"Hi"},"message":{"content":"Hi"}}],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}"#,
                "\n\n",
                r#"data: {"choices":[{"index":0,"delta":{"content":" you"},"message":{"content":"Hi you"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#,
                "\n\n",
            ),
            said: "Hi you",
            thought: "",
            usage: usage(9, 0, 2, 0),
        },
        // The completion leaves the reasoning out: what is billed is the total less the prompt.
        Row {
            provider: "xai",
            stream: concat!(
                r#"data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]}"#,
                "\n\n",
                r#"data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}"#,
                "\n\n",
                r#"data: {"choices":[],"usage":{"prompt_tokens":12,"completion_tokens":2,"total_tokens":242,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":228}}}"#,
                "\n\ndata: [DONE]\n\n",
            ),
            said: "Hi",
            thought: "Hm.",
            usage: usage(8, 4, 2, 228),
        },
        // Comments keep the line open, and cache hits have a name of their own.
        Row {
            provider: "deepseek",
            stream: concat!(
                ": keep-alive\n\n: keep-alive\n\n",
                r#"data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":"Hm."}}],"usage":null}"#,
                "\n\n: keep-alive\n\n",
                r#"data: {"choices":[{"index":0,"delta":{"content":"Hi","reasoning_content":null},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":3,"total_tokens":23,"prompt_cache_hit_tokens":15,"prompt_cache_miss_tokens":5}}"#,
                "\n\ndata: [DONE]\n\n",
            ),
            said: "Hi",
            thought: "Hm.",
            usage: usage(5, 15, 3, 0),
        },
    ]
}

#[test]
fn each_provider_is_read_by_its_own_file() {
    for row in rows() {
        let mut framer = Dialect::OpenAi.framing().framer(1 << 20);
        let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks_of(row.provider)), 0);
        framer.push(Bytes::from_static(row.stream.as_bytes()));
        let mut out = Vec::new();
        while let Some(event) = framer.next() {
            decoder.push(event.unwrap(), &mut out).unwrap();
        }
        let (mut said, mut thought) = (String::new(), String::new());
        for delta in &out {
            if let Delta::Chunk(chunk) = delta {
                for text in chunk.texts() {
                    match text.kind {
                        TextKind::Content => said.push_str(text.text),
                        TextKind::Reasoning => thought.push_str(text.text),
                        TextKind::ToolCall | TextKind::Refusal | TextKind::Audio => {
                            panic!("{text:?}")
                        }
                    }
                }
            }
        }
        assert_eq!(
            (said.as_str(), thought.as_str()),
            (row.said, row.thought),
            "{}",
            row.provider
        );
        assert_eq!(decoder.usage(), Some(Ok(row.usage)), "{}", row.provider);
        assert_ne!(decoder.ending(), Ending::Cut, "{}", row.provider);
    }
}

#[test]
fn openrouters_error_in_a_200_is_an_error() {
    let quirks = quirks_of("openrouter");
    let body = r#"{"error":{"code":502,"message":"Provider returned error"},"user_id":"u"}"#;
    let read = Dialect::OpenAi.decode(Bytes::from_static(body.as_bytes()), &quirks, 0);
    assert!(matches!(read, Err(DecodeError::Upstream(error)) if error.status == Some(502)));
    let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks), 0);
    let mut out = Vec::new();
    let late = r#"{"id":"g","choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}],"error":{"code":429,"message":"slow"}}"#;
    let event = dialect::SseEvent::data(Bytes::from_static(late.as_bytes()));
    decoder.push(event, &mut out).unwrap();
    assert!(matches!(&out[..], [Delta::Error(error)] if error.status == Some(429)));
    assert_eq!(decoder.ending(), Ending::Cut);
}

/// The older address of Azure, with the deployment in the path and the version in the query, is a
/// line of quirks.
#[test]
fn azures_deployments_are_a_path() {
    let quirks: Quirks = toml::from_str(
        r#"path = "/openai/deployments/{model}/chat/completions?api-version=2024-10-21""#,
    )
    .unwrap();
    let body = br#"{"model":"m","messages":[{"role":"user","content":"hi"}]}"#;
    let request = ChatRequest::parse(body, &RequestLimits::default()).unwrap();
    let edit = Edit {
        upstream_model: "my deployment",
        output_limit: None,
        output_tokens_max: 100,
        features: &Features::PLAIN,
        ask_stream_usage: true,
    };
    let wire = Dialect::OpenAi.encode(&request, &edit, &quirks).unwrap();
    assert_eq!(
        wire.path,
        "/openai/deployments/my%20deployment/chat/completions?api-version=2024-10-21"
    );
}
