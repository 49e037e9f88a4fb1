//! Anthropic's streams and answers: its bytes in, deltas, usage and the client's bytes out.
//!
//! Every fixture is written for this test after the shape of a recording in the vercel/ai project
//! (Apache-2.0), which is named beside it, or after the document that is.

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use dialect::{
    Bill, Decoder, Delta, Dialect, Ending, Quirks, SseEvent, SseFramer, TextKind, UsageFault,
};
use proptest::prelude::*;
use tokens::{Usage, UsageSource};

/// 2023-11-14.
const CREATED: u64 = 1_700_000_000;

/// One stream: its name, and the data of its events.
struct Case {
    name: &'static str,
    events: &'static [&'static str],
}

const CASES: &[Case] = &[
    // anthropic-text: a ping between the first events.
    Case {
        name: "text",
        events: &[
            r#"{"type":"message_start","message":{"model":"claude-sonnet-4-5-20250929","id":"msg_01A","type":"message","role":"assistant","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"cache_creation":{"ephemeral_5m_input_tokens":0,"ephemeral_1h_input_tokens":0},"output_tokens":1,"service_tier":"standard","inference_geo":"not_available"}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hi \u00e9\n"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" there"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":""}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":12,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":30}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    },
    // anthropic-clear-thinking.1: thinking, its signature, then the text.
    Case {
        name: "thinking",
        events: &[
            r#"{"type":"message_start","message":{"model":"claude-sonnet-4-5","id":"msg_01B","usage":{"input_tokens":69,"cache_creation_input_tokens":10,"cache_read_input_tokens":5,"cache_creation":{"ephemeral_5m_input_tokens":4,"ephemeral_1h_input_tokens":6},"output_tokens":2}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"The previous"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":" result"}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"EvQB+/8="}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"EmwKAhgB"}}"#,
            r#"{"type":"content_block_stop","index":1}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"text","text":"185"}}"#,
            r#"{"type":"content_block_stop","index":2}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"input_tokens":69,"cache_creation_input_tokens":10,"cache_read_input_tokens":5,"output_tokens":53,"output_tokens_details":{"thinking_tokens":40}},"context_management":{"applied_edits":[]}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    },
    // anthropic-json-tool.2 and -tool-no-args: calls with streamed, with whole and with no arguments.
    Case {
        name: "tools",
        events: &[
            r#"{"type":"message_start","message":{"model":"claude-haiku-4-5","id":"msg_01C","usage":{"input_tokens":849,"output_tokens":10}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"I'll look."}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_01","name":"weather","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\": \"Z\u00fc"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"rich\"}"}}"#,
            r#"{"type":"content_block_stop","index":1}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"toolu_02","name":"update","input":{}}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":""}}"#,
            r#"{"type":"content_block_stop","index":2}"#,
            r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"toolu_03","name":"whole","input":{"a":[1, 2]}}}"#,
            r#"{"type":"content_block_stop","index":3}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"output_tokens":47}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    },
    // anthropic-refusal: no content, and why in `stop_details`.
    Case {
        name: "refusal",
        events: &[
            r#"{"type":"message_start","message":{"model":"claude-fable-5","id":"msg_01D","content":[],"usage":{"input_tokens":18,"output_tokens":1}}}"#,
            r#"{"type":"ping"}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"refusal","stop_sequence":null,"stop_details":{"type":"refusal","category":"cyber","explanation":"It was \"blocked\"."}},"usage":{"input_tokens":18,"output_tokens":5}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    },
    // anthropic-fallback, -advisor-stop-reasons, -code-execution: blocks of kinds that a chat has not.
    Case {
        name: "other_blocks",
        events: &[
            r#"{"type":"message_start","message":{"id":"msg_01E","model":"claude-fable-5","usage":{"input_tokens":408,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"fallback","from":{"model":"a"},"to":{"model":"b"}}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"content_block_start","index":1,"content_block":{"type":"server_tool_use","id":"srvtoolu_1","name":"web_search","input":{}}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"query\":\"x\"}"}}"#,
            r#"{"type":"content_block_stop","index":1}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"citations_delta","citation":{"type":"web_search_result_location","url":"https://a.example"}}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"text_delta","text":"Found."}}"#,
            r#"{"type":"content_block_stop","index":2}"#,
            r#"{"type":"new_event_type","index":9}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"pause_turn"},"usage":{"input_tokens":412,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":264,"server_tool_use":{"web_search_requests":1}}}"#,
            r#"{"type":"message_stop"}"#,
        ],
    },
    // "Streaming messages", "Error events": an error after output.
    Case {
        name: "overloaded",
        events: &[
            r#"{"type":"message_start","message":{"id":"msg_01F","model":"claude","usage":{"input_tokens":1,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Half"}}"#,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
        ],
    },
    // A usage that cannot be billed, and a stream without its last event.
    Case {
        name: "faulty_usage",
        events: &[
            r#"{"type":"message_start","message":{"id":"msg_01G","model":"claude","usage":{"input_tokens":-1,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"x"}}"#,
            r#"{"type":"content_block_stop","index":0}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"END"},"usage":{"output_tokens":"4"}}"#,
        ],
    },
];

impl Case {
    /// The bytes, framed as Anthropic frames them.
    fn bytes(&self) -> Vec<u8> {
        let mut out = String::new();
        for event in self.events {
            let value: serde_json::Value = serde_json::from_str(event).unwrap();
            let name = value["type"].as_str().unwrap();
            let _ = write!(out, "event: {name}\ndata: {event}\n\n");
        }
        out.into_bytes()
    }
}

fn decoder() -> Decoder {
    Dialect::Anthropic.decoder(Arc::new(Quirks::default()), CREATED)
}

fn utf8(bytes: impl AsRef<[u8]>) -> String {
    String::from_utf8(bytes.as_ref().to_vec()).unwrap()
}

fn bill(reported: Option<Result<Usage, UsageFault>>) -> (Usage, UsageSource) {
    match reported {
        Some(Ok(usage)) => (usage, UsageSource::Reported),
        Some(Err(_)) | None => (Usage::default(), UsageSource::Counted),
    }
}

#[test]
fn golden_streams() {
    for case in CASES {
        let mut decoder = decoder();
        let mut framer = SseFramer::default();
        framer.push(Bytes::from(case.bytes()));
        let mut shown = String::new();
        while let Some(event) = framer.next() {
            let event = event.unwrap();
            let _ = writeln!(shown, "<-- {}", utf8(&event.data));
            let mut out = Vec::new();
            decoder.push(event, &mut out).unwrap();
            for delta in &out {
                show(&mut shown, delta);
            }
        }
        let _ = writeln!(
            shown,
            "ending {:?}, usage {:?}, skipped {}",
            decoder.ending(),
            decoder.usage(),
            decoder.skipped()
        );
        insta::assert_snapshot!(format!("anthropic_{}", case.name), shown);
    }
}

fn show(out: &mut String, delta: &Delta) {
    match delta {
        Delta::Done => out.push_str("--> done\n"),
        Delta::Error(error) => {
            let _ = writeln!(out, "--> error {:?} {:?}", error.status, error.kind);
        }
        Delta::Chunk(chunk) => {
            let json = utf8(chunk.json());
            serde_json::from_str::<serde_json::Value>(&json).expect(&json);
            let _ = writeln!(out, "--> {json}");
            for text in chunk.texts() {
                let _ = writeln!(out, "    {:?} {:?}", text.kind, text.text);
            }
            if let Some(prompt) = chunk.prompt_usage() {
                let _ = writeln!(out, "    prompt {prompt:?}");
            }
            if let Some(usage) = chunk.usage() {
                let (buckets, source) = bill(Some(usage));
                let bill = Bill {
                    usage: &buckets,
                    source,
                    cost: "0.5",
                    cost_details: None,
                };
                let _ = writeln!(out, "    usage {usage:?}");
                let _ = writeln!(out, "    report {:?}", chunk.usage_text());
                let _ = writeln!(out, "    billed {}", utf8(chunk.with_bill(&bill)));
                assert_eq!(chunk.without_usage(), None);
            }
        }
    }
}

#[test]
fn golden_answers() {
    let table = [
        // anthropic-claude-opus-5-reasoning-high.1
        (
            "thinking",
            r#"{"model":"claude-opus-5","id":"msg_1","type":"message","role":"assistant","content":[{"type":"thinking","thinking":"I need\n","signature":"CAIS+/="},{"type":"redacted_thinking","data":"Em"},{"type":"text","text":"Step 1: \u00e9"},{"type":"text","text":" Step 2"}],"stop_reason":"end_turn","stop_sequence":null,"stop_details":null,"usage":{"input_tokens":51,"cache_creation_input_tokens":7,"cache_read_input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":3,"ephemeral_1h_input_tokens":4},"output_tokens":1699,"output_tokens_details":{"thinking_tokens":139},"service_tier":"standard","inference_geo":"global"}}"#,
        ),
        // anthropic-tool-no-args
        (
            "tools",
            r#"{"model":"claude-3-opus","id":"msg_2","type":"message","role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"weather","input":{"city": "Bern", "q":"\""}},{"type":"tool_use","id":"toolu_2","name":"update","input":{}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":602,"output_tokens":93}}"#,
        ),
        // anthropic-refusal
        (
            "refusal",
            r#"{"model":"claude-fable-5","id":"msg_3","content":[],"stop_reason":"refusal","stop_details":{"type":"refusal","category":"cyber","explanation":"Blocked."},"usage":{"input_tokens":18,"output_tokens":5}}"#,
        ),
        (
            "unreported",
            r#"{"id":"msg_4","model":"claude","content":[{"type":"text","text":"x"}],"stop_reason":"model_context_window_exceeded"}"#,
        ),
        (
            "faulty",
            r#"{"id":"msg_5","model":"claude","content":[{"type":"text","text":"x"}],"stop_reason":null,"usage":{"input_tokens":1}}"#,
        ),
    ];
    for (name, body) in table {
        let answer = Dialect::Anthropic
            .decode(Bytes::from(body), &Quirks::default(), CREATED)
            .unwrap();
        let texts: Vec<_> = answer.texts().map(|t| (t.kind, t.text)).collect();
        let (usage, source) = bill(answer.usage());
        let bill = Bill {
            usage: &usage,
            source,
            cost: "0.0001",
            cost_details: None,
        };
        let billed = utf8(answer.with_bill(&bill));
        serde_json::from_str::<serde_json::Value>(&billed).expect(&billed);
        insta::assert_snapshot!(
            format!("anthropic_answer_{name}"),
            format!(
                "{body}\n---- texts {texts:?}\n---- usage {:?}\n---- report {:?}\n---- to the client\n{billed}\n",
                answer.usage(),
                answer.usage_text(),
            )
        );
    }
}

#[test]
fn a_200_that_is_no_message_is_an_error() {
    let decode = |body: &'static str| {
        Dialect::Anthropic
            .decode(Bytes::from(body), &Quirks::default(), CREATED)
            .unwrap_err()
            .to_string()
    };
    for body in [
        "",
        "<html>",
        "[]",
        "null",
        "{}",
        r#"{"content":null}"#,
        r#"{"content":[7]}"#,
        r#"{"content":[{"type":"text","text":7}]}"#,
        r#"{"content":[{"type":"tool_use","id":"t"}]}"#,
        r#"{"content":[{"type":"text","text":"a"}"#,
    ] {
        assert!(decode(body).starts_with("not a chat answer"), "{body}");
    }
    assert_eq!(
        decode(r#"{"type":"error","error":{"type":"overloaded_error","message":"no"}}"#),
        "the provider reported an error inside a successful answer"
    );
}

#[test]
fn events_that_cannot_follow_are_errors() {
    let start = r#"{"type":"message_start","message":{"id":"m","model":"c"}}"#;
    let block =
        r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"a"}}"#;
    for events in [
        &["garbage"][..],
        &["[1]"],
        &["{}"],
        &[r#"{"type":7}"#],
        &[r#"{"type":"message_start"}"#],
        // Content before the message.
        &[block],
        &[r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#],
        // A delta of no block, a block twice, a text that nobody could count.
        &[
            start,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"a"}}"#,
        ],
        &[start, block, block],
        &[
            start,
            block,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":["a"]}}"#,
        ],
        // spliced-message-start: another answer after half of one.
        &[start, block, start],
    ] {
        let mut decoder = decoder();
        let mut out = Vec::new();
        let results: Vec<_> = events
            .iter()
            .map(|event| decoder.push(SseEvent::data(Bytes::from(*event)), &mut out))
            .collect();
        assert!(results.last().unwrap().is_err(), "{events:?}");
        assert_ne!(decoder.ending(), Ending::Done, "{events:?}");
    }
    // duplicate-message-start: a repeated beginning says nothing new.
    let mut decoder = decoder();
    let mut out = Vec::new();
    for event in [start, start, block] {
        decoder
            .push(SseEvent::data(Bytes::from(event)), &mut out)
            .unwrap();
    }
    assert_eq!(out.len(), 2);
}

#[test]
fn an_error_event_is_an_error_and_never_a_success() {
    for (event, status) in [
        (
            r#"{"type":"error","error":{"type":"overloaded_error","message":"x"}}"#,
            Some(529),
        ),
        (
            r#"{"type":"error","error":{"type":"rate_limit_error"}}"#,
            Some(429),
        ),
        (
            r#"{"type":"error","error":{"type":"billing_error"}}"#,
            Some(402),
        ),
        (r#"{"type":"error","error":{"type":"unheard_of"}}"#, None),
        (r#"{"type":"error"}"#, None),
    ] {
        for name in [None, Some(Bytes::from("error"))] {
            let mut decoder = decoder();
            let mut out = Vec::new();
            let event = SseEvent {
                data: Bytes::from(event),
                event: name,
            };
            decoder.push(event, &mut out).unwrap();
            let [Delta::Error(error)] = &out[..] else {
                panic!("{out:?}")
            };
            assert_eq!(error.status, status);
            assert_eq!(decoder.ending(), Ending::Cut);
        }
    }
}

/// All that a decoder makes of a stream.
fn decoded(pieces: &[&[u8]]) -> String {
    let mut framer = SseFramer::default();
    let mut decoder = decoder();
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

#[test]
fn a_cut_chunk_is_sound_and_holds_what_was_kept() {
    for case in CASES {
        let mut decoder = decoder();
        let mut out = Vec::new();
        for event in case.events {
            decoder
                .push(SseEvent::data(Bytes::from(*event)), &mut out)
                .unwrap();
        }
        for delta in &out {
            let Delta::Chunk(chunk) = delta else { continue };
            let cut = utf8(chunk.cut(&[]));
            let value: serde_json::Value = serde_json::from_str(&cut).expect(&cut);
            for text in chunk.texts() {
                if text.kind == TextKind::Reasoning {
                    // Thinking is shown twice, and neither place keeps what was cut.
                    assert!(!cut.contains(text.text), "{cut}");
                }
            }
            let delta = &value["choices"][0]["delta"];
            let said = delta["content"].as_str().unwrap_or_default();
            assert_eq!(said, "", "{cut}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_split_gives_the_same_deltas(
        case in 0..CASES.len(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 1..24),
    ) {
        let bytes = CASES[case].bytes();
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let pieces: Vec<&[u8]> = at.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect();
        prop_assert_eq!(decoded(&pieces), decoded(&[&bytes]));
    }
}

proptest! {
    #[test]
    fn nothing_panics_on_arbitrary_events(data in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = decoder().push(SseEvent::data(Bytes::from(data)), &mut Vec::new());
    }

    #[test]
    fn nothing_panics_on_arbitrary_answers(data in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = Dialect::Anthropic.decode(Bytes::from(data), &Quirks::default(), CREATED);
    }

    /// Damage to real streams: bytes overwritten, taken out, put in. Nothing panics, what is written
    /// is JSON, and no success follows an error.
    #[test]
    fn damaged_streams_never_look_whole(
        case in 0..CASES.len(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0_u8..3), 1..6),
    ) {
        let mut bytes = CASES[case].bytes();
        for (at, byte, how) in damage {
            let at = at.index(bytes.len());
            match how {
                0 => bytes[at] = byte,
                1 => { bytes.remove(at); }
                _ => bytes.insert(at, byte),
            }
        }
        let mut decoder = decoder();
        let mut framer = SseFramer::default();
        framer.push(Bytes::from(bytes));
        let mut out = Vec::new();
        while let Some(event) = framer.next() {
            if let Ok(event) = event && decoder.push(event, &mut out).is_err() {
                break;
            }
        }
        let sound = |json: &[u8]| serde_json::from_slice::<serde::de::IgnoredAny>(json).is_ok();
        for delta in &out {
            if let Delta::Chunk(chunk) = delta {
                prop_assert!(sound(chunk.json()), "{:?}", chunk.json());
                let keep: Vec<usize> = chunk.texts().map(|text| text.text.len() / 2).collect();
                prop_assert!(sound(&chunk.cut(&keep)));
            }
        }
    }

    /// No text is lost and none is added: the deltas together are the text, however it is cut up.
    #[test]
    fn the_deltas_together_are_the_text(pieces in prop::collection::vec(any::<String>(), 0..8)) {
        let mut decoder = decoder();
        let mut out = Vec::new();
        let start = r#"{"type":"message_start","message":{"id":"m","model":"c"}}"#.to_owned();
        let block = r#"{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#;
        let deltas = pieces.iter().map(|piece| {
            let text = serde_json::to_string(piece).unwrap();
            format!(r#"{{"type":"content_block_delta","index":0,"delta":{{"type":"text_delta","text":{text}}}}}"#)
        });
        for event in [start, block.to_owned()].into_iter().chain(deltas) {
            decoder.push(SseEvent::data(Bytes::from(event)), &mut out).unwrap();
        }
        let mut counted = String::new();
        let mut shown = String::new();
        for delta in &out {
            let Delta::Chunk(chunk) = delta else { panic!("{delta:?}") };
            counted.extend(chunk.texts().map(|text| text.text.to_owned()));
            let value: serde_json::Value = serde_json::from_slice(chunk.json()).unwrap();
            shown.push_str(value["choices"][0]["delta"]["content"].as_str().unwrap());
        }
        prop_assert_eq!(&counted, &pieces.concat());
        prop_assert_eq!(&shown, &pieces.concat());
    }
}
