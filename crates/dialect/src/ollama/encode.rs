//! From the client's request to a chat of Ollama's: the whole of it, member by member.

use super::messages;
use crate::error::RequestError;
use crate::features::{Effort, Thinking};
use crate::json;
use crate::openai::{Edit, WireRequest};
use crate::quirks::Quirks;
use crate::request::ChatRequest;
use crate::source::{
    Body, Choice, Form, Function, Object, Reasoning, Source, Vocabulary, openai_tools,
};

/// Where requests go, unless the provider's file says otherwise.
const PATH: &str = "/api/chat";

/// What becomes of each member.
const MEMBERS: Vocabulary = Vocabulary {
    translated: &[
        "min_p",
        "seed",
        "frequency_penalty",
        "presence_penalty",
        "repeat_penalty",
        "think",
        "options",
    ],
    native: &["keep_alive"],
    no_effect: &["user", "safety_identifier"],
};

/// The numbers that are options there, under the same names.
const NUMBERS: [&str; 8] = [
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repeat_penalty",
];

/// Writes `request` for a provider that speaks Ollama's dialect.
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
    // It streams unless it is told not to.
    body.put("stream", if request.stream() { "true" } else { "false" });
    body.put("messages", &messages::write(&source)?);
    body.put_some("tools", tools(&source)?.as_deref());
    body.put_some("think", think(&source)?.as_deref());
    match Form::read(&source)? {
        Form::Text => {}
        Form::Json => body.put("format", r#""json""#),
        Form::Schema { schema, .. } => body.put("format", schema),
    }
    body.put_some("options", options(&source)?.as_deref());
    for name in MEMBERS.native {
        body.put_some(name, source.get(name));
    }
    Ok(WireRequest {
        path: quirks.path_for(PATH, edit.upstream_model),
        headers: quirks.header_list(),
        body: body.end(),
    })
}

/// Ollama lets the model choose: nothing is offered where nothing may be called, and a call cannot be
/// demanded.
fn tools(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    let functions = Function::all(source)?;
    match Choice::read(source, functions.len())? {
        Choice::Auto => {}
        Choice::None => return Ok(None),
        Choice::Required | Choice::Named(_) => source.cannot(
            "tool_choice",
            "This model's provider cannot demand a call: send `auto` or `none`.",
        )?,
    }
    Ok(openai_tools(&functions))
}

/// The client's own `think`, or its effort: a level where the model has levels, else on or off.
fn think(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    if let Some(own) = source.get("think") {
        return Ok(Some(own.to_owned()));
    }
    let Some(sent) = source.get("reasoning_effort").map(json::inside) else {
        return Ok(None);
    };
    let features = source.edit.features;
    if features.thinking == Thinking::Never {
        if sent != "none" {
            source.cannot(
                "reasoning_effort",
                "This model does not reason: leave `reasoning_effort` out.",
            )?;
        }
        return Ok(None);
    }
    let level = |effort| match features.effort_at_most(effort) {
        Some(level) => json::quote(level.as_str()),
        None => "true".to_owned(),
    };
    Ok(Reasoning::read(source)?.map(|asked| match asked {
        Reasoning::No => "false".to_owned(),
        // There is nothing below low.
        Reasoning::Effort(Effort::Minimal) => level(Effort::Low),
        Reasoning::Effort(effort) => level(effort),
    }))
}

/// What says how the text is made: the client's own options, and over them the members that OpenAI
/// has beside the messages. The limit is one of them, and only `max_tokens` names it.
fn options(source: &Source<'_>) -> Result<Option<String>, RequestError> {
    let mut options = Object::new();
    let mut written: Vec<&str> = Vec::new();
    let mut numbers = Vec::new();
    for name in NUMBERS {
        if let Some(number) = source.number(name)? {
            numbers.push((name, number));
            written.push(name);
        }
    }
    let stops = source.stop_sequences()?;
    if !stops.is_empty() {
        written.push("stop");
    }
    let own = source.get("options").unwrap_or_default();
    for member in json::members(own, 0) {
        let name = member.name(own);
        if name.eq_ignore_ascii_case("num_predict") {
            return Err(RequestError::param(
                "options.num_predict",
                "`options.num_predict` is not supported: use `max_tokens`.",
            ));
        }
        if !written.contains(&name.as_ref()) {
            options.put(&name, json::slice(own, &member.value));
        }
    }
    for (name, number) in &numbers {
        options.put(name, number);
    }
    if !stops.is_empty() {
        options.put("stop", &format!("[{}]", stops.join(",")));
    }
    if let Some(limit) = source.output_limit() {
        options.put("num_predict", &limit.to_string());
    }
    Ok((!options.is_empty()).then(|| options.end()))
}
