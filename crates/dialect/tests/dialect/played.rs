//! A stream or an answer of any dialect, played through its framer and decoder and added up as a client would.

use std::sync::Arc;

use bytes::Bytes;
use dialect::{
    Answer, ChatRequest, DecodeError, Delta, Dialect, Edit, Ending, Features, Origin, Quirks,
    RequestError, RequestLimits, TextKind, UsageFault, WireRequest,
};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokens::Usage;

/// What a client makes of a stream.
#[derive(Debug, PartialEq)]
pub(crate) struct Played {
    pub(crate) chunks: Vec<Value>,
    pub(crate) said: String,
    pub(crate) thought: String,
    /// Names and arguments, as they are counted.
    pub(crate) called: String,
    pub(crate) usage: Option<Result<Usage, UsageFault>>,
    pub(crate) errors: usize,
    /// What could not be read.
    pub(crate) wrong: Option<String>,
    pub(crate) ending: Ending,
}

pub(crate) fn origin() -> Origin {
    Origin {
        created: 1_700_000_000,
        id: "req_1".into(),
        model: "m".into(),
    }
}

/// Plays the bytes of a stream that come in these pieces.
pub(crate) fn play(dialect: Dialect, pieces: &[&[u8]]) -> Played {
    let mut framer = dialect.framing().framer(1 << 20);
    let mut decoder = dialect.decoder(Arc::new(Quirks::default()), origin());
    let mut out = Vec::new();
    let mut wrong = None;
    let mut take = |event: Result<_, dialect::FrameError>| {
        if wrong.is_none() {
            wrong = match event {
                Ok(event) => decoder.push(event, &mut out).err().map(|e| e.to_string()),
                Err(error) => Some(error.to_string()),
            };
        }
    };
    for piece in pieces {
        framer.push(Bytes::copy_from_slice(piece));
        while let Some(event) = framer.next() {
            take(event);
        }
    }
    while let Some(event) = framer.finish() {
        take(event);
    }
    let mut played = Played {
        chunks: Vec::new(),
        said: String::new(),
        thought: String::new(),
        called: String::new(),
        usage: decoder.usage(),
        errors: 0,
        wrong,
        ending: decoder.ending(),
    };
    for delta in &out {
        match delta {
            Delta::Chunk(chunk) => {
                for text in chunk.texts() {
                    match text.kind {
                        TextKind::Content => played.said.push_str(text.text),
                        TextKind::Reasoning => played.thought.push_str(text.text),
                        TextKind::ToolCall => played.called.push_str(text.text),
                        TextKind::Refusal | TextKind::Audio => panic!("{text:?}"),
                    }
                }
                played
                    .chunks
                    .push(serde_json::from_slice(chunk.json()).unwrap());
            }
            Delta::Done => {}
            Delta::Error(_) => played.errors += 1,
        }
    }
    if played.errors > 0 || played.wrong.is_some() {
        assert!(
            !matches!(out.last(), Some(Delta::Done)),
            "success after an error"
        );
    }
    played
}

/// The message that the deltas of a stream add up to.
pub(crate) fn added_up(chunks: &[Value]) -> Value {
    let mut message = json!({});
    let mut calls: Vec<Value> = Vec::new();
    for delta in chunks.iter().map(|chunk| &chunk["choices"][0]["delta"]) {
        for name in ["role", "content", "reasoning_content"] {
            if let Some(text) = delta[name].as_str() {
                let before = message[name].as_str().unwrap_or_default();
                message[name] = json!(format!("{before}{text}"));
            }
        }
        for call in delta["tool_calls"].as_array().into_iter().flatten() {
            let place = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if place == calls.len() {
                calls.push(call.clone());
            } else {
                let more = call["function"]["arguments"].as_str().unwrap();
                let known = &mut calls[place]["function"]["arguments"];
                *known = json!(format!("{}{more}", known.as_str().unwrap()));
            }
        }
    }
    if !calls.is_empty() {
        message["tool_calls"] = json!(calls);
    }
    message
}

/// The reasons for which a stream says that it ended.
pub(crate) fn reasons(chunks: &[Value]) -> Vec<&str> {
    let choices = chunks.iter().map(|chunk| &chunk["choices"][0]);
    choices
        .filter_map(|choice| choice["finish_reason"].as_str())
        .collect()
}

pub(crate) fn decode(dialect: Dialect, body: &str) -> Result<Answer, DecodeError> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    dialect.decode(body, &Quirks::default(), origin())
}

/// An answer as the client gets it.
#[track_caller]
pub(crate) fn decoded(dialect: Dialect, body: &str) -> Value {
    let answer = decode(dialect, body).unwrap_or_else(|error| panic!("{error}: {body}"));
    serde_json::from_slice(answer.json()).unwrap()
}

/// What a model can do and its provider's quirks, as their file writes them.
#[derive(Clone, Copy, Default)]
pub(crate) struct Provider {
    pub(crate) features: &'static str,
    pub(crate) quirks: &'static str,
    pub(crate) affordable: Option<u64>,
}

pub(crate) fn encode(
    dialect: Dialect,
    more: &Value,
    provider: Provider,
) -> Result<WireRequest, RequestError> {
    let mut body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let text = body.to_string();
    let request = ChatRequest::parse(text.as_bytes(), &RequestLimits::default())?;
    let features: Features = toml::from_str(provider.features).unwrap();
    let edit = Edit {
        upstream_model: "up/m:1",
        output_limit: provider.affordable,
        output_tokens_max: 4096,
        features: &features,
        ask_stream_usage: true,
    };
    let quirks: Quirks = toml::from_str(provider.quirks).unwrap();
    dialect.encode(&request, &edit, &quirks)
}

#[track_caller]
pub(crate) fn sent(dialect: Dialect, more: Value, provider: Provider) -> Value {
    let wire = encode(dialect, &more, provider).unwrap_or_else(|e| panic!("{more}: {e:?}"));
    serde_json::from_slice(&wire.body).unwrap_or_else(|e| panic!("{e}: {:?}", wire.body))
}

/// Each of these members is refused by its name, and left out where the provider's file says so.
#[track_caller]
pub(crate) fn refuses(dialect: Dialect, members: &[(&str, Value)]) {
    let plain = sent(dialect, json!({}), Provider::default());
    for (param, more) in members {
        let error = encode(dialect, more, Provider::default()).expect_err(param);
        assert_eq!(error.param.as_deref(), Some(*param), "{more}: {error}");
        let lenient = Provider {
            quirks: "drop_unsupported = true",
            ..Provider::default()
        };
        if more.get("messages").is_none() {
            assert_eq!(sent(dialect, more.clone(), lenient), plain, "{more}");
        }
    }
}

/// However the bytes are cut, a client gets the same; and no bytes make a decoder panic.
pub(crate) fn cut_anywhere(dialect: Dialect, stream: &[u8]) {
    let whole = play(dialect, &[stream]);
    let bytewise: Vec<&[u8]> = stream.chunks(1).collect();
    assert_eq!(play(dialect, &bytewise), whole);
    let cut = prop::collection::vec(0..=stream.len(), 0..9);
    let spoiled = prop::collection::vec((0..stream.len().max(1), any::<u8>()), 0..4);
    proptest!(ProptestConfig::with_cases(64), |(cuts in cut, spoiled in spoiled, end in 0..=stream.len())| {
        let mut cuts = cuts;
        cuts.extend([0, stream.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &stream[cut[0]..cut[1]]).collect();
        prop_assert_eq!(&play(dialect, &pieces), &whole);
        let mut garbage = stream[..end].to_vec();
        for (at, byte) in spoiled {
            if let Some(spoilt) = garbage.get_mut(at) {
                *spoilt = byte;
            }
        }
        let played = play(dialect, &[&garbage]);
        let bytewise: Vec<&[u8]> = garbage.chunks(1).collect();
        prop_assert_eq!(play(dialect, &bytewise), played);
    });
}
