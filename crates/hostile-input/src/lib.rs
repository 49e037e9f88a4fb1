//! What whatever arrives must leave standing: the bodies of the fuzz targets, which the tests run over the seeds.
//!
//! The first byte of an input chooses among the ways that it can be read; the rest is what arrives. A
//! body panics where something does not hold, and that is what the fuzzer looks for.

mod answers;
mod framers;
mod requests;

use dialect::{Dialect, Quirks};
use serde_json::value::RawValue;

/// A target: its name, which is that of its folder of seeds too, and its body.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 11] = [
    ("framers", framers::body),
    ("decode_openai", |data| answers::body(Dialect::OpenAi, data)),
    ("decode_anthropic", |data| {
        answers::body(Dialect::Anthropic, data);
    }),
    ("decode_gemini", |data| answers::body(Dialect::Gemini, data)),
    ("decode_bedrock", |data| {
        answers::body(Dialect::Bedrock, data);
    }),
    ("decode_cohere", |data| answers::body(Dialect::Cohere, data)),
    ("decode_ollama", |data| answers::body(Dialect::Ollama, data)),
    ("decode_forwarded", answers::forwarded),
    ("encode_chat", requests::chat),
    ("encode_other_clients", requests::other_clients),
    ("encode_forwarded", requests::forwarded),
];

/// Runs the body of the target with this name.
///
/// # Panics
/// Where something that must hold does not, or there is no such target.
pub fn run(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    assert!(target.is_some(), "no target is called {name}");
    if let Some((_, body)) = target {
        body(data);
    }
}

/// The first byte, and the rest.
fn choice(data: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = data.split_first()?;
    Some((usize::from(*first), rest))
}

/// One of a list, by what is left of a choice; the choice goes on with the rest of it.
fn pick<T: Copy>(choice: &mut usize, of: &[T]) -> Option<T> {
    let one = of.get(*choice % of.len().max(1)).copied();
    *choice /= of.len().max(1);
    one
}

/// Some providers' quirks.
fn quirks(choice: &mut usize) -> Quirks {
    let texts = [
        "{}",
        r#"{"reasoning":"beside","usage_at":["/usage","/x_groq/usage"],"responses":"stored"}"#,
        r#"{"cached":"beside","drop_unsupported":true,"rename":{"max_tokens":"max_completion_tokens"},"set":{"safe_prompt":false},"clamp":{"temperature":{"min":0,"max":1}},"unsupported":["logprobs"]}"#,
    ];
    let text = pick(choice, &texts).unwrap_or("{}");
    serde_json::from_str(text).unwrap_or_default()
}

#[track_caller]
fn assert_json(what: &str, bytes: &[u8]) {
    let read = serde_json::from_slice::<&RawValue>(bytes);
    assert!(
        read.is_ok(),
        "{what} is no JSON: {read:?}: {:?}",
        String::from_utf8_lossy(bytes)
    );
}
