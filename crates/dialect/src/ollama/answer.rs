//! A plain answer of Ollama's as the client's completion, and what a line of its streams shares with one.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokens::Usage;

use crate::compose::{Piece, literal};
use crate::counts::{Json, count, wide};
use crate::error::{DecodeError, UpstreamError, UsageFault};
use crate::json;
use crate::object;
use crate::openai::Answer;
use crate::origin::Origin;

#[derive(Deserialize)]
pub(super) struct RawLine<'a> {
    #[serde(borrow, default)]
    pub(super) model: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) message: Option<RawMessage<'a>>,
    #[serde(default)]
    pub(super) done: bool,
    #[serde(borrow, default)]
    pub(super) done_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    prompt_eval_count: Json<'a>,
    #[serde(borrow, default)]
    eval_count: Json<'a>,
    #[serde(borrow, default)]
    pub(super) error: Json<'a>,
}

#[derive(Deserialize)]
pub(super) struct RawMessage<'a> {
    #[serde(borrow, default)]
    pub(super) content: Json<'a>,
    #[serde(borrow, default)]
    pub(super) thinking: Json<'a>,
    #[serde(borrow, default)]
    pub(super) tool_calls: Option<Vec<RawCall<'a>>>,
}

#[derive(Deserialize)]
pub(super) struct RawCall<'a> {
    #[serde(borrow, default)]
    id: Json<'a>,
    #[serde(borrow)]
    function: RawFunction<'a>,
}

#[derive(Deserialize)]
struct RawFunction<'a> {
    #[serde(borrow, default)]
    name: Json<'a>,
    #[serde(borrow, default)]
    arguments: Json<'a>,
}

/// Reads a line, or a whole answer.
///
/// # Errors
/// Not an object of Ollama's.
pub(super) fn read(text: &str) -> Result<RawLine<'_>, DecodeError> {
    object::read(text)
}

impl RawLine<'_> {
    /// What its last line reports; `None` where nothing is.
    pub(super) fn usage(&self) -> Option<Result<Usage, UsageFault>> {
        let given = self.prompt_eval_count.is_some() || self.eval_count.is_some();
        given.then(|| self.buckets())
    }

    /// The report as it was written, but for what is no usage.
    pub(super) fn report(&self) -> String {
        let member = |raw: Json<'_>| raw.map_or("null", RawValue::get).to_owned();
        format!(
            r#"{{"prompt_eval_count":{},"eval_count":{}}}"#,
            member(self.prompt_eval_count),
            member(self.eval_count)
        )
    }

    /// A count of zero is left out by Ollama, which an output can have and a prompt cannot: a prompt
    /// that was in memory from before had no count in its earlier versions.
    fn buckets(&self) -> Result<Usage, UsageFault> {
        let field = "prompt_eval_count";
        let prompt = count(field, &[self.prompt_eval_count])?;
        Ok(Usage {
            prompt: u64::from(prompt.ok_or(UsageFault::Missing { field })?),
            completion: wide(count("eval_count", &[self.eval_count])?),
            ..Usage::default()
        })
    }

    /// OpenAI's and Ollama's word for why it ended.
    pub(super) fn reason(&self, called: bool) -> (&'static str, &str) {
        let native = self.done_reason.as_deref().unwrap_or("stop");
        let reason = match native {
            "length" => "length",
            _ if called => "tool_calls",
            // "stop", "load", "unload", and words that are not known.
            _ => "stop",
        };
        (reason, native)
    }
}

impl RawCall<'_> {
    /// The id, the name and the arguments of the call at this place, literals. A call without an id
    /// gets one that no other call of any answer has.
    pub(super) fn whole(&self, origin: &Origin, place: u32) -> Result<[String; 3], DecodeError> {
        let wrong = DecodeError::shape("a call without a name");
        let name = literal(self.function.name)?.ok_or(wrong)?.to_owned();
        let id = match literal(self.id)? {
            Some(id) => id.to_owned(),
            None => json::quote(&format!("call_{}_{place}", origin.id)),
        };
        let arguments = match self.function.arguments.map(RawValue::get) {
            None | Some("null") => r#""{}""#.to_owned(),
            Some(text) if text.starts_with('"') => text.to_owned(),
            Some(object) => json::quote(object),
        };
        Ok([id, name, arguments])
    }
}

/// Reads the body of a 200 answer.
///
/// # Errors
/// Not JSON, no `message`, or an error inside ([`DecodeError::Upstream`]).
pub(crate) fn decode(body: &Bytes, origin: &Origin) -> Result<Answer, DecodeError> {
    let text = object::text(body)?;
    let raw = read(text)?;
    if let Some(error) = raw.error {
        let error = UpstreamError::from_json(error.get());
        return Err(DecodeError::Upstream(Box::new(error)));
    }
    let message = raw
        .message
        .as_ref()
        .ok_or(DecodeError::shape("no message"))?;
    let mut calls = Vec::new();
    for (place, call) in (0_u32..).zip(message.tool_calls.iter().flatten()) {
        calls.push(call.whole(origin, place)?);
    }
    let mut piece = Piece::answer(&origin.id, origin.created, &raw.model);
    piece
        .speech(literal(message.content)?, literal(message.thinking)?)
        .calls(&calls);
    let usage = raw.usage();
    let report = usage.is_some().then(|| raw.report());
    piece.end_answer(raw.reason(!calls.is_empty()), usage, report.as_deref())
}
