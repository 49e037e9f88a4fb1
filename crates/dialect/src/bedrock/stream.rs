//! From the events of Bedrock's streams to the client's chunks.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use super::answer::{RawUse, encrypted};
use super::{FORMAT, finish_reason, report, status};
use crate::client::ChunkTemplate;
use crate::compose::{Composer, literal};
use crate::counts::Json;
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::event_stream::EXCEPTION;
use crate::object;
use crate::openai::{Chunk, Delta, Ending, TextKind};
use crate::origin::Origin;
use crate::sse::SseEvent;

/// Blocks of one answer that the decoder keeps apart.
const BLOCKS_MAX: usize = 1024;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawEvent<'a> {
    #[serde(default)]
    content_block_index: u64,
    #[serde(borrow, default)]
    start: Option<RawStart<'a>>,
    #[serde(borrow, default)]
    delta: Option<RawDelta<'a>>,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Json<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawStart<'a> {
    #[serde(borrow, default)]
    tool_use: Option<RawUse<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawDelta<'a> {
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(borrow, default)]
    tool_use: Option<RawUse<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<RawReasoning<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReasoning<'a> {
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(borrow, default)]
    signature: Json<'a>,
    #[serde(borrow, default)]
    redacted_content: Json<'a>,
}

/// A block that calls a tool.
#[derive(Debug)]
struct Call {
    index: u64,
    /// Whether its arguments have begun.
    streamed: bool,
}

/// Decodes one stream. Holds only counts and the places of its blocks between events.
#[derive(Debug)]
pub struct BedrockDecoder {
    origin: Origin,
    composer: Option<Composer>,
    calls: Vec<Call>,
    /// The indexes of the blocks that think; their places are those among the reasoning details.
    thoughts: Vec<u64>,
    usage: Option<Result<Usage, UsageFault>>,
    stopped: bool,
    done: bool,
    failed: bool,
    skipped: u64,
}

impl BedrockDecoder {
    /// A decoder for one stream.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self {
            origin,
            composer: None,
            calls: Vec::new(),
            thoughts: Vec::new(),
            usage: None,
            stopped: false,
            done: false,
            failed: false,
            skipped: 0,
        }
    }

    /// Reads one event and adds what it means to `out`. The end is the second of `messageStop` and
    /// `metadata`: after it, and after an exception, nothing is read.
    ///
    /// # Errors
    /// An event that is not one of Bedrock's, or one that cannot follow what came before.
    pub fn push(&mut self, event: &SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        if self.done || self.failed {
            return Ok(());
        }
        let text = object::text(&event.data)?;
        let name = event.event.as_deref().unwrap_or_default();
        if let Some(kind) = name.strip_prefix(EXCEPTION) {
            self.exception(&String::from_utf8_lossy(kind), text, out);
            return Ok(());
        }
        let raw: RawEvent<'_> = object::read(text)?;
        match name {
            b"messageStart" if self.composer.is_some() => {
                return Err(DecodeError::shape("a second message"));
            }
            b"messageStart" => {
                self.composer(out)?;
            }
            b"contentBlockStart" => {
                if let Some(call) = raw.start.and_then(|start| start.tool_use) {
                    self.call(&call, raw.content_block_index, out)?;
                }
            }
            b"contentBlockDelta" => {
                let delta = raw.delta.ok_or(DecodeError::shape("no delta"))?;
                self.delta(&delta, raw.content_block_index, out)?;
            }
            b"contentBlockStop" => self.block_stop(raw.content_block_index, out)?,
            b"messageStop" => self.message_stop(raw.stop_reason.as_deref(), out)?,
            b"metadata" => self.metadata(raw.usage, out)?,
            _ => self.skipped = self.skipped.saturating_add(1),
        }
        Ok(())
    }

    /// The usage reported; a fault when it is unusable.
    #[must_use]
    pub const fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage
    }

    /// What the chunks of this stream have in common, once it has begun.
    #[must_use]
    pub fn template(&self) -> Option<&ChunkTemplate> {
        self.composer.as_ref().map(Composer::template)
    }

    /// How many events were skipped because the dialect has none of their type.
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

    fn exception(&mut self, kind: &str, text: &str, out: &mut Vec<Delta>) {
        self.failed = true;
        let mut error = UpstreamError::from_json(text);
        error.status = error.status.or(status(kind));
        error.kind = Some(kind.chars().take(128).collect());
        out.push(Delta::Error(Box::new(error)));
    }

    /// The composer; with it the stream has begun.
    fn composer(&mut self, out: &mut Vec<Delta>) -> Result<&Composer, DecodeError> {
        Composer::begun(&mut self.composer, &self.origin, &self.origin.model, out)
    }

    fn call(
        &mut self,
        call: &RawUse<'_>,
        index: u64,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let known = self.calls.iter().any(|call| call.index == index);
        if known || self.calls.len() >= BLOCKS_MAX {
            return Err(DecodeError::shape("a block that cannot begin"));
        }
        let (id, name) = call.called()?;
        let place = place(self.calls.len());
        let chunk = self.composer(out)?.call(place, id, name)?;
        out.push(Delta::Chunk(chunk));
        self.calls.push(Call {
            index,
            streamed: false,
        });
        Ok(())
    }

    fn delta(
        &mut self,
        delta: &RawDelta<'_>,
        index: u64,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let chunk = if let Some(call) = &delta.tool_use {
            self.arguments(literal(call.input)?, index, out)?
        } else if let Some(reasoning) = &delta.reasoning_content {
            self.reasoning(reasoning, index, out)?
        } else if let Some(text) = literal(delta.text)? {
            Some(self.composer(out)?.say(TextKind::Content, text)?)
        } else {
            if delta.text.is_none() {
                // Citations, and whatever comes to be.
                self.skipped = self.skipped.saturating_add(1);
            }
            None
        };
        out.extend(chunk.map(Delta::Chunk));
        Ok(())
    }

    fn arguments(
        &mut self,
        part: Option<&str>,
        index: u64,
        out: &mut Vec<Delta>,
    ) -> Result<Option<Chunk>, DecodeError> {
        let found = self.calls.iter().position(|call| call.index == index);
        let at = found.ok_or(DecodeError::shape("a delta of no block"))?;
        let Some(part) = part else {
            return Ok(None);
        };
        if let Some(call) = self.calls.get_mut(at) {
            call.streamed = true;
        }
        Ok(Some(self.composer(out)?.arguments(place(at), part)?))
    }

    /// Thinking is shown twice: as `reasoning_content`, which most clients read, and among the
    /// details, where it stands beside the signature with which it can be sent back.
    fn reasoning(
        &mut self,
        reasoning: &RawReasoning<'_>,
        index: u64,
        out: &mut Vec<Delta>,
    ) -> Result<Option<Chunk>, DecodeError> {
        let text = literal(reasoning.text)?;
        let signature = literal(reasoning.signature)?;
        let redacted = literal(reasoning.redacted_content)?;
        if text.is_none() && signature.is_none() && redacted.is_none() {
            return Ok(None);
        }
        let (at, begun) = self.thought(index)?;
        let mut piece = self.composer(out)?.delta();
        if let Some(data) = redacted {
            piece.raw(&format!(r#""reasoning_details":[{}]"#, encrypted(at, data)));
            return Ok(Some(piece.end_chunk(None)?));
        }
        // Clients that add deltas up would repeat what is said more than once.
        let format = if begun {
            String::new()
        } else {
            format!(",{FORMAT}")
        };
        let head =
            format!(r#""reasoning_details":[{{"type":"reasoning.text","index":{at}{format}"#);
        match (text, signature) {
            (Some(text), _) => {
                piece
                    .raw(r#""reasoning_content":"#)
                    .text(TextKind::Reasoning, text)
                    .raw(&format!(r#",{head},"text":{text}}}]"#));
            }
            (None, signature) => {
                let text = if begun { "" } else { r#","text":"""# };
                let signature = signature.unwrap_or("null");
                piece.raw(&format!(r#"{head}{text},"signature":{signature}}}]"#));
            }
        }
        Ok(Some(piece.end_chunk(None)?))
    }

    /// The place of a block that thinks, and whether the client knew of it.
    fn thought(&mut self, index: u64) -> Result<(usize, bool), DecodeError> {
        if let Some(at) = self.thoughts.iter().position(|known| *known == index) {
            return Ok((at, true));
        }
        if self.thoughts.len() >= BLOCKS_MAX {
            return Err(DecodeError::shape("a block that cannot begin"));
        }
        self.thoughts.push(index);
        Ok((self.thoughts.len() - 1, false))
    }

    /// A call that has had no arguments has empty ones.
    fn block_stop(&mut self, index: u64, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        let found = self
            .calls
            .iter_mut()
            .position(|call| call.index == index && !std::mem::replace(&mut call.streamed, true));
        if let Some(at) = found {
            let chunk = self.composer(out)?.arguments(place(at), r#""{}""#)?;
            out.push(Delta::Chunk(chunk));
        }
        Ok(())
    }

    fn message_stop(
        &mut self,
        reason: Option<&str>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        if std::mem::replace(&mut self.stopped, true) {
            return Err(DecodeError::shape("a second end"));
        }
        let native = reason.unwrap_or("end_turn");
        let chunk = self.composer(out)?.finish(finish_reason(native), native)?;
        out.push(Delta::Chunk(chunk));
        self.end(out);
        Ok(())
    }

    fn metadata(&mut self, report: Json<'_>, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        let report = report.map_or("null", RawValue::get);
        let usage = report::usage(report);
        let chunk = self.composer(out)?.usage(usage, report)?;
        out.push(Delta::Chunk(chunk));
        self.usage = Some(usage);
        self.end(out);
        Ok(())
    }

    /// Usage follows the end of the message, or, with some models, comes before it.
    fn end(&mut self, out: &mut Vec<Delta>) {
        if self.stopped && self.usage.is_some() {
            self.done = true;
            out.push(Delta::Done);
        }
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
