//! Between the wire and the meter: a chunk's texts as the meter sees them, a settlement as the client does.

use std::fmt::Write as _;

use billing::{CostDetails, Output, ServiceTier, Settled, Slot, Text};
use dialect::{Bill, TextKind, TextRef};
use serde_json::value::RawValue;
use tokio::runtime::{Handle, RuntimeFlavor};

/// The part of a choice that its content is.
pub const CONTENT_PART: u32 = 0;
/// The part of a choice that its reasoning is, where it is shown.
pub const REASONING_PART: u32 = 1;
/// The part of a choice that its refusal is.
pub const REFUSAL_PART: u32 = 3;

/// A text of an answer, as the meter sees it.
#[must_use]
pub fn piece(text: TextRef<'_>) -> Text<'_> {
    let (part, output) = match text.kind {
        TextKind::Content => (CONTENT_PART, Output::Completion),
        TextKind::Reasoning => (REASONING_PART, Output::Reasoning),
        TextKind::ToolCall => (2, Output::Completion),
        TextKind::Refusal => (REFUSAL_PART, Output::Completion),
        TextKind::Audio => (4, Output::Completion),
    };
    Text {
        slot: Slot {
            choice: text.choice,
            part,
            output,
        },
        text: text.text,
    }
}

/// Shows what was settled as a bill.
pub fn with_bill<T>(settled: &Settled, write: impl FnOnce(&Bill<'_>) -> T) -> T {
    let cost = settled.charged.to_string();
    let details = details_json(&settled.details);
    write(&Bill {
        usage: &settled.usage,
        source: settled.source,
        cost: &cost,
        cost_details: details.as_deref(),
    })
}

/// The parts of a cost as a JSON object of decimal strings, which add up to it.
#[must_use]
pub fn details_json(details: &CostDetails) -> Option<Box<RawValue>> {
    let mut text = String::from("{");
    for (name, part) in details.parts() {
        let comma = if text.len() > 1 { "," } else { "" };
        // Names and amounts have nothing to escape.
        let _ = write!(text, "{comma}\"{name}\":\"{part}\"");
    }
    text.push('}');
    RawValue::from_string(text).ok()
}

/// The service tier that a word of a provider or a client stands for.
#[must_use]
pub fn tier_of(word: Option<String>) -> Option<ServiceTier> {
    ServiceTier::parse(&word?)
}

/// Runs what tokenizes text; where that is `large`, this thread's other tasks are moved to
/// another thread first.
pub fn off_thread_if<T>(large: bool, work: impl FnOnce() -> T) -> T {
    let many_threads =
        || Handle::try_current().is_ok_and(|h| h.runtime_flavor() == RuntimeFlavor::MultiThread);
    if large && many_threads() {
        tokio::task::block_in_place(work)
    } else {
        work()
    }
}
