//! A stream as the events of a message: composed out of chunks, or the provider's own with the bill in them.

use std::borrow::Cow;

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;
use serde_json::value::RawValue;

use super::answer::{call_id, message_id};
use super::calls::{RawCall, RawChunk};
use super::reason::stop_reason;
use super::{bill, thought};
use crate::client::{Bill, ErrorBody};
use crate::counts::Json;
use crate::json;
use crate::openai::{Chunk, TextKind};
use crate::sse::write_event;
use crate::writer::StreamNames;

/// Calls whose places are remembered; more of them than any model makes.
const CALLS_MAX: usize = 1024;

/// The kind of block that is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Open {
    Text,
    Thinking,
    Call,
}

/// A call that was begun.
#[derive(Debug)]
struct Call {
    index: u32,
    id: String,
    block: u32,
}

/// Composes the events of one message.
#[derive(Debug)]
pub(crate) struct MessagesWriter {
    names: StreamNames,
    started: bool,
    /// The block that is being written, which is the last of `blocks`.
    open: Option<Open>,
    blocks: u32,
    calls: Vec<Call>,
    reason: Option<&'static str>,
}

impl MessagesWriter {
    pub(crate) const fn new(names: StreamNames) -> Self {
        Self {
            names,
            started: false,
            open: None,
            blocks: 0,
            calls: Vec::new(),
            reason: None,
        }
    }

    /// Writes what a chunk says.
    pub(crate) fn chunk(&mut self, chunk: &Chunk, out: &mut BytesMut) {
        if chunk.is_without_choices() {
            return;
        }
        if !self.started {
            self.start(chunk, out);
        }
        for text in chunk.texts().filter(|text| text.choice == 0) {
            match text.kind {
                TextKind::Reasoning => {
                    self.enter(Open::Thinking, out);
                    let text = json::quote(text.text);
                    self.delta(
                        &format!(r#""type":"thinking_delta","thinking":{text}"#),
                        out,
                    );
                }
                TextKind::Content | TextKind::Refusal | TextKind::Audio => {
                    self.enter(Open::Text, out);
                    let text = json::quote(text.text);
                    self.delta(&format!(r#""type":"text_delta","text":{text}"#), out);
                }
                TextKind::ToolCall => {}
            }
        }
        // A chunk that the decoder took has this shape, but for members that it does not read.
        let Ok(raw) = serde_json::from_slice::<RawChunk<'_>>(chunk.json()) else {
            return;
        };
        for choice in raw.choices.iter().filter(|choice| choice.index == 0) {
            if let Some(delta) = &choice.delta {
                self.signatures(delta.reasoning_details, out);
                for (place, call) in delta.tool_calls.iter().flatten().enumerate() {
                    self.call(place, call, out);
                }
            }
            if let Some(reason) = &choice.finish_reason {
                self.reason = Some(stop_reason(reason));
            }
        }
    }

    /// Writes the end of a message that came whole.
    pub(crate) fn complete(&mut self, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
        if !self.started {
            self.begin(&bill::first_usage(bill.map(|bill| bill.usage)), out);
        }
        self.leave(out);
        let reason = match self.reason {
            Some("end_turn") | None if !self.calls.is_empty() => "tool_use",
            Some(reason) => reason,
            None => "end_turn",
        };
        message_delta(Some(reason), bill, out);
        event(out, "message_stop", br#"{"type":"message_stop"}"#);
    }

    /// Writes the end of a message that broke off.
    pub(crate) fn fail<M: Serialize>(
        &mut self,
        error: &ErrorBody<'_, M>,
        status: u16,
        bill: Option<&Bill<'_>>,
        out: &mut BytesMut,
    ) {
        if self.started {
            self.leave(out);
            message_delta(None, bill, out);
        }
        fail(error, status, &self.names, bill, out);
    }

    fn start(&mut self, chunk: &Chunk, out: &mut BytesMut) {
        self.begin(&bill::first_usage(chunk.prompt_usage()), out);
    }

    fn begin(&mut self, usage: &str, out: &mut BytesMut) {
        self.started = true;
        let start = format!(
            r#"{{"type":"message_start","message":{{"id":{},"type":"message","role":"assistant","model":{},"content":[],"stop_reason":null,"stop_sequence":null,"stop_details":null,"container":null,"usage":{usage}}}}}"#,
            message_id(&self.names),
            json::quote(&self.names.origin.model),
        );
        event(out, "message_start", start.as_bytes());
    }

    /// Opens a block of this kind, unless one is open.
    fn enter(&mut self, kind: Open, out: &mut BytesMut) {
        if self.open == Some(kind) {
            return;
        }
        let block = match kind {
            Open::Text => r#"{"type":"text","text":"","citations":null}"#,
            Open::Thinking => r#"{"type":"thinking","thinking":"","signature":""}"#,
            Open::Call => return,
        };
        self.open(kind, block, out);
    }

    fn open(&mut self, kind: Open, block: &str, out: &mut BytesMut) {
        self.leave(out);
        let index = self.blocks;
        self.open = Some(kind);
        self.blocks = self.blocks.saturating_add(1);
        let start =
            format!(r#"{{"type":"content_block_start","index":{index},"content_block":{block}}}"#);
        event(out, "content_block_start", start.as_bytes());
    }

    /// Closes the block that is open.
    fn leave(&mut self, out: &mut BytesMut) {
        if self.open.take().is_some() {
            block_stop(u64::from(self.blocks.saturating_sub(1)), out);
        }
    }

    fn delta(&self, members: &str, out: &mut BytesMut) {
        delta(self.blocks.saturating_sub(1), members, out);
    }

    /// Each signature ends its block of thinking.
    fn signatures(&mut self, details: Json<'_>, out: &mut BytesMut) {
        let details = details.map_or("[]", RawValue::get);
        for at in json::elements(details, 0) {
            let Some(signature) = thought::signature(json::slice(details, &at)) else {
                continue;
            };
            self.enter(Open::Thinking, out);
            self.delta(
                &format!(r#""type":"signature_delta","signature":{signature}"#),
                out,
            );
            self.leave(out);
        }
    }

    fn call(&mut self, place: usize, raw: &RawCall<'_>, out: &mut BytesMut) {
        let Some(function) = &raw.function else {
            return;
        };
        let index = raw
            .index
            .unwrap_or_else(|| u32::try_from(place).unwrap_or(u32::MAX));
        let id = raw.id.as_deref().filter(|id| !id.is_empty());
        let known = self.calls.iter().rev().find(|call| {
            call.index == index && id.is_none_or(|id| call.id == id || call.id.is_empty())
        });
        let block = match known {
            Some(call) => call.block,
            None if self.calls.len() >= CALLS_MAX => return,
            None => {
                let literal =
                    id.map_or_else(|| call_id(&self.names, self.calls.len()), json::quote);
                let name = json::quote(function.name.as_deref().unwrap_or_default());
                let block = format!(
                    r#"{{"type":"tool_use","id":{literal},"name":{name},"input":{{}},"caller":{{"type":"direct"}}}}"#
                );
                self.open(Open::Call, &block, out);
                let block = self.blocks.saturating_sub(1);
                self.calls.push(Call {
                    index,
                    id: id.unwrap_or_default().to_owned(),
                    block,
                });
                block
            }
        };
        if let Some(arguments) = function
            .arguments
            .as_deref()
            .filter(|text| !text.is_empty())
        {
            let arguments = json::quote(arguments);
            delta(
                block,
                &format!(r#""type":"input_json_delta","partial_json":{arguments}"#),
                out,
            );
        }
    }
}

/// Hands on the events of a provider that speaks Messages itself.
#[derive(Debug)]
pub(crate) struct NativeMessagesWriter {
    names: StreamNames,
    started: bool,
    open: Vec<u64>,
    billed: bool,
    stopped: bool,
}

/// Blocks that may be open at once; Anthropic closes one before it opens the next.
const OPEN_BLOCKS_MAX: usize = 64;

impl NativeMessagesWriter {
    pub(crate) const fn new(names: StreamNames) -> Self {
        Self {
            names,
            started: false,
            open: Vec::new(),
            billed: false,
            stopped: false,
        }
    }

    /// Writes an event.
    pub(crate) fn chunk(&mut self, chunk: &Chunk, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
        let text = chunk.text();
        match bill {
            Some(bill) => {
                self.billed = true;
                let json = bill::splice(text, chunk.usage_span(), bill);
                self.event(text, &json, out);
            }
            None => self.event(text, chunk.json(), out),
        }
    }

    /// Writes an event that was cut.
    pub(crate) fn cut(&mut self, chunk: &Chunk, keep: &[usize], out: &mut BytesMut) {
        self.event(chunk.text(), &chunk.cut(keep), out);
    }

    /// Writes what the provider left out at the end.
    pub(crate) fn complete(&mut self, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
        if !self.stopped {
            if self.started && !self.billed {
                message_delta(None, bill, out);
            }
            event(out, "message_stop", br#"{"type":"message_stop"}"#);
        }
    }

    /// Writes the end of a message that broke off.
    pub(crate) fn fail<M: Serialize>(
        &mut self,
        error: &ErrorBody<'_, M>,
        status: u16,
        bill: Option<&Bill<'_>>,
        out: &mut BytesMut,
    ) {
        for index in std::mem::take(&mut self.open) {
            block_stop(index, out);
        }
        if self.started && !self.billed {
            message_delta(None, bill, out);
        }
        fail(error, status, &self.names, bill, out);
    }

    fn event(&mut self, text: &str, json: &[u8], out: &mut BytesMut) {
        let start = text.len() - text.trim_ascii_start().len();
        let (mut name, mut index) = (Cow::Borrowed(""), None);
        for member in json::members(text, start) {
            let value = json::slice(text, &member.value);
            match member.name(text).as_ref() {
                "type" => name = json::unescape(json::inside(value)),
                "index" => index = value.parse::<u64>().ok(),
                _ => {}
            }
        }
        match (name.as_ref(), index) {
            ("message_start", _) => self.started = true,
            ("content_block_start", Some(index)) if self.open.len() < OPEN_BLOCKS_MAX => {
                self.open.push(index);
            }
            ("content_block_stop", Some(index)) => self.open.retain(|open| *open != index),
            ("message_stop", _) => self.stopped = true,
            _ => {}
        }
        // A name with a line end would be two lines.
        if !name.contains(['\n', '\r']) {
            event(out, &name, json);
        }
    }
}

fn event(out: &mut BytesMut, name: &str, json: &[u8]) {
    out.put_slice(b"event: ");
    out.put_slice(name.as_bytes());
    out.put_u8(b'\n');
    write_event(out, json);
}

fn delta(block: u32, members: &str, out: &mut BytesMut) {
    let delta =
        format!(r#"{{"type":"content_block_delta","index":{block},"delta":{{{members}}}}}"#);
    event(out, "content_block_delta", delta.as_bytes());
}

fn block_stop(index: u64, out: &mut BytesMut) {
    let stop = format!(r#"{{"type":"content_block_stop","index":{index}}}"#);
    event(out, "content_block_stop", stop.as_bytes());
}

fn message_delta(reason: Option<&str>, bill: Option<&Bill<'_>>, out: &mut BytesMut) {
    let reason = reason.map_or_else(|| String::from("null"), json::quote);
    let usage = bill.map_or_else(|| bill::first_usage(None), bill::usage);
    let delta = format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":{reason},"stop_sequence":null}},"usage":{usage}}}"#
    );
    event(out, "message_delta", delta.as_bytes());
}

fn fail<M: Serialize>(
    error: &ErrorBody<'_, M>,
    status: u16,
    names: &StreamNames,
    bill: Option<&Bill<'_>>,
    out: &mut BytesMut,
) {
    let usage = bill.map(bill::usage);
    let usage = usage.as_deref().unwrap_or("null");
    let json = error.to_anthropic_json(status, &names.origin.id, Some(usage));
    event(out, "error", &json.unwrap_or_default());
}
