//! A stream as the events of a response, and a plain answer as a response: both by writing down its items.

use bytes::Bytes;
use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

use super::report::usage;
use crate::client::{Bill, ErrorBody};
use crate::json;
use crate::messages::{RawCall, RawChunk};
use crate::openai::{Answer, Chunk, TextKind};
use crate::sse::write_event;
use crate::writer::{Keep, StreamNames};

/// Items of one response; more than any model makes. What follows joins the last.
const ITEMS_MAX: usize = 4096;

/// The kind of item that is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Reasoning,
    Text,
    Refusal,
    Function,
    Custom,
}

/// The item that is being written. Its text is what the model may say at most.
#[derive(Debug)]
struct Open {
    kind: Kind,
    id: String,
    /// Of a call: its index in the chat, its id and its name.
    call: Option<(u32, String, String)>,
    text: String,
}

/// Composes one response.
#[derive(Debug)]
pub(crate) struct ResponsesWriter {
    names: StreamNames,
    started: bool,
    sequence: u64,
    /// The items that are whole, as JSON.
    items: Vec<String>,
    open: Option<Open>,
    reason: Option<String>,
    /// The service tier that the provider served by, in its own word.
    tier: Option<String>,
    /// The response as it was given, where it is kept.
    kept: Option<String>,
}

/// A chat's answer as a response.
pub(crate) fn answer(answer: &Answer, bill: &Bill<'_>, names: &StreamNames) -> Bytes {
    let mut writer = ResponsesWriter::new(names.clone());
    writer.tier = answer.service_tier();
    // Nobody reads the events of an answer that comes at once.
    let mut unread = BytesMut::new();
    writer.texts(answer.texts(), &mut unread);
    let raw = serde_json::from_slice::<RawChunk<'_>>(answer.json());
    for choice in raw.iter().flat_map(|raw| &raw.choices).take(1) {
        let message = choice.message.as_ref();
        let calls = message.and_then(|message| message.tool_calls.as_ref());
        for (place, call) in calls.into_iter().flatten().enumerate() {
            writer.call(place, call, &mut unread);
        }
        writer.reason = choice.finish_reason.as_deref().map(str::to_owned);
    }
    writer.close("completed", &mut unread);
    let (status, details) = writer.ending();
    Bytes::from(writer.response(status, details, "null", Some(bill)))
}

impl ResponsesWriter {
    pub(crate) const fn new(names: StreamNames) -> Self {
        Self {
            names,
            started: false,
            sequence: 0,
            items: Vec::new(),
            open: None,
            reason: None,
            tier: None,
            kept: None,
        }
    }

    /// Writes what a chunk says.
    pub(crate) fn chunk(&mut self, chunk: &Chunk, out: &mut BytesMut) {
        if chunk.usage().is_some() {
            self.tier = chunk.service_tier();
        }
        if chunk.is_without_choices() {
            return;
        }
        self.start(out);
        self.texts(chunk.texts(), out);
        // A chunk that the decoder took has this shape, but for members that it does not read.
        let Ok(raw) = serde_json::from_slice::<RawChunk<'_>>(chunk.json()) else {
            return;
        };
        for choice in raw.choices.iter().filter(|choice| choice.index == 0) {
            let delta = choice.delta.as_ref();
            let calls = delta.and_then(|delta| delta.tool_calls.as_ref());
            for (place, call) in calls.into_iter().flatten().enumerate() {
                self.call(place, call, out);
            }
            if let Some(reason) = &choice.finish_reason {
                self.reason = Some(reason.as_ref().to_owned());
            }
        }
    }

    /// Writes the end of a response that came whole.
    pub(crate) fn complete(&mut self, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
        self.start(out);
        self.close("completed", out);
        let (status, details) = self.ending();
        let response = self.response(status, details, "null", bill);
        self.event(
            &format!("response.{status}"),
            &format!(r#""response":{response}"#),
            out,
        );
        self.kept = Some(response).filter(|_| self.names.keep != Keep::Nobody);
    }

    /// The response as it was given, once it is over.
    pub(crate) fn kept(&mut self) -> Option<String> {
        self.kept.take()
    }

    /// Writes the end of a response that broke off: what there is of it, then the error, whose
    /// fields stand flat, as OpenAI has them, and nested, as its SDKs read them.
    pub(crate) fn fail<M: Serialize>(
        &mut self,
        error: &ErrorBody<'_, M>,
        status: u16,
        bill: Option<&Bill<'_>>,
        out: &mut BytesMut,
    ) {
        self.start(out);
        self.close("incomplete", out);
        let response = self.response("failed", "null", &shown(error), bill);
        self.event("response.failed", &format!(r#""response":{response}"#), out);
        self.event("error", &error_members(error, status, bill), out);
    }

    fn start(&mut self, out: &mut BytesMut) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        let response = self.response("in_progress", "null", "null", None);
        for name in ["response.created", "response.in_progress"] {
            self.event(name, &format!(r#""response":{response}"#), out);
        }
    }

    fn texts<'t>(
        &mut self,
        texts: impl Iterator<Item = crate::openai::TextRef<'t>>,
        out: &mut BytesMut,
    ) {
        for text in texts.filter(|text| text.choice == 0) {
            let kind = match text.kind {
                TextKind::Reasoning => Kind::Reasoning,
                TextKind::Content | TextKind::Audio => Kind::Text,
                TextKind::Refusal => Kind::Refusal,
                TextKind::ToolCall => continue,
            };
            if self.open.as_ref().is_none_or(|open| open.kind != kind) {
                self.open(kind, None, out);
            }
            self.add(text.text, out);
        }
    }

    fn call(&mut self, place: usize, raw: &RawCall<'_>, out: &mut BytesMut) {
        let (kind, said) = match (&raw.function, &raw.custom) {
            (Some(function), _) => (Kind::Function, function),
            (None, Some(custom)) => (Kind::Custom, custom),
            (None, None) => return,
        };
        let index = raw
            .index
            .unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX));
        let id = raw.id.as_deref().filter(|id| !id.is_empty());
        let goes_on = self.open.as_ref().and_then(|open| open.call.as_ref());
        let goes_on = goes_on
            .is_some_and(|(open, open_id, _)| *open == index && id.is_none_or(|id| id == open_id));
        if !goes_on {
            let id = id.map_or_else(|| self.id("call", self.items.len()), str::to_owned);
            let name = said.name.as_deref().unwrap_or_default().to_owned();
            self.open(kind, Some((index, id, name)), out);
        }
        let more = said.arguments.as_deref().or(said.input.as_deref());
        if let Some(more) = more.filter(|more| !more.is_empty()) {
            self.add(more, out);
        }
    }

    /// Begins an item, unless there are too many: then the last one goes on.
    fn open(&mut self, kind: Kind, call: Option<(u32, String, String)>, out: &mut BytesMut) {
        if self.items.len() >= ITEMS_MAX && self.open.is_some() {
            return;
        }
        self.close("completed", out);
        let prefix = match kind {
            Kind::Reasoning => "rs",
            Kind::Text | Kind::Refusal => "msg",
            Kind::Function => "fc",
            Kind::Custom => "ctc",
        };
        let open = Open {
            kind,
            id: self.id(prefix, self.items.len()),
            call,
            text: String::new(),
        };
        let index = self.items.len();
        let item = open.item("in_progress", false);
        let part = open.part();
        let id = json::quote(&open.id);
        self.open = Some(open);
        self.event(
            "response.output_item.added",
            &format!(r#""output_index":{index},"item":{item}"#),
            out,
        );
        if let Some(part) = part {
            self.event(
                "response.content_part.added",
                &format!(
                    r#""item_id":{id},"output_index":{index},"content_index":0,"part":{part}"#
                ),
                out,
            );
        }
    }

    /// Adds text to the item that is open.
    fn add(&mut self, text: &str, out: &mut BytesMut) {
        let index = self.items.len();
        let Some(open) = &mut self.open else {
            return;
        };
        open.text.push_str(text);
        let name = format!("response.{}.delta", open.events());
        let place = open.place(index);
        let more = if open.kind == Kind::Text {
            r#","logprobs":[]"#
        } else {
            ""
        };
        let members = format!(r#"{place},"delta":{}{more}"#, json::quote(text));
        self.event(&name, &members, out);
    }

    /// Ends the item that is open.
    fn close(&mut self, status: &str, out: &mut BytesMut) {
        let Some(open) = self.open.take() else {
            return;
        };
        let index = self.items.len();
        let place = open.place(index);
        let text = json::quote(&open.text);
        let (member, more) = match open.kind {
            Kind::Reasoning => ("text", String::new()),
            Kind::Text => ("text", r#","logprobs":[]"#.to_owned()),
            Kind::Refusal => ("refusal", String::new()),
            Kind::Function => {
                let name = open.call.as_ref().map_or("", |(_, _, name)| name);
                ("arguments", format!(r#","name":{}"#, json::quote(name)))
            }
            Kind::Custom => ("input", String::new()),
        };
        let name = format!("response.{}.done", open.events());
        self.event(&name, &format!(r#"{place},"{member}":{text}{more}"#), out);
        if let Some(part) = open.part() {
            self.event(
                "response.content_part.done",
                &format!(r#"{place},"part":{part}"#),
                out,
            );
        }
        let item = open.item(status, true);
        self.event(
            "response.output_item.done",
            &format!(r#""output_index":{index},"item":{item}"#),
            out,
        );
        self.items.push(item);
    }

    /// How a response that came whole ended, and why where it is not complete.
    fn ending(&self) -> (&'static str, &'static str) {
        match self.reason.as_deref() {
            Some("length") => ("incomplete", r#"{"reason":"max_output_tokens"}"#),
            Some("content_filter") => ("incomplete", r#"{"reason":"content_filter"}"#),
            Some(_) | None => ("completed", "null"),
        }
    }

    fn response(
        &self,
        status: &str,
        details: &str,
        error: &str,
        bill: Option<&Bill<'_>>,
    ) -> String {
        let tier = self.tier.as_deref().map(json::quote);
        let completed_at = match status {
            "completed" => (self.names.clock)().to_string(),
            _ => "null".to_owned(),
        };
        format!(
            concat!(
                r#"{{"id":{},"object":"response","created_at":{},"completed_at":{},"status":"{}","background":false,"error":{},"#,
                r#""incomplete_details":{},"model":{},"output":[{}],{},"service_tier":{},"frequency_penalty":0,"presence_penalty":0,"usage":{}}}"#
            ),
            json::quote(&self.id_of("resp")),
            self.names.origin.created,
            completed_at,
            status,
            error,
            details,
            json::quote(&self.names.origin.model),
            self.items.join(","),
            self.names.repeated,
            tier.as_deref().unwrap_or(&self.names.tier),
            bill.map_or_else(|| "null".to_owned(), usage),
        )
    }

    fn id_of(&self, prefix: &str) -> String {
        let id = &self.names.origin.id;
        format!("{prefix}_{}", id.strip_prefix("req_").unwrap_or(id))
    }

    fn id(&self, prefix: &str, place: usize) -> String {
        format!("{}_{place}", self.id_of(prefix))
    }

    fn event(&mut self, name: &str, members: &str, out: &mut BytesMut) {
        write(name, self.sequence, members, out);
        self.sequence = self.sequence.saturating_add(1);
    }
}

/// The error that a response failed with.
pub(super) fn shown<M>(error: &ErrorBody<'_, M>) -> String {
    format!(
        r#"{{"code":{},"message":{}}}"#,
        json::quote(error.code),
        json::quote(error.message)
    )
}

/// The members of the event that ends a stream with an error: its fields flat, as OpenAI has them,
/// and nested, as its SDKs read them.
pub(super) fn error_members<M: Serialize>(
    error: &ErrorBody<'_, M>,
    status: u16,
    bill: Option<&Bill<'_>>,
) -> String {
    let usage = bill.map(usage);
    let nested = error.to_stream_json(status, usage.as_deref());
    let nested = nested.unwrap_or_default();
    let nested = std::str::from_utf8(&nested).unwrap_or_default();
    let details = json::find(nested, &["error".to_owned()]);
    let details = details.map_or("null", |at| json::slice(nested, &at));
    let param = error.param.map_or_else(|| "null".to_owned(), json::quote);
    format!(
        r#""code":{},"message":{},"param":{param},"status":{status},"error":{details}"#,
        json::quote(error.code),
        json::quote(error.message)
    )
}

/// Writes an event of our own.
pub(super) fn write(name: &str, sequence: u64, members: &str, out: &mut BytesMut) {
    let event = format!(r#"{{"type":"{name}","sequence_number":{sequence},{members}}}"#);
    named(name, event.as_bytes(), out);
}

/// Writes an event with its name.
pub(super) fn named(name: &str, json: &[u8], out: &mut BytesMut) {
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_u8(b'\n');
    write_event(out, json);
}

impl Open {
    /// What its events are called.
    const fn events(&self) -> &'static str {
        match self.kind {
            Kind::Reasoning => "reasoning_text",
            Kind::Text => "output_text",
            Kind::Refusal => "refusal",
            Kind::Function => "function_call_arguments",
            Kind::Custom => "custom_tool_call_input",
        }
    }

    /// Where its events belong.
    fn place(&self, index: usize) -> String {
        let id = json::quote(&self.id);
        match self.kind {
            Kind::Reasoning | Kind::Text | Kind::Refusal => {
                format!(r#""item_id":{id},"output_index":{index},"content_index":0"#)
            }
            Kind::Function | Kind::Custom => {
                format!(r#""item_id":{id},"output_index":{index}"#)
            }
        }
    }

    /// The part that it consists of, with what has been said of it.
    fn part(&self) -> Option<String> {
        let text = json::quote(&self.text);
        match self.kind {
            Kind::Reasoning => Some(format!(r#"{{"type":"reasoning_text","text":{text}}}"#)),
            Kind::Text => Some(format!(
                r#"{{"type":"output_text","text":{text},"annotations":[],"logprobs":[]}}"#
            )),
            Kind::Refusal => Some(format!(r#"{{"type":"refusal","refusal":{text}}}"#)),
            Kind::Function | Kind::Custom => None,
        }
    }

    /// The item, empty at its beginning or with what was said.
    fn item(&self, status: &str, whole: bool) -> String {
        let id = json::quote(&self.id);
        let part = self.part().filter(|_| whole).unwrap_or_default();
        let text = json::quote(&self.text);
        let (call, name) = self
            .call
            .as_ref()
            .map(|(_, id, name)| (json::quote(id), json::quote(name)))
            .unwrap_or_default();
        match self.kind {
            Kind::Reasoning => {
                format!(r#"{{"id":{id},"type":"reasoning","summary":[],"content":[{part}]}}"#)
            }
            Kind::Text | Kind::Refusal => format!(
                r#"{{"id":{id},"type":"message","status":"{status}","role":"assistant","content":[{part}]}}"#
            ),
            Kind::Function => format!(
                r#"{{"id":{id},"type":"function_call","status":"{status}","call_id":{call},"name":{name},"arguments":{text}}}"#
            ),
            Kind::Custom => format!(
                r#"{{"id":{id},"type":"custom_tool_call","status":"{status}","call_id":{call},"name":{name},"input":{text}}}"#
            ),
        }
    }
}
