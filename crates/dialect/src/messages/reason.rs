//! Why an answer ended: OpenAI's words as Anthropic's.

/// The stop reason for a finish reason. A word that is not known is an end like any other.
pub(super) fn stop_reason(finish_reason: &str) -> &'static str {
    match finish_reason {
        "length" => "max_tokens",
        "tool_calls" | "function_call" => "tool_use",
        "content_filter" => "refusal",
        // "stop".
        _ => "end_turn",
    }
}
