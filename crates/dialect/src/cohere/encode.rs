//! From the client's request to a chat of Cohere's: the whole of it, member by member.

use super::messages;
use crate::error::RequestError;
use crate::features::{Features, Thinking};
use crate::json;
use crate::openai::{Edit, WireRequest};
use crate::quirks::Quirks;
use crate::request::ChatRequest;
use crate::source::{Body, Choice, Form, Function, Source, Vocabulary, openai_tools};

/// Where requests go, unless the provider's file says otherwise.
const PATH: &str = "/chat";

/// What becomes of each member.
const MEMBERS: Vocabulary = Vocabulary {
    translated: &[
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "thinking",
        "strict_tools",
    ],
    native: &["documents", "citation_options", "safety_mode", "priority"],
    no_effect: &["user", "safety_identifier"],
};

/// The client's numbers and Cohere's names for them.
const NUMBERS: [(&str, &str); 6] = [
    ("temperature", "temperature"),
    ("top_p", "p"),
    ("top_k", "k"),
    ("seed", "seed"),
    ("frequency_penalty", "frequency_penalty"),
    ("presence_penalty", "presence_penalty"),
];

/// Writes `request` for a provider that speaks Cohere's dialect.
///
/// # Errors
/// What the provider cannot do, named in `param`.
pub(crate) fn encode(
    request: &ChatRequest<'_>,
    edit: &Edit<'_>,
    quirks: &Quirks,
) -> Result<WireRequest, RequestError> {
    let source = Source {
        request,
        edit,
        quirks,
    };
    MEMBERS.check(&source)?;
    let mut body = Body::new(quirks);
    body.put("model", &json::quote(edit.upstream_model));
    body.put("stream", if request.stream() { "true" } else { "false" });
    body.put("messages", &messages::write(&source)?);
    tools(&source, &mut body)?;
    if let Some(limit) = source.output_limit() {
        body.put("max_tokens", &limit.to_string());
    }
    for (name, theirs) in NUMBERS {
        body.put_some(theirs, source.number(name)?.as_deref());
    }
    let stops = source.stop_sequences()?;
    if !stops.is_empty() {
        body.put("stop_sequences", &format!("[{}]", stops.join(",")));
    }
    body.put_some("response_format", response_format(&source)?.as_deref());
    body.put_some("thinking", thinking(&source)?.as_deref());
    for name in MEMBERS.native {
        body.put_some(name, source.get(name));
    }
    Ok(WireRequest {
        path: quirks.path_for(PATH, edit.upstream_model),
        headers: quirks.header_list(),
        body: body.end(),
    })
}

/// Tools and the choice among them. Cohere can demand a call but not of which: where one function is
/// named, it is the only one that is offered.
fn tools(source: &Source<'_>, body: &mut Body<'_>) -> Result<(), RequestError> {
    let functions = Function::all(source)?;
    let choice = Choice::read(source, functions.len())?;
    let offered: Vec<&Function<'_>> = functions
        .iter()
        .filter(|function| match choice {
            Choice::Named(name) => function.name == name,
            Choice::Auto | Choice::None | Choice::Required => true,
        })
        .collect();
    if offered.is_empty() {
        return match choice {
            Choice::Named(_) => Err(RequestError::param(
                "tool_choice",
                "`tool_choice` names a function that is not among the `tools`.",
            )),
            Choice::Auto | Choice::None | Choice::Required => Ok(()),
        };
    }
    body.put_some("tools", openai_tools(offered.iter().copied()).as_deref());
    let strict = source.get("strict_tools");
    let by_function = offered.iter().any(|function| function.strict);
    body.put_some(
        "strict_tools",
        strict.or_else(|| by_function.then_some("true")),
    );
    body.put_some(
        "tool_choice",
        match choice {
            Choice::Auto => None,
            Choice::None => Some(r#""NONE""#),
            Choice::Required | Choice::Named(_) => Some(r#""REQUIRED""#),
        },
    );
    Ok(())
}

fn response_format(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    Ok(match Form::read(source)? {
        Form::Text => None,
        Form::Json => Some(r#"{"type":"json_object"}"#.to_owned()),
        Form::Schema { schema, .. } => Some(format!(
            r#"{{"type":"json_object","json_schema":{schema}}}"#
        )),
    })
}

/// The client's own `thinking`, or its effort: thinking is on or off, and its length is the model's
/// own affair.
fn thinking(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    if let Some(own) = source.get("thinking") {
        return Ok(Some(own.to_owned()));
    }
    let Some(effort) = source.get("reasoning_effort").map(json::inside) else {
        return Ok(None);
    };
    let features: &Features = source.edit.features;
    let word = match (features.thinking, effort) {
        (Thinking::Never, "none") => return Ok(None),
        (Thinking::Never, _) => {
            source.cannot(
                "reasoning_effort",
                "This model does not reason: leave `reasoning_effort` out.",
            )?;
            return Ok(None);
        }
        (Thinking::Always, "none") => {
            source.cannot(
                "reasoning_effort",
                "This model always thinks: leave `reasoning_effort` out.",
            )?;
            return Ok(None);
        }
        (_, "none") => "disabled",
        (_, _) => "enabled",
    };
    Ok(Some(format!(r#"{{"type":"{word}"}}"#)))
}
