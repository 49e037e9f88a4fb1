//! Embeddings: short vectors that depend on nothing but the text's length.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::request::words_of_value;

const DIMENSIONS: usize = 8;
const DIMENSIONS_MAX: usize = 4_096;
const INPUTS_MAX: usize = 2_048;

#[derive(Debug, Deserialize)]
pub(crate) struct EmbeddingRequest {
    #[serde(default)]
    pub(crate) model: String,
    #[serde(default)]
    input: Value,
    #[serde(default)]
    encoding_format: Option<String>,
    #[serde(default)]
    dimensions: Option<usize>,
}

impl EmbeddingRequest {
    /// The answer; none where the input is empty, too much, or nothing that can be embedded.
    pub(crate) fn answer(&self) -> Option<Value> {
        let lengths: Vec<u64> = match &self.input {
            Value::String(_) => vec![words_of_value(&self.input)],
            // A list of numbers is one text in tokens, any other list is several texts.
            Value::Array(list) if list.first().is_some_and(Value::is_number) => {
                vec![words_of_value(&self.input)]
            }
            Value::Array(list) if list.len() <= INPUTS_MAX => {
                list.iter().map(words_of_value).collect()
            }
            Value::Array(_)
            | Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Object(_) => return None,
        };
        if lengths.is_empty() {
            return None;
        }
        let entries = lengths.iter().enumerate().map(|(index, &words)| {
            json!({"object": "embedding", "index": index, "embedding": self.vector(words)})
        });
        let tokens: u64 = lengths.iter().sum();
        Some(json!({
            "object": "list",
            "data": entries.collect::<Vec<_>>(),
            "model": self.model,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }))
    }

    fn vector(&self, words: u64) -> Value {
        let size = self
            .dimensions
            .unwrap_or(DIMENSIONS)
            .clamp(1, DIMENSIONS_MAX);
        let numbers = (0_u8..7).cycle().skip((words % 7) as usize).take(size);
        let numbers = numbers.map(|n| (f32::from(n) - 3.0) / 8.0);
        // The Python SDK asks for this form by itself: 32-bit floats, little end first.
        if self.encoding_format.as_deref() == Some("base64") {
            let bytes: Vec<u8> = numbers.flat_map(f32::to_le_bytes).collect();
            return Value::from(BASE64_STANDARD.encode(bytes));
        }
        numbers.map(Value::from).collect()
    }
}
