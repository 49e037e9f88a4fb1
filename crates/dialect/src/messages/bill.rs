//! Usage as Anthropic's clients read it, with the cost beside the counts.

use std::ops::Range;

use bytes::Bytes;
use tokens::{Usage, UsageSource};

use crate::client::{Bill, add_cost, set_usage};
use crate::json::{self, Splice};

/// Anthropic's usage object out of buckets: what was cached lies beside the input, thinking inside
/// the output.
pub(super) fn usage(bill: &Bill<'_>) -> String {
    let mut out = members(bill.usage);
    out.push_str(&format!(r#","cost":{}"#, json::quote(bill.cost)));
    if let Some(details) = bill.cost_details {
        out.push_str(&format!(r#","cost_details":{}"#, details.get()));
    }
    out.push('}');
    out
}

/// The same at the beginning of a stream, where only the prompt may be known.
pub(super) fn first_usage(prompt: Option<&Usage>) -> String {
    let mut out = members(prompt.unwrap_or(&Usage::default()));
    out.push('}');
    out
}

/// The object without its closing brace.
fn members(usage: &Usage) -> String {
    let written = usage.cache_write_5m.saturating_add(usage.cache_write_1h);
    let cached = usage.cached_prompt.saturating_add(written);
    format!(
        concat!(
            r#"{{"input_tokens":{},"cache_creation_input_tokens":{},"cache_read_input_tokens":{},"#,
            r#""cache_creation":{{"ephemeral_5m_input_tokens":{},"ephemeral_1h_input_tokens":{}}},"#,
            r#""output_tokens":{},"output_tokens_details":{{"thinking_tokens":{}}},"#,
            // Anthropic's clients expect them to be there; nothing is known of them here.
            r#""inference_geo":null,"server_tool_use":null,"service_tier":null"#
        ),
        usage.prompt_total().saturating_sub(cached),
        written,
        usage.cached_prompt,
        usage.cache_write_5m,
        usage.cache_write_1h,
        usage.completion_total(),
        usage.reasoning,
    )
}

/// Puts the bill into a message or an event of the provider's own: its usage object is kept where
/// it is what is charged.
pub(super) fn splice(text: &str, reported: Option<Range<usize>>, bill: &Bill<'_>) -> Bytes {
    let mut splice = Splice::default();
    match (bill.source, reported) {
        (UsageSource::Reported, Some(object)) => add_cost(text, object.start, bill, &mut splice),
        (UsageSource::Reported | UsageSource::Counted, _) => {
            set_usage(text, usage(bill), &mut splice);
        }
    }
    Bytes::from(splice.apply(text))
}
