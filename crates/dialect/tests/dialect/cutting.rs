//! Cutting: a chunk shortened to what is affordable is sound JSON and holds nothing more.

use std::sync::Arc;

use bytes::Bytes;
use dialect::{Chunk, Delta, Dialect, Quirks, SseEvent};
use proptest::prelude::*;
use serde_json::Value;

fn chunk(json: &str) -> Chunk {
    let quirks: Quirks = toml::from_str("usage_at=['/usage','/x_groq/usage']").unwrap();
    let mut out = Vec::new();
    let mut decoder = Dialect::OpenAi.decoder(Arc::new(quirks), 0);
    decoder
        .push(SseEvent::data(Bytes::from(json.to_owned())), &mut out)
        .unwrap();
    match out.pop() {
        Some(Delta::Chunk(chunk)) => chunk,
        other => panic!("{other:?}"),
    }
}

fn cut(json: &str, keep: &[usize]) -> String {
    let out = String::from_utf8(chunk(json).cut(keep)).unwrap();
    serde_json::from_str::<Value>(&out).expect(&out);
    out
}

fn check(delta: &str, keep: &[usize], expected: &str) {
    let whole = |delta: &str| format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}],"x":1.10}}"#);
    assert_eq!(
        cut(&whole(delta), keep),
        whole(expected),
        "{delta} {keep:?}"
    );
}

#[test]
fn texts_are_cut_at_characters_and_escapes() {
    check(r#"{"content":"hello"}"#, &[5], r#"{"content":"hello"}"#);
    check(r#"{"content":"hello"}"#, &[99], r#"{"content":"hello"}"#);
    check(r#"{"content":"hello"}"#, &[2], r#"{"content":"he"}"#);
    check(r#"{"content":"hello"}"#, &[0], r#"{"content":""}"#);
    check(r#"{"content":"hello"}"#, &[], r#"{"content":""}"#);
    // Two bytes, the second of them inside the character.
    check("{\"content\":\"aéb\"}", &[2], r#"{"content":"a"}"#);
    check("{\"content\":\"aéb\"}", &[3], "{\"content\":\"aé\"}");
    check(r#"{"content":"a\u00e9b"}"#, &[2], r#"{"content":"a"}"#);
    check(
        r#"{"content":"a\u00e9b"}"#,
        &[3],
        r#"{"content":"a\u00e9"}"#,
    );
    check(r#"{"content":"\n\"\\x"}"#, &[2], r#"{"content":"\n\""}"#);
    check(r#"{"content":"\ud83d\ude00x"}"#, &[3], r#"{"content":""}"#);
    check(
        r#"{"content":"\ud83d\ude00x"}"#,
        &[4],
        r#"{"content":"\ud83d\ude00"}"#,
    );
}

#[test]
fn texts_are_cut_in_the_order_in_which_they_are_listed() {
    let delta = r#"{"content":"says","reasoning_content":"thinks"}"#;
    let json = format!(r#"{{"choices":[{{"delta":{delta}}}]}}"#);
    let listed = chunk(&json);
    assert_eq!(
        listed.texts().map(|text| text.text).collect::<Vec<_>>(),
        ["thinks", "says"]
    );
    check(delta, &[3], r#"{"content":"","reasoning_content":"thi"}"#);
    check(
        delta,
        &[6, 2],
        r#"{"content":"sa","reasoning_content":"thinks"}"#,
    );
}

#[test]
fn what_repeats_a_text_goes_with_it() {
    check(
        r#"{"content":"","reasoning":"Hm","reasoning_content":"Hm","reasoning_details":[{"text":"Hm"}]}"#,
        &[1],
        r#"{"content":"","reasoning":null,"reasoning_content":"H","reasoning_details":null}"#,
    );
    check(
        r#"{"audio":{"id":"a","data":"AAAA","transcript":"spoken"},"images":[{}]}"#,
        &[2],
        r#"{"audio":null,"images":null}"#,
    );
    let json = r#"{"choices":[{"delta":{"content":"ab"},"message":{"content":"so far ab"},"logprobs":{"content":[{"token":"ab"}]},"finish_reason":"stop","native_finish_reason":"STOP"}],"usage":{"prompt_tokens":1,"completion_tokens":1},"x_groq":{"id":"r","usage":{"prompt_tokens":1,"completion_tokens":1}}}"#;
    let expected = r#"{"choices":[{"delta":{"content":"a"},"message":null,"logprobs":null,"finish_reason":null,"native_finish_reason":null}],"usage":null,"x_groq":{"id":"r","usage":null}}"#;
    assert_eq!(cut(json, &[1]), expected);
}

#[test]
fn calls_of_which_nothing_is_left_are_taken_out() {
    let delta = r#"{"content":"x","tool_calls":[{"index":0,"id":"1","function":{"name":"f","arguments":"{\"a\":1}"}}]}"#;
    check(delta, &[1], r#"{"content":"x","tool_calls":null}"#);
    check(
        delta,
        &[1, 1, 4],
        r#"{"content":"x","tool_calls":[{"index":0,"id":"1","function":{"name":"f","arguments":"{\"a\""}}]}"#,
    );
    check(
        r#"{"function_call":{"name":"f","arguments":{"x":1}}}"#,
        &[1],
        r#"{"function_call":{"name":"f","arguments":null}}"#,
    );
    check(
        r#"{"function_call":{"name":"f","arguments":{"x":1}}}"#,
        &[1, 7],
        r#"{"function_call":{"name":"f","arguments":{"x":1}}}"#,
    );
}

#[test]
fn lists_of_parts_are_cut_part_by_part() {
    check(
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"abc"}]},{"type":"text","text":"def"}]}"#,
        &[3, 1],
        r#"{"content":[{"type":"thinking","thinking":[{"type":"text","text":"abc"}]},{"type":"text","text":"d"}]}"#,
    );
}

#[test]
fn every_choice_is_cut() {
    let json = r#"{"choices":[{"index":1,"delta":{"content":"one"},"finish_reason":null},{"index":0,"delta":{"content":"zero"},"finish_reason":"length"}]}"#;
    let expected = r#"{"choices":[{"index":1,"delta":{"content":"one"},"finish_reason":null},{"index":0,"delta":{"content":"z"},"finish_reason":null}]}"#;
    assert_eq!(cut(json, &[3, 1]), expected);
}

proptest! {
    #[test]
    fn what_is_cut_reads_back_as_prefixes(
        content in any::<String>(), reasoning in any::<String>(), arguments in any::<String>(),
        ascii in any::<bool>(), pretty in any::<bool>(), keep in prop::collection::vec(0_usize..80, 0..4),
    ) {
        let json = serde_json::json!({"choices": [{"index": 0, "finish_reason": "stop", "delta": {
            "content": content, "reasoning": reasoning,
            "tool_calls": [{"function": {"name": "f", "arguments": arguments}}],
        }}], "usage": {"prompt_tokens": 1, "completion_tokens": 1}});
        let mut json = if pretty { serde_json::to_string_pretty(&json).unwrap() } else { json.to_string() };
        if ascii {
            json = json.chars().map(|letter| if letter.is_ascii() { letter.to_string() } else {
                letter.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
            }).collect();
        }
        let whole = chunk(&json);
        let expected: Vec<(String, usize)> = whole.texts().enumerate().map(|(index, text)| {
            let most = keep.get(index).copied().unwrap_or(0).min(text.text.len());
            let at = (0..=most).rev().find(|at| text.text.is_char_boundary(*at)).unwrap();
            (text.text[..at].to_owned(), at)
        }).filter(|(text, _)| !text.is_empty()).collect();
        let again = chunk(std::str::from_utf8(&whole.cut(&keep)).unwrap());
        let kept: Vec<(String, usize)> =
            again.texts().map(|text| (text.text.to_owned(), text.text.len())).collect();
        prop_assert_eq!(kept, expected);
        prop_assert!(!again.finishes() && again.usage().is_none());
    }
}
