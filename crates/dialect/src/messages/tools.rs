//! Tools and the choice among them, as chat requests have them.

use super::blocks::mark_member;
use super::compose::Writing;
use super::request::{MessagesRequest, literal, member};
use crate::json;

pub(super) fn write(request: &MessagesRequest<'_>, body: &mut Writing<'_>) {
    let list = request.get("tools").unwrap_or("[]");
    let mut tools = Vec::new();
    for (place, at) in json::elements(list, 0).enumerate() {
        let tool = json::slice(list, &at);
        match literal(tool, "type").map_or("custom", json::inside) {
            "custom" => match function(tool, body.mark(tool)) {
                Some(function) => tools.push(function),
                None => body.beyond(format!("tools[{place}]"), "A tool needs its `name`."),
            },
            _ => {
                // Counted as its JSON.
                if body.target.native {
                    tools.push(tool.to_owned());
                }
                body.beyond(
                    format!("tools[{place}]"),
                    "This model's provider takes tools with an `input_schema` only.",
                );
            }
        }
    }
    if tools.is_empty() {
        return;
    }
    body.write("tools", &format!("[{}]", tools.join(",")));
    let Some(choice) = request.get("tool_choice") else {
        return;
    };
    match literal(choice, "type").map(json::inside) {
        Some("auto") => body.write("tool_choice", r#""auto""#),
        Some("any") => body.write("tool_choice", r#""required""#),
        Some("none") => body.write("tool_choice", r#""none""#),
        Some("tool") if literal(choice, "name").is_some() => {
            let name = literal(choice, "name").unwrap_or_default();
            let named = format!(r#"{{"type":"function","function":{{"name":{name}}}}}"#);
            body.write("tool_choice", &named);
        }
        Some(_) | None => body.beyond(
            "tool_choice",
            "`tool_choice` must be of the type auto, any, none or tool with its name.",
        ),
    }
    if member(choice, "disable_parallel_tool_use") == Some("true") {
        body.write("parallel_tool_calls", "false");
    }
}

fn function(tool: &str, mark: Option<&str>) -> Option<String> {
    let mut function = format!(r#"{{"name":{}"#, literal(tool, "name")?);
    if let Some(description) = literal(tool, "description") {
        function.push_str(&format!(r#","description":{description}"#));
    }
    let schema = member(tool, "input_schema").filter(|schema| schema.starts_with('{'));
    let schema = schema.unwrap_or(r#"{"type":"object","properties":{}}"#);
    function.push_str(&format!(r#","parameters":{schema}"#));
    if member(tool, "strict") == Some("true") {
        function.push_str(r#","strict":true"#);
    }
    function.push('}');
    let mark = mark_member(mark);
    Some(format!(
        r#"{{"type":"function","function":{function}{mark}}}"#
    ))
}
