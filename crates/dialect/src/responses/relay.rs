//! Hands on the events of a provider that has Responses itself, with the bill in the last, and ends them where they break off.

use std::collections::BTreeMap;

use bytes::{Bytes, BytesMut};
use serde::Serialize;
use serde_json::{Value, json};

use super::report;
use super::writer::{error_members, named, shown, write};
use crate::client::{Bill, ErrorBody};
use crate::json::{self, Splice};
use crate::openai::{Answer, Chunk};
use crate::writer::{Keep, StreamNames};

/// Items of which the text is remembered for a response that breaks off.
const ITEMS_MAX: usize = 4096;

/// The provider's own response with the bill in it.
pub(crate) fn native_answer(answer: &Answer, bill: &Bill<'_>, names: &StreamNames) -> Bytes {
    let text = std::str::from_utf8(answer.json()).unwrap_or_default();
    let start = text.len() - text.trim_ascii_start().len();
    let billed = report::splice(text, start, answer.usage_span(), bill);
    match names.keep {
        Keep::Gateway => stored(&billed, start),
        Keep::Nobody | Keep::Provider => billed,
    }
}

/// Says that the response that begins at `response` is kept, where its provider says that it is not:
/// there it is not.
fn stored(json: &Bytes, response: usize) -> Bytes {
    let text = std::str::from_utf8(json).unwrap_or_default();
    let mut splice = Splice::default();
    let mut members = json::members(text, response);
    match members.find(|member| member.name(text) == "store") {
        Some(member) => splice.replace(member.value, "true"),
        None => splice.insert(response + 1, r#""store":true,"#),
    }
    Bytes::from(splice.apply(text))
}

/// Hands on one response.
#[derive(Debug)]
pub(crate) struct NativeResponsesWriter {
    names: StreamNames,
    /// The response as it began, as JSON.
    response: Option<String>,
    /// What there is of its items, by their places.
    items: BTreeMap<u64, Item>,
    /// The number of the next event.
    sequence: u64,
    /// The response as it was given, where it is kept.
    kept: Option<String>,
}

/// An item that is on its way, or whole.
#[derive(Debug)]
struct Item {
    /// As it began, or as it ended.
    json: String,
    whole: bool,
    /// Its texts so far: which member of which part.
    texts: BTreeMap<(Said, u64), String>,
}

/// Where in an item a text belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Said {
    Summary,
    Reasoning,
    Text,
    Refusal,
    Arguments,
    Input,
    Code,
}

/// An event, as far as it must be known here.
#[derive(Default)]
struct Event<'a> {
    name: std::borrow::Cow<'a, str>,
    sequence: Option<u64>,
    index: Option<u64>,
    part: u64,
    item: &'a str,
    delta: &'a str,
    response: Option<(usize, &'a str)>,
}

impl NativeResponsesWriter {
    pub(crate) const fn new(names: StreamNames) -> Self {
        Self {
            names,
            response: None,
            items: BTreeMap::new(),
            sequence: 0,
            kept: None,
        }
    }

    /// The response as it was given, once it is over.
    pub(crate) fn kept(&mut self) -> Option<String> {
        self.kept.take()
    }

    /// Writes an event.
    pub(crate) fn chunk(&mut self, chunk: &Chunk, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
        let event = Event::read(chunk.text());
        self.remember(&event);
        let billed = match (bill, event.response) {
            (Some(bill), Some((at, _))) => {
                Some(report::splice(chunk.text(), at, chunk.usage_span(), bill))
            }
            (Some(_), None) | (None, _) => None,
        };
        let written = billed.unwrap_or_else(|| chunk.json().clone());
        let written = match (self.names.keep, event.response) {
            (Keep::Gateway, Some((at, _))) => stored(&written, at),
            (Keep::Gateway, None) | (Keep::Nobody | Keep::Provider, _) => written,
        };
        event.write(&written, out);
        if self.names.keep != Keep::Nobody && chunk.finishes() {
            let text = std::str::from_utf8(&written).unwrap_or_default();
            self.kept = Event::read(text)
                .response
                .map(|(_, response)| response.to_owned());
        }
    }

    /// Writes an event that was cut, without what repeats its text in another form.
    pub(crate) fn cut(&mut self, chunk: &Chunk, keep: &[usize], out: &mut BytesMut) {
        let Ok(text) = String::from_utf8(chunk.cut(keep)) else {
            return;
        };
        let mut splice = Splice::default();
        for member in json::members(&text, text.len() - text.trim_ascii_start().len()) {
            match member.name(&text).as_ref() {
                "logprobs" => splice.replace(member.value, "[]"),
                "obfuscation" => splice.replace(member.value, r#""""#),
                _ => {}
            }
        }
        let cut = splice.apply(&text);
        let Ok(cut) = std::str::from_utf8(&cut) else {
            return;
        };
        let event = Event::read(cut);
        // What says that something is over says the whole of it: cut, it is not over.
        if !event.name.ends_with(".delta") {
            return;
        }
        self.remember(&event);
        event.write(cut.as_bytes(), out);
    }

    /// Writes the end of a response that broke off: what there is of it, then the error.
    pub(crate) fn fail<M: Serialize>(
        &mut self,
        error: &ErrorBody<'_, M>,
        status: u16,
        bill: Option<&Bill<'_>>,
        out: &mut BytesMut,
    ) {
        let response = self.failed(&shown(error), bill);
        let members = format!(r#""response":{response}"#);
        write("response.failed", self.sequence, &members, out);
        let members = error_members(error, status, bill);
        write("error", self.sequence.saturating_add(1), &members, out);
        self.sequence = self.sequence.saturating_add(2);
    }

    /// The response as far as it came.
    fn failed(&self, error: &str, bill: Option<&Bill<'_>>) -> String {
        let items: Vec<String> = self.items.values().map(Item::so_far).collect();
        let output = format!("[{}]", items.join(","));
        let usage = bill.map_or_else(|| "null".to_owned(), report::usage);
        let own = || {
            let id = &self.names.origin.id;
            let id = format!("resp_{}", id.strip_prefix("req_").unwrap_or(id));
            format!(
                r#"{{"id":{},"object":"response","created_at":{},"model":{}}}"#,
                json::quote(&id),
                self.names.origin.created,
                json::quote(&self.names.origin.model)
            )
        };
        let response = self.response.clone().unwrap_or_else(own);
        let mut new = vec![
            ("status", r#""failed""#),
            ("error", error),
            ("output", &output),
            ("usage", &usage),
        ];
        let mut splice = Splice::default();
        let mut end = 1;
        for member in json::members(&response, 0) {
            let name = member.name(&response);
            end = member.value.end;
            if let Some(place) = new.iter().position(|(other, _)| *other == name) {
                let (_, value) = new.swap_remove(place);
                splice.replace(member.value, value);
            }
        }
        for (name, value) in new {
            splice.insert(end, format!(",\"{name}\":{value}"));
        }
        String::from_utf8(splice.apply(&response)).unwrap_or_default()
    }

    fn remember(&mut self, event: &Event<'_>) {
        if let Some(sequence) = event.sequence {
            self.sequence = sequence.saturating_add(1);
        }
        if let (None, Some((_, response))) = (&self.response, event.response) {
            self.response = Some(response.to_owned());
        }
        let Some(index) = event.index else {
            return;
        };
        let whole = event.name == "response.output_item.done";
        if whole || event.name == "response.output_item.added" {
            if self.items.len() < ITEMS_MAX || self.items.contains_key(&index) {
                let item = Item {
                    json: event.item.to_owned(),
                    whole,
                    texts: BTreeMap::new(),
                };
                self.items.insert(index, item);
            }
            return;
        }
        let said = Said::of(&event.name);
        if let (Some(said), Some(item)) = (said, self.items.get_mut(&index)) {
            let text = item.texts.entry((said, event.part)).or_default();
            text.push_str(&json::unescape(json::inside(event.delta)));
        }
    }
}

impl<'a> Event<'a> {
    fn read(text: &'a str) -> Self {
        let mut event = Self::default();
        for member in json::members(text, text.len() - text.trim_ascii_start().len()) {
            let value = json::slice(text, &member.value);
            match member.name(text).as_ref() {
                "type" => event.name = json::unescape(json::inside(value)),
                "sequence_number" => event.sequence = value.parse().ok(),
                "output_index" => event.index = value.parse().ok(),
                "content_index" | "summary_index" => event.part = value.parse().unwrap_or(0),
                "item" => event.item = value,
                "delta" => event.delta = value,
                "response" if value.starts_with('{') => {
                    event.response = Some((member.value.start, value));
                }
                _ => {}
            }
        }
        event
    }

    fn write(&self, json: &[u8], out: &mut BytesMut) {
        // A name with a line end would be two lines.
        if !self.name.contains(['\n', '\r']) {
            named(&self.name, json, out);
        }
    }
}

impl Said {
    fn of(event: &str) -> Option<Self> {
        let said = match event {
            "response.reasoning_summary_text.delta" => Self::Summary,
            "response.reasoning_text.delta" => Self::Reasoning,
            "response.output_text.delta" => Self::Text,
            "response.refusal.delta" => Self::Refusal,
            "response.function_call_arguments.delta" | "response.mcp_call_arguments.delta" => {
                Self::Arguments
            }
            "response.custom_tool_call_input.delta" => Self::Input,
            "response.code_interpreter_call_code.delta" => Self::Code,
            _ => return None,
        };
        Some(said)
    }

    /// The list of parts or the member that it belongs to.
    const fn member(self) -> &'static str {
        match self {
            Self::Summary => "summary",
            Self::Reasoning | Self::Text | Self::Refusal => "content",
            Self::Arguments => "arguments",
            Self::Input => "input",
            Self::Code => "code",
        }
    }

    fn part(self, text: &str) -> Option<Value> {
        match self {
            Self::Summary => Some(json!({"type": "summary_text", "text": text})),
            Self::Reasoning => Some(json!({"type": "reasoning_text", "text": text})),
            Self::Text => Some(
                json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []}),
            ),
            Self::Refusal => Some(json!({"type": "refusal", "refusal": text})),
            Self::Arguments | Self::Input | Self::Code => None,
        }
    }
}

impl Item {
    /// The item with what was said of it.
    fn so_far(&self) -> String {
        if self.whole {
            return self.json.clone();
        }
        let mut item: Value = serde_json::from_str(&self.json).unwrap_or_default();
        let Some(members) = item.as_object_mut() else {
            return "{}".to_owned();
        };
        if members.contains_key("status") {
            members.insert("status".to_owned(), json!("incomplete"));
        }
        for ((said, _), text) in &self.texts {
            let Some(part) = said.part(text) else {
                members.insert(said.member().to_owned(), json!(text));
                continue;
            };
            match members.get_mut(said.member()).and_then(Value::as_array_mut) {
                Some(parts) => parts.push(part),
                None => {
                    members.insert(said.member().to_owned(), json!([part]));
                }
            }
        }
        item.to_string()
    }
}
