//! What the right answer is, computed apart from the program: tokens by tiktoken, money by a fixed price.

use std::sync::LazyLock;

use billing::Credits;
use serde_json::{Value, json};
use tiktoken_rs::CoreBPE;

/// The price of a token of the model `m`: 1 credit per million.
const NANOS_PER_TOKEN: i64 = 1_000;

static O200K: LazyLock<CoreBPE> = LazyLock::new(|| tiktoken_rs::o200k_base().unwrap());

/// The usual prompt: two tokens of text.
pub const PROMPT: &str = "one two";
/// What the usual prompt counts: 3 for the reply, 3 and a role for the message, and its text
/// (OpenAI cookbook, "How to count tokens with tiktoken").
pub const PROMPT_TOKENS: u64 = 3 + 3 + 1 + 2;

/// Tokens of a text, by an implementation that the program does not use.
#[must_use]
pub fn count_tokens(text: &str) -> u64 {
    O200K.encode_ordinary(text).len() as u64
}

/// What so many tokens of the model `m` cost.
#[must_use]
pub fn tokens_cost(tokens: u64) -> Credits {
    Credits::from_nanos(i64::try_from(tokens).unwrap() * NANOS_PER_TOKEN)
}

/// An amount in its text form.
#[must_use]
pub fn credits(text: &str) -> Credits {
    text.parse().unwrap()
}

/// A chat with the usual prompt, and `more` members.
#[must_use]
pub fn chat(model: &str, more: Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": PROMPT}]});
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// The same as a stream that asks for usage.
#[must_use]
pub fn streamed(model: &str) -> Value {
    chat(
        model,
        json!({"stream": true, "stream_options": {"include_usage": true}}),
    )
}

/// A provider's usage object.
#[must_use]
pub fn usage(prompt: u64, completion: u64) -> String {
    let total = prompt + completion;
    json!({"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": total})
        .to_string()
}
