//! Chunks and answers in the client's dialect, composed out of the pieces of another dialect.
//!
//! A dialect writes raw JSON and names the texts in it as it goes, so that nothing is parsed twice.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::value::RawValue;
use tokens::Usage;

use crate::client::{ChunkTemplate, usage_members};
use crate::counts::Json;
use crate::error::{DecodeError, UsageFault};
use crate::json;
use crate::openai::chunk::{Found, Text, TextKind, report_bounded};
use crate::openai::{Answer, Chunk, ChunkUsage, Delta};
use crate::origin::Origin;

/// Composes the chunks of one stream.
#[derive(Debug)]
pub(crate) struct Composer {
    template: ChunkTemplate,
    head: String,
}

impl Composer {
    /// For a stream whose chunks are called this. `created` is in Unix seconds.
    pub(crate) fn new(id: &str, created: u64, model: &str) -> Self {
        let template = ChunkTemplate::new(id, created, model);
        Self {
            head: template.head(),
            template,
        }
    }

    /// The composer of a stream that begins with its first output: the first call writes its beginning.
    pub(crate) fn begun<'a>(
        composer: &'a mut Option<Self>,
        origin: &Origin,
        model: &str,
        out: &mut Vec<Delta>,
    ) -> Result<&'a Self, DecodeError> {
        let begun = match composer.take() {
            Some(begun) => begun,
            None => {
                let begun = Self::new(&origin.id, origin.created, model);
                out.push(Delta::Chunk(begun.begin()?));
                begun
            }
        };
        Ok(composer.insert(begun))
    }

    /// What the chunks have in common.
    pub(crate) const fn template(&self) -> &ChunkTemplate {
        &self.template
    }

    /// The first chunk, which says who speaks.
    pub(crate) fn begin(&self) -> Result<Chunk, DecodeError> {
        let mut piece = self.delta();
        piece.raw(r#""role":"assistant","content":"""#);
        piece.end_chunk(None)
    }

    /// A chunk that adds this to a text of its choice; a literal.
    pub(crate) fn say(&self, kind: TextKind, literal: &str) -> Result<Chunk, DecodeError> {
        let mut piece = self.delta();
        piece.raw(member(kind)).text(kind, literal);
        piece.end_chunk(None)
    }

    /// A chunk that begins a call; its id and the name of what is called are literals.
    pub(crate) fn call(&self, call: u32, id: &str, name: &str) -> Result<Chunk, DecodeError> {
        let mut piece = self.delta();
        piece
            .raw(&format!(
                r#""tool_calls":[{{"index":{call},"id":{id},"type":"function","function":{{"name":"#
            ))
            .text(TextKind::ToolCall, name)
            .raw(r#","arguments":""}}]"#);
        piece.end_chunk(None)
    }

    /// A chunk that adds this to a call's arguments; a literal.
    pub(crate) fn arguments(&self, call: u32, part: &str) -> Result<Chunk, DecodeError> {
        let mut piece = self.delta();
        piece
            .raw(&format!(
                r#""tool_calls":[{{"index":{call},"function":{{"arguments":"#
            ))
            .text(TextKind::ToolCall, part)
            .raw("}}]");
        piece.end_chunk(None)
    }

    /// The chunk that ends the answer; `native` is the provider's own word for why.
    pub(crate) fn finish(&self, reason: &str, native: &str) -> Result<Chunk, DecodeError> {
        self.delta().end_chunk(Some((reason, native)))
    }

    /// Begins a chunk with one choice, the first; write the members of its delta.
    pub(crate) fn delta(&self) -> Piece {
        self.delta_of(0)
    }

    /// The same with another choice.
    pub(crate) fn delta_of(&self, choice: u32) -> Piece {
        let mut json = String::with_capacity(self.head.len() + 160);
        json.push_str(&self.head);
        json.push_str(&format!(r#"[{{"index":{choice},"delta":{{"#));
        Piece {
            choice,
            ..Piece::new(json)
        }
    }

    /// The chunk without choices that reports usage; a report that cannot be billed is null.
    pub(crate) fn usage(
        &self,
        usage: Result<Usage, UsageFault>,
        report: &str,
    ) -> Result<Chunk, DecodeError> {
        let mut json = format!(r#"{}[],"usage":"#, self.head);
        let (at, found) = write_usage(&mut json, Some(usage));
        json.push('}');
        let mut piece = Piece::new(json);
        piece.found.choices = Some(0);
        piece.found.usage = found;
        piece.chunk(Some(ChunkUsage {
            usage,
            spans: vec![at],
            report: report_bounded(report),
        }))
    }
}

/// The member that carries a text of this kind, up to its value.
const fn member(kind: TextKind) -> &'static str {
    match kind {
        TextKind::Reasoning => r#""reasoning_content":"#,
        TextKind::Refusal => r#""refusal":"#,
        TextKind::Content | TextKind::ToolCall | TextKind::Audio => r#""content":"#,
    }
}

/// Usage as OpenAI writes it, or null: where that is, and where it is unless it is null.
fn write_usage(
    json: &mut String,
    usage: Option<Result<Usage, UsageFault>>,
) -> (std::ops::Range<usize>, Option<std::ops::Range<usize>>) {
    let start = json.len();
    match usage {
        Some(Ok(usage)) => {
            json.push_str(&usage_members(&usage));
            json.push('}');
            (start..json.len(), Some(start..json.len()))
        }
        Some(Err(_)) | None => {
            json.push_str("null");
            (start..json.len(), None)
        }
    }
}

/// A chunk or an answer being written.
#[derive(Debug)]
pub(crate) struct Piece {
    json: String,
    found: Found,
    /// The choice that is being written.
    choice: u32,
    /// Its log probabilities, as JSON.
    logprobs: Option<String>,
}

impl Piece {
    fn new(json: String) -> Self {
        Self {
            json,
            found: Found::default(),
            choice: 0,
            logprobs: None,
        }
    }

    /// Begins a plain answer; write the members of its message.
    pub(crate) fn answer(id: &str, created: u64, model: &str) -> Self {
        Self::new(format!(
            r#"{{"id":{},"object":"chat.completion","created":{created},"model":{},"choices":[{{"index":0,"message":{{"#,
            json::quote(id),
            json::quote(model),
        ))
    }

    /// The log probabilities of the choice, as JSON.
    pub(crate) fn logprobs(&mut self, json: Option<String>) -> &mut Self {
        self.logprobs = json;
        self
    }

    /// Ends the message of one choice of an answer and begins the next one's.
    pub(crate) fn next_choice(&mut self, (reason, native): (&str, &str)) -> &mut Self {
        self.end_message();
        self.finish(reason, native);
        self.choice = self.choice.saturating_add(1);
        let index = self.choice;
        self.raw(&format!(r#"}},{{"index":{index},"message":{{"#))
    }

    /// Writes JSON that is no counted text.
    pub(crate) fn raw(&mut self, json: &str) -> &mut Self {
        self.json.push_str(json);
        self
    }

    /// Writes a string literal that is output of the model.
    pub(crate) fn text(&mut self, kind: TextKind, literal: &str) -> &mut Self {
        let start = self.json.len();
        self.json.push_str(literal);
        let inside = json::inside(literal);
        if !inside.is_empty() {
            let decoded = match json::unescape(inside) {
                std::borrow::Cow::Borrowed(_) => None,
                std::borrow::Cow::Owned(text) => Some(text.into_boxed_str()),
            };
            let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
            self.found.texts.push(Text {
                choice: self.choice,
                kind,
                raw: place(start)..place(self.json.len()),
                decoded,
            });
        }
        self
    }

    /// Writes who speaks and what is said; literals.
    pub(crate) fn speech(&mut self, content: Option<&str>, reasoning: Option<&str>) -> &mut Self {
        self.raw(r#""role":"assistant","content":"#);
        match content {
            Some(text) => self.text(TextKind::Content, text),
            None => self.raw("null"),
        };
        self.raw(r#","refusal":null"#);
        if let Some(text) = reasoning {
            self.raw(",")
                .raw(member(TextKind::Reasoning))
                .text(TextKind::Reasoning, text);
        }
        self
    }

    /// Writes the calls after what is said: their ids, names and arguments; literals.
    pub(crate) fn calls(&mut self, calls: &[[String; 3]]) -> &mut Self {
        for (place, [id, name, arguments]) in calls.iter().enumerate() {
            self.raw(if place > 0 { "," } else { r#","tool_calls":["# })
                .raw(&format!(
                    r#"{{"id":{id},"type":"function","function":{{"name":"#
                ))
                .text(TextKind::ToolCall, name)
                .raw(r#","arguments":"#)
                .text(TextKind::ToolCall, arguments)
                .raw("}}");
        }
        if !calls.is_empty() {
            self.raw("]");
        }
        self
    }

    /// The chunk, with a finish reason where the answer ends; `native` is the provider's own word.
    pub(crate) fn end_chunk(mut self, finish: Option<(&str, &str)>) -> Result<Chunk, DecodeError> {
        let bit = 1_u128.checked_shl(self.choice).unwrap_or(0);
        self.end_message();
        match finish {
            Some((reason, native)) => {
                self.finish(reason, native);
                self.found.finished = bit;
            }
            None => {
                self.raw("null");
            }
        }
        self.raw("}]}");
        self.found.choices = Some(1);
        self.found.seen = bit;
        self.chunk(None)
    }

    /// The answer; `report` is the usage as the provider wrote it.
    pub(crate) fn end_answer(
        mut self,
        (reason, native): (&str, &str),
        usage: Option<Result<Usage, UsageFault>>,
        report: Option<&str>,
    ) -> Result<Answer, DecodeError> {
        self.end_message();
        self.finish(reason, native);
        self.raw(r#"}],"usage":"#);
        (_, self.found.usage) = write_usage(&mut self.json, usage);
        self.raw("}");
        self.found.choices = Some(self.choice.saturating_add(1));
        self.checked()?;
        let report = report.and_then(report_bounded);
        Ok(Answer::composed(
            Bytes::from(self.json),
            self.found,
            usage,
            report,
        ))
    }

    fn end_message(&mut self) {
        let logprobs = self.logprobs.take();
        self.raw(r#"},"logprobs":"#)
            .raw(logprobs.as_deref().unwrap_or("null"))
            .raw(r#","finish_reason":"#);
    }

    fn finish(&mut self, reason: &str, native: &str) {
        self.raw(&json::quote(reason));
        self.raw(r#","native_finish_reason":"#);
        self.raw(&json::quote(native));
    }

    fn chunk(self, usage: Option<ChunkUsage>) -> Result<Chunk, DecodeError> {
        self.checked()?;
        Ok(Chunk {
            bytes: Bytes::from(self.json),
            found: self.found,
            usage: usage.map(Box::new),
            prompt: None,
        })
    }

    /// Places of texts are 32 bits wide.
    fn checked(&self) -> Result<(), DecodeError> {
        u32::try_from(self.json.len())
            .map(|_| ())
            .map_err(|_| DecodeError::TooLarge)
    }
}

/// A string literal; `None` when there is none or it is empty.
///
/// # Errors
/// Something else than a string, which would be output that nobody counts.
pub(crate) fn literal(raw: Json<'_>) -> Result<Option<&str>, DecodeError> {
    match raw.map(RawValue::get) {
        None | Some("null" | r#""""#) => Ok(None),
        Some(text) if text.starts_with('"') => Ok(Some(text)),
        Some(_) => Err(DecodeError::shape("a text that is no string")),
    }
}

/// Several literals as one; `None` where there is none.
pub(crate) fn joined<'a>(literals: impl IntoIterator<Item = &'a str>) -> Option<Cow<'a, str>> {
    let mut literals = literals
        .into_iter()
        .filter(|literal| !json::inside(literal).is_empty());
    let first = literals.next()?;
    let Some(second) = literals.next() else {
        return Some(Cow::Borrowed(first));
    };
    let all = [first, second].into_iter().chain(literals);
    let all: String = all.map(json::inside).collect();
    Some(Cow::Owned(format!("\"{all}\"")))
}
