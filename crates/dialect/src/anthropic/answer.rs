//! A plain answer of Anthropic's: a message as the client's completion.

use std::borrow::Cow;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::block::{FORMAT, RawBlock, literal};
use super::reason::finish_reason;
use super::report::Counts;
use super::stream::explanation;
use crate::compose::{self, Piece};
use crate::counts::Json;
use crate::error::DecodeError;
use crate::json;
use crate::object;
use crate::openai::{Answer, TextKind};

#[derive(Deserialize)]
struct RawAnswer<'a> {
    #[serde(borrow, default)]
    id: Cow<'a, str>,
    #[serde(borrow, default)]
    model: Cow<'a, str>,
    #[serde(borrow, default)]
    content: Option<Vec<RawBlock<'a>>>,
    #[serde(borrow, default)]
    stop_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    stop_details: Json<'a>,
    #[serde(borrow, default)]
    usage: Json<'a>,
    #[serde(borrow, default)]
    error: Json<'a>,
}

/// Reads the body of a 200 answer. `created` is in Unix seconds.
///
/// # Errors
/// Not JSON, no `content`, or an error inside ([`DecodeError::Upstream`]).
pub(crate) fn decode(body: &Bytes, created: u64) -> Result<Answer, DecodeError> {
    let text = object::text(body)?;
    let raw: RawAnswer<'_> = object::read(text)?;
    if let Some(error) = raw.error {
        return Err(DecodeError::Upstream(Box::new(super::error::error(
            error.get(),
        ))));
    }
    let blocks = raw.content.ok_or(DecodeError::shape("no content"))?;
    let mut piece = Piece::answer(&raw.id, created, &raw.model);
    piece.raw(r#""role":"assistant","content":"#);
    write_text(&mut piece, &blocks)?;
    piece
        .raw(r#","refusal":"#)
        .raw(explanation(raw.stop_details).unwrap_or("null"));
    write_reasoning(&mut piece, &blocks)?;
    write_calls(&mut piece, &blocks)?;
    let native = raw.stop_reason.as_deref().unwrap_or("end_turn");
    let usage = raw
        .usage
        .map(|usage| Counts::read(usage.get()).and_then(|counts| counts.usage()));
    piece.end_answer(
        (finish_reason(native), native),
        usage,
        raw.usage.map(RawValue::get),
    )
}

/// All texts as one literal, or null.
fn write_text(piece: &mut Piece, blocks: &[RawBlock<'_>]) -> Result<(), DecodeError> {
    match joined(blocks, "text", |block| block.text)? {
        Some(text) => piece.text(TextKind::Content, &text),
        None => piece.raw("null"),
    };
    Ok(())
}

fn write_reasoning(piece: &mut Piece, blocks: &[RawBlock<'_>]) -> Result<(), DecodeError> {
    if let Some(text) = joined(blocks, "thinking", |block| block.thinking)? {
        piece
            .raw(r#","reasoning_content":"#)
            .text(TextKind::Reasoning, &text);
    }
    let mut details = String::new();
    let mut count = 0_u32;
    for block in blocks {
        let member = match block.r#type.as_ref() {
            "thinking" => format!(
                r#""type":"reasoning.text","index":{count},{FORMAT},"text":{},"signature":{}"#,
                literal(block.thinking)?.unwrap_or(r#""""#),
                literal(block.signature)?.unwrap_or("null"),
            ),
            "redacted_thinking" => block.encrypted(count)?,
            _ => continue,
        };
        if count > 0 {
            details.push(',');
        }
        details.push_str(&format!("{{{member}}}"));
        count = count.saturating_add(1);
    }
    if count > 0 {
        piece.raw(&format!(r#","reasoning_details":[{details}]"#));
    }
    Ok(())
}

fn write_calls(piece: &mut Piece, blocks: &[RawBlock<'_>]) -> Result<(), DecodeError> {
    let calls = blocks.iter().filter(|block| block.r#type == "tool_use");
    let mut any = false;
    for block in calls {
        let (id, name) = block.call()?;
        piece.raw(if std::mem::replace(&mut any, true) {
            ","
        } else {
            r#","tool_calls":["#
        });
        let input = block.input.map_or("{}", RawValue::get);
        piece
            .raw(&format!(
                r#"{{"id":{id},"type":"function","function":{{"name":"#
            ))
            .text(TextKind::ToolCall, name)
            .raw(r#","arguments":"#)
            .text(TextKind::ToolCall, &json::quote(input))
            .raw("}}");
    }
    if any {
        piece.raw("]");
    }
    Ok(())
}

/// The texts of all blocks of a kind as one string literal; `None` where there is none.
fn joined<'a>(
    blocks: &[RawBlock<'a>],
    kind: &str,
    text: impl Fn(&RawBlock<'a>) -> Json<'a>,
) -> Result<Option<Cow<'a, str>>, DecodeError> {
    let of_kind = blocks.iter().filter(|block| block.r#type == kind);
    let literals: Result<Vec<_>, _> = of_kind
        .filter_map(|block| literal(text(block)).transpose())
        .collect();
    Ok(compose::joined(literals?))
}
