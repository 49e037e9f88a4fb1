//! Anthropic's answers for clients that speak Messages themselves: read for the meter, and otherwise left as they came.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use super::block::RawBlock;
use super::error::error;
use super::report::Counts;
use super::stream::{RawDelta, RawEvent};
use crate::counts::Json;
use crate::error::{DecodeError, UsageFault};
use crate::json;
use crate::object;
use crate::openai::chunk::{Finder, TextKind};
use crate::openai::{Answer, Chunk, ChunkUsage, Delta, Ending};
use crate::sse::SseEvent;

/// Reads one stream whose events travel as they are.
#[derive(Debug, Default)]
pub struct ForwardDecoder {
    counts: Counts,
    usage: Option<Result<Usage, UsageFault>>,
    started: bool,
    content: bool,
    stopped: bool,
    done: bool,
    failed: bool,
    skipped: u64,
}

impl ForwardDecoder {
    /// Reads one event and adds it to `out` with what it means. After `message_stop` nothing is read.
    ///
    /// # Errors
    /// An event that is not one of Anthropic's, or one that cannot follow what came before.
    pub fn push(&mut self, event: SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        if self.done || event.data.trim_ascii().is_empty() {
            return Ok(());
        }
        let text = object::text(&event.data)?;
        if event.event.as_deref() == Some(b"error") {
            let at = json::find(text, &["error".into()]);
            self.error(at.map_or(text, |at| json::slice(text, &at)), out);
            return Ok(());
        }
        let raw: RawEvent<'_> = object::read(text)?;
        let mut finder = Finder::new(text);
        let (mut usage, mut prompt) = (None, None);
        match raw.r#type.as_ref() {
            "message_start" if self.content => {
                // Another answer, spliced onto the first.
                return Err(DecodeError::shape("a second message"));
            }
            // Some proxies repeat it.
            "message_start" if self.started => return Ok(()),
            "message_start" => {
                self.started = true;
                let report = raw.message.as_ref().and_then(|message| message.usage);
                if let Some(Ok(counts)) = report.map(|report| Counts::read(report.get())) {
                    self.counts = counts;
                    prompt = counts.prompt().ok();
                }
            }
            "content_block_start" => {
                self.content = true;
                if let Some(block) = &raw.content_block {
                    find_block(&mut finder, block);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = &raw.delta {
                    find_delta(&mut finder, delta);
                }
            }
            "message_delta" => {
                let reason = raw
                    .delta
                    .as_ref()
                    .and_then(|delta| delta.stop_reason.as_ref());
                self.stopped |= reason.is_some();
                finder.found.finished = 1;
                usage = raw.usage.map(|report| self.report(text, report));
            }
            "message_stop" => self.done = true,
            "error" => {
                self.error(raw.error.map_or("{}", RawValue::get), out);
                return Ok(());
            }
            "content_block_stop" | "ping" => {}
            _ => self.skipped = self.skipped.saturating_add(1),
        }
        let found = finder.found;
        let chunk = Chunk::as_it_came(event.data, found, usage, prompt);
        out.push(Delta::Chunk(chunk));
        if self.done {
            out.push(Delta::Done);
        }
        Ok(())
    }

    /// The last usage reported; an unusable last report is a fault, not the one before it.
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
        if self.done {
            Ending::Done
        } else if self.stopped && !self.failed {
            Ending::Finished
        } else {
            Ending::Cut
        }
    }

    fn error(&mut self, text: &str, out: &mut Vec<Delta>) {
        self.failed = true;
        out.push(Delta::Error(Box::new(error(text))));
    }

    fn report(&mut self, text: &str, report: &RawValue) -> ChunkUsage {
        let usage = match Counts::read(report.get()) {
            Ok(counts) => {
                self.counts = counts.over(self.counts);
                self.counts.usage()
            }
            Err(fault) => Err(fault),
        };
        self.usage = Some(usage);
        ChunkUsage::as_it_came(text, report, usage)
    }
}

fn find_block<'a>(finder: &mut Finder<'a>, block: &RawBlock<'a>) {
    finder.leaf(0, TextKind::Reasoning, block.thinking);
    finder.leaf(0, TextKind::Content, block.text);
    let (name, input) = block.call_raw();
    finder.leaf(0, TextKind::ToolCall, name);
    finder.leaf(
        0,
        TextKind::ToolCall,
        input.filter(|input| input.get() != "{}"),
    );
}

fn find_delta<'a>(finder: &mut Finder<'a>, delta: &RawDelta<'a>) {
    finder.leaf(0, TextKind::Reasoning, delta.thinking);
    finder.leaf(0, TextKind::Content, delta.text);
    finder.leaf(0, TextKind::ToolCall, delta.partial_json);
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Option<Vec<RawBlock<'a>>>,
    #[serde(borrow, default)]
    usage: Json<'a>,
    #[serde(borrow, default)]
    error: Json<'a>,
}

/// Reads the body of a 200 answer that travels as it is.
///
/// # Errors
/// Not JSON, no `content`, or an error inside ([`DecodeError::Upstream`]).
pub(crate) fn decode(body: Bytes) -> Result<Answer, DecodeError> {
    let text = object::text(&body)?;
    let raw: RawMessage<'_> = object::read(text)?;
    if let Some(wrong) = raw.error.filter(|_| raw.r#type != "message") {
        return Err(DecodeError::Upstream(Box::new(error(wrong.get()))));
    }
    let blocks = raw.content.ok_or(DecodeError::shape("no content"))?;
    let mut finder = Finder::new(text);
    for block in &blocks {
        find_block(&mut finder, block);
    }
    let usage = raw.usage.map(|report| {
        let usage = Counts::read(report.get()).and_then(|counts| counts.usage());
        ChunkUsage::as_it_came(text, report, usage)
    });
    Ok(Answer::as_it_came(body.clone(), finder.found, usage))
}
