//! Parts of a message's content as Anthropic's blocks: texts, images, documents, thinking.

use super::encode::Source;
use super::messages::Turn;
use crate::error::RequestError;
use crate::json;
use crate::source::{self, Message, data_url, join, literal};

/// The kinds of image that Anthropic reads.
const IMAGES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// Writes the content of a message as blocks.
///
/// # Errors
/// A part that Anthropic has no block for.
pub(super) fn content(
    source: &Source<'_>,
    message: &Message<'_>,
    turn: Turn,
    out: &mut String,
) -> Result<(), RequestError> {
    let Some(content) = message.get("content") else {
        return Ok(());
    };
    if content.starts_with('"') {
        text(content, None, turn, out);
        return Ok(());
    }
    for (place, at) in json::elements(content, 0).enumerate() {
        let part = json::slice(content, &at);
        if part.starts_with('"') {
            text(part, None, turn, out);
            continue;
        }
        let cannot =
            |what: &'static str| source.cannot(format!("{}.content[{place}]", message.place), what);
        let cache = Source::member(part, "cache_control");
        match Source::member(part, "type").map(json::inside) {
            Some("text") => match literal(part, "text") {
                Some(said) => text(said, cache, turn, out),
                None => cannot("A text part needs its `text`.")?,
            },
            Some("refusal") => {
                if let Some(said) = literal(part, "refusal") {
                    text(said, cache, turn, out);
                }
            }
            Some("image_url") => match image(part, cache) {
                Some(block) => join(out, &block),
                None => cannot(
                    "Images are taken as https addresses, or as data URLs of PNG, JPEG, GIF or WebP.",
                )?,
            },
            Some("file") => match document(part, cache) {
                Some(block) => join(out, &block),
                None => cannot(
                    "Files are taken as `file_data`: a data URL of a PDF, or its https address.",
                )?,
            },
            Some("thinking" | "redacted_thinking") if turn == Turn::Assistant => join(out, part),
            Some(_) | None => {
                cannot("Parts of this type are not supported by the provider of this model.")?;
            }
        }
    }
    Ok(())
}

/// Writes the thinking that the client sends back: `reasoning_details` as this dialect gives them,
/// or `thinking_blocks`, which are Anthropic's own. Without its signature it would be refused.
pub(super) fn reasoning(message: &Message<'_>, out: &mut String) {
    let blocks = message.get("thinking_blocks").unwrap_or_default();
    for at in json::elements(blocks, 0) {
        let block = json::slice(blocks, &at);
        let kind = Source::member(block, "type").map(json::inside);
        let signed = kind == Some("thinking") && literal(block, "signature").is_some();
        if signed || kind == Some("redacted_thinking") {
            join(out, block);
        }
    }
    if !out.is_empty() {
        return;
    }
    let details = message.get("reasoning_details").unwrap_or_default();
    for at in json::elements(details, 0) {
        let detail = json::slice(details, &at);
        let ours = literal(detail, "format")
            .is_none_or(|format| json::inside(format).starts_with("anthropic"));
        let kind = Source::member(detail, "type").map(json::inside);
        let (signature, data) = (literal(detail, "signature"), literal(detail, "data"));
        match (kind, signature, data) {
            (Some("reasoning.text"), Some(signature), _) if ours => {
                let thinking = literal(detail, "text").unwrap_or(r#""""#);
                join(
                    out,
                    &format!(
                        r#"{{"type":"thinking","thinking":{thinking},"signature":{signature}}}"#
                    ),
                );
            }
            (Some("reasoning.encrypted"), _, Some(data)) if ours => join(
                out,
                &format!(r#"{{"type":"redacted_thinking","data":{data}}}"#),
            ),
            _ => {}
        }
    }
}

/// A text block. Anthropic refuses empty ones, and of the assistant's also those of white space alone.
fn text(literal: &str, cache: Option<&str>, turn: Turn, out: &mut String) {
    let inside = json::inside(literal);
    let blank =
        turn == Turn::Assistant && json::unescape(inside).trim().is_empty() || inside.is_empty();
    if !blank {
        join(
            out,
            &format!(r#"{{"type":"text","text":{literal}{}}}"#, cached(cache)),
        );
    }
}

fn image(part: &str, cache: Option<&str>) -> Option<String> {
    let (literal, _) = source::address(part, "image_url")?;
    let url = json::unescape(json::inside(literal));
    let source = match data_url(&url) {
        Some((kind, data)) => {
            let kind = kind.to_ascii_lowercase();
            let kind = if kind == "image/jpg" {
                "image/jpeg"
            } else {
                &kind
            };
            IMAGES.contains(&kind).then(|| base64(kind, data))?
        }
        None => url.starts_with("https://").then(|| address(literal))?,
    };
    Some(format!(
        r#"{{"type":"image","source":{source}{}}}"#,
        cached(cache)
    ))
}

fn document(part: &str, cache: Option<&str>) -> Option<String> {
    let file = Source::member(part, "file")?;
    let given = literal(file, "file_data")?;
    let data = json::unescape(json::inside(given));
    let source = match data_url(&data) {
        Some((kind, data)) => kind
            .eq_ignore_ascii_case("application/pdf")
            .then(|| base64("application/pdf", data))?,
        None => data.starts_with("https://").then(|| address(given))?,
    };
    let title = literal(file, "filename")
        .map(|name| format!(r#","title":{name}"#))
        .unwrap_or_default();
    Some(format!(
        r#"{{"type":"document","source":{source}{title}{}}}"#,
        cached(cache)
    ))
}

fn base64(kind: &str, data: &str) -> String {
    format!(
        r#"{{"type":"base64","media_type":"{kind}","data":{}}}"#,
        json::quote(data)
    )
}

fn address(literal: &str) -> String {
    format!(r#"{{"type":"url","url":{literal}}}"#)
}

fn cached(cache: Option<&str>) -> String {
    cache
        .map(|cache| format!(r#","cache_control":{cache}"#))
        .unwrap_or_default()
}
