//! A plain answer of Cohere's as the client's completion.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{finish_reason, report};
use crate::compose::{Piece, joined, literal};
use crate::counts::Json;
use crate::error::{DecodeError, UpstreamError};
use crate::object;
use crate::openai::Answer;
use crate::origin::Origin;

#[derive(Deserialize)]
struct RawAnswer<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    message: Json<'a>,
    #[serde(borrow, default)]
    finish_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    usage: Json<'a>,
}

#[derive(Deserialize)]
struct RawMessage<'a> {
    #[serde(borrow, default)]
    content: Option<Vec<RawPart<'a>>>,
    #[serde(borrow, default)]
    tool_plan: Json<'a>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<RawCall<'a>>>,
    #[serde(borrow, default)]
    citations: Json<'a>,
}

/// A part of what is said, or of thinking.
#[derive(Deserialize)]
pub(super) struct RawPart<'a> {
    #[serde(borrow, default)]
    pub(super) text: Json<'a>,
    #[serde(borrow, default)]
    pub(super) thinking: Json<'a>,
}

/// A call, whole or in part.
#[derive(Deserialize)]
pub(super) struct RawCall<'a> {
    #[serde(borrow, default)]
    pub(super) id: Json<'a>,
    #[serde(borrow, default)]
    pub(super) function: Option<RawFunction<'a>>,
}

/// What is called.
#[derive(Deserialize)]
pub(super) struct RawFunction<'a> {
    #[serde(borrow, default)]
    pub(super) name: Json<'a>,
    #[serde(borrow, default)]
    pub(super) arguments: Json<'a>,
}

/// Reads the body of a 200 answer.
///
/// # Errors
/// Not JSON, no `message`, or an answer that failed ([`DecodeError::Upstream`]).
pub(crate) fn decode(body: &Bytes, origin: &Origin) -> Result<Answer, DecodeError> {
    let text = object::text(body)?;
    let raw: RawAnswer<'_> = object::read(text)?;
    let native = raw.finish_reason.as_deref().unwrap_or("COMPLETE");
    let message = raw.message.ok_or(DecodeError::shape("no message"))?;
    let reason = finish_reason(native).filter(|_| message.get().starts_with('{'));
    let Some(reason) = reason else {
        // An error where the message should be is a text.
        let error = UpstreamError::from_json(text);
        return Err(DecodeError::Upstream(Box::new(error)));
    };
    let message: RawMessage<'_> = serde_json::from_str(message.get())?;
    let (mut said, mut thought) = (Vec::new(), Vec::new());
    for part in message.content.iter().flatten() {
        said.extend(literal(part.text)?);
        thought.extend(literal(part.thinking)?);
    }
    thought.extend(literal(message.tool_plan)?);
    let mut calls = Vec::new();
    for call in message.tool_calls.iter().flatten() {
        calls.push(whole(call)?);
    }
    let mut piece = Piece::answer(&raw.id, origin.created, &origin.model);
    piece
        .speech(joined(said).as_deref(), joined(thought).as_deref())
        .calls(&calls);
    if let Some(citations) = message.citations {
        piece.raw(r#","citations":"#).raw(citations.get());
    }
    let usage = raw.usage.map(|usage| report::usage(usage.get()));
    piece.end_answer((reason, native), usage, raw.usage.map(RawValue::get))
}

/// The id, the name and the arguments of a call. A call without arguments says so in several ways.
fn whole(call: &RawCall<'_>) -> Result<[String; 3], DecodeError> {
    let (id, name) = called(call)?;
    let given = call.function.as_ref().and_then(|call| call.arguments);
    let arguments = literal(given)?.filter(|text| *text != r#""null""#);
    Ok([
        id.to_owned(),
        name.to_owned(),
        arguments.unwrap_or(r#""{}""#).to_owned(),
    ])
}

/// The id and the name of a call, literals.
pub(super) fn called<'a>(call: &RawCall<'a>) -> Result<(&'a str, &'a str), DecodeError> {
    let wrong = || DecodeError::shape("a call without a name");
    let function = call.function.as_ref().ok_or_else(wrong)?;
    let name = literal(function.name)?.ok_or_else(wrong)?;
    let id = literal(call.id)?.ok_or_else(wrong)?;
    Ok((id, name))
}
