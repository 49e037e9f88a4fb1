//! Messages: Cohere's roles and parts are nearly the client's.

use crate::error::RequestError;
use crate::json;
use crate::source::{Message, Object, Part, Role, Source, join, parts};

/// All messages as a list.
///
/// # Errors
/// A message or a part that Cohere does not have.
pub(super) fn write(source: &Source<'_>) -> Result<String, RequestError> {
    let mut list = String::new();
    for message in source.messages() {
        let mut out = Object::new();
        match message.role()? {
            Role::System => {
                out.put("role", r#""system""#)
                    .put("content", &content(source, &message)?);
            }
            Role::User => {
                out.put("role", r#""user""#)
                    .put("content", &content(source, &message)?);
            }
            Role::Assistant => assistant(source, &message, &mut out)?,
            Role::Tool => {
                let id = message.tool_call_id()?;
                out.put("role", r#""tool""#)
                    .put("tool_call_id", id)
                    .put("content", &content(source, &message)?);
            }
        }
        join(&mut list, &out.end());
    }
    Ok(format!("[{list}]"))
}

/// What was planned before a call goes back as the plan; other reasoning is of no use to the next turn.
fn assistant(
    source: &Source<'_>,
    message: &Message<'_>,
    out: &mut Object,
) -> Result<(), RequestError> {
    message.refuse_function_call(source)?;
    out.put("role", r#""assistant""#);
    let said = content(source, message)?;
    let calls = message.calls()?;
    if calls.is_empty() || said != r#""""# {
        out.put("content", &said);
    }
    if calls.is_empty() {
        return Ok(());
    }
    out.put_some("tool_plan", message.literal("reasoning_content"));
    let mut list = String::new();
    for call in calls {
        let mut function = Object::new();
        function
            .put("name", call.name)
            .put("arguments", &json::quote(&call.arguments));
        let mut item = Object::new();
        item.put("id", call.id)
            .put("type", r#""function""#)
            .put("function", &function.end());
        join(&mut list, &item.end());
    }
    out.put("tool_calls", &format!("[{list}]"));
    Ok(())
}

/// A text alone, or a list of parts.
fn content(source: &Source<'_>, message: &Message<'_>) -> Result<String, RequestError> {
    let parts = parts(message);
    match &parts[..] {
        [] => return Ok(String::from(r#""""#)),
        [(_, Part::Text(text), _)] => return Ok((*text).to_owned()),
        _ => {}
    }
    let may_show = message.role()? == Role::User;
    let mut list = String::new();
    for (place, part, _) in &parts {
        let written = match part {
            Part::Text(text) => format!(r#"{{"type":"text","text":{text}}}"#),
            Part::Image { url, given } if may_show => {
                let mut image = Object::new();
                image.put("url", url);
                image.put_some("detail", Source::member(given, "detail"));
                format!(r#"{{"type":"image_url","image_url":{}}}"#, image.end())
            }
            Part::Image { .. } | Part::File { .. } | Part::Other => {
                source.cannot(
                    place,
                    "Parts of this type are not supported by the provider of this model.",
                )?;
                continue;
            }
        };
        join(&mut list, &written);
    }
    Ok(format!("[{list}]"))
}
