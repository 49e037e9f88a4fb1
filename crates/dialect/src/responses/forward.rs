//! A provider's own responses for clients that speak Responses too: read for the meter, and otherwise left as they came.

use std::borrow::Cow;
use std::collections::BTreeSet;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use super::item::{self, RawItem};
use super::report;
use crate::counts::Json;
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::object;
use crate::openai::chunk::{Finder, TextKind};
use crate::openai::{Answer, Chunk, ChunkUsage, Delta, Ending};
use crate::sse::{DONE, SseEvent};

/// Items of which it is remembered that their text was counted; more than any model makes.
const ITEMS_MAX: usize = 4096;

/// The events of OpenAI's reference that carry no text of the model's.
const SILENT: [&str; 25] = [
    "response.created",
    "response.in_progress",
    "response.queued",
    "response.audio.delta",
    "response.audio.done",
    "response.audio.transcript.done",
    "response.code_interpreter_call.completed",
    "response.code_interpreter_call.in_progress",
    "response.code_interpreter_call.interpreting",
    "response.file_search_call.completed",
    "response.file_search_call.in_progress",
    "response.file_search_call.searching",
    "response.image_generation_call.completed",
    "response.image_generation_call.generating",
    "response.image_generation_call.in_progress",
    "response.image_generation_call.partial_image",
    "response.mcp_call.completed",
    "response.mcp_call.failed",
    "response.mcp_call.in_progress",
    "response.mcp_list_tools.completed",
    "response.mcp_list_tools.failed",
    "response.mcp_list_tools.in_progress",
    "response.output_text.annotation.added",
    "response.shell_call_output_content.delta",
    "response.shell_call_output_content.done",
];

/// Reads one stream whose events travel as they are.
#[derive(Debug, Default)]
pub struct ForwardResponses {
    usage: Option<Result<Usage, UsageFault>>,
    /// The items whose text came piece by piece; what repeats it is not counted again.
    counted: BTreeSet<u64>,
    searches: u64,
    done: bool,
    skipped: u64,
}

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(default)]
    output_index: Option<u64>,
    #[serde(borrow, default)]
    delta: Json<'a>,
    #[serde(borrow, default)]
    item: Option<RawItem<'a>>,
    #[serde(borrow, default)]
    part: Option<RawItem<'a>>,
    #[serde(borrow, default)]
    response: Json<'a>,
    #[serde(borrow, default)]
    error: Json<'a>,
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(borrow, default)]
    refusal: Json<'a>,
    #[serde(borrow, default)]
    arguments: Json<'a>,
    #[serde(borrow, default)]
    input: Json<'a>,
    #[serde(borrow, default)]
    code: Json<'a>,
    #[serde(borrow, default)]
    command: Json<'a>,
}

#[derive(Deserialize)]
struct RawResponse<'a> {
    #[serde(borrow, default)]
    status: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    output: Json<'a>,
    #[serde(borrow, default)]
    usage: Json<'a>,
    #[serde(borrow, default)]
    error: Json<'a>,
}

impl ForwardResponses {
    /// Reads one event and adds it to `out` with what it means. After the response has ended nothing
    /// is read.
    ///
    /// # Errors
    /// An event that is not one of this API.
    pub fn push(&mut self, event: SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        // Some say so after a response that was cut off, too: it ends nothing.
        if self.done || matches!(event.data.trim_ascii(), b"" | DONE) {
            return Ok(());
        }
        let text = object::text(&event.data)?;
        let raw: RawEvent<'_> = object::read(text)?;
        let mut finder = Finder::new(text);
        let mut usage = None;
        match raw.r#type.as_ref() {
            "error" => {
                let error = raw.error.map_or(text, RawValue::get);
                out.push(Delta::Error(Box::new(UpstreamError::from_json(error))));
                return Ok(());
            }
            "response.failed" => {
                let error = failure(raw.response).unwrap_or("{}");
                out.push(Delta::Error(Box::new(UpstreamError::from_json(error))));
                return Ok(());
            }
            "response.completed" | "response.incomplete" => {
                self.done = true;
                finder.found.finished = 1;
                usage = self.end(text, raw.response, &mut finder)?;
            }
            kind if SILENT.contains(&kind) => {}
            kind => self.find(kind, &raw, &mut finder),
        }
        let found = finder.found;
        let chunk = Chunk::as_it_came(event.data, found, usage, None);
        out.push(Delta::Chunk(chunk));
        if self.done {
            out.push(Delta::Done);
        }
        Ok(())
    }

    /// The usage reported at the end; a fault when that is unusable.
    #[must_use]
    pub const fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage
    }

    /// How many events were handed on without being understood.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How the stream has ended, if no more comes.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        if self.done { Ending::Done } else { Ending::Cut }
    }

    fn find<'a>(&mut self, kind: &str, raw: &RawEvent<'a>, finder: &mut Finder<'a>) {
        let index = raw.output_index.unwrap_or(u64::MAX);
        if kind.ends_with(".delta") {
            self.count(index);
            finder.leaf(0, text_kind(kind), raw.delta);
            return;
        }
        let before = finder.found.texts.len();
        match kind {
            "response.output_item.added" => {
                if let Some(item) = &raw.item {
                    // What most begin with is empty; what is there already is not said again.
                    item.find(finder);
                    if finder.found.texts.len() > before {
                        self.count(index);
                    }
                    item.find_name(finder);
                }
                return;
            }
            "response.output_item.done" => {
                if let Some(item) = &raw.item {
                    self.searches = self.searches.saturating_add(u64::from(item.is_search()));
                    if !self.counted.contains(&index) {
                        item.find(finder);
                    }
                }
            }
            _ if self.counted.contains(&index) => {}
            _ => {
                if let Some(part) = &raw.part {
                    part.find(finder);
                }
                for text in [raw.text, raw.refusal] {
                    finder.leaf(0, text_kind(kind), text);
                }
                for call in [raw.arguments, raw.input, raw.code, raw.command] {
                    finder.leaf(0, TextKind::ToolCall, call);
                }
                if !kind.ends_with(".done") && !kind.ends_with(".added") {
                    self.skipped = self.skipped.saturating_add(1);
                }
            }
        }
        if finder.found.texts.len() > before {
            self.count(index);
        }
    }

    /// The text of this item has been counted.
    fn count(&mut self, index: u64) {
        if self.counted.len() < ITEMS_MAX {
            self.counted.insert(index);
        }
    }

    /// The end of a response that came whole, with its usage.
    fn end<'a>(
        &mut self,
        text: &'a str,
        response: Json<'a>,
        finder: &mut Finder<'a>,
    ) -> Result<Option<ChunkUsage>, DecodeError> {
        let response = response.ok_or(DecodeError::shape("no response at its end"))?;
        let raw: RawResponse<'a> = serde_json::from_str(response.get())?;
        if self.counted.is_empty() {
            // None of it came before.
            for item in item::list(raw.output) {
                item.find_name(finder);
                item.find(finder);
                self.searches = self.searches.saturating_add(u64::from(item.is_search()));
            }
        }
        let usage = raw.usage.map(|json| {
            let usage = report::read(json.get()).map(|usage| searched(usage, self.searches));
            ChunkUsage::as_it_came(text, json, usage)
        });
        self.usage = usage.as_ref().map(|usage| usage.usage);
        Ok(usage)
    }
}

/// Which kind of output the deltas of an event add; those that nobody knows yet are taken for content.
fn text_kind(event: &str) -> TextKind {
    let is = |part: &str| event.contains(part);
    if is("reasoning") {
        TextKind::Reasoning
    } else if is("refusal") {
        TextKind::Refusal
    } else if is("transcript") {
        TextKind::Audio
    } else if is("arguments") || is("_call") {
        TextKind::ToolCall
    } else {
        TextKind::Content
    }
}

fn searched(usage: Usage, searches: u64) -> Usage {
    Usage { searches, ..usage }
}

/// The error of a response that failed.
fn failure(response: Json<'_>) -> Option<&str> {
    let raw: RawResponse<'_> = serde_json::from_str(response?.get()).ok()?;
    raw.error.map(RawValue::get)
}

/// Reads the body of a 200 answer that travels as it is.
///
/// # Errors
/// Not JSON, no response, one that is not over yet, or one that failed ([`DecodeError::Upstream`]).
pub(crate) fn decode(body: Bytes) -> Result<Answer, DecodeError> {
    let text = object::text(&body)?;
    let raw: RawResponse<'_> = object::read(text)?;
    let status = raw.status.as_deref().unwrap_or("completed");
    if let Some(error) = raw.error {
        let error = UpstreamError::from_json(error.get());
        return Err(DecodeError::Upstream(Box::new(error)));
    }
    if raw.output.is_none() || !matches!(status, "completed" | "incomplete") {
        return Err(DecodeError::shape("no response that is over"));
    }
    let mut finder = Finder::new(text);
    let mut searches = 0;
    for item in item::list(raw.output) {
        item.find_name(&mut finder);
        item.find(&mut finder);
        searches += u64::from(item.is_search());
    }
    let usage = raw.usage.map(|json| {
        let usage = report::read(json.get()).map(|usage| searched(usage, searches));
        ChunkUsage::as_it_came(text, json, usage)
    });
    Ok(Answer::as_it_came(body.clone(), finder.found, usage))
}
