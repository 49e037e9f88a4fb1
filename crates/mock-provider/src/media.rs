//! Images and audio: the smallest that is any, with usage in the ways that OpenAI has.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use memchr::memmem;
use serde_json::{Value, json};

use crate::request::words_of_value;

/// A picture of one pixel.
const PIXEL: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNkYAAAAAYAAjCB0C8AAAAASUVORK5CYII=";
/// Output tokens of an image, where the model's name says that it is sold by tokens.
const IMAGE_TOKENS: u64 = 100;
/// Audio tokens of a speech, likewise.
const SPEECH_TOKENS: u64 = 50;
/// What is heard in every recording.
const HEARD: &str = "All is well";
/// MPEG 2, layer 3, 8 kbit/s, 24 kHz: a frame of 24 bytes and 24 ms.
const FRAME: [u8; 4] = [0xff, 0xf3, 0x14, 0x00];
const FRAME_BYTES: usize = 24;

/// An answer with its content type.
pub(crate) struct Media {
    pub(crate) kind: &'static str,
    pub(crate) body: Bytes,
}

impl Media {
    fn json(value: &Value) -> Self {
        Self {
            kind: "application/json",
            body: value.to_string().into(),
        }
    }

    fn events(events: &[Value]) -> Self {
        let lines: String = events
            .iter()
            .map(|one| format!("data: {one}\n\n"))
            .collect();
        Self {
            kind: "text/event-stream",
            body: lines.into(),
        }
    }
}

fn by_tokens(model: &str) -> bool {
    model.contains("tokens")
}

/// `/images/generations` and `/images/edits`.
pub(crate) fn images(model: &str, prompt: &str, count: u64, streams: bool) -> Media {
    let input = words_of_value(&Value::from(prompt));
    let output = IMAGE_TOKENS.saturating_mul(count);
    let usage = json!({"input_tokens": input, "output_tokens": output,
        "total_tokens": input + output,
        "input_tokens_details": {"text_tokens": input, "image_tokens": 0}});
    if streams {
        return Media::events(&[
            json!({"type": "image_generation.partial_image", "b64_json": PIXEL, "partial_image_index": 0}),
            json!({"type": "image_generation.completed", "b64_json": PIXEL, "usage": usage}),
        ]);
    }
    let picture = json!({"b64_json": PIXEL});
    let list = vec![picture; usize::try_from(count).unwrap_or(0).min(10)];
    let mut answer = json!({"created": 1_700_000_000, "data": list});
    if by_tokens(model) {
        answer["usage"] = usage;
    }
    Media::json(&answer)
}

/// `/audio/speech`: silence, a frame for each character.
pub(crate) fn speech(input: &str, events: bool) -> Media {
    let mut frame = FRAME.to_vec();
    frame.resize(FRAME_BYTES, 0);
    let audio = frame.repeat(input.chars().count());
    if !events {
        return Media {
            kind: "audio/mpeg",
            body: audio.into(),
        };
    }
    let words = words_of_value(&Value::from(input));
    let halves = audio.split_at(audio.len() / 2);
    let piece = |bytes: &[u8]| json!({"type": "speech.audio.delta", "audio": BASE64_STANDARD.encode(bytes)});
    Media::events(&[
        piece(halves.0),
        piece(halves.1),
        json!({"type": "speech.audio.done", "usage": {"input_tokens": words,
            "output_tokens": SPEECH_TOKENS, "total_tokens": words + SPEECH_TOKENS}}),
    ])
}

/// `/audio/transcriptions` and `/audio/translations`.
pub(crate) fn heard(model: &str, format: &str, streams: bool) -> Media {
    let usage = if by_tokens(model) {
        json!({"type": "tokens", "input_tokens": 14, "output_tokens": 3, "total_tokens": 17,
            "input_token_details": {"text_tokens": 4, "audio_tokens": 10}})
    } else {
        json!({"type": "duration", "seconds": 2})
    };
    if streams {
        let mut events: Vec<Value> = HEARD
            .split_inclusive(' ')
            .map(|word| json!({"type": "transcript.text.delta", "delta": word}))
            .collect();
        events.push(json!({"type": "transcript.text.done", "text": HEARD, "usage": usage}));
        return Media::events(&events);
    }
    match format {
        "text" | "srt" | "vtt" => Media {
            kind: "text/plain; charset=utf-8",
            body: HEARD.into(),
        },
        _ => Media::json(&json!({"text": HEARD, "usage": usage})),
    }
}

/// A field of a form that is no file; empty where there is none.
pub(crate) fn field<'a>(form: &'a [u8], name: &str) -> &'a str {
    let found = || {
        let name = format!("name=\"{name}\"\r\n");
        let at = memmem::find(form, name.as_bytes())?;
        let rest = form.get(at..)?;
        let start = memmem::find(rest, b"\r\n\r\n")? + 4;
        let value = rest.get(start..)?;
        let end = memmem::find(value, b"\r\n")?;
        std::str::from_utf8(value.get(..end)?).ok()
    };
    found().unwrap_or("")
}
