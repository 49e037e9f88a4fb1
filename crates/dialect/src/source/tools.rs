//! The functions that a client offers, and the choice among them.

use super::{Object, Source, join, literal};
use crate::error::RequestError;
use crate::json;

/// The tools of a request as functions.
pub(crate) struct Function<'a> {
    /// A literal.
    pub(crate) name: &'a str,
    pub(crate) description: Option<&'a str>,
    /// A JSON schema of an object, which says that it is one.
    pub(crate) parameters: String,
    pub(crate) strict: bool,
    /// What it says of being kept, with all before it.
    pub(crate) cache: Option<&'a str>,
}

/// A schema for functions that say nothing of their parameters.
const NO_PARAMETERS: &str = r#"{"type":"object","properties":{}}"#;

impl<'a> Function<'a> {
    /// The functions among the tools.
    ///
    /// # Errors
    /// Tools that are no functions: those that the provider runs itself have prices of their own.
    pub(crate) fn all(source: &Source<'a>) -> Result<Vec<Self>, RequestError> {
        let list = source.get("tools").unwrap_or_default();
        let mut out = Vec::new();
        for (place, at) in json::elements(list, 0).enumerate() {
            let tool = json::slice(list, &at);
            let kind = Source::member(tool, "type").map_or("function", json::inside);
            let function = Source::member(tool, "function").filter(|json| json.starts_with('{'));
            let Some(function) = function.filter(|_| kind == "function") else {
                source.cannot(
                    format!("tools[{place}]"),
                    "This model's provider takes tools of the type `function` only.",
                )?;
                continue;
            };
            let Some(name) = literal(function, "name") else {
                return Err(RequestError::param(
                    format!("tools[{place}].function.name"),
                    "A function needs a name.",
                ));
            };
            out.push(Self {
                name,
                description: literal(function, "description"),
                parameters: schema(Source::member(function, "parameters")),
                strict: Source::member(function, "strict") == Some("true"),
                cache: Source::member(tool, "cache_control")
                    .or_else(|| Source::member(function, "cache_control")),
            });
        }
        Ok(out)
    }
}

/// Functions as a list of tools in the form of OpenAI's API, which others have taken over; `None`
/// where there is none.
pub(crate) fn openai_tools<'f, 'a: 'f>(
    functions: impl IntoIterator<Item = &'f Function<'a>>,
) -> Option<String> {
    let mut list = String::new();
    for function in functions {
        let mut inner = Object::new();
        inner
            .put("name", function.name)
            .put_some("description", function.description)
            .put("parameters", &function.parameters);
        let mut tool = Object::new();
        tool.put("type", r#""function""#)
            .put("function", &inner.end());
        join(&mut list, &tool.end());
    }
    (!list.is_empty()).then(|| format!("[{list}]"))
}

/// A schema of an object must say that it is one.
pub(crate) fn schema(parameters: Option<&str>) -> String {
    let parameters = parameters.unwrap_or_default();
    if json::members(parameters, 0).next().is_none() {
        return NO_PARAMETERS.to_owned();
    }
    if Source::member(parameters, "type").is_some() {
        return parameters.to_owned();
    }
    let rest = parameters.get(1..).unwrap_or_default();
    format!(r#"{{"type":"object",{rest}"#)
}

/// The choice among tools.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Choice<'a> {
    Auto,
    None,
    Required,
    /// The function of this name, a literal.
    Named(&'a str),
}

impl<'a> Choice<'a> {
    /// `tool_choice`.
    ///
    /// # Errors
    /// A choice of another kind, or a demand where there is no tool.
    pub(crate) fn read(source: &Source<'a>, tools: usize) -> Result<Self, RequestError> {
        let sent = source.get("tool_choice");
        let function = sent
            .filter(|json| json.starts_with('{'))
            .and_then(|json| Source::member(json, "function"))
            .and_then(|function| literal(function, "name"));
        let choice = match (sent.map(json::inside), function) {
            (_, Some(name)) => Self::Named(name),
            (Some("required"), None) => Self::Required,
            (Some("none"), None) => Self::None,
            (Some("auto") | None, None) => Self::Auto,
            (Some(_), None) => {
                source.cannot(
                    "tool_choice",
                    "`tool_choice` must be auto, none, required or a function by name for this model.",
                )?;
                Self::Auto
            }
        };
        if matches!(choice, Self::Required | Self::Named(_)) && tools == 0 {
            return Err(RequestError::param(
                "tool_choice",
                "`tool_choice` asks for a call and `tools` has no tool.",
            ));
        }
        Ok(choice)
    }
}
