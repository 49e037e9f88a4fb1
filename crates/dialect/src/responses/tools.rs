//! Tools, the choice among them, and calls, as chat requests have them.

use super::request::ResponsesRequest;
use crate::json;
use crate::messages::{Writing, literal, member};

pub(super) fn write(request: &ResponsesRequest<'_>, body: &mut Writing<'_>) {
    let list = request.get("tools").unwrap_or("[]");
    let mut tools = Vec::new();
    for (place, at) in json::elements(list, 0).enumerate() {
        match tool(json::slice(list, &at)) {
            Some(tool) => tools.push(tool),
            None => body.beyond(
                format!("tools[{place}]"),
                "This model's provider takes functions and custom tools, with their names, only.",
            ),
        }
    }
    if tools.is_empty() {
        return;
    }
    body.write("tools", &format!("[{}]", tools.join(",")));
    body.write_some("parallel_tool_calls", request.get("parallel_tool_calls"));
    let Some(choice) = request.get("tool_choice") else {
        return;
    };
    if choice.starts_with('"') {
        body.write("tool_choice", choice);
        return;
    }
    let name = literal(choice, "name");
    match (literal(choice, "type").map(json::inside), name) {
        (Some(kind @ ("function" | "custom")), Some(name)) => body.write(
            "tool_choice",
            &format!(r#"{{"type":"{kind}","{kind}":{{"name":{name}}}}}"#),
        ),
        _ => body.beyond(
            "tool_choice",
            "`tool_choice` must be auto, none, required, or a function or custom tool by name.",
        ),
    }
}

fn tool(tool: &str) -> Option<String> {
    let kind = json::inside(literal(tool, "type")?);
    let mut inner = format!(r#"{{"name":{}"#, literal(tool, "name")?);
    let mut copy = |name: &str| {
        if let Some(value) = member(tool, name) {
            inner.push_str(&format!(",\"{name}\":{value}"));
        }
    };
    copy("description");
    match kind {
        "function" => {
            copy("parameters");
            copy("strict");
        }
        "custom" => {
            if let Some(format) = member(tool, "format") {
                let grammar = literal(format, "type") == Some(r#""grammar""#);
                let format = match (literal(format, "syntax"), literal(format, "definition")) {
                    (Some(syntax), Some(definition)) if grammar => format!(
                        r#"{{"type":"grammar","grammar":{{"syntax":{syntax},"definition":{definition}}}}}"#
                    ),
                    _ => format.to_owned(),
                };
                inner.push_str(&format!(r#","format":{format}"#));
            }
        }
        _ => return None,
    }
    Some(format!(r#"{{"type":"{kind}","{kind}":{inner}}}}}"#))
}

/// The tools as a response repeats them: what was not said of a function is said to be nothing.
pub(super) fn shown(list: &str) -> String {
    let tools: Vec<String> = json::elements(list, 0)
        .map(|at| {
            let tool = json::slice(list, &at);
            let function = literal(tool, "type") == Some(r#""function""#);
            let Some(open) = tool.strip_suffix('}').filter(|_| function) else {
                return tool.to_owned();
            };
            let said = |name: &str| json::members(tool, 0).any(|member| member.name(tool) == name);
            let unsaid: String = ["description", "parameters", "strict"]
                .into_iter()
                .filter(|name| !said(name))
                .map(|name| format!(r#","{name}":null"#))
                .collect();
            format!("{open}{unsaid}}}")
        })
        .collect();
    format!("[{}]", tools.join(","))
}

/// A call that was made before.
pub(super) fn call(item: &str) -> Option<String> {
    let (id, name) = (literal(item, "call_id")?, literal(item, "name")?);
    if literal(item, "type") == Some(r#""custom_tool_call""#) {
        let input = literal(item, "input").unwrap_or(r#""""#);
        return Some(format!(
            r#"{{"id":{id},"type":"custom","custom":{{"name":{name},"input":{input}}}}}"#
        ));
    }
    let arguments = literal(item, "arguments").unwrap_or(r#""{}""#);
    Some(format!(
        r#"{{"id":{id},"type":"function","function":{{"name":{name},"arguments":{arguments}}}}}"#
    ))
}
