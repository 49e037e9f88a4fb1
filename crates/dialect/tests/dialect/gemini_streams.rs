//! Golden files of Google's streams and answers: what it sends, what the client gets, which texts count, what is billed.
//!
//! The cases are written after recordings of the vercel/ai project (Apache-2.0, `packages/google/src/__fixtures__`;
//! named beside each) and after Google's API reference, "Generating content".

use std::fmt::Write as _;
use std::sync::Arc;

use bytes::Bytes;
use dialect::{
    Bill, Decoder, Delta, Dialect, Ending, Quirks, SseEvent, SseFramer, TextKind, UsageFault,
};
use proptest::prelude::*;
use tokens::{Usage, UsageSource};

const CREATED: u64 = 1_800_000_000;

struct Case {
    name: &'static str,
    events: &'static [&'static str],
}

const CASES: &[Case] = &[
    // google-text, google-reasoning: counts on every event, a signature on an empty text at the end.
    Case {
        name: "text",
        events: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"There are **3** \"r\"s"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":10,"totalTokenCount":275,"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}],"thoughtsTokenCount":256},"modelVersion":"gemini-3-pro","responseId":"dX6LadKVC7SZ28oPr9yJoQs"}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":" in Z\u00fcrich.\n"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":29,"totalTokenCount":294,"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}],"thoughtsTokenCount":256},"modelVersion":"gemini-3-pro","responseId":"dX6LadKVC7SZ28oPr9yJoQs"}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"","thoughtSignature":"Eo0H/+="}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":29,"totalTokenCount":294,"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}],"thoughtsTokenCount":256},"modelVersion":"gemini-3-pro","responseId":"dX6LadKVC7SZ28oPr9yJoQs"}"#,
        ],
    },
    // google-tool-call-gemini3, and a second call, which comes without a signature.
    Case {
        name: "tools",
        events: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"Which city?","thought":true},{"functionCall":{"name":"weather","args":{"location":"San \"Francisco\""}},"thoughtSignature":"EpEg/="},{"functionCall":{"name":"now","args":{}}},{"functionCall":{"id":"fc-1","name":"later"}}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":29,"candidatesTokenCount":15,"totalTokenCount":848,"promptTokensDetails":[{"modality":"TEXT","tokenCount":29}],"thoughtsTokenCount":804},"modelVersion":"gemini-3-pro","responseId":"JniLacKqGqH0"}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":""}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":29,"candidatesTokenCount":15,"totalTokenCount":848,"promptTokensDetails":[{"modality":"TEXT","tokenCount":29}],"thoughtsTokenCount":804},"modelVersion":"gemini-3-pro","responseId":"JniLacKqGqH0"}"#,
        ],
    },
    // google-stream-no-args-tool-call and -tool-call-array-arguments-missing-terminal-function-call, from
    // Vertex AI: arguments in pieces, counts only at the end.
    Case {
        name: "pieces",
        events: &[
            r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"read_theme"},"thoughtSignature":"AY89"}]}}],"usageMetadata":{"trafficType":"PROVISIONED_THROUGHPUT"},"modelVersion":"gemini-3-flash","createTime":"2026-05-04T20:01:02.264968Z","responseId":"_vr4aYiW"}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"write","willContinue":true}}]}}],"usageMetadata":{"trafficType":"PROVISIONED_THROUGHPUT"},"responseId":"_vr4aYiW"}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.items[0].name","stringValue":"A","willContinue":true}],"willContinue":true}}]}}],"usageMetadata":{"trafficType":"PROVISIONED_THROUGHPUT"}}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.items[0].name","stringValue":"pple"}],"willContinue":true}}]}}]}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{}}]}}]}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"name":"write","willContinue":true}}]}}]}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"functionCall":{"partialArgs":[{"jsonPath":"$.price","numberValue":0.3}]}}]}}]}"#,
            r#"{"candidates":[{"content":{"role":"model","parts":[{"text":""}]},"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":54,"candidatesTokenCount":74,"totalTokenCount":249,"trafficType":"PROVISIONED_THROUGHPUT","promptTokensDetails":[{"modality":"TEXT","tokenCount":54}],"candidatesTokensDetails":[{"modality":"TEXT","tokenCount":74}],"thoughtsTokenCount":121}}"#,
        ],
    },
    // A stop for safety has no content.
    Case {
        name: "safety",
        events: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"How to"}],"role":"model"}}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":4},"modelVersion":"gemini-2.5-flash","responseId":"r1"}"#,
            r#"{"candidates":[{"finishReason":"SAFETY","index":0,"safetyRatings":[{"category":"HARM_CATEGORY_DANGEROUS_CONTENT","probability":"HIGH","blocked":true}]}],"usageMetadata":{"promptTokenCount":4,"candidatesTokenCount":2,"totalTokenCount":6},"modelVersion":"gemini-2.5-flash","responseId":"r1"}"#,
        ],
    },
    // A prompt that is not answered at all.
    Case {
        name: "blocked",
        events: &[
            r#"{"promptFeedback":{"blockReason":"PROHIBITED_CONTENT","blockReasonMessage":"It was \"blocked\"."},"usageMetadata":{"promptTokenCount":12,"totalTokenCount":12},"modelVersion":"gemini-2.5-flash","responseId":"r2"}"#,
        ],
    },
    // Two candidates, log probabilities, an image, code that a chat has no place for, counts after the end.
    Case {
        name: "choices",
        events: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"Hé"}],"role":"model"},"index":0,"logprobsResult":{"topCandidates":[{"candidates":[{"token":"Hé","tokenId":1,"logProbability":-0.5},{"token":"Ho","tokenId":2,"logProbability":-1.25}]}],"chosenCandidates":[{"token":"Hé","tokenId":1,"logProbability":-0.5}]}},{"content":{"parts":[{"text":"Ho"}],"role":"model"},"index":1}],"responseId":"r3","modelVersion":"gemini"}"#,
            r#"{"candidates":[{"content":{"parts":[{"executableCode":{"language":"PYTHON","code":"1"}},{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]},"finishReason":"MAX_TOKENS","index":0}],"responseId":"r3"}"#,
            r#"{"candidates":[{"finishReason":"STOP","index":1}]}"#,
            r#"{"usageMetadata":{"promptTokenCount":1000,"cachedContentTokenCount":600,"candidatesTokenCount":20,"toolUsePromptTokenCount":7,"promptTokensDetails":[{"modality":"TEXT","tokenCount":800},{"modality":"AUDIO","tokenCount":200}],"cacheTokensDetails":[{"modality":"TEXT","tokenCount":600}]}}"#,
        ],
    },
    // An error after output, as the API reference, "Errors", has it.
    Case {
        name: "unavailable",
        events: &[
            r#"{"candidates":[{"content":{"parts":[{"text":"Half"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":1},"responseId":"r4"}"#,
            r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#,
        ],
    },
    // A usage that cannot be billed, and a call that the model did not manage to write.
    Case {
        name: "faulty_usage",
        events: &[
            r#"{"candidates":[{"content":{},"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"Malformed function call","index":0}],"usageMetadata":{"promptTokenCount":1,"cachedContentTokenCount":2}}"#,
        ],
    },
];

impl Case {
    /// The bytes, framed as Google frames them.
    fn bytes(&self) -> Vec<u8> {
        let mut out = String::new();
        for event in self.events {
            let _ = write!(out, "data: {event}\r\n\r\n");
        }
        out.into_bytes()
    }
}

fn decoder() -> Decoder {
    Dialect::Gemini.decoder(Arc::new(Quirks::default()), CREATED)
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
        insta::assert_snapshot!(format!("gemini_{}", case.name), shown);
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
                let _ = writeln!(out, "    {} {:?} {:?}", text.choice, text.kind, text.text);
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
        // google-text
        (
            "text",
            r#"{"candidates":[{"content":{"parts":[{"text":"Hm.","thought":true},{"text":"There are \u00e9"},{"text":" 3","thoughtSignature":"EtoF/="}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":9,"candidatesTokenCount":28,"totalTokenCount":281,"promptTokensDetails":[{"modality":"TEXT","tokenCount":9}],"thoughtsTokenCount":244},"modelVersion":"gemini-3-pro","responseId":"Un6Lacr"}"#,
        ),
        // google-tool-call, with a second call of the same function
        (
            "tools",
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"weather","args":{"location": "San Francisco", "q":"\""}},"thoughtSignature":"EskgCs"},{"functionCall":{"name":"weather","args":{"location":"Bern"}}}],"role":"model"},"finishReason":"STOP","index":0,"finishMessage":"Model generated function call(s)."}],"usageMetadata":{"promptTokenCount":29,"candidatesTokenCount":15,"totalTokenCount":937,"thoughtsTokenCount":893},"modelVersion":"gemini-3-pro","responseId":"m36LaZGyCLz1xs0PtNSB-QU"}"#,
        ),
        (
            "choices",
            r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP","index":0,"logprobsResult":{"chosenCandidates":[{"token":"a","logProbability":-0.1}]}},{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBORw0KGgo="}}]},"finishReason":"RECITATION","index":1}],"usageMetadata":{"promptTokenCount":3,"candidatesTokenCount":5},"responseId":"c"}"#,
        ),
        (
            "blocked",
            r#"{"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":12,"totalTokenCount":12},"modelVersion":"gemini","responseId":"b"}"#,
        ),
        (
            "unreported",
            r#"{"candidates":[{"content":{"parts":[{"text":"x"}]}}],"usageMetadata":{"trafficType":"ON_DEMAND"}}"#,
        ),
        (
            "faulty",
            r#"{"candidates":[{"content":{"parts":[{"text":"x"}]},"finishReason":"OTHER"}],"usageMetadata":{"candidatesTokenCount":1},"responseId":"f"}"#,
        ),
    ];
    for (name, body) in table {
        let answer = Dialect::Gemini
            .decode(Bytes::from(body), &Quirks::default(), CREATED)
            .unwrap();
        let texts: Vec<_> = answer.texts().map(|t| (t.choice, t.kind, t.text)).collect();
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
            format!("gemini_answer_{name}"),
            format!(
                "{body}\n---- choices {}, texts {texts:?}\n---- usage {:?}\n---- report {:?}\n---- to the client\n{billed}\n",
                answer.choices(),
                answer.usage(),
                answer.usage_text(),
            )
        );
    }
}

#[test]
fn a_200_that_is_no_answer_is_an_error() {
    let decode = |body: &'static str| {
        Dialect::Gemini
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
        r#"{"candidates":[]}"#,
        r#"{"candidates":[7]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":7}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"args":{}}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":"a"}]}"#,
    ] {
        assert!(decode(body).starts_with("not a chat answer"), "{body}");
    }
    for body in [
        r#"{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}"#,
        r#"[{"error":{"code":500,"message":"no","status":"INTERNAL"}}]"#,
    ] {
        assert_eq!(
            decode(body),
            "the provider reported an error inside a successful answer"
        );
    }
}

#[test]
fn events_that_are_none_are_errors() {
    for event in [
        "garbage",
        "[1]",
        r#"{"candidates":7}"#,
        r#"{"candidates":[{"index":128}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"text":["a"]}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"args":{"a":1}}}]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","willContinue":true,"partialArgs":[{"jsonPath":"a","stringValue":"b"}]}}]}}]}"#,
    ] {
        let mut decoder = decoder();
        let pushed = decoder.push(SseEvent::data(Bytes::from(event)), &mut Vec::new());
        assert!(pushed.is_err(), "{event}");
        assert_eq!(decoder.ending(), Ending::Cut, "{event}");
    }
}

#[test]
fn an_error_event_is_an_error_and_never_a_success() {
    let end = r#"{"candidates":[{"content":{"parts":[{"text":"a"}]},"finishReason":"STOP"}]}"#;
    for (event, status) in [
        (
            r#"{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}"#,
            Some(503),
        ),
        (
            r#"[{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}]"#,
            Some(429),
        ),
        (r#"{"error":{"status":"INTERNAL"}}"#, None),
    ] {
        let mut decoder = decoder();
        let mut out = Vec::new();
        for data in [end, event] {
            decoder
                .push(SseEvent::data(Bytes::from(data)), &mut out)
                .unwrap();
        }
        let Some(Delta::Error(error)) = out.last() else {
            panic!("{out:?}")
        };
        assert_eq!(error.status, status);
        assert_eq!(decoder.ending(), Ending::Cut, "{event}");
    }
}

#[test]
fn invented_ids_are_the_same_each_time_and_differ_between_answers() {
    let ids = |answer: &str| -> Vec<String> {
        let body = format!(
            r#"{{"responseId":"{answer}","candidates":[{{"content":{{"parts":[{{"functionCall":{{"name":"f"}}}},{{"functionCall":{{"name":"f"}}}}]}}}}]}}"#
        );
        let answer = Dialect::Gemini
            .decode(Bytes::from(body), &Quirks::default(), CREATED)
            .unwrap();
        let value: serde_json::Value = serde_json::from_slice(answer.json()).unwrap();
        let calls = value["choices"][0]["message"]["tool_calls"].as_array();
        let ids = calls.unwrap().iter().map(|call| call["id"].as_str());
        ids.map(|id| id.unwrap().to_owned()).collect()
    };
    let first = ids("m36LaZGyCLz1xs0PtNSB-QU-and-more");
    assert_eq!(first, ids("m36LaZGyCLz1xs0PtNSB-QU-and-more"));
    assert_ne!(first[0], first[1]);
    assert!(first.iter().all(|id| id.len() <= 40));
    assert_ne!(first[0], ids("JniLacKqGqH0xs0P0O776As")[0]);
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
            let delta = &value["choices"][0]["delta"];
            for member in ["content", "reasoning_content"] {
                let said = delta[member].as_str().unwrap_or_default();
                assert_eq!(said, "", "{cut}");
            }
            for member in ["tool_calls", "images"] {
                assert!(delta[member].is_null(), "{cut}");
            }
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
        let _ = Dialect::Gemini.decode(Bytes::from(data), &Quirks::default(), CREATED);
    }

    /// Damage to real streams: bytes overwritten, taken out, put in. Nothing panics, and what is
    /// written is JSON.
    #[test]
    fn damaged_streams_stay_sound(
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
        for piece in &pieces {
            let event = serde_json::json!({"candidates": [{"content": {"parts": [{"text": piece}]}}]});
            decoder.push(SseEvent::data(Bytes::from(event.to_string())), &mut out).unwrap();
        }
        let mut counted = String::new();
        let mut shown = String::new();
        for delta in &out {
            let Delta::Chunk(chunk) = delta else { panic!("{delta:?}") };
            let texts = chunk.texts().filter(|text| text.kind == TextKind::Content);
            counted.extend(texts.map(|text| text.text.to_owned()));
            let value: serde_json::Value = serde_json::from_slice(chunk.json()).unwrap();
            shown.push_str(value["choices"][0]["delta"]["content"].as_str().unwrap());
        }
        prop_assert_eq!(&counted, &pieces.concat());
        prop_assert_eq!(&shown, &pieces.concat());
    }
}
