//! Golden streams and answers: a provider's bytes in, deltas, usage and client bytes out.
//!
//! Every fixture is written for this test after the shape of a recording in the vercel/ai project
//! (Apache-2.0), which is named beside it, or after the document that is.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use dialect::{
    Bill, ChunkTemplate, Delta, Dialect, ErrorBody, Quirks, SseEvent, SseFramer, UsageFault,
    usage_json,
};
use proptest::prelude::*;
use serde_json::value::RawValue;
use tokens::{Usage, UsageSource};

/// One stream, as its bytes come from upstream.
struct Case {
    name: &'static str,
    quirks: &'static str,
    upstream: &'static str,
}

const CASES: &[Case] = &[
    // openai/src/chat/openai-text: null usage in every chunk, a usage chunk at the end.
    Case {
        name: "openai",
        quirks: "",
        upstream: r#"data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4.1-nano","service_tier":"default","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"Qu"}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4.1-nano","choices":[{"index":0,"delta":{"content":"Hi \u00e9\n"},"logprobs":null,"finish_reason":null}],"usage":null,"obfuscation":"y"}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4.1-nano","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}],"usage":null}

data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"gpt-4.1-nano","choices":[],"usage":{"prompt_tokens":16,"completion_tokens":3,"total_tokens":19,"prompt_tokens_details":{"cached_tokens":0,"audio_tokens":0},"completion_tokens_details":{"reasoning_tokens":0,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"obfuscation":"h9"}

data: [DONE]

"#,
    },
    // openai/src/chat/azure-model-router: filter results first, without id; members in another order.
    Case {
        name: "azure",
        quirks: "",
        upstream: r#"data: {"choices":[],"created":0,"id":"","model":"","object":"","prompt_filter_results":[{"prompt_index":0,"content_filter_results":{"hate":{"filtered":false,"severity":"safe"}}}]}

data: {"choices":[{"content_filter_results":{},"delta":{"content":"Copenhagen","refusal":null,"role":"assistant"},"finish_reason":null,"index":0,"logprobs":null}],"created":2,"id":"chatcmpl-2","model":"gpt-5-nano","obfuscation":"D3","object":"chat.completion.chunk","system_fingerprint":null,"usage":null}

data: {"choices":[{"content_filter_results":{},"delta":{},"finish_reason":"stop","index":0,"logprobs":null}],"created":2,"id":"chatcmpl-2","model":"gpt-5-nano","object":"chat.completion.chunk","usage":null}

data: {"choices":[],"created":2,"id":"chatcmpl-2","model":"gpt-5-nano","object":"chat.completion.chunk","usage":{"completion_tokens":78,"completion_tokens_details":{"accepted_prediction_tokens":0,"audio_tokens":0,"reasoning_tokens":64,"rejected_prediction_tokens":0},"prompt_tokens":15,"prompt_tokens_details":{"audio_tokens":0,"cached_tokens":0},"total_tokens":93}}

data: [DONE]

"#,
    },
    // groq/groq-tool-call: usage twice in the last chunk, beside choices.
    Case {
        name: "groq",
        quirks: "usage_at = ['/usage', '/x_groq/usage']",
        upstream: r#"data: {"id":"chatcmpl-3","object":"chat.completion.chunk","created":3,"model":"llama","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":null},"logprobs":null,"finish_reason":null}],"x_groq":{"id":"req_1","seed":6}}

data: {"id":"chatcmpl-3","object":"chat.completion.chunk","created":3,"model":"llama","choices":[{"index":0,"delta":{"tool_calls":[{"id":"tk8","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Bern\"}"},"index":0}]},"logprobs":null,"finish_reason":null}]}

data: {"id":"chatcmpl-3","object":"chat.completion.chunk","created":3,"model":"llama","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls"}],"x_groq":{"id":"req_1","usage":{"queue_time":0.04,"prompt_tokens":210,"completion_tokens":15,"total_tokens":225,"total_time":0.057}},"usage":{"queue_time":0.04,"prompt_tokens":210,"completion_tokens":15,"total_tokens":225,"total_time":0.057}}

data: [DONE]

"#,
    },
    // deepseek/deepseek-reasoning and -tool-call: reasoning_content, cache hits and misses.
    Case {
        name: "deepseek",
        quirks: "",
        upstream: r#"data: {"id":"cca","object":"chat.completion.chunk","created":4,"model":"deepseek-reasoner","system_fingerprint":"fp","choices":[{"index":0,"delta":{"role":"assistant","content":null,"reasoning_content":""},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"cca","object":"chat.completion.chunk","created":4,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":null,"reasoning_content":"The user"},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"cca","object":"chat.completion.chunk","created":4,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":"Hello","reasoning_content":null},"logprobs":null,"finish_reason":null}],"usage":null}

data: {"id":"cca","object":"chat.completion.chunk","created":4,"model":"deepseek-reasoner","choices":[{"index":0,"delta":{"content":"","reasoning_content":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":339,"completion_tokens":83,"total_tokens":422,"prompt_tokens_details":{"cached_tokens":320},"completion_tokens_details":{"reasoning_tokens":39},"prompt_cache_hit_tokens":320,"prompt_cache_miss_tokens":19}}

data: [DONE]

"#,
    },
    // xai/xai-text: reasoning beside the completion.
    Case {
        name: "xai",
        quirks: "reasoning = 'beside'",
        upstream: r#"data: {"id":"732","object":"chat.completion.chunk","created":5,"model":"grok-3-mini","choices":[{"index":0,"delta":{"reasoning_content":"First","role":"assistant"}}],"system_fingerprint":"fp"}

data: {"id":"732","object":"chat.completion.chunk","created":5,"model":"grok-3-mini","choices":[{"index":0,"delta":{"content":"Hello"}}],"system_fingerprint":"fp"}

data: {"id":"732","object":"chat.completion.chunk","created":5,"model":"grok-3-mini","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"system_fingerprint":"fp"}

data: {"id":"732","object":"chat.completion.chunk","created":5,"model":"grok-3-mini","choices":[],"usage":{"prompt_tokens":12,"completion_tokens":1,"total_tokens":303,"prompt_tokens_details":{"text_tokens":12,"audio_tokens":0,"image_tokens":0,"cached_tokens":11},"completion_tokens_details":{"reasoning_tokens":290,"audio_tokens":0,"accepted_prediction_tokens":0,"rejected_prediction_tokens":0},"num_sources_used":0,"cost_in_usd_ticks":1466250},"system_fingerprint":"fp"}

data: [DONE]

"#,
    },
    // mistral/mistral-reasoning: content as a list of parts.
    Case {
        name: "mistral",
        quirks: "usage_how = 'always'",
        upstream: r#"data: {"id":"a4e","object":"chat.completion.chunk","created":6,"model":"magistral","choices":[{"index":0,"delta":{"role":"assistant","content":[{"type":"thinking","thinking":[{"type":"text","text":"2+2"}]}]},"finish_reason":null}]}

data: {"id":"a4e","object":"chat.completion.chunk","created":6,"model":"magistral","choices":[{"index":0,"delta":{"content":[{"type":"text","text":"is "},{"type":"reference","reference_ids":[1]},{"type":"text","text":"4"}]},"finish_reason":null}]}

data: {"id":"a4e","object":"chat.completion.chunk","created":6,"model":"magistral","choices":[{"index":0,"delta":{"content":""},"finish_reason":"stop"}],"usage":{"prompt_tokens":10,"total_tokens":56,"completion_tokens":46}}

data: [DONE]

"#,
    },
    // perplexity/perplexity-text: usage so far in every chunk, no [DONE], another `object` at the end;
    // the whole message so far beside the delta, as its API reference had it.
    Case {
        name: "perplexity",
        quirks: "usage_how = 'always'",
        upstream: r#"data: {"id":"a3d","model":"sonar","created":7,"usage":{"prompt_tokens":11,"completion_tokens":1,"total_tokens":12},"citations":["https://a.example"],"object":"chat.completion.chunk","choices":[{"index":0,"message":{"role":"assistant","content":"Eco"},"delta":{"role":"assistant","content":"Eco"}}]}

data: {"id":"a3d","model":"sonar","created":7,"usage":{"prompt_tokens":11,"completion_tokens":3,"total_tokens":14,"cost":{"total_cost":0.005}},"citations":["https://a.example"],"object":"chat.completion.done","choices":[{"index":0,"message":{"role":"assistant","content":"Eco[5]"},"delta":{"role":"assistant","content":"[5]"},"finish_reason":"stop"}]}

"#,
    },
    // moonshotai/moonshotai-stream, and usage inside the choice as Moonshot's API reference has it.
    Case {
        name: "moonshot",
        quirks: "usage_at = ['/usage', '/choices/0/usage']",
        upstream: r#"data: {"id":"chatcmpl-8","created":8,"model":"kimi","choices":[{"index":0,"delta":{"role":"assistant","reasoning_content":"Thinking "},"finish_reason":null}]}

data: {"id":"chatcmpl-8","created":8,"model":"kimi","choices":[{"index":0,"delta":{"content":"!"},"finish_reason":"stop","usage":{"prompt_tokens":20,"completion_tokens":30,"total_tokens":50,"cached_tokens":10,"completion_tokens_details":{"reasoning_tokens":22}}}]}

data: [DONE]

"#,
    },
    // OpenRouter's documents: comments while waiting, the same reasoning under two names, its own
    // cost, and an error after output began.
    Case {
        name: "openrouter",
        quirks: "",
        upstream: r#": OPENROUTER PROCESSING

data: {"id":"gen-1","provider":"X","model":"a/b","object":"chat.completion.chunk","created":9,"choices":[{"index":0,"delta":{"role":"assistant","content":"","reasoning":"Hm","reasoning_details":[{"type":"reasoning.text","text":"Hm"}]},"finish_reason":null,"native_finish_reason":null}]}

data: {"id":"gen-1","provider":"X","model":"a/b","object":"chat.completion.chunk","created":9,"choices":[{"index":0,"delta":{"role":"assistant","content":"Yes"},"finish_reason":null}],"usage":{"prompt_tokens":4,"completion_tokens":2,"total_tokens":6,"cost":0.00014,"cost_details":{"upstream_inference_cost":0.0001}}}

data: {"id":"gen-1","provider":"X","error":{"code":"server_error","message":"Provider disconnected"},"choices":[{"index":0,"delta":{"content":""},"finish_reason":"error"}]}

"#,
    },
    // llama.cpp and friends: nobody reports usage; n = 2; a call by the old name; a refusal; a text
    // with half a surrogate pair, as tokens that end inside an emoji are sent by some.
    Case {
        name: "unreported",
        quirks: "usage_how = 'never'",
        upstream: r#"data: {"id":"c","object":"chat.completion.chunk","created":10,"model":"l","choices":[{"index":0,"delta":{"content":"a\ud83d"}},{"index":1,"delta":{"refusal":"no"}}]}

data: {"id":"c","object":"chat.completion.chunk","created":10,"model":"l","choices":[{"delta":{"function_call":{"name":"f","arguments":{"x":1}}},"finish_reason":"function_call","index":1}]}

data: {"type":"ping"}

data: {"id":"c","object":"chat.completion.chunk","created":10,"model":"l","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}

"#,
    },
    // A report that cannot be billed.
    Case {
        name: "faulty",
        quirks: "",
        upstream: r#"data: {"id":"c","object":"chat.completion.chunk","created":11,"model":"l","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":-5,"completion_tokens":1}}

data: [DONE]

"#,
    },
];

fn events(upstream: &[u8]) -> Vec<SseEvent> {
    let mut framer = SseFramer::default();
    framer.push(Bytes::copy_from_slice(upstream));
    let mut events = Vec::new();
    while let Some(event) = framer.next() {
        events.push(event.unwrap());
    }
    while let Some(event) = framer.finish() {
        events.push(event.unwrap());
    }
    events
}

fn show(usage: Option<Result<Usage, UsageFault>>) -> String {
    match usage {
        None => String::from("none"),
        Some(Err(fault)) => format!("fault: {fault}"),
        Some(Ok(usage)) => {
            let json = serde_json::to_value(usage).unwrap();
            let some = json
                .as_object()
                .unwrap()
                .iter()
                .filter(|(_, count)| **count != 0);
            some.map(|(name, count)| format!("{name} {count}"))
                .collect::<Vec<_>>()
                .join(", ")
        }
    }
}

fn utf8(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8(bytes.as_ref().to_vec()).unwrap()
}

const COUNTED: Usage = Usage {
    prompt: 1,
    completion: 2,
    cached_prompt: 0,
    cache_write_5m: 0,
    cache_write_1h: 0,
    audio_prompt: 0,
    image_prompt: 0,
    reasoning: 0,
    audio_completion: 0,
    image_completion: 0,
    images: 0,
    milliseconds: 0,
    characters: 0,
    searches: 0,
    pages: 0,
};

fn bill(usage: Option<Result<Usage, UsageFault>>) -> (Usage, UsageSource) {
    match usage {
        Some(Ok(usage)) => (usage, UsageSource::Reported),
        Some(Err(_)) | None => (COUNTED, UsageSource::Counted),
    }
}

/// What each event means, then what a client is sent who asked for usage, and one who did not.
fn render(case: &Case) -> String {
    let quirks: Quirks = toml::from_str(case.quirks).unwrap();
    let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks), 0);
    let (mut deltas, mut asked, mut not_asked) = (String::new(), String::new(), String::new());
    let mut out = Vec::new();
    for event in events(case.upstream.as_bytes()) {
        decoder.push(event, &mut out).unwrap();
        if out.is_empty() {
            writeln!(deltas, "skipped").unwrap();
        }
        for delta in out.drain(..) {
            let chunk = match delta {
                Delta::Done => {
                    writeln!(deltas, "done").unwrap();
                    continue;
                }
                Delta::Error(error) => {
                    writeln!(deltas, "error {error:?}").unwrap();
                    continue;
                }
                Delta::Chunk(chunk) => chunk,
            };
            write!(deltas, "chunk").unwrap();
            for text in chunk.texts() {
                write!(deltas, " | {} {:?} {:?}", text.choice, text.kind, text.text).unwrap();
            }
            let flags = [
                (chunk.finishes(), "finish"),
                (chunk.is_without_choices(), "no choices"),
            ];
            for (_, name) in flags.iter().filter(|(set, _)| *set) {
                write!(deltas, " | {name}").unwrap();
            }
            if let Some(usage) = chunk.usage() {
                write!(deltas, " | usage {}", show(Some(usage))).unwrap();
            }
            writeln!(deltas).unwrap();
            let (usage, source) = bill(chunk.usage());
            let bill = Bill {
                usage: &usage,
                source,
                cost: "0.0001",
                cost_details: None,
            };
            let shown = if chunk.usage().is_some() {
                chunk.with_bill(&bill)
            } else {
                chunk.json().clone()
            };
            writeln!(asked, "{}", utf8(shown)).unwrap();
            match chunk.without_usage() {
                Some(json) => writeln!(not_asked, "{}", utf8(json)).unwrap(),
                None => writeln!(not_asked, "(nothing)").unwrap(),
            }
        }
    }
    let (usage, source) = bill(decoder.usage());
    let bill = Bill {
        usage: &usage,
        source,
        cost: "0.0001",
        cost_details: None,
    };
    let last = decoder
        .template()
        .cloned()
        .unwrap_or_default()
        .usage_chunk(&bill);
    format!(
        "{}---- quirks: {}\n---- deltas\n{deltas}---- end: {:?}, usage {}, skipped {}\n---- to a client that asked for usage\n{asked}---- to one that did not\n{not_asked}---- our own usage chunk\n{}\n",
        case.upstream,
        case.quirks,
        decoder.ending(),
        show(decoder.usage()),
        decoder.skipped(),
        utf8(last),
    )
}

#[test]
fn streams() {
    for case in CASES {
        insta::assert_snapshot!(format!("stream_{}", case.name), render(case));
    }
}

#[test]
fn answers() {
    let table = [
        // openai/src/chat/openai-text.json
        (
            "openai",
            "",
            r#"{"id":"chatcmpl-1", "object":"chat.completion","created":1,"model":"gpt-4.1-nano","choices":[{"index":0,"message":{"role":"assistant","content":"Hi\n","refusal":null,"annotations":[]},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":16,"completion_tokens":363,"total_tokens":379,"prompt_tokens_details":{"cached_tokens":8,"audio_tokens":0}},"service_tier":"default"}"#,
        ),
        // deepseek/deepseek-tool-call.json, and a usage object that is empty
        (
            "no_usage",
            "",
            r#"{"choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","content":"","reasoning_content":"Hm","tool_calls":[{"id":"1","type":"function","function":{"name":"weather","arguments":"{}"}}]}}], "usage": {} }"#,
        ),
        // perplexity/perplexity-text.json, with the cost that its API reference shows
        (
            "perplexity",
            "",
            r#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"cost":{"total_cost":0.005}}}"#,
        ),
        (
            "faulty",
            "",
            r#"{"choices":[{"message":{"content":"x"}}],"usage":{"prompt_tokens":"1","completion_tokens":2}}"#,
        ),
        (
            "absent",
            "",
            r#"{"choices":[{"message":{"content":null,"audio":{"id":"a","data":"AAAA","transcript":"spoken"}}}]}"#,
        ),
        (
            "elsewhere",
            "usage_at=['/x_groq/usage']",
            r#"{"choices":[],"x_groq":{"usage":{"prompt_tokens":1,"completion_tokens":2}}}"#,
        ),
    ];
    for (name, quirks, body) in table {
        let quirks: Quirks = toml::from_str(quirks).unwrap();
        let answer = Dialect::OpenAi
            .decode(Bytes::from(body), &quirks, 0)
            .unwrap();
        let texts: Vec<_> = answer.texts().map(|t| (t.choice, t.kind, t.text)).collect();
        let (usage, source) = bill(answer.usage());
        let details = RawValue::from_string(String::from(r#"{"prompt":"0.00005"}"#)).unwrap();
        let plain = Bill {
            usage: &usage,
            source,
            cost: "0.0001",
            cost_details: None,
        };
        let detailed = Bill {
            cost_details: Some(&details),
            ..plain
        };
        insta::assert_snapshot!(
            format!("answer_{name}"),
            format!(
                "{body}\n---- texts {texts:?}\n---- usage {}\n---- to the client\n{}\n---- with details\n{}\n",
                show(answer.usage()),
                utf8(answer.with_bill(&plain)),
                utf8(answer.with_bill(&detailed)),
            )
        );
    }
}

#[test]
fn a_200_that_is_no_answer_is_an_error() {
    let decode = |body: &'static str| {
        Dialect::OpenAi
            .decode(Bytes::from(body), &Quirks::default(), 0)
            .unwrap_err()
            .to_string()
    };
    for body in [
        "",
        "<html>",
        "[]",
        "null",
        "{}",
        "{\"choices\":null}",
        "{\"choices\":{}}",
        "{\"choices\":[7]}",
        "{\"choices\":[{\"message\":{\"content\":\"a\"}}",
        "[[],null,null,null]",
        "{\"choices\":[]}{}",
    ] {
        assert!(
            decode(body).starts_with("not a chat answer"),
            "{body}: {}",
            decode(body)
        );
    }
    for body in [
        r#"{"error":{"message":"no credit","code":402}}"#,
        r#"{"error":"no"}"#,
        r#"{"choices":[{"error":{"code":502},"message":{"content":"half"}}]}"#,
        r#"{"object":"error","message":"no","code":400}"#,
    ] {
        assert_eq!(
            decode(body),
            "the provider reported an error inside a successful answer"
        );
    }
    let fine = r#"{"error":null,"choices":[]}"#;
    assert!(
        Dialect::OpenAi
            .decode(Bytes::from(fine), &Quirks::default(), 0)
            .is_ok()
    );
}

#[test]
fn events_that_are_no_chunks() {
    let push = |event: SseEvent| {
        let mut out = Vec::new();
        let mut decoder = Dialect::OpenAi.decoder(Arc::default(), 0);
        decoder.push(event, &mut out).map(|()| out)
    };
    let data = |text: &'static str| SseEvent::data(Bytes::from(text));
    for garbage in [
        "garbage",
        "<html>",
        "{\"choices\":[{\"delta\":",
        "[1]",
        "{\"choices\":7}",
        "[DONE]x",
    ] {
        assert!(push(data(garbage)).is_err(), "{garbage}");
    }
    assert!(
        push(SseEvent::data(Bytes::from_static(
            b"{\"choices\":[\"\xff\"]}"
        )))
        .is_err()
    );
    for silent in ["", " ", "{\"type\":\"ping\"}", "{}"] {
        assert!(push(data(silent)).unwrap().is_empty(), "{silent}");
    }
    for error in [
        data(r#"{"error":{"message":"no","type":"server_error","code":500}}"#),
        SseEvent {
            event: Some(Bytes::from("error")),
            ..data(r#"{"message":"no","code":500}"#)
        },
        SseEvent {
            event: Some(Bytes::from("error")),
            ..data(r#"{"error":{"message":"no","status":500}}"#)
        },
        SseEvent {
            event: Some(Bytes::from("error")),
            ..data("no")
        },
        data(r#"{"object":"error","message":"no","code":500}"#),
    ] {
        match &push(error).unwrap()[..] {
            [Delta::Error(error)] => assert!(matches!(error.status, Some(500) | None)),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn errors_as_the_contract_has_them() {
    let body = ErrorBody {
        message: "Add \"credits\".",
        kind: "insufficient_quota",
        param: None,
        code: "insufficient_quota",
        metadata: Some(serde_json::json!({"reason": "credits_exhausted"})),
    };
    let bill = Bill {
        usage: &COUNTED,
        source: UsageSource::Counted,
        cost: "0.5",
        cost_details: None,
    };
    let plain = utf8(body.to_json().unwrap());
    let stream = utf8(body.to_stream_json(402, Some(&usage_json(&bill))).unwrap());
    let silent = utf8(body.to_stream_json(502, None).unwrap());
    insta::assert_snapshot!(format!("{plain}\n{stream}\n{silent}"));
    let template = ChunkTemplate::new("req_1", 5, "acme \"large\"");
    insta::assert_snapshot!("usage_chunk", utf8(template.usage_chunk(&bill)));
}

#[test]
fn usage_in_openais_shape_reads_back_as_the_same_buckets() {
    let usage = Usage {
        prompt: 1,
        cached_prompt: 2,
        cache_write_5m: 3,
        cache_write_1h: 0,
        audio_prompt: 4,
        image_prompt: 5,
        completion: 6,
        reasoning: 7,
        audio_completion: 8,
        image_completion: 9,
        ..Usage::default()
    };
    let bill = Bill {
        usage: &usage,
        source: UsageSource::Counted,
        cost: "1",
        cost_details: None,
    };
    let body = format!(r#"{{"choices":[],"usage":{}}}"#, usage_json(&bill));
    let answer = Dialect::OpenAi
        .decode(Bytes::from(body), &Quirks::default(), 0)
        .unwrap();
    assert_eq!(answer.usage(), Some(Ok(usage)));
}

/// All that a decoder makes of a stream, the bytes included.
fn decoded(pieces: &[&[u8]], quirks: &str) -> String {
    let mut framer = SseFramer::default();
    let mut decoder = Dialect::OpenAi.decoder(Arc::new(toml::from_str(quirks).unwrap()), 0);
    let mut out = Vec::new();
    let mut push = |event: SseEvent| decoder.push(event, &mut out).unwrap();
    for piece in pieces {
        framer.push(Bytes::copy_from_slice(piece));
        while let Some(event) = framer.next() {
            push(event.unwrap());
        }
    }
    while let Some(event) = framer.finish() {
        push(event.unwrap());
    }
    format!("{out:?} {:?} {:?}", decoder.usage(), decoder.ending())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_gives_the_same_deltas(
        case in 0..CASES.len(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..24),
    ) {
        let Case { upstream, quirks, .. } = CASES[case];
        let bytes = upstream.as_bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decoded(&pieces, quirks), decoded(&[bytes], quirks));
    }
}

proptest! {
    #[test]
    fn nothing_panics_on_arbitrary_events(data in prop::collection::vec(any::<u8>(), 0..120)) {
        let mut decoder = Dialect::OpenAi.decoder(Arc::default(), 0);
        let _ = decoder.push(SseEvent::data(Bytes::from(data)), &mut Vec::new());
    }

    /// Damage to real streams: bytes overwritten, taken out, put in.
    #[test]
    fn nothing_panics_on_damaged_streams(
        case in 0..CASES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..6),
    ) {
        let mut bytes = CASES[case].upstream.as_bytes().to_vec();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        let quirks: Quirks = toml::from_str(CASES[case].quirks).unwrap();
        let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks), 0);
        let mut framer = SseFramer::default();
        framer.push(Bytes::from(bytes));
        let mut out = Vec::new();
        while let Some(event) = framer.next() {
            if let Ok(event) = event {
                let _ = decoder.push(event, &mut out);
            }
        }
        for delta in &out {
            if let Delta::Chunk(chunk) = delta {
                let sound = |json: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok();
                let keep: Vec<usize> = chunk.texts().map(|text| text.text.len() / 2).collect();
                prop_assert!(sound(&chunk.cut(&keep)));
                prop_assert!(chunk.without_usage().is_none_or(|json| sound(&json)));
                let (usage, source) = bill(chunk.usage());
                let bill = Bill { usage: &usage, source, cost: "1", cost_details: None };
                prop_assert!(sound(&chunk.with_bill(&bill)));
            }
        }
    }

    /// Unknown members of a chunk reach the client as they came.
    #[test]
    fn unknown_members_pass_byte_for_byte(
        number in "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        text in any::<String>(),
        space in "[ \n\t]{0,2}",
    ) {
        let text = serde_json::to_string(&text).unwrap();
        let chunk = |usage: &str| format!(
            r#"{{"x_a":{number},{space}"choices":[{{"index":0,{space}"delta":{{"content":"a","x_b":{text}}},"x_c":[{number},"\u00e9"]}}],"usage":{usage}{space},"x_a":{number}}}"#
        );
        let body = chunk(r#"{"prompt_tokens":1,"completion_tokens":2,"x_d":1.10}"#);
        let mut out = Vec::new();
        let mut decoder = Dialect::OpenAi.decoder(Arc::default(), 0);
        decoder.push(SseEvent::data(Bytes::from(body.clone())), &mut out).unwrap();
        let Some(Delta::Chunk(found)) = out.pop() else { panic!("{out:?}") };
        prop_assert_eq!(found.json(), body.as_bytes());
        prop_assert_eq!(found.without_usage().unwrap(), chunk("null"));
        let usage = found.usage().unwrap().unwrap();
        let bill = Bill { usage: &usage, source: UsageSource::Reported, cost: "0.1", cost_details: None };
        let billed = chunk(r#"{"prompt_tokens":1,"completion_tokens":2,"x_d":1.10,"cost":"0.1"}"#);
        prop_assert_eq!(found.with_bill(&bill), billed);
    }
}
