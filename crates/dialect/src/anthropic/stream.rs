//! From Anthropic's stream events to the client's chunks.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use super::block::{FORMAT, RawBlock, literal};
use super::error::error;
use super::reason::finish_reason;
use super::report::Counts;
use crate::client::ChunkTemplate;
use crate::compose::Composer;
use crate::counts::Json;
use crate::error::{DecodeError, UsageFault};
use crate::json;
use crate::object;
use crate::openai::{Delta, Ending, TextKind};
use crate::sse::SseEvent;

/// Blocks that may be open at once; Anthropic closes one before it opens the next.
const OPEN_BLOCKS_MAX: usize = 64;

#[derive(Deserialize)]
pub(super) struct RawEvent<'a> {
    #[serde(borrow)]
    pub(super) r#type: Cow<'a, str>,
    #[serde(default)]
    index: u64,
    #[serde(borrow, default)]
    pub(super) message: Option<RawMessage<'a>>,
    #[serde(borrow, default)]
    pub(super) content_block: Option<RawBlock<'a>>,
    #[serde(borrow, default)]
    pub(super) delta: Option<RawDelta<'a>>,
    #[serde(borrow, default)]
    pub(super) usage: Json<'a>,
    #[serde(borrow, default)]
    pub(super) error: Json<'a>,
}

#[derive(Deserialize)]
pub(super) struct RawMessage<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) usage: Json<'a>,
}

#[derive(Deserialize)]
pub(super) struct RawDelta<'a> {
    #[serde(borrow, default)]
    r#type: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) text: Json<'a>,
    #[serde(borrow, default)]
    pub(super) thinking: Json<'a>,
    #[serde(borrow, default)]
    signature: Json<'a>,
    #[serde(borrow, default)]
    pub(super) partial_json: Json<'a>,
    #[serde(borrow, default)]
    pub(super) stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    stop_details: Json<'a>,
}

/// A block of content that has begun and not ended.
#[derive(Debug)]
enum Open {
    Text,
    Thinking {
        /// Its place among the reasoning details.
        detail: u32,
        /// Whether the client knows of it.
        begun: bool,
    },
    Tool {
        /// Its place among the calls.
        call: u32,
        /// Arguments that came with the beginning.
        input: Option<Box<str>>,
        /// Whether arguments were streamed.
        streamed: bool,
    },
    /// Of a kind that the client's dialect does not have.
    Other,
}

/// Decodes one stream. Holds only counts and the names of open blocks between events.
#[derive(Debug)]
pub struct AnthropicDecoder {
    created: u64,
    composer: Option<Composer>,
    open: Vec<(u64, Open)>,
    content: bool,
    calls: u32,
    details: u32,
    counts: Counts,
    usage: Option<Result<Usage, UsageFault>>,
    stopped: bool,
    done: bool,
    failed: bool,
    skipped: u64,
}

impl AnthropicDecoder {
    /// A decoder for one stream that begins at `created`, in Unix seconds.
    #[must_use]
    pub fn new(created: u64) -> Self {
        Self {
            created,
            composer: None,
            open: Vec::new(),
            content: false,
            calls: 0,
            details: 0,
            counts: Counts::default(),
            usage: None,
            stopped: false,
            done: false,
            failed: false,
            skipped: 0,
        }
    }

    /// Reads one event and adds what it means to `out`. After `message_stop` nothing is read.
    ///
    /// # Errors
    /// An event that is not one of Anthropic's, or one that cannot follow what came before.
    pub fn push(&mut self, event: &SseEvent, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
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
        match raw.r#type.as_ref() {
            "message_start" => self.start(raw.message, out),
            "content_block_start" => self.block_start(raw.index, raw.content_block, out),
            "content_block_delta" => self.block_delta(raw.index, raw.delta, out),
            "content_block_stop" => self.block_stop(raw.index, out),
            "message_delta" => self.message_delta(raw.delta, raw.usage, out),
            "message_stop" => {
                self.done = true;
                out.push(Delta::Done);
                Ok(())
            }
            "error" => {
                self.error(raw.error.map_or("{}", RawValue::get), out);
                Ok(())
            }
            "ping" => Ok(()),
            _ => {
                self.skipped = self.skipped.saturating_add(1);
                Ok(())
            }
        }
    }

    /// The last usage reported; an unusable last report is a fault, not the one before it.
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

    fn error(&mut self, text: &str, out: &mut Vec<Delta>) {
        self.failed = true;
        out.push(Delta::Error(Box::new(error(text))));
    }

    fn start(
        &mut self,
        message: Option<RawMessage<'_>>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let message = message.ok_or(DecodeError::shape("no message"))?;
        if self.composer.is_some() {
            // Some proxies repeat it. After content it is another answer, spliced onto the first.
            return if self.content {
                Err(DecodeError::shape("a second message"))
            } else {
                Ok(())
            };
        }
        let composer = Composer::new(&message.id, self.created, &message.model);
        let mut piece = composer.delta();
        piece.raw(r#""role":"assistant","content":"""#);
        let mut chunk = piece.end_chunk(None)?;
        if let Some(usage) = message.usage
            && let Ok(counts) = Counts::read(usage.get())
        {
            self.counts = counts;
            chunk.prompt = counts.prompt().ok().map(Box::new);
        }
        self.composer = Some(composer);
        out.push(Delta::Chunk(chunk));
        Ok(())
    }

    fn block_start(
        &mut self,
        index: u64,
        block: Option<RawBlock<'_>>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let block = block.ok_or(DecodeError::shape("no content_block"))?;
        let known = self.open.iter().any(|(open, _)| *open == index);
        if known || self.open.len() >= OPEN_BLOCKS_MAX {
            return Err(DecodeError::shape("a block that cannot begin"));
        }
        self.content = true;
        let mut piece = composer(&self.composer)?.delta();
        let (open, says) = match block.r#type.as_ref() {
            "text" => {
                let first = literal(block.text)?;
                if let Some(text) = first {
                    piece.raw(r#""content":"#).text(TextKind::Content, text);
                }
                (Open::Text, first.is_some())
            }
            "thinking" => {
                let detail = next(&mut self.details);
                let first = literal(block.thinking)?;
                if let Some(text) = first {
                    thought(&mut piece, detail, false, text);
                }
                let begun = first.is_some();
                (Open::Thinking { detail, begun }, begun)
            }
            "redacted_thinking" => {
                let detail = next(&mut self.details);
                let said = block.encrypted(detail)?;
                piece.raw(&format!(r#""reasoning_details":[{{{said}}}]"#));
                (Open::Other, true)
            }
            "tool_use" => {
                let call = next(&mut self.calls);
                let (id, name) = block.call()?;
                piece
                    .raw(&format!(
                        r#""tool_calls":[{{"index":{call},"id":{id},"type":"function","function":{{"name":"#
                    ))
                    .text(TextKind::ToolCall, name)
                    .raw(r#","arguments":""}}]"#);
                let input = block.input.map(RawValue::get);
                let input = input.filter(|input| !matches!(*input, "null" | "{}"));
                let open = Open::Tool {
                    call,
                    input: input.map(Box::from),
                    streamed: false,
                };
                (open, true)
            }
            _ => (Open::Other, false),
        };
        self.open.push((index, open));
        if says {
            out.push(Delta::Chunk(piece.end_chunk(None)?));
        }
        Ok(())
    }

    fn block_delta(
        &mut self,
        index: u64,
        delta: Option<RawDelta<'_>>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let delta = delta.ok_or(DecodeError::shape("no delta"))?;
        let mut piece = composer(&self.composer)?.delta();
        let found = self.open.iter_mut().find(|(open, _)| *open == index);
        let Some((_, open)) = found else {
            return Err(DecodeError::shape("a delta of no block"));
        };
        let says = match (open, delta.r#type.as_ref()) {
            (Open::Text, "text_delta") => literal(delta.text)?.map(|text| {
                piece.raw(r#""content":"#).text(TextKind::Content, text);
            }),
            (Open::Thinking { detail, begun }, "thinking_delta") => {
                literal(delta.thinking)?.map(|text| {
                    thought(&mut piece, *detail, std::mem::replace(begun, true), text);
                })
            }
            (Open::Thinking { detail, begun }, "signature_delta") => {
                literal(delta.signature)?.map(|signature| {
                    let begun = std::mem::replace(begun, true);
                    piece.raw(&signed(*detail, begun, signature));
                })
            }
            (Open::Tool { call, streamed, .. }, "input_json_delta") => literal(delta.partial_json)?
                .map(|part| {
                    *streamed = true;
                    arguments(&mut piece, *call, part);
                }),
            (Open::Other, _) => None,
            // Citations, and whatever comes to be: the text itself is in other deltas.
            (Open::Text | Open::Thinking { .. } | Open::Tool { .. }, _) => {
                self.skipped = self.skipped.saturating_add(1);
                None
            }
        };
        if says.is_some() {
            out.push(Delta::Chunk(piece.end_chunk(None)?));
        }
        Ok(())
    }

    /// A call that streamed no arguments gets those that it began with, or none.
    fn block_stop(&mut self, index: u64, out: &mut Vec<Delta>) -> Result<(), DecodeError> {
        let Some(at) = self.open.iter().position(|(open, _)| *open == index) else {
            return Ok(());
        };
        let (_, open) = self.open.swap_remove(at);
        if let Open::Tool {
            call,
            input,
            streamed: false,
        } = open
        {
            let mut piece = composer(&self.composer)?.delta();
            let input = json::quote(input.as_deref().unwrap_or("{}"));
            arguments(&mut piece, call, &input);
            out.push(Delta::Chunk(piece.end_chunk(None)?));
        }
        Ok(())
    }

    fn message_delta(
        &mut self,
        delta: Option<RawDelta<'_>>,
        usage: Json<'_>,
        out: &mut Vec<Delta>,
    ) -> Result<(), DecodeError> {
        let composer = composer(&self.composer)?;
        if let Some(delta) = &delta
            && let Some(reason) = &delta.stop_reason
            && !std::mem::replace(&mut self.stopped, true)
        {
            let mut piece = composer.delta();
            if let Some(why) = explanation(delta.stop_details) {
                piece.raw(r#""refusal":"#).raw(why);
            }
            let finish = Some((finish_reason(reason), reason.as_ref()));
            out.push(Delta::Chunk(piece.end_chunk(finish)?));
        }
        if let Some(report) = usage {
            let usage = match Counts::read(report.get()) {
                Ok(counts) => {
                    self.counts = counts.over(self.counts);
                    self.counts.usage()
                }
                Err(fault) => Err(fault),
            };
            self.usage = Some(usage);
            out.push(Delta::Chunk(composer.usage(usage, report.get())?));
        }
        Ok(())
    }
}

fn composer(composer: &Option<Composer>) -> Result<&Composer, DecodeError> {
    composer
        .as_ref()
        .ok_or(DecodeError::shape("no message_start"))
}

fn next(count: &mut u32) -> u32 {
    let this = *count;
    *count = count.saturating_add(1);
    this
}

/// The words in which a refusal is explained. They are the provider's and not billed.
pub(super) fn explanation(details: Json<'_>) -> Option<&str> {
    let text = details?.get();
    let at = json::find(text, &["explanation".into()])?;
    Some(json::slice(text, &at)).filter(|why| why.starts_with('"'))
}

/// Thinking is shown twice: as `reasoning_content`, which most clients read, and among the details,
/// where it stands beside the signature with which it can be sent back.
fn thought(piece: &mut crate::compose::Piece, detail: u32, begun: bool, text: &str) {
    piece
        .raw(r#""reasoning_content":"#)
        .text(TextKind::Reasoning, text)
        .raw(&format!(
            r#","reasoning_details":[{{"type":"reasoning.text","index":{detail}{},"text":{text}}}]"#,
            format_member(begun),
        ));
}

fn signed(detail: u32, begun: bool, signature: &str) -> String {
    // Thinking that is not shown has a signature all the same.
    let text = if begun { "" } else { r#","text":"""# };
    format!(
        r#""reasoning_details":[{{"type":"reasoning.text","index":{detail}{}{text},"signature":{signature}}}]"#,
        format_member(begun),
    )
}

/// Clients that add deltas up would repeat what is said more than once.
fn format_member(begun: bool) -> String {
    if begun {
        String::new()
    } else {
        format!(",{FORMAT}")
    }
}

fn arguments(piece: &mut crate::compose::Piece, call: u32, part: &str) {
    piece
        .raw(&format!(
            r#""tool_calls":[{{"index":{call},"function":{{"arguments":"#
        ))
        .text(TextKind::ToolCall, part)
        .raw("}}]");
}
