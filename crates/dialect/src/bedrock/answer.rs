//! A plain answer of Bedrock's as the client's completion.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{FORMAT, finish_reason, report};
use crate::compose::{Piece, joined, literal};
use crate::counts::Json;
use crate::error::DecodeError;
use crate::json;
use crate::object;
use crate::openai::Answer;
use crate::origin::Origin;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawAnswer<'a> {
    #[serde(borrow)]
    output: RawOutput<'a>,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Json<'a>,
}

#[derive(Deserialize)]
struct RawOutput<'a> {
    #[serde(borrow)]
    message: RawMessage<'a>,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow)]
    content: Vec<RawBlock<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawBlock<'a> {
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(borrow, default)]
    tool_use: Option<RawUse<'a>>,
    #[serde(borrow, default)]
    reasoning_content: Option<RawReasoning<'a>>,
}

/// A call, or its beginning.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RawUse<'a> {
    #[serde(borrow, default)]
    tool_use_id: Json<'a>,
    #[serde(borrow, default)]
    name: Json<'a>,
    #[serde(borrow, default)]
    pub(super) input: Json<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawReasoning<'a> {
    #[serde(borrow, default)]
    reasoning_text: Option<RawThought<'a>>,
    #[serde(borrow, default)]
    redacted_content: Json<'a>,
}

#[derive(Deserialize)]
struct RawThought<'a> {
    #[serde(borrow, default)]
    text: Json<'a>,
    #[serde(borrow, default)]
    signature: Json<'a>,
}

impl<'a> RawUse<'a> {
    /// The id and the name of the call, literals.
    pub(super) fn called(&self) -> Result<(&'a str, &'a str), DecodeError> {
        let wrong = || DecodeError::shape("a call without a name");
        let id = literal(self.tool_use_id)?.ok_or_else(wrong)?;
        let name = literal(self.name)?.ok_or_else(wrong)?;
        Ok((id, name))
    }
}

/// Reads the body of a 200 answer.
///
/// # Errors
/// Not an answer of Bedrock's.
pub(crate) fn decode(body: &Bytes, origin: &Origin) -> Result<Answer, DecodeError> {
    let text = object::text(body)?;
    let raw: RawAnswer<'_> = object::read(text)?;
    let (mut said, mut thought, mut calls) = (Vec::new(), Vec::new(), Vec::new());
    let mut details: Vec<String> = Vec::new();
    for block in &raw.output.message.content {
        said.extend(literal(block.text)?);
        if let Some(call) = &block.tool_use {
            let (id, name) = call.called()?;
            let input = call.input.map_or("{}", RawValue::get);
            calls.push([id.to_owned(), name.to_owned(), json::quote(input)]);
        }
        let Some(reasoning) = &block.reasoning_content else {
            continue;
        };
        let place = details.len();
        if let Some(text) = &reasoning.reasoning_text {
            let words = literal(text.text)?;
            thought.extend(words);
            let signature = literal(text.signature)?.unwrap_or("null");
            details.push(format!(
                r#"{{"type":"reasoning.text","index":{place},{FORMAT},"text":{},"signature":{signature}}}"#,
                words.unwrap_or(r#""""#)
            ));
        } else if let Some(data) = literal(reasoning.redacted_content)? {
            details.push(encrypted(place, data));
        }
    }
    let mut piece = Piece::answer(&origin.id, origin.created, &origin.model);
    let said = joined(said);
    let thought = joined(thought);
    piece.speech(said.as_deref(), thought.as_deref());
    if !details.is_empty() {
        piece.raw(&format!(r#","reasoning_details":[{}]"#, details.join(",")));
    }
    piece.calls(&calls);
    let native = raw.stop_reason.as_deref().unwrap_or("end_turn");
    let usage = raw.usage.map(|usage| report::usage(usage.get()));
    piece.end_answer(
        (finish_reason(native), native),
        usage,
        raw.usage.map(RawValue::get),
    )
}

/// Thinking that only the provider can read, at this place among the reasoning details.
pub(super) fn encrypted(place: usize, data: &str) -> String {
    format!(r#"{{"type":"reasoning.encrypted","index":{place},{FORMAT},"data":{data}}}"#)
}
