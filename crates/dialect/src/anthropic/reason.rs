//! Why an answer ended: Anthropic's words as OpenAI's.

/// The finish reason for a stop reason. A word that is not known is an end like any other.
///
/// A turn that was paused, and one that filled the context window, are not complete: `length` is
/// OpenAI's word for that.
pub(super) fn finish_reason(stop_reason: &str) -> &'static str {
    match stop_reason {
        "max_tokens" | "model_context_window_exceeded" | "pause_turn" => "length",
        "tool_use" => "tool_calls",
        "refusal" => "content_filter",
        // "end_turn", "stop_sequence".
        _ => "stop",
    }
}
