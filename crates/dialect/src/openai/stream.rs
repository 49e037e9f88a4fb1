//! From upstream events to deltas: OpenAI's stream, and the streams of those who followed it.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem::Finder;
use serde_json::value::RawValue;
use tokens::Usage;

use super::alike::Alike;
use super::chunk::{self, Found, TextKind, report_bounded, text_at};
use super::report::Counts;
use crate::client::ChunkTemplate;
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::json;
use crate::object;
use crate::quirks::Quirks;
use crate::service_tier;
use crate::sse::{DONE, SseEvent};

/// What one upstream event means.
#[derive(Debug)]
pub enum Delta {
    /// A chunk of the answer.
    Chunk(Chunk),
    /// `data: [DONE]`: nothing after it is read.
    Done,
    /// The provider reported an error inside the stream. For the log: the gateway writes its own.
    Error(Box<UpstreamError>),
}

/// A chunk of the answer, with the bytes as the provider sent them.
#[derive(Debug)]
pub struct Chunk {
    pub(crate) bytes: Bytes,
    pub(crate) found: Found,
    pub(crate) usage: Option<Box<ChunkUsage>>,
    /// What the prompt consumed, where the provider says it at the beginning.
    pub(crate) prompt: Option<Box<Usage>>,
}

/// A usage object found in a chunk.
#[derive(Debug)]
pub(crate) struct ChunkUsage {
    pub(crate) usage: Result<Usage, UsageFault>,
    /// Every place where the chunk has one.
    pub(crate) spans: Vec<std::ops::Range<usize>>,
    /// The provider's own object, where the chunk was composed from another dialect.
    pub(crate) report: Option<Box<str>>,
}

/// A text that a chunk adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextRef<'a> {
    /// Index of the choice that it belongs to.
    pub choice: u32,
    /// Which of the choice's texts it continues.
    pub kind: TextKind,
    /// The text, escapes resolved; never empty.
    pub text: &'a str,
}

impl Found {
    /// The texts found in `bytes`, escapes resolved.
    pub(crate) fn texts<'a>(
        &'a self,
        bytes: &'a Bytes,
    ) -> impl ExactSizeIterator<Item = TextRef<'a>> {
        self.texts.iter().map(|text| TextRef {
            choice: text.choice,
            kind: text.kind,
            text: text_at(bytes, text),
        })
    }
}

impl ChunkUsage {
    /// What a provider reports in `text` of an event that travels as it came.
    pub(crate) fn as_it_came(
        text: &str,
        report: &RawValue,
        usage: Result<Usage, UsageFault>,
    ) -> Self {
        Self {
            usage,
            spans: json::offset_in(text, report.get()).into_iter().collect(),
            report: report_bounded(report.get()),
        }
    }
}

impl Chunk {
    /// An event of another dialect that travels as it came, with what was found in it.
    pub(crate) fn as_it_came(
        bytes: Bytes,
        mut found: Found,
        usage: Option<ChunkUsage>,
        prompt: Option<Usage>,
    ) -> Self {
        found.choices = Some(1);
        found.usage = usage
            .as_ref()
            .and_then(|usage| usage.spans.first().cloned());
        Self {
            bytes,
            found,
            usage: usage.map(Box::new),
            prompt: prompt.map(Box::new),
        }
    }

    /// A chunk of the gateway's own making.
    pub(crate) fn read(bytes: Bytes) -> Result<Self, DecodeError> {
        let text = object::text(&bytes)?;
        let found = chunk::find(text)?;
        Ok(Self {
            bytes,
            found,
            usage: None,
            prompt: None,
        })
    }

    /// The chunk as it came.
    #[must_use]
    pub const fn json(&self) -> &Bytes {
        &self.bytes
    }

    /// The texts it adds, in the order in which they are cut: reasoning, content, refusal, tool calls,
    /// audio transcript, for each choice.
    pub fn texts(&self) -> impl ExactSizeIterator<Item = TextRef<'_>> {
        self.found.texts(&self.bytes)
    }

    /// Whether it adds any text.
    #[must_use]
    pub fn has_text(&self) -> bool {
        !self.found.texts.is_empty()
    }

    /// Whether one of its choices has a finish reason.
    #[must_use]
    pub const fn finishes(&self) -> bool {
        self.found.finished != 0
    }

    /// Whether it has no choices: a usage chunk, or Azure's filter results.
    #[must_use]
    pub fn is_without_choices(&self) -> bool {
        self.found.choices.unwrap_or(0) == 0
    }

    /// The usage it reports, details of earlier chunks kept; `None` when it reports none.
    #[must_use]
    pub fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage.as_ref().map(|found| found.usage)
    }

    /// What the prompt consumed, where the provider says so before the output: the buckets of the
    /// prompt alone, exact, though the output is still to come.
    #[must_use]
    pub fn prompt_usage(&self) -> Option<&Usage> {
        self.prompt.as_deref()
    }

    /// The usage object as the provider wrote it; `None` when it is longer than a report can be.
    #[must_use]
    pub fn usage_text(&self) -> Option<&str> {
        let found = self.usage.as_ref()?;
        match &found.report {
            Some(report) => Some(report),
            None => chunk::report_text(self.text(), found.spans.first()?),
        }
    }

    /// Where its usage object is, unless it is null.
    pub(crate) fn usage_span(&self) -> Option<std::ops::Range<usize>> {
        let reported = self.usage().is_some_and(|usage| usage.is_ok());
        self.found.usage.clone().filter(|_| reported)
    }

    /// The service tier that the provider says it served by, in its own word.
    #[must_use]
    pub fn service_tier(&self) -> Option<String> {
        service_tier::named(self.text(), self.usage_text())
    }

    pub(crate) fn text(&self) -> &str {
        // Checked when the chunk was decoded.
        std::str::from_utf8(&self.bytes).unwrap_or_default()
    }
}

/// How a stream has ended, if it ends now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// `[DONE]` came.
    Done,
    /// It did not, but every choice that was begun has a finish reason: some providers send no `[DONE]`.
    Finished,
    /// Neither: the stream was cut, and must not look to the client as if it had ended.
    Cut,
}

/// Decodes one stream. Holds only counts and one chunk between events.
#[derive(Debug)]
pub struct OpenAiDecoder {
    quirks: Arc<Quirks>,
    /// Finds the chunks in which the places of `usage_at` other than `/usage` are worth a look.
    elsewhere: Option<Finder<'static>>,
    counts: Option<Counts>,
    usage: Option<Result<Usage, UsageFault>>,
    template: Option<ChunkTemplate>,
    alike: Alike,
    seen: u128,
    finished: u128,
    done: bool,
    failed: bool,
    skipped: u64,
}

impl OpenAiDecoder {
    /// A decoder for one stream of a provider with `quirks`.
    #[must_use]
    pub fn new(quirks: Arc<Quirks>) -> Self {
        let only_top = quirks.usage_at.iter().all(|pointer| pointer.is_top_usage());
        Self {
            quirks,
            elsewhere: (!only_top).then(|| Finder::new(b"_tokens")),
            counts: None,
            usage: None,
            template: None,
            alike: Alike::default(),
            seen: 0,
            finished: 0,
            done: false,
            failed: false,
            skipped: 0,
        }
    }

    /// Reads one event and adds what it means to `out`. After `[DONE]` nothing is read.
    ///
    /// # Errors
    /// An event that is not a chunk of a chat stream. What came before stays valid.
    pub fn push(&mut self, event: SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        if self.done {
            return Ok(());
        }
        if event.event.is_none()
            && let Some(found) = self.alike.read(&event.data)
        {
            self.give(event.data, found, None, out);
            return Ok(());
        }
        let data = event.data.trim_ascii();
        if data == DONE {
            self.done = true;
            out.push(Delta::Done);
            return Ok(());
        }
        if data.is_empty() {
            return Ok(());
        }
        let text = object::text(&event.data)?;
        if event.event.as_deref() == Some(b"error") {
            self.failed = true;
            let at = json::find(text, &["error".into()]);
            let error = at.map_or(text, |at| json::slice(text, &at));
            out.push(Delta::Error(Box::new(UpstreamError::from_json(error))));
            return Ok(());
        }
        let found = chunk::find(text)?;
        let usage = self.read_usage(text, &found);
        if let Some(error) = &found.error {
            self.failed = true;
            let error = UpstreamError::from_json(json::slice(text, error));
            out.push(Delta::Error(Box::new(error)));
            return Ok(());
        }
        if found.choices.is_none() && usage.is_none() {
            // An event of a type that chat streams do not have. Forwarding it would break clients
            // that look into `choices`.
            self.skipped = self.skipped.saturating_add(1);
            return Ok(());
        }
        if found.choices.unwrap_or(0) > 0 && self.template.is_none() {
            self.template = Some(ChunkTemplate::read(text));
        }
        if usage.is_none() {
            self.alike.remember(text, &found);
        } else {
            self.alike.forget();
        }
        self.give(event.data, found, usage, out);
        Ok(())
    }

    fn give(
        &mut self,
        bytes: Bytes,
        found: Found,
        usage: Option<Box<ChunkUsage>>,
        out: &mut Vec<Delta>,
    ) {
        self.seen |= found.seen;
        self.finished |= found.finished;
        out.push(Delta::Chunk(Chunk {
            bytes,
            found,
            usage,
            prompt: None,
        }));
    }

    /// The last usage reported; an unusable last report is a fault, not the one before it.
    #[must_use]
    pub const fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        self.usage
    }

    /// What the chunks of this stream have in common, once one with choices has come.
    #[must_use]
    pub const fn template(&self) -> Option<&ChunkTemplate> {
        self.template.as_ref()
    }

    /// How many events were skipped because chat streams have none of their type.
    #[must_use]
    pub const fn skipped(&self) -> u64 {
        self.skipped
    }

    /// How the stream has ended, if no more comes.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        if self.done {
            Ending::Done
        } else if !self.failed && self.seen != 0 && self.seen == self.finished {
            Ending::Finished
        } else {
            Ending::Cut
        }
    }

    fn read_usage(&mut self, text: &str, found: &Found) -> Option<Box<ChunkUsage>> {
        let spans = usage_spans(text, found.usage.clone(), &self.quirks, || {
            self.elsewhere
                .as_ref()
                .is_some_and(|finder| finder.find(text.as_bytes()).is_some())
        });
        let first = spans.first()?;
        let usage = match Counts::read(json::slice(text, first))? {
            Ok(mut counts) => {
                if let Some(earlier) = &self.counts {
                    counts.keep_details_of(earlier);
                }
                self.counts = Some(counts);
                counts.usage(&self.quirks)
            }
            Err(fault) => Err(fault),
        };
        self.usage = Some(usage);
        Some(Box::new(ChunkUsage {
            usage,
            spans,
            report: None,
        }))
    }
}

/// The places of `usage_at` that hold something, in that order. `worth_a_look` says whether those
/// below the top can.
pub(crate) fn usage_spans(
    text: &str,
    top: Option<std::ops::Range<usize>>,
    quirks: &Quirks,
    worth_a_look: impl FnOnce() -> bool,
) -> Vec<std::ops::Range<usize>> {
    let all = worth_a_look();
    let mut spans = Vec::new();
    for pointer in &quirks.usage_at {
        let span = if pointer.is_top_usage() {
            top.clone()
        } else if all {
            json::find(text, &pointer.steps)
        } else {
            None
        };
        spans.extend(span);
    }
    spans
}
