//! Bedrock's dialect: frames, what is sent, what comes back, and what is billed.
//!
//! Every fixture is written for this test after the shape of a recording in the vercel/ai project
//! (Apache-2.0), which is named beside it, or after Amazon's API reference.

use bytes::Bytes;
use dialect::{Delta, Dialect, Ending, FrameError, Framing, UpstreamError};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokens::Usage;

use crate::played::{
    Provider, added_up, cut_anywhere, decode, decoded, encode, origin, play, reasons, refuses, sent,
};

const BEDROCK: Dialect = Dialect::Bedrock;

/// A frame as Amazon describes it, written without the crate that reads it.
fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        head.push(u8::try_from(name.len()).unwrap());
        head.extend(name.as_bytes());
        head.push(7);
        head.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        head.extend(value.as_bytes());
    }
    let total = u32::try_from(16 + head.len() + payload.len()).unwrap();
    let mut out = total.to_be_bytes().to_vec();
    out.extend(u32::try_from(head.len()).unwrap().to_be_bytes());
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out.extend(head);
    out.extend(payload);
    out.extend(crc32fast::hash(&out).to_be_bytes());
    out
}

fn event(name: &str, data: &Value) -> Vec<u8> {
    frame(
        &[
            (":event-type", name),
            (":content-type", "application/json"),
            (":message-type", "event"),
        ],
        data.to_string().as_bytes(),
    )
}

fn exception(kind: &str) -> Vec<u8> {
    frame(
        &[
            (":exception-type", kind),
            (":content-type", "application/json"),
            (":message-type", "exception"),
        ],
        br#"{"message":"Too many tokens"}"#,
    )
}

fn delta(index: u32, delta: Value) -> Vec<u8> {
    event(
        "contentBlockDelta",
        &json!({"contentBlockIndex": index, "delta": delta, "p": "abcd"}),
    )
}

fn stop(index: u32) -> Vec<u8> {
    event("contentBlockStop", &json!({"contentBlockIndex": index}))
}

fn end(reason: &str) -> Vec<u8> {
    event("messageStop", &json!({"stopReason": reason}))
}

fn metadata() -> Vec<u8> {
    let usage = json!({"inputTokens": 51, "outputTokens": 94, "totalTokens": 155, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 3});
    event(
        "metadata",
        &json!({"metrics": {"latencyMs": 2281}, "usage": usage}),
    )
}

fn start() -> Vec<u8> {
    event("messageStart", &json!({"role": "assistant"}))
}

/// amazon-bedrock-reasoning and -text.
fn thinking() -> Vec<u8> {
    [
        start(),
        delta(0, json!({"reasoningContent": {"text": "Two \"plus\""}})),
        delta(0, json!({"reasoningContent": {"text": " two."}})),
        delta(0, json!({"reasoningContent": {"text": ""}})),
        delta(0, json!({"reasoningContent": {"signature": "EvQB+/8="}})),
        stop(0),
        delta(1, json!({"reasoningContent": {"redactedContent": "Em8="}})),
        stop(1),
        delta(2, json!({"text": "It is"})),
        delta(2, json!({"text": " fö\nur."})),
        delta(2, json!({"citation": {"title": "a"}})),
        stop(2),
        end("end_turn"),
        metadata(),
    ]
    .concat()
}

/// amazon-bedrock-tool-call.1 and -tool-no-args: no `messageStart`, and the usage before the end.
fn calling() -> Vec<u8> {
    let begin = |index: u32, id: &str, name: &str| {
        event(
            "contentBlockStart",
            &json!({"contentBlockIndex": index, "start": {"toolUse": {"toolUseId": id, "name": name}}}),
        )
    };
    let part = |index: u32, text: &str| delta(index, json!({"toolUse": {"input": text}}));
    [
        event(
            "contentBlockStart",
            &json!({"contentBlockIndex": 0, "start": {}}),
        ),
        delta(0, json!({"text": "I look."})),
        stop(0),
        begin(1, "t-1", "weather"),
        part(1, "{\"at\":"),
        part(1, "\"Bern\"}"),
        stop(1),
        begin(2, "t-2", "now"),
        part(2, ""),
        stop(2),
        metadata(),
        end("tool_use"),
    ]
    .concat()
}

fn metered() -> Usage {
    Usage {
        prompt: 51,
        cached_prompt: 7,
        cache_write_5m: 3,
        completion: 94,
        ..Usage::default()
    }
}

#[test]
fn a_stream_says_what_it_says() {
    let played = play(BEDROCK, &[&thinking()]);
    assert_eq!(played.wrong, None);
    assert_eq!(played.said, "It is fö\nur.");
    assert_eq!(played.thought, "Two \"plus\" two.");
    assert_eq!(played.usage, Some(Ok(metered())));
    assert_eq!(played.ending, Ending::Done);
    assert_eq!(reasons(&played.chunks), ["stop"]);
    let first = &played.chunks[0];
    assert_eq!(
        (&first["id"], &first["model"]),
        (&json!("req_1"), &json!("m"))
    );
    let details: Vec<&Value> = played
        .chunks
        .iter()
        .map(|chunk| &chunk["choices"][0]["delta"]["reasoning_details"][0])
        .filter(|detail| !detail.is_null())
        .collect();
    assert_eq!(details[0]["format"], "bedrock-converse-v1");
    assert_eq!(
        details[2],
        &json!({"type": "reasoning.text", "index": 0, "signature": "EvQB+/8="})
    );
    assert_eq!(
        details[3],
        &json!({"type": "reasoning.encrypted", "index": 1, "format": "bedrock-converse-v1", "data": "Em8="})
    );
    let usage = &played.chunks.last().unwrap()["usage"];
    assert_eq!(usage["prompt_tokens"], 61);
}

#[test]
fn calls_come_in_pieces_and_the_usage_may_come_first() {
    let played = play(BEDROCK, &[&calling()]);
    assert_eq!(played.wrong, None);
    assert_eq!(
        (played.ending, reasons(&played.chunks)),
        (Ending::Done, vec!["tool_calls"])
    );
    let call = |index: u32, id: &str, name: &str, arguments: &str| json!({"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        added_up(&played.chunks),
        json!({"role": "assistant", "content": "I look.", "tool_calls": [
            call(0, "t-1", "weather", "{\"at\":\"Bern\"}"), call(1, "t-2", "now", "{}")]})
    );
    assert_eq!(played.usage, Some(Ok(metered())));
}

#[test]
fn any_cut_gives_the_same_and_garbage_never_panics() {
    cut_anywhere(BEDROCK, &thinking());
    cut_anywhere(BEDROCK, &calling());
}

#[test]
fn an_exception_inside_is_an_error_and_no_success() {
    for (kind, status) in [
        ("throttlingException", Some(429)),
        ("modelStreamErrorException", Some(424)),
        ("internalServerException", Some(500)),
        ("serviceUnavailableException", Some(503)),
        ("validationException", Some(400)),
        ("newException", None),
    ] {
        let stream = [
            start(),
            delta(0, json!({"text": "It"})),
            exception(kind),
            end("end_turn"),
            metadata(),
        ]
        .concat();
        let played = play(BEDROCK, &[&stream]);
        assert_eq!((played.errors, played.ending), (1, Ending::Cut), "{kind}");
        assert_eq!((played.said.as_str(), played.usage), ("It", None));
        let mut framer = BEDROCK.framing().framer(1 << 20);
        let mut decoder = BEDROCK.decoder(std::sync::Arc::default(), origin());
        framer.push(Bytes::from(exception(kind)));
        let mut out = Vec::new();
        decoder
            .push(framer.next().unwrap().unwrap(), &mut out)
            .unwrap();
        let Delta::Error(error) = &out[0] else {
            panic!("{out:?}")
        };
        assert_eq!((error.status, error.kind.as_deref()), (status, Some(kind)));
        assert_eq!(error.message.as_deref(), Some("Too many tokens"));
    }
    let error = frame(
        &[
            (":message-type", "error"),
            (":error-code", "InternalError"),
            (":error-message", "x"),
        ],
        b"",
    );
    assert_eq!(play(BEDROCK, &[&[start(), error].concat()]).errors, 1);
}

#[test]
fn what_breaks_off_does_not_look_complete() {
    let half = [start(), delta(0, json!({"text": "It"}))].concat();
    assert_eq!(play(BEDROCK, &[&half]).ending, Ending::Cut);
    // Without its usage a message that ended is whole, and counted.
    let unreported = [half.clone(), end("end_turn")].concat();
    assert_eq!(play(BEDROCK, &[&unreported]).ending, Ending::Finished);
    for wrong in [
        [start(), start()].concat(),
        [start(), delta(4, json!({"toolUse": {"input": "x"}}))].concat(),
        [start(), delta(0, json!({"text": 7}))].concat(),
        [start(), end("end_turn"), end("end_turn")].concat(),
        frame(
            &[(":event-type", "messageStop"), (":message-type", "event")],
            b"[]",
        ),
    ] {
        assert!(play(BEDROCK, &[&wrong]).wrong.is_some(), "{wrong:?}");
    }
}

#[test]
fn frames_are_bounded_and_checked() {
    let framed = |bytes: &[u8], max: usize| {
        let mut framer = Framing::AwsEventStream.framer(max);
        framer.push(Bytes::copy_from_slice(bytes));
        let mut out = Vec::new();
        while let Some(event) = framer.next() {
            out.push(event.map(|event| event.data));
        }
        while let Some(event) = framer.finish() {
            out.push(event.map(|event| event.data));
        }
        out
    };
    let good = frame(&[(":event-type", "a")], b"{}");
    let two = [good.clone(), good.clone()].concat();
    let said = Ok(Bytes::from_static(b"{}"));
    assert_eq!(framed(&two, 100), [said.clone(), said.clone()]);
    assert_eq!(framed(&good, good.len())[0], said);
    assert_eq!(
        framed(&good, good.len() - 1),
        [Err(FrameError::TooLong {
            max: good.len() - 1
        })]
    );
    for at in 0..good.len() {
        let mut spoilt = two.clone();
        spoilt[at] ^= 0x01;
        let out = framed(&spoilt, 100);
        assert!(
            matches!(
                out[..],
                [Err(FrameError::Damaged | FrameError::TooLong { .. })]
            ),
            "{at}: {out:?}"
        );
    }
    assert_eq!(
        framed(&two[..two.len() - 1], 100),
        [said, Err(FrameError::Damaged)]
    );
    // A length that no buffer holds is refused before anything is gathered.
    assert_eq!(
        framed(&[0xff; 12], 100),
        [Err(FrameError::TooLong { max: 100 })]
    );
    assert_eq!(
        framed(&[0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], 100),
        [Err(FrameError::Damaged)]
    );
    assert_eq!(framed(&frame(&[], b"\xff"), 100), [Err(FrameError::Utf8)]);
}

proptest! {
    #[test]
    fn no_bytes_make_the_framer_panic_and_cuts_change_nothing(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        length in 0_u32..400,
        at in any::<prop::sample::Index>(),
    ) {
        // Random lengths are refused at once; a small one lets the rest be read.
        let mut stream = length.to_be_bytes().to_vec();
        stream.extend(&bytes);
        let frames = |pieces: &[&[u8]]| {
            let mut framer = Framing::AwsEventStream.framer(350);
            let mut out = Vec::new();
            for piece in pieces {
                framer.push(Bytes::copy_from_slice(piece));
                while let Some(event) = framer.next() {
                    out.push(event);
                }
            }
            while let Some(event) = framer.finish() {
                out.push(event);
            }
            out
        };
        let (head, tail) = stream.split_at(at.index(stream.len()));
        prop_assert_eq!(frames(&[&stream]), frames(&[head, tail]));
    }

    #[test]
    fn what_is_framed_is_read_back(names in prop::collection::vec("[a-zA-Z]{1,20}", 0..5), text in ".{0,200}") {
        let stream: Vec<u8> = names.iter().flat_map(|name| frame(&[(":event-type", name)], text.as_bytes())).collect();
        let mut framer = Framing::AwsEventStream.framer(1 << 20);
        framer.push(Bytes::from(stream));
        for name in &names {
            let event = framer.next().unwrap().unwrap();
            prop_assert_eq!(event.event.as_deref(), Some(name.as_bytes()));
            prop_assert_eq!(&event.data[..], text.as_bytes());
        }
        prop_assert!(framer.next().is_none() && framer.finish().is_none());
    }
}

#[test]
fn a_plain_answer_is_a_completion() {
    let body = json!({"metrics": {"latencyMs": 2}, "output": {"message": {"role": "assistant", "content": [
            {"reasoningContent": {"reasoningText": {"text": "Hm.", "signature": "EvQB"}}},
            {"reasoningContent": {"redactedContent": "Em8="}},
            {"text": "It is "}, {"text": "four."},
            {"toolUse": {"toolUseId": "t-1", "name": "now", "input": {"a": [1]}}}]}},
        "stopReason": "tool_use", "usage": {"inputTokens": 51, "outputTokens": 94, "totalTokens": 155, "cacheReadInputTokens": 7, "cacheWriteInputTokens": 3}});
    let answer = decoded(BEDROCK, &body.to_string());
    let choice = &answer["choices"][0];
    assert_eq!(choice["message"]["content"], "It is four.");
    assert_eq!(choice["message"]["reasoning_content"], "Hm.");
    assert_eq!(
        choice["message"]["reasoning_details"],
        json!([{"type": "reasoning.text", "index": 0, "format": "bedrock-converse-v1", "text": "Hm.", "signature": "EvQB"},
            {"type": "reasoning.encrypted", "index": 1, "format": "bedrock-converse-v1", "data": "Em8="}])
    );
    assert_eq!(
        choice["message"]["tool_calls"],
        json!([{"id": "t-1", "type": "function", "function": {"name": "now", "arguments": "{\"a\":[1]}"}}])
    );
    assert_eq!(choice["finish_reason"], "tool_calls");
    let read = decode(BEDROCK, &body.to_string()).unwrap();
    assert_eq!(read.usage(), Some(Ok(metered())));
    for body in [
        "[]",
        "{}",
        "",
        r#"{"output":{"message":{"content":[{"text":7}]}}}"#,
        r#"{"message":"no"}"#,
    ] {
        assert!(decode(BEDROCK, body).is_err(), "{body}");
    }
}

#[test]
fn why_it_ended_in_openais_words() {
    for (native, expected) in [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("malformed_tool_use", "length"),
        ("tool_use", "tool_calls"),
        ("guardrail_intervened", "content_filter"),
        ("content_filtered", "content_filter"),
        ("new_word", "stop"),
    ] {
        let played = play(BEDROCK, &[&[start(), end(native)].concat()]);
        assert_eq!(reasons(&played.chunks), [expected], "{native}");
    }
}

#[test]
fn a_model_that_is_not_there_is_the_operators_trouble() {
    for (message, expected) in [
        ("The provided model identifier is invalid.", 404),
        (
            "Invocation of model ID x with on-demand throughput isn\u{2019}t supported.",
            404,
        ),
        ("messages.0: odd", 400),
    ] {
        let body = json!({"message": message}).to_string();
        let error = UpstreamError::from_body(400, None, body.as_bytes());
        assert_eq!(BEDROCK.cause(400, &error), expected);
    }
}

#[test]
fn the_whole_surface_in_one_request() {
    let full = json!({
        "messages": [
            {"role": "developer", "content": "Be brief."},
            {"role": "system", "content": [{"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}]},
            {"role": "user", "content": [
                {"type": "text", "text": "What is \"this\"?"}, {"type": "text", "text": " "},
                {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,iVBORw0KGgo="}},
                {"type": "file", "file": {"filename": "my_file.v2.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
                {"type": "file", "file": {"file_data": "data:text/csv;base64,YQ=="}, "cache_control": {"type": "ephemeral"}}]},
            {"role": "assistant", "content": "Let me look.", "reasoning_details": [
                {"type": "reasoning.text", "index": 0, "format": "bedrock-converse-v1", "text": "Hm", "signature": "EvQB"},
                {"type": "reasoning.encrypted", "index": 1, "format": "bedrock-converse-v1", "data": "Em8="},
                {"type": "reasoning.text", "index": 2, "format": "anthropic-claude-v1", "text": "theirs", "signature": "x"}],
             "tool_calls": [{"id": "call:1", "type": "function", "function": {"name": "look", "arguments": "{\"at\": 1}"}}]},
            {"role": "tool", "tool_call_id": "call:1", "content": "sunny"},
            {"role": "user", "content": "And now?"}],
        "stream": true, "stream_options": {"include_usage": true},
        "max_completion_tokens": 9000, "stop": ["END"], "top_k": 40, "temperature": 1,
        "tools": [
            {"type": "function", "function": {"name": "look", "description": "Looks.", "strict": true, "parameters": {"type": "object", "properties": {}}}},
            {"type": "function", "function": {"name": "now"}}],
        "tool_choice": "auto", "reasoning_effort": "high",
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"type": "object"}}},
        "user": "u", "store": true
    });
    let provider = Provider {
        features: "thinking = 'adaptive'\neffort = ['low', 'high']",
        ..Provider::default()
    };
    let wire = encode(BEDROCK, &full, provider);
    // This model's name is of no family that can be told how much to think.
    assert_eq!(wire.unwrap_err().param.as_deref(), Some("top_k"));
    let claude = encode_for("eu.anthropic.claude-x-v1:0", &full, provider);
    assert_eq!(
        claude.0,
        "/model/eu.anthropic.claude-x-v1%3A0/converse-stream"
    );
    assert_eq!(
        claude.1,
        json!({
            "messages": [
                {"role": "user", "content": [
                    {"text": "What is \"this\"?"},
                    {"image": {"format": "jpeg", "source": {"bytes": "iVBORw0KGgo="}}},
                    {"document": {"format": "pdf", "name": "my-file-v2 1", "source": {"bytes": "JVBERi0="}}},
                    {"document": {"format": "csv", "name": "document 2", "source": {"bytes": "YQ=="}}},
                    {"cachePoint": {"type": "default"}}]},
                {"role": "assistant", "content": [
                    {"reasoningContent": {"reasoningText": {"text": "Hm", "signature": "EvQB"}}},
                    {"reasoningContent": {"redactedContent": "Em8="}},
                    {"text": "Let me look."},
                    {"toolUse": {"toolUseId": "call_1", "name": "look", "input": {"at": 1}}}]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "call_1", "content": [{"text": "sunny"}], "status": "success"}},
                    {"text": "And now?"}]}],
            "system": [{"text": "Be brief."}, {"text": "Be kind."}, {"cachePoint": {"type": "default", "ttl": "1h"}}],
            "inferenceConfig": {"maxTokens": 9000, "stopSequences": ["END"]},
            "toolConfig": {"tools": [
                {"toolSpec": {"name": "look", "description": "Looks.", "inputSchema": {"json": {"type": "object", "properties": {}}}, "strict": true}},
                {"toolSpec": {"name": "now", "inputSchema": {"json": {"type": "object", "properties": {}}}}}]},
            "additionalModelRequestFields": {"top_k": 40, "thinking": {"type": "adaptive", "display": "summarized"}, "output_config": {"effort": "high"}},
            "outputConfig": {"textFormat": {"type": "json_schema", "structure": {"jsonSchema": {"schema": "{\"type\":\"object\"}", "name": "a"}}}}
        })
    );
}

#[test]
fn what_a_messages_client_marks_is_kept_up_to_there() {
    use dialect::{Composing, MessagesRequest, Quirks, RequestLimits};
    let mark = json!({"type": "ephemeral"});
    let body = json!({"model": "m", "max_tokens": 9,
        "system": [{"type": "text", "text": "Be brief."},
            {"type": "text", "text": "Be kind.", "cache_control": {"type": "ephemeral", "ttl": "1h"}}],
        "tools": [{"name": "look", "input_schema": {"type": "object"}},
            {"name": "now", "input_schema": {"type": "object"}, "cache_control": mark}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "Hi", "cache_control": mark}]},
            {"role": "assistant", "content": [
                {"type": "tool_use", "id": "t1", "name": "now", "input": {}, "cache_control": mark}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "t1", "content": "noon", "cache_control": mark},
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}, "cache_control": mark}]}]})
    .to_string();
    let request = MessagesRequest::parse(body.as_bytes(), &RequestLimits::default()).unwrap();
    let sent = |cache_marks: bool| {
        let target = Composing {
            quirks: &Quirks::default(),
            reasons: false,
            native: false,
            cache_marks,
        };
        let composed = request.compose(&target).unwrap();
        assert!(composed.beyond.is_none());
        let chat: Value = serde_json::from_slice(&composed.body).unwrap();
        (
            encode_for("anthropic.claude-x", &chat, Provider::default()).1,
            chat,
        )
    };
    let point = json!({"cachePoint": {"type": "default"}});
    let (marked, _) = sent(true);
    assert_eq!(
        marked["system"],
        json!([{"text": "Be brief."}, {"text": "Be kind."}, {"cachePoint": {"type": "default", "ttl": "1h"}}])
    );
    let tools = marked["toolConfig"]["tools"].as_array().unwrap();
    assert_eq!((tools.len(), &tools[2]), (3, &point));
    assert_eq!(
        marked["messages"],
        json!([
            {"role": "user", "content": [{"text": "Hi"}, point]},
            {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "now", "input": {}}}, point]},
            {"role": "user", "content": [
                {"toolResult": {"toolUseId": "t1", "content": [{"text": "noon"}], "status": "success"}}, point,
                {"image": {"format": "png", "source": {"bytes": "iVBORw0KGgo="}}}, point]}])
    );
    // Where the provider does not heed marks, none are sent.
    let (_, plain) = sent(false);
    assert!(!plain.to_string().contains("cache_control"), "{plain}");
    assert_eq!(plain["messages"][1]["content"], "Hi");
}

/// A tool's result has no points within.
#[test]
fn a_mark_within_a_tools_result_lies_behind_it() {
    let chat = json!({"messages": [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "t1", "content": [{"type": "text", "text": "noon", "cache_control": {"type": "ephemeral"}}]}],
        "tools": [{"type": "function", "function": {"name": "now"}}]});
    let (_, body) = encode_for("anthropic.claude-x", &chat, Provider::default());
    assert_eq!(
        body["messages"][2]["content"],
        json!([{"toolResult": {"toolUseId": "t1", "content": [{"text": "noon"}], "status": "success"}},
            {"cachePoint": {"type": "default"}}])
    );
}

/// The path and the body of a request for a model of this name.
fn encode_for(model: &str, more: &Value, provider: Provider) -> (String, Value) {
    use dialect::{ChatRequest, Edit, Features, Quirks, RequestLimits};
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let text = body.to_string();
    let request = ChatRequest::parse(text.as_bytes(), &RequestLimits::default()).unwrap();
    let features: Features = toml::from_str(provider.features).unwrap();
    let edit = Edit {
        upstream_model: model,
        output_limit: provider.affordable,
        output_tokens_max: 4096,
        features: &features,
        ask_stream_usage: true,
    };
    let quirks: Quirks = toml::from_str(provider.quirks).unwrap();
    let wire = BEDROCK.encode(&request, &edit, &quirks).unwrap();
    (wire.path, serde_json::from_slice(&wire.body).unwrap())
}

#[test]
fn each_family_thinks_in_its_own_words() {
    let effort = json!({"reasoning_effort": "high", "max_tokens": 4000});
    for (model, features, expected) in [
        (
            "anthropic.claude-3-7",
            "thinking = 'budget'",
            json!({"thinking": {"type": "enabled", "budget_tokens": 3200}}),
        ),
        (
            "us.amazon.nova-2-lite-v1:0",
            "effort = ['low', 'medium', 'high']",
            json!({"reasoningConfig": {"type": "enabled", "maxReasoningEffort": "high"}}),
        ),
        (
            "openai.gpt-oss-120b-1:0",
            "effort = ['low', 'medium', 'high']",
            json!({"reasoning_effort": "high"}),
        ),
    ] {
        let provider = Provider {
            features,
            ..Provider::default()
        };
        let (path, body) = encode_for(model, &effort, provider);
        assert!(path.ends_with("/converse"));
        assert_eq!(body["additionalModelRequestFields"], expected, "{model}");
    }
    let (_, nova) = encode_for(
        "amazon.nova-pro-v1:0",
        &json!({"top_k": 5}),
        Provider::default(),
    );
    assert_eq!(
        nova["additionalModelRequestFields"],
        json!({"inferenceConfig": {"topK": 5}})
    );
}

#[test]
fn limits_choices_and_the_providers_file() {
    let affordable = Provider {
        affordable: Some(5),
        quirks: "set = { guardrailConfig = { guardrailIdentifier = \"g\", guardrailVersion = \"1\" } }",
        ..Provider::default()
    };
    let wire = sent(
        BEDROCK,
        json!({"max_tokens": 50, "temperature": 0.5, "top_p": 0.9}),
        affordable,
    );
    assert_eq!(
        wire["inferenceConfig"],
        json!({"maxTokens": 5, "temperature": 0.5, "topP": 0.9})
    );
    assert_eq!(wire["guardrailConfig"]["guardrailIdentifier"], "g");
    let open = sent(BEDROCK, json!({}), Provider::default());
    assert_eq!(
        open,
        json!({"messages": [{"role": "user", "content": [{"text": "hi"}]}]})
    );
    let tools = json!([{"type": "function", "function": {"name": "a"}}]);
    let with = |choice: Value| {
        sent(
            BEDROCK,
            json!({"tools": tools, "tool_choice": choice}),
            Provider::default(),
        )
    };
    assert_eq!(
        with(json!("required"))["toolConfig"]["toolChoice"],
        json!({"any": {}})
    );
    assert_eq!(
        with(json!({"type": "function", "function": {"name": "a"}}))["toolConfig"]["toolChoice"],
        json!({"tool": {"name": "a"}})
    );
    assert_eq!(with(json!("none")).get("toolConfig"), None);
    let alone = sent(
        BEDROCK,
        json!({"messages": [{"role": "system", "content": "Hello"}]}),
        Provider::default(),
    );
    assert_eq!(
        alone["messages"],
        json!([{"role": "user", "content": [{"text": "Hello"}]}])
    );
}

#[test]
fn what_cannot_be_done_is_refused_by_name() {
    let user = |part: Value| json!({"messages": [{"role": "user", "content": [part]}]});
    let image = |url: &str| user(json!({"type": "image_url", "image_url": {"url": url}}));
    refuses(
        BEDROCK,
        &[
            ("n", json!({"n": 2})),
            ("seed", json!({"seed": 2})),
            ("top_k", json!({"top_k": 2})),
            ("logprobs", json!({"logprobs": true})),
            ("parallel_tool_calls", json!({"parallel_tool_calls": false})),
            (
                "response_format",
                json!({"response_format": {"type": "json_object"}}),
            ),
            ("reasoning_effort", json!({"reasoning_effort": "low"})),
            ("guardrailConfig", json!({"guardrailConfig": {}})),
            ("serviceTier", json!({"serviceTier": {"type": "priority"}})),
            (
                "additionalModelRequestFields",
                json!({"additionalModelRequestFields": {"max_tokens": 9}}),
            ),
        ],
    );
    let history = json!({"messages": [{"role": "user", "content": "x"},
        {"role": "assistant", "tool_calls": [{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
        {"role": "tool", "tool_call_id": "c", "content": "y"}]});
    for (param, more) in [
        ("messages[0].content[0]", image("https://a.example/b.png")),
        ("messages[0].content[0]", image("s3://bucket/b.png")),
        (
            "messages[0].content[0]",
            image("data:image/bmp;base64,QQ=="),
        ),
        (
            "messages",
            json!({"messages": [{"role": "assistant", "content": "x"}]}),
        ),
        (
            "messages",
            json!({"messages": [{"role": "user", "content": " "}]}),
        ),
        ("tools", history),
    ] {
        let error = encode(BEDROCK, &more, Provider::default()).unwrap_err();
        assert_eq!(error.param.as_deref(), Some(param), "{more}");
    }
}
