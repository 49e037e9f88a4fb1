//! A plain answer of Google's: its candidates as the client's choices.

use std::borrow::Cow;

use bytes::Bytes;

use super::call::{self, CallIds};
use super::raw::{RawCandidate, RawPart, RawResponse, extra_content};
use super::reason::finish_reason;
use super::report::Counts;
use crate::compose::{self, Piece};
use crate::error::DecodeError;
use crate::object;
use crate::openai::{Answer, TextKind};
use crate::origin::Origin;

/// Reads the body of a 200 answer; `origin` is what it is called where it does not say so.
///
/// # Errors
/// Not JSON, neither candidates nor a reason for none, or an error inside ([`DecodeError::Upstream`]).
pub(crate) fn decode(body: &Bytes, origin: &Origin) -> Result<Answer, DecodeError> {
    let text = object::text(body)?;
    let raw = RawResponse::read(text)?;
    if let Some(error) = raw.failure() {
        return Err(DecodeError::Upstream(error));
    }
    let id = raw.response_id.as_deref().unwrap_or(&origin.id);
    let model = raw.model_version.as_deref().unwrap_or(&origin.model);
    let mut ids = CallIds::new(id);
    let mut piece = Piece::answer(id, origin.created, model);
    let candidates = raw.candidates.as_deref().unwrap_or_default();
    let Some((last, before)) = candidates.split_last() else {
        return refused(&raw, piece);
    };
    for candidate in before {
        let finish = message(&mut piece, &mut ids, candidate)?;
        piece.next_choice(finish);
    }
    let finish = message(&mut piece, &mut ids, last)?;
    end(&raw, piece, finish)
}

/// The answer to a prompt that was not answered.
fn refused(raw: &RawResponse<'_>, mut piece: Piece) -> Result<Answer, DecodeError> {
    let Some((why, message)) = raw.blocked() else {
        return Err(DecodeError::shape("no candidates"));
    };
    piece
        .raw(r#""role":"assistant","content":null,"refusal":"#)
        .raw(message.unwrap_or("null"));
    end(raw, piece, ("content_filter", why))
}

fn end(raw: &RawResponse<'_>, piece: Piece, finish: (&str, &str)) -> Result<Answer, DecodeError> {
    let report = raw.usage_metadata.map(|usage| usage.get());
    let usage = match report.map(Counts::read) {
        None | Some(Ok(None)) => None,
        Some(Ok(Some(counts))) => Some(counts.usage()),
        Some(Err(fault)) => Some(Err(fault)),
    };
    piece.end_answer(finish, usage, report.filter(|_| usage.is_some()))
}

/// Writes the message of one candidate; returns why it ended.
fn message<'c>(
    piece: &mut Piece,
    ids: &mut CallIds,
    candidate: &'c RawCandidate<'_>,
) -> Result<(&'static str, &'c str), DecodeError> {
    piece.raw(r#""role":"assistant","content":"#);
    match joined(candidate, RawPart::said)? {
        Some(text) => piece.text(TextKind::Content, &text),
        None => piece.raw("null"),
    };
    piece.raw(r#","refusal":null"#);
    if let Some(text) = joined(candidate, RawPart::thought)? {
        piece
            .raw(r#","reasoning_content":"#)
            .text(TextKind::Reasoning, &text);
    }
    write_images(piece, candidate)?;
    let called = write_calls(piece, ids, candidate)?;
    write_signature(piece, candidate)?;
    piece.logprobs(
        candidate
            .logprobs_result
            .as_ref()
            .and_then(|raw| raw.json()),
    );
    let reason = candidate.finish_reason.as_deref().unwrap_or("STOP");
    Ok((finish_reason(reason, called), reason))
}

fn write_images(piece: &mut Piece, candidate: &RawCandidate<'_>) -> Result<(), DecodeError> {
    let mut images: Vec<String> = Vec::new();
    for part in candidate.parts() {
        let index = u32::try_from(images.len()).unwrap_or(u32::MAX);
        images.extend(part.image(index)?);
    }
    if !images.is_empty() {
        piece.raw(&format!(r#","images":[{}]"#, images.join(",")));
    }
    Ok(())
}

fn write_calls(
    piece: &mut Piece,
    ids: &mut CallIds,
    candidate: &RawCandidate<'_>,
) -> Result<bool, DecodeError> {
    let mut any = false;
    for part in candidate.parts() {
        let Some(raw) = &part.function_call else {
            continue;
        };
        let name = compose::literal(raw.name)?;
        let name = name.ok_or(DecodeError::shape("a call without a name"))?;
        piece.raw(if std::mem::replace(&mut any, true) {
            ","
        } else {
            r#","tool_calls":["#
        });
        call::begin(piece, None, &ids.of(raw)?, name);
        piece.text(TextKind::ToolCall, &call::whole(raw)?);
        call::end(piece, part.signature()?);
    }
    if any {
        piece.raw("]");
    }
    Ok(any)
}

/// The signature of a text; those of calls stand beside them.
fn write_signature(piece: &mut Piece, candidate: &RawCandidate<'_>) -> Result<(), DecodeError> {
    let mut last = None;
    for part in candidate.parts() {
        if part.function_call.is_none() {
            last = part.signature()?.or(last);
        }
    }
    if let Some(signature) = last {
        piece.raw(",").raw(&extra_content(signature));
    }
    Ok(())
}

/// The texts of all parts of a kind as one string literal; `None` where there is none.
fn joined<'a>(
    candidate: &RawCandidate<'a>,
    text: impl Fn(&RawPart<'a>) -> Result<Option<&'a str>, DecodeError>,
) -> Result<Option<Cow<'a, str>>, DecodeError> {
    let parts = candidate.parts().iter();
    let literals: Result<Vec<_>, _> = parts.filter_map(|part| text(part).transpose()).collect();
    Ok(compose::joined(literals?))
}
