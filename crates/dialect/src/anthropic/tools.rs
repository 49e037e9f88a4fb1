//! Tools and the choice among them.

use super::encode::Source;
use crate::error::RequestError;
use crate::json;
use crate::source::schema;

/// The choice among tools.
#[derive(Debug, Default)]
pub(super) struct Choice {
    /// The `tool_choice` member, to be sent where there are tools.
    pub(super) json: Option<String>,
    /// Whether a tool must be called.
    pub(super) forced: bool,
}

/// The tools, `None` where there are none.
///
/// # Errors
/// Tools that are no functions: those that the provider runs itself have prices of their own.
pub(super) fn write(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    let Some(list) = source.get("tools") else {
        return Ok(None);
    };
    let mut out = String::new();
    for (place, at) in json::elements(list, 0).enumerate() {
        let tool = json::slice(list, &at);
        let kind = Source::member(tool, "type").map_or("function", json::inside);
        let function = Source::member(tool, "function").filter(|json| json.starts_with('{'));
        match function {
            Some(function) if kind == "function" => {
                let cache = Source::member(tool, "cache_control");
                let written = function_tool(function, cache, place)?;
                if !out.is_empty() {
                    out.push(',');
                }
                out.push_str(&written);
            }
            Some(_) | None => source.cannot(
                format!("tools[{place}]"),
                "This model's provider takes tools of the type `function` only.",
            )?,
        }
    }
    Ok((!out.is_empty()).then(|| format!("[{out}]")))
}

fn function_tool(
    function: &str,
    cache: Option<&str>,
    place: usize,
) -> Result<String, RequestError> {
    let Some(name) = Source::member(function, "name").filter(|name| name.starts_with('"')) else {
        return Err(RequestError::param(
            format!("tools[{place}].function.name"),
            "A function needs a name.",
        ));
    };
    let mut tool = format!(r#"{{"name":{name}"#);
    if let Some(description) = Source::member(function, "description") {
        tool.push_str(&format!(r#","description":{description}"#));
    }
    tool.push_str(r#","input_schema":"#);
    tool.push_str(&schema(Source::member(function, "parameters")));
    if Source::member(function, "strict") == Some("true") {
        tool.push_str(r#","strict":true"#);
    }
    if let Some(cache) = cache.or_else(|| Source::member(function, "cache_control")) {
        tool.push_str(&format!(r#","cache_control":{cache}"#));
    }
    tool.push('}');
    Ok(tool)
}

/// `tool_choice` and `parallel_tool_calls`.
///
/// # Errors
/// A choice that the provider or the model does not have.
pub(super) fn choice(source: &Source<'_>) -> Result<Choice, RequestError> {
    let single = source.get("parallel_tool_calls") == Some("false");
    let tail = if single {
        r#","disable_parallel_tool_use":true"#
    } else {
        ""
    };
    let sent = source.get("tool_choice");
    let function = sent
        .filter(|json| json.starts_with('{'))
        .and_then(|json| Source::member(json, "function"))
        .and_then(|function| Source::member(function, "name"))
        .filter(|name| name.starts_with('"'));
    let (json, forced) = match (sent.map(json::inside), function) {
        (_, Some(name)) => (
            Some(format!(r#"{{"type":"tool","name":{name}{tail}}}"#)),
            true,
        ),
        (Some("required"), None) => (Some(format!(r#"{{"type":"any"{tail}}}"#)), true),
        (Some("none"), None) => (Some(r#"{"type":"none"}"#.to_owned()), false),
        (Some("auto"), None) => (Some(format!(r#"{{"type":"auto"{tail}}}"#)), false),
        (None, None) => (single.then(|| format!(r#"{{"type":"auto"{tail}}}"#)), false),
        (Some(_), None) => {
            source.cannot(
                "tool_choice",
                "`tool_choice` must be auto, none, required or a function by name for this model.",
            )?;
            (None, false)
        }
    };
    if forced && !source.edit.features.forced_tools {
        source.cannot(
            "tool_choice",
            "This model cannot be made to call a tool: send `auto` or `none`.",
        )?;
        return Ok(Choice::default());
    }
    if forced
        && source
            .get("tools")
            .is_none_or(|list| json::elements(list, 0).next().is_none())
    {
        return Err(RequestError::param(
            "tool_choice",
            "`tool_choice` asks for a call and `tools` has no tool.",
        ));
    }
    Ok(Choice { json, forced })
}
