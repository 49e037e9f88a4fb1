//! A plain answer as a message: composed out of a chat's, or the provider's own with the bill in it.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::bill;
use super::reason::stop_reason;
use super::thought;
use crate::client::Bill;
use crate::counts::Json;
use crate::json;
use crate::openai::{Answer, TextKind};
use crate::writer::StreamNames;

#[derive(Default, Deserialize)]
struct RawAnswer<'a> {
    #[serde(borrow, default)]
    choices: Vec<RawChoice<'a>>,
}

#[derive(Deserialize)]
struct RawChoice<'a> {
    #[serde(borrow, default)]
    message: Option<RawMessage<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow, default)]
    tool_calls: Option<Vec<RawCall<'a>>>,
    #[serde(borrow, default)]
    reasoning_details: Json<'a>,
}

#[derive(Deserialize)]
struct RawCall<'a> {
    #[serde(borrow, default)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    function: Option<RawFunction<'a>>,
}

#[derive(Deserialize)]
struct RawFunction<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    arguments: Option<Cow<'a, str>>,
}

/// A chat's answer as a message.
pub(crate) fn answer(answer: &Answer, bill: &Bill<'_>, names: &StreamNames) -> Bytes {
    // An answer that was decoded has this shape, but for members that the decoder does not read.
    let raw: RawAnswer<'_> = serde_json::from_slice(answer.json()).unwrap_or_default();
    let choice = raw.choices.first();
    let message = choice.and_then(|choice| choice.message.as_ref());
    let mut content = Vec::new();
    let said = |kinds: &[TextKind]| -> String {
        let texts = answer.texts();
        texts
            .filter(|text| text.choice == 0 && kinds.contains(&text.kind))
            .map(|text| text.text)
            .collect()
    };
    let thinking = said(&[TextKind::Reasoning]);
    let details = message
        .and_then(|message| message.reasoning_details)
        .map_or("[]", RawValue::get);
    let signatures: Vec<String> = json::elements(details, 0)
        .filter_map(|at| thought::signature(json::slice(details, &at)))
        .collect();
    if !thinking.is_empty() || !signatures.is_empty() {
        content.push(format!(
            r#"{{"type":"thinking","thinking":{},"signature":{}}}"#,
            json::quote(&thinking),
            signatures.first().map_or(r#""""#, String::as_str),
        ));
    }
    for signature in signatures.iter().skip(1) {
        content.push(format!(
            r#"{{"type":"thinking","thinking":"","signature":{signature}}}"#
        ));
    }
    let text = said(&[TextKind::Content, TextKind::Refusal, TextKind::Audio]);
    if !text.is_empty() {
        content.push(format!(
            r#"{{"type":"text","text":{},"citations":null}}"#,
            json::quote(&text)
        ));
    }
    let calls = message.and_then(|message| message.tool_calls.as_deref());
    for (place, call) in calls.unwrap_or_default().iter().enumerate() {
        content.extend(tool_use(call, place, names));
    }
    let reason = choice.and_then(|choice| choice.finish_reason.as_deref());
    let called = calls.is_some_and(|calls| !calls.is_empty());
    let reason = match stop_reason(reason.unwrap_or("stop")) {
        "end_turn" if called => "tool_use",
        reason => reason,
    };
    Bytes::from(format!(
        r#"{{"id":{},"type":"message","role":"assistant","model":{},"content":[{}],"stop_reason":"{reason}","stop_sequence":null,"stop_details":null,"container":null,"usage":{}}}"#,
        message_id(names),
        json::quote(&names.origin.model),
        content.join(","),
        bill::usage(bill),
    ))
}

/// The provider's own message with the bill in it.
pub(crate) fn native_answer(answer: &Answer, bill: &Bill<'_>) -> Bytes {
    let text = std::str::from_utf8(answer.json()).unwrap_or_default();
    bill::splice(text, answer.usage_span(), bill)
}

fn tool_use(call: &RawCall<'_>, place: usize, names: &StreamNames) -> Option<String> {
    let function = call.function.as_ref()?;
    let id = match call.id.as_deref() {
        Some(id) if !id.is_empty() => json::quote(id),
        Some(_) | None => call_id(names, place),
    };
    // What is no object cannot be a block's input: it travels as a text.
    let arguments = function.arguments.as_deref().unwrap_or_default().trim();
    let input = if arguments.is_empty() {
        String::from("{}")
    } else if arguments.starts_with('{')
        && serde_json::from_str::<serde::de::IgnoredAny>(arguments).is_ok()
    {
        arguments.to_owned()
    } else {
        format!(r#"{{"arguments":{}}}"#, json::quote(arguments))
    };
    Some(format!(
        r#"{{"type":"tool_use","id":{id},"name":{},"input":{input},"caller":{{"type":"direct"}}}}"#,
        json::quote(&function.name)
    ))
}

/// The id of a message, as a literal.
pub(super) fn message_id(names: &StreamNames) -> String {
    let id = names.origin.id.strip_prefix("req_");
    json::quote(&format!("msg_{}", id.unwrap_or(&names.origin.id)))
}

/// The id of a call to which its provider gave none, as a literal.
pub(super) fn call_id(names: &StreamNames, place: usize) -> String {
    let id = names.origin.id.strip_prefix("req_");
    json::quote(&format!("toolu_{}_{place}", id.unwrap_or(&names.origin.id)))
}
