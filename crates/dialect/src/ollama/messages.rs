//! Messages: one text each, images beside it, and results of tools by the name of what was called.

use std::collections::HashMap;

use crate::error::RequestError;
use crate::json;
use crate::source::{Call, Message, Object, Part, Role, Source, data_url, join, literal, parts};

/// All messages as a list.
///
/// # Errors
/// A message or a part that Ollama does not have.
pub(super) fn write(source: &Source<'_>) -> Result<String, RequestError> {
    let mut list = String::new();
    // Results are told by name: the last call of an id says which.
    let mut names: HashMap<&str, &str> = HashMap::new();
    for message in source.messages() {
        let mut out = Object::new();
        match message.role()? {
            Role::System => {
                out.put("role", r#""system""#);
                content(source, &message, &mut out)?;
            }
            Role::User => {
                out.put("role", r#""user""#);
                content(source, &message, &mut out)?;
            }
            Role::Assistant => {
                let calls = assistant(source, &message, &mut out)?;
                names.extend(calls.iter().map(|call| (call.id, call.name)));
            }
            Role::Tool => {
                let id = message.tool_call_id()?;
                let name = literal(message.json, "name").or_else(|| names.get(id).copied());
                out.put("role", r#""tool""#)
                    .put("tool_call_id", id)
                    .put_some("tool_name", name);
                content(source, &message, &mut out)?;
            }
        }
        join(&mut list, &out.end());
    }
    Ok(format!("[{list}]"))
}

fn assistant<'a>(
    source: &Source<'_>,
    message: &Message<'a>,
    out: &mut Object,
) -> Result<Vec<Call<'a>>, RequestError> {
    message.refuse_function_call(source)?;
    out.put("role", r#""assistant""#);
    content(source, message, out)?;
    out.put_some("thinking", message.literal("reasoning_content"));
    let calls = message.calls()?;
    let mut list = String::new();
    for call in &calls {
        let mut function = Object::new();
        function
            .put("name", call.name)
            .put("arguments", &call.arguments);
        let mut item = Object::new();
        item.put("id", call.id).put("function", &function.end());
        join(&mut list, &item.end());
    }
    if !list.is_empty() {
        out.put("tool_calls", &format!("[{list}]"));
    }
    Ok(calls)
}

/// The texts as one, each on lines of its own, and the images as base64: Ollama fetches nothing.
fn content(
    source: &Source<'_>,
    message: &Message<'_>,
    out: &mut Object,
) -> Result<(), RequestError> {
    let mut text = String::new();
    let mut images = String::new();
    for (place, part, _) in &parts(message) {
        match part {
            Part::Text(said) => {
                if !text.is_empty() {
                    text.push_str(r"\n");
                }
                text.push_str(json::inside(said));
            }
            Part::Image { url, .. } => {
                let url = json::unescape(json::inside(url));
                match data_url(&url).filter(|(kind, _)| kind.starts_with("image/")) {
                    Some((_, data)) => join(&mut images, &json::quote(data)),
                    None => source.cannot(
                        place,
                        "This model's provider fetches nothing: send the image as a data URL.",
                    )?,
                }
            }
            Part::File { .. } | Part::Other => source.cannot(
                place,
                "Parts of this type are not supported by the provider of this model.",
            )?,
        }
    }
    out.put("content", &format!("\"{text}\""));
    if !images.is_empty() {
        out.put("images", &format!("[{images}]"));
    }
    Ok(())
}
