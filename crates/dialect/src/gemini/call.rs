//! Calls of functions, whole or in pieces, and the ids that they are known by.

use serde_json::value::RawValue;

use super::arguments::Arguments;
use super::raw::{RawCall, extra_content};
use crate::compose::{Piece, literal};
use crate::error::DecodeError;
use crate::json;
use crate::openai::TextKind;

/// Bytes of an answer's id that go into the ids of its calls: OpenAI takes ids of 40 bytes at most.
const ANSWER_ID_BYTES_MAX: usize = 24;

/// Gives ids to calls that have none, the same each time that an answer is read.
///
/// Results are sent back by id, so that two calls of one conversation must not share one: the
/// answer's own id is part of it.
#[derive(Debug)]
pub(super) struct CallIds {
    prefix: String,
    given: u32,
}

impl CallIds {
    pub(super) fn new(answer_id: &str) -> Self {
        let letters = answer_id
            .chars()
            .filter(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_'));
        Self {
            prefix: letters.take(ANSWER_ID_BYTES_MAX).collect(),
            given: 0,
        }
    }

    /// The id of a call, as a literal: its own where it has one.
    ///
    /// # Errors
    /// An id that is no string.
    pub(super) fn of(&mut self, call: &RawCall<'_>) -> Result<String, DecodeError> {
        let own = literal(call.id)?.map(str::to_owned);
        let place = self.given;
        self.given = self.given.saturating_add(1);
        Ok(own.unwrap_or_else(|| format!("\"call_{}_{place}\"", self.prefix)))
    }
}

/// Writes the beginning of a call up to its arguments.
pub(super) fn begin(piece: &mut Piece, index: Option<u32>, id: &str, name: &str) {
    let index = index
        .map(|index| format!(r#""index":{index},"#))
        .unwrap_or_default();
    piece
        .raw(&format!(
            r#"{{{index}"id":{id},"type":"function","function":{{"name":"#
        ))
        .text(TextKind::ToolCall, name)
        .raw(r#","arguments":"#);
}

/// Writes the end of a call behind its arguments, with the signature that goes with it.
pub(super) fn end(piece: &mut Piece, signature: Option<&str>) {
    piece.raw("}");
    if let Some(signature) = signature {
        piece.raw(",").raw(&extra_content(signature));
    }
    piece.raw("}");
}

/// The arguments of a call that came whole, as a literal.
pub(super) fn whole(call: &RawCall<'_>) -> Result<String, DecodeError> {
    let given = call.args.map(RawValue::get);
    if let Some(args) = given.filter(|args| *args != "null") {
        return Ok(json::quote(args));
    }
    let mut arguments = Arguments::new();
    for piece in call.partial_args.iter().flatten() {
        arguments.add(piece)?;
    }
    Ok(json::quote(&arguments.json()))
}
