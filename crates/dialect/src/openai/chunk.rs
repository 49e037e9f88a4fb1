//! One chunk of a stream, or a whole answer: its texts and usage found once, its bytes kept as they came.

use std::ops::Range;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use smallvec::SmallVec;

use crate::error::DecodeError;
use crate::json;
use crate::object;

/// Which kind of output a text is. Each choice has one growing text of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TextKind {
    /// What the model says.
    Content,
    /// What it thinks, where that is shown.
    Reasoning,
    /// Names and arguments of the functions that it calls.
    ToolCall,
    /// Why it refuses.
    Refusal,
    /// The transcript of audio. The audio itself cannot be counted by text.
    Audio,
}

/// A text in a chunk, by place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Text {
    pub(crate) choice: u32,
    pub(crate) kind: TextKind,
    /// The JSON value, quotes included.
    pub(crate) raw: Range<u32>,
    /// The text where it is not simply what stands between the quotes.
    pub(crate) decoded: Option<Box<str>>,
}

impl Text {
    pub(crate) fn raw(&self) -> Range<usize> {
        self.raw.start as usize..self.raw.end as usize
    }
}

/// The longest usage object that is kept verbatim; those that providers send have some hundred bytes.
const REPORT_BYTES_MAX: usize = 4096;

/// A usage object as it was written, within the bound.
pub(crate) fn report_text<'a>(text: &'a str, at: &Range<usize>) -> Option<&'a str> {
    let report = json::slice(text, at);
    (report.len() <= REPORT_BYTES_MAX).then_some(report)
}

/// A usage object that was written elsewhere, within the bound.
pub(crate) fn report_bounded(report: &str) -> Option<Box<str>> {
    (report.len() <= REPORT_BYTES_MAX).then(|| Box::from(report))
}

pub(crate) type Texts = SmallVec<[Text; 1]>;

/// What was found in a chunk or an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) texts: Texts,
    /// How many choices are in it; `None` when there is no such member.
    pub(crate) choices: Option<u32>,
    /// The choices that have a finish reason, by index; those above 127 are not tracked.
    pub(crate) finished: u128,
    /// The choices that are in it, likewise.
    pub(crate) seen: u128,
    /// The top-level usage, unless it is null.
    pub(crate) usage: Option<Range<usize>>,
    /// An error object or string, in place of an answer or beside it.
    pub(crate) error: Option<Range<usize>>,
    /// A string that OpenAI adds so that nobody can tell texts by the length of their chunks.
    pub(crate) filler: Option<Range<usize>>,
}

type Json<'a> = Option<&'a RawValue>;
type List<'a> = SmallVec<[&'a RawValue; 1]>;

#[derive(Deserialize)]
struct RawChunk<'a> {
    #[serde(borrow, default)]
    choices: Option<SmallVec<[RawChoice<'a>; 1]>>,
    #[serde(borrow, default)]
    usage: Json<'a>,
    #[serde(borrow, default)]
    error: Json<'a>,
    #[serde(borrow, default)]
    object: Json<'a>,
    #[serde(borrow, default)]
    obfuscation: Json<'a>,
}

#[derive(Deserialize)]
struct RawChoice<'a> {
    #[serde(default)]
    index: Option<u32>,
    #[serde(borrow, default)]
    delta: Option<RawDelta<'a>>,
    #[serde(borrow, default)]
    message: Option<RawDelta<'a>>,
    /// Of `/v1/completions`.
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(borrow, default)]
    finish_reason: Json<'a>,
    /// OpenRouter: a provider failed after output began.
    #[serde(borrow, default)]
    error: Json<'a>,
}

#[derive(Deserialize)]
struct RawDelta<'a> {
    #[serde(borrow, default)]
    content: Json<'a>,
    #[serde(borrow, default)]
    reasoning_content: Json<'a>,
    #[serde(borrow, default)]
    reasoning: Json<'a>,
    #[serde(borrow, default)]
    reasoning_details: Json<'a>,
    #[serde(borrow, default)]
    refusal: Json<'a>,
    #[serde(borrow, default)]
    tool_calls: Option<SmallVec<[RawToolCall<'a>; 1]>>,
    #[serde(borrow, default)]
    function_call: Option<RawFunction<'a>>,
    #[serde(borrow, default)]
    audio: Option<RawAudio<'a>>,
}

#[derive(Deserialize)]
struct RawToolCall<'a> {
    #[serde(borrow, default)]
    function: Option<RawFunction<'a>>,
    #[serde(borrow, default)]
    custom: Option<RawFunction<'a>>,
}

#[derive(Deserialize)]
struct RawFunction<'a> {
    #[serde(borrow, default)]
    name: Json<'a>,
    #[serde(borrow, default)]
    arguments: Json<'a>,
    /// Of custom tools.
    #[serde(borrow, default)]
    input: Json<'a>,
}

#[derive(Deserialize)]
struct RawAudio<'a> {
    #[serde(borrow, default)]
    transcript: Json<'a>,
}

#[derive(Deserialize)]
struct RawPart<'a> {
    #[serde(borrow, default)]
    text: Json<'a>,
    /// Mistral: a list of text parts.
    #[serde(borrow, default)]
    thinking: Json<'a>,
    /// OpenRouter's reasoning.
    #[serde(borrow, default)]
    summary: Json<'a>,
    #[serde(borrow, default)]
    refusal: Json<'a>,
}

/// The members under which providers send reasoning; the first with text is the one that counts,
/// because some send the same text under two of them.
pub(crate) const REASONING: [&str; 3] = ["reasoning_content", "reasoning", "reasoning_details"];

/// Reads a chunk or an answer.
///
/// # Errors
/// Not a JSON object, or a member that holds text has a shape that cannot hold any.
pub(crate) fn find(text: &str) -> Result<Found, DecodeError> {
    let raw: RawChunk<'_> = object::read(text)?;
    let mut finder = Finder::new(text);
    finder.found.usage = raw
        .usage
        .and_then(|usage| json::offset_in(text, usage.get()));
    let filler = raw.obfuscation.map(RawValue::get);
    finder.found.filler = filler
        .filter(|filler| filler.starts_with('"'))
        .and_then(|filler| json::offset_in(text, filler));
    let mut error = raw.error;
    if let Some(choices) = &raw.choices {
        finder.found.choices = u32::try_from(choices.len()).ok();
        for (place, choice) in choices.iter().enumerate() {
            finder.choice(place, choice)?;
            error = error.or(choice.error);
        }
    }
    finder.found.error = error.and_then(|error| json::offset_in(text, error.get()));
    // vLLM: the error is the whole event.
    if raw.choices.is_none()
        && raw
            .object
            .is_some_and(|object| object.get() == r#""error""#)
    {
        finder.found.error = Some(0..text.len());
    }
    Ok(finder.found)
}

/// Finds the texts of an event or an answer.
pub(crate) struct Finder<'a> {
    text: &'a str,
    pub(crate) found: Found,
}

impl<'a> Finder<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        Self {
            text,
            found: Found::default(),
        }
    }

    fn choice(&mut self, place: usize, raw: &RawChoice<'a>) -> Result<(), DecodeError> {
        let index = raw
            .index
            .or_else(|| u32::try_from(place).ok())
            .unwrap_or(u32::MAX);
        let bit = 1_u128.checked_shl(index).unwrap_or(0);
        self.found.seen |= bit;
        if raw
            .finish_reason
            .is_some_and(|reason| reason.get() != r#""""#)
        {
            self.found.finished |= bit;
        }
        self.leaf(index, TextKind::Content, raw.text);
        // Perplexity has sent the whole message so far beside the delta: the delta is what is new.
        match raw.delta.as_ref().or(raw.message.as_ref()) {
            Some(delta) => self.delta(index, delta),
            None => Ok(()),
        }
    }

    fn delta(&mut self, choice: u32, raw: &RawDelta<'a>) -> Result<(), DecodeError> {
        self.reasoning(choice, raw)?;
        self.content(choice, raw.content)?;
        self.leaf(choice, TextKind::Refusal, raw.refusal);
        let calls = raw.tool_calls.iter().flatten();
        let functions = calls.flat_map(|call| call.function.iter().chain(&call.custom));
        for function in functions.chain(&raw.function_call) {
            self.leaf(choice, TextKind::ToolCall, function.name);
            self.leaf(choice, TextKind::ToolCall, function.arguments);
            self.leaf(choice, TextKind::ToolCall, function.input);
        }
        if let Some(audio) = &raw.audio {
            self.leaf(choice, TextKind::Audio, audio.transcript);
        }
        Ok(())
    }

    fn reasoning(&mut self, choice: u32, raw: &RawDelta<'a>) -> Result<(), DecodeError> {
        let before = self.found.texts.len();
        for one in [raw.reasoning_content, raw.reasoning] {
            self.leaf(choice, TextKind::Reasoning, one);
            if self.found.texts.len() > before {
                return Ok(());
            }
        }
        match raw.reasoning_details {
            Some(list) => self.parts(choice, TextKind::Reasoning, list),
            None => Ok(()),
        }
    }

    fn content(&mut self, choice: u32, content: Json<'a>) -> Result<(), DecodeError> {
        match content {
            Some(list) if list.get().starts_with('[') => {
                self.parts(choice, TextKind::Content, list)
            }
            other => {
                self.leaf(choice, TextKind::Content, other);
                Ok(())
            }
        }
    }

    /// A list of parts (Mistral's content, OpenRouter's reasoning). Parts without text, such as images
    /// and encrypted reasoning, are not text tokens and count as nothing.
    fn parts(
        &mut self,
        choice: u32,
        kind: TextKind,
        list: &'a RawValue,
    ) -> Result<(), DecodeError> {
        if !list.get().starts_with('[') {
            self.leaf(choice, kind, Some(list));
            return Ok(());
        }
        for part in serde_json::from_str::<List<'a>>(list.get())? {
            if !part.get().starts_with('{') {
                self.leaf(choice, kind, Some(part));
                continue;
            }
            let raw: RawPart<'a> = serde_json::from_str(part.get())?;
            match raw.thinking {
                Some(thinking) if thinking.get().starts_with('[') => {
                    for step in serde_json::from_str::<List<'a>>(thinking.get())? {
                        self.part(choice, TextKind::Reasoning, step)?;
                    }
                }
                Some(thinking) => self.leaf(choice, TextKind::Reasoning, Some(thinking)),
                None if raw.refusal.is_some() => self.leaf(choice, TextKind::Refusal, raw.refusal),
                None => self.leaf(choice, kind, raw.text.or(raw.summary)),
            }
        }
        Ok(())
    }

    fn part(&mut self, choice: u32, kind: TextKind, part: &'a RawValue) -> Result<(), DecodeError> {
        if part.get().starts_with('{') {
            let raw: RawPart<'a> = serde_json::from_str(part.get())?;
            self.leaf(choice, kind, raw.text);
        } else {
            self.leaf(choice, kind, Some(part));
        }
        Ok(())
    }

    /// A value that should be a string. Anything else is kept and counted as its JSON, so that no
    /// output passes uncounted; only empty ones are left out.
    pub(crate) fn leaf(&mut self, choice: u32, kind: TextKind, value: Json<'a>) {
        let Some(json) = value
            .map(RawValue::get)
            .filter(|json| !matches!(*json, "null" | r#""""#))
        else {
            return;
        };
        let Some(span) = json::offset_in(self.text, json) else {
            return;
        };
        let decoded = if json.starts_with('"') {
            match json::unescape(json::inside(json)) {
                std::borrow::Cow::Borrowed(_) => None,
                std::borrow::Cow::Owned(text) => Some(text.into_boxed_str()),
            }
        } else {
            Some(Box::from(json))
        };
        // The length was checked against u32 at the door.
        let raw = u32::try_from(span.start).unwrap_or(0)..u32::try_from(span.end).unwrap_or(0);
        self.found.texts.push(Text {
            choice,
            kind,
            raw,
            decoded,
        });
    }
}

/// The text at a place: decoded, or what stands between the quotes.
pub(crate) fn text_at<'a>(bytes: &'a Bytes, text: &'a Text) -> &'a str {
    text.decoded.as_deref().unwrap_or_else(|| {
        let span = text.raw.start as usize + 1..(text.raw.end as usize).saturating_sub(1);
        // These bytes were checked as part of the whole chunk.
        bytes
            .get(span)
            .and_then(|inside| std::str::from_utf8(inside).ok())
            .unwrap_or_default()
    })
}
