//! Bedrock's dialect: Converse and ConverseStream, for clients that speak OpenAI's chat API.
//!
//! Source of the shapes: Amazon's "Amazon Bedrock API Reference", Converse and ConverseStream, and
//! its guides on inference parameters, structured output and prompt caching.

pub(crate) mod answer;
pub(crate) mod encode;
mod inference;
mod messages;
mod report;
mod stream;

pub use stream::BedrockDecoder;

use crate::error::UpstreamError;

/// How `reasoning_details` name thinking that only Bedrock can read back.
const FORMAT: &str = r#""format":"bedrock-converse-v1""#;

/// The finish reason for a stop reason. An answer that filled the window, or that the model did not
/// bring into its form, is not complete: `length` is OpenAI's word for that.
fn finish_reason(native: &str) -> &'static str {
    match native {
        "tool_use" => "tool_calls",
        "max_tokens"
        | "model_context_window_exceeded"
        | "malformed_model_output"
        | "malformed_tool_use" => "length",
        "guardrail_intervened" | "content_filtered" => "content_filter",
        // "end_turn", "stop_sequence", and words that are not known.
        _ => "stop",
    }
}

/// The status that an exception inside a stream has where it is an answer of its own.
fn status(exception: &str) -> Option<u16> {
    Some(match exception {
        "validationException" => 400,
        "throttlingException" => 429,
        "modelStreamErrorException" => 424,
        "internalServerException" => 500,
        "serviceUnavailableException" => 503,
        "modelTimeoutException" => 408,
        _ => return None,
    })
}

/// The status that an answer should have had. A model that is not there under this name, or not for
/// this account, is the operator's trouble, though Bedrock says that the request is wrong.
pub(crate) fn cause(status: u16, error: &UpstreamError) -> u16 {
    let message = error.message.as_deref().unwrap_or_default();
    let says = |part: &str| message.contains(part);
    if status == 400 && (says("model identifier is invalid") || says("on-demand throughput")) {
        404
    } else {
        status
    }
}
