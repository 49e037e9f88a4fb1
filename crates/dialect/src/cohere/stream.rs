//! From Cohere's stream events to the client's chunks.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use super::answer::{RawCall, RawPart, called};
use super::{finish_reason, report};
use crate::client::ChunkTemplate;
use crate::compose::{Composer, literal};
use crate::counts::Json;
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::object;
use crate::openai::{Chunk, Delta, Ending, TextKind};
use crate::origin::Origin;
use crate::sse::{DONE, SseEvent};

/// The most calls of one answer.
const CALLS_MAX: usize = 1024;

#[derive(Deserialize)]
struct RawEvent<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    delta: Option<RawDelta<'a>>,
}

#[derive(Default, Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow, default)]
    message: Option<RawMessage<'a>>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    error: Json<'a>,
    #[serde(borrow, default)]
    usage: Json<'a>,
}

/// In the first event its lists are empty, later they are one item of a list.
#[derive(Default, Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow, default)]
    content: Json<'a>,
    #[serde(borrow, default)]
    tool_plan: Json<'a>,
    #[serde(borrow, default)]
    tool_calls: Json<'a>,
    #[serde(borrow, default)]
    citations: Json<'a>,
}

/// Decodes one stream. Holds only counts and the places of its calls between events.
#[derive(Debug)]
pub struct CohereDecoder {
    origin: Origin,
    composer: Option<Composer>,
    /// The provider's place of each call, and whether it has arguments.
    calls: Vec<(u64, bool)>,
    usage: Option<Result<Usage, UsageFault>>,
    done: bool,
    failed: bool,
    skipped: u64,
}

impl CohereDecoder {
    /// A decoder for one stream.
    #[must_use]
    pub const fn new(origin: Origin) -> Self {
        Self {
            origin,
            composer: None,
            calls: Vec::new(),
            usage: None,
            done: false,
            failed: false,
            skipped: 0,
        }
    }

    /// Reads one event and adds what it means to `out`. After
    /// `message-end` and after an error nothing is read.
    ///
    /// # Errors
    /// An event that is not one of Cohere's, or one that cannot follow what came before.
    pub fn push(&mut self, event: &SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        let data = event.data.trim_ascii();
        if self.done || self.failed || data.is_empty() || data == DONE {
            return Ok(());
        }
        let text = object::text(data)?;
        let raw: RawEvent<'_> = object::read(text)?;
        let delta = raw.delta.unwrap_or_default();
        if raw.r#type == "message-end" {
            return self.end(delta, out);
        }
        let message = delta.message.unwrap_or_default();
        let chunk = match raw.r#type.as_ref() {
            "message-start" => self.start(&raw.id)?,
            "content-start" | "content-delta" => self.content(&message)?,
            "tool-plan-delta" => self.say(TextKind::Reasoning, message.tool_plan)?,
            "tool-call-start" => {
                let call = self.call(&message, raw.index, out)?;
                self.arguments(&call, raw.index)?
            }
            "tool-call-delta" => {
                let call = message.tool_calls.map_or("{}", RawValue::get);
                self.arguments(&serde_json::from_str(call)?, raw.index)?
            }
            "tool-call-end" => self.call_ends(raw.index)?,
            "citation-start" => self.citation(&message)?,
            "content-end" | "citation-end" => None,
            "" => {
                self.failed = true;
                out.push(Delta::Error(Box::new(UpstreamError::from_json(text))));
                None
            }
            _ => {
                self.skipped = self.skipped.saturating_add(1);
                None
            }
        };
        out.extend(chunk.map(Delta::Chunk));
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
        if self.done && !self.failed {
            Ending::Done
        } else {
            Ending::Cut
        }
    }

    fn composer(&self) -> Result<&Composer, DecodeError> {
        self.composer
            .as_ref()
            .ok_or(DecodeError::shape("no message-start"))
    }

    fn start(&mut self, id: &str) -> Result<Option<Chunk>, DecodeError> {
        if self.composer.is_some() {
            return Err(DecodeError::shape("a second message"));
        }
        let composer = Composer::new(id, self.origin.created, &self.origin.model);
        let chunk = composer.begin()?;
        self.composer = Some(composer);
        Ok(Some(chunk))
    }

    fn say(&self, kind: TextKind, text: Json<'_>) -> Result<Option<Chunk>, DecodeError> {
        let composer = self.composer()?;
        literal(text)?
            .map(|text| composer.say(kind, text))
            .transpose()
    }

    fn content(&self, message: &RawMessage<'_>) -> Result<Option<Chunk>, DecodeError> {
        let Some(content) = message.content else {
            return Ok(None);
        };
        let part: RawPart<'_> = serde_json::from_str(content.get())?;
        match literal(part.thinking)? {
            Some(text) => Ok(Some(self.composer()?.say(TextKind::Reasoning, text)?)),
            None => self.say(TextKind::Content, part.text),
        }
    }

    /// Begins a call; what it holds of its arguments is for the caller.
    fn call<'a>(
        &mut self,
        message: &RawMessage<'a>,
        index: u64,
        out: &mut Vec<Delta>,
    ) -> Result<RawCall<'a>, DecodeError> {
        let wrong = DecodeError::shape("a call that cannot begin");
        let begun = self.calls.iter().any(|(known, _)| *known == index);
        if begun || self.calls.len() >= CALLS_MAX {
            return Err(wrong);
        }
        let call: RawCall<'a> = serde_json::from_str(message.tool_calls.ok_or(wrong)?.get())?;
        let (id, name) = called(&call)?;
        let place = u32::try_from(self.calls.len()).unwrap_or(u32::MAX);
        let chunk = self.composer()?.call(place, id, name)?;
        self.calls.push((index, false));
        out.push(Delta::Chunk(chunk));
        Ok(call)
    }

    fn arguments(&mut self, call: &RawCall<'_>, index: u64) -> Result<Option<Chunk>, DecodeError> {
        let given = call.function.as_ref().and_then(|call| call.arguments);
        let Some(part) = literal(given)? else {
            return Ok(None);
        };
        let place = self.place(index)?;
        if let Some((_, streamed)) = self.calls.get_mut(place) {
            *streamed = true;
        }
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Ok(Some(self.composer()?.arguments(place, part)?))
    }

    /// A call that has had no arguments has empty ones.
    fn call_ends(&mut self, index: u64) -> Result<Option<Chunk>, DecodeError> {
        let place = self.place(index)?;
        match self.calls.get_mut(place) {
            Some((_, streamed @ false)) => *streamed = true,
            Some(_) | None => return Ok(None),
        }
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        Ok(Some(self.composer()?.arguments(place, r#""{}""#)?))
    }

    fn place(&self, index: u64) -> Result<usize, DecodeError> {
        let found = self.calls.iter().position(|(known, _)| *known == index);
        found.ok_or(DecodeError::shape("arguments of no call"))
    }

    /// Citations are no output of their own: what they cite is in the text.
    fn citation(&self, message: &RawMessage<'_>) -> Result<Option<Chunk>, DecodeError> {
        let Some(citation) = message.citations.filter(|raw| raw.get().starts_with('{')) else {
            return Ok(None);
        };
        let mut piece = self.composer()?.delta();
        piece.raw(r#""citations":["#).raw(citation.get()).raw("]");
        Ok(Some(piece.end_chunk(None)?))
    }

    fn end(&mut self, delta: RawDelta<'_>, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        let native = delta.finish_reason.as_deref().unwrap_or("COMPLETE");
        let Some(reason) = finish_reason(native) else {
            self.failed = true;
            let mut error = UpstreamError::from_json(delta.error.map_or("{}", RawValue::get));
            error.kind = error.kind.or_else(|| Some(native.to_owned()));
            out.push(Delta::Error(Box::new(error)));
            return Ok(());
        };
        let finish = self.composer()?.finish(reason, native)?;
        out.push(Delta::Chunk(finish));
        if let Some(report) = delta.usage {
            let usage = report::usage(report.get());
            self.usage = Some(usage);
            let chunk = self.composer()?.usage(usage, report.get())?;
            out.push(Delta::Chunk(chunk));
        }
        self.done = true;
        out.push(Delta::Done);
        Ok(())
    }
}
