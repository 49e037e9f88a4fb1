//! Cohere's dialect: its chat API v2, for clients that speak OpenAI's chat API.
//!
//! Source of the shapes: Cohere's API reference, "Chat" and "Chat with Streaming" of API v2, and its
//! guides "Tool use", "Structured outputs" and "Reasoning".

pub(crate) mod answer;
pub(crate) mod encode;
mod messages;
mod report;
mod stream;

pub use stream::CohereDecoder;

/// The finish reason for Cohere's, or nothing where the answer failed.
fn finish_reason(native: &str) -> Option<&'static str> {
    match native {
        "ERROR" | "TIMEOUT" => None,
        "MAX_TOKENS" | "ERROR_LIMIT" => Some("length"),
        "TOOL_CALL" => Some("tool_calls"),
        "ERROR_TOXIC" => Some("content_filter"),
        // "COMPLETE", "STOP_SEQUENCE", and words that are not known.
        _ => Some("stop"),
    }
}
