//! From the client's request to a conversation for Bedrock: the whole of it, member by member.

use super::inference::{inference, model_fields, output_config};
use super::messages::{Messages, cache_point};
use crate::anthropic::thinking::{Plan, Wish};
use crate::error::RequestError;
use crate::openai::{Edit, WireRequest};
use crate::quirks::Quirks;
use crate::request::ChatRequest;
use crate::source::{Body, Choice, Function, Object, Source, Vocabulary, join};

/// Where requests go, unless the provider's file says otherwise.
const PATH: &str = "/model/{model}/converse";
/// And those for streams.
const STREAM_PATH: &str = "/model/{model}/converse-stream";

/// What becomes of each member. What changes the price or reads what is the operator's
/// (`serviceTier`, `performanceConfig`, `guardrailConfig`, `s3Location`) is the provider file's to
/// set.
const MEMBERS: Vocabulary = Vocabulary {
    translated: &["thinking"],
    native: &[],
    no_effect: &["user", "safety_identifier"],
};

/// Writes `request` for a provider that speaks Bedrock's dialect.
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
    let messages = Messages::write(&source)?;
    let functions = Function::all(&source)?;
    let choice = Choice::read(&source, functions.len())?;
    let forced = matches!(choice, Choice::Required | Choice::Named(_));
    let limit = source.output_limit();
    let plan = Plan::of(
        &source,
        &Wish {
            forced_tools: forced,
            signature_lost: messages.signature_lost,
            output_limit: limit.unwrap_or(edit.output_tokens_max),
        },
    )?;

    let mut body = Body::new(quirks);
    body.put("messages", &format!("[{}]", messages.turns));
    if !messages.system.is_empty() {
        body.put("system", &format!("[{}]", messages.system));
    }
    body.put_some("inferenceConfig", inference(&source, &plan)?.as_deref());
    let tools = tool_config(&source, &functions, choice, messages.called)?;
    body.put_some("toolConfig", tools.as_deref());
    let fields = model_fields(&source, &plan)?;
    body.put_some("additionalModelRequestFields", fields.as_deref());
    body.put_some("outputConfig", output_config(&source)?.as_deref());
    let path = if request.stream() { STREAM_PATH } else { PATH };
    Ok(WireRequest {
        path: quirks.path_for(path, edit.upstream_model),
        headers: quirks.header_list(),
        body: body.end(),
    })
}

/// Tools and the choice among them. Bedrock wants to be told of tools wherever the conversation has
/// used one, and cannot be told to use none.
fn tool_config(
    source: &Source<'_>,
    functions: &[Function<'_>],
    choice: Choice<'_>,
    called: bool,
) -> Result<Option<String>, RequestError> {
    if choice == Choice::None && !called {
        return Ok(None);
    }
    if functions.is_empty() {
        return if called {
            Err(RequestError::param(
                "tools",
                "The messages have calls of tools: send those `tools` for this model.",
            ))
        } else {
            Ok(None)
        };
    }
    let written: Vec<String> = functions.iter().map(tool).collect();
    let mut config = Object::new();
    config.put("tools", &format!("[{}]", written.join(",")));
    match choice {
        Choice::Auto => {}
        Choice::None => source.cannot(
            "tool_choice",
            "This model's provider cannot forbid calls after one was made: send `auto`.",
        )?,
        Choice::Required | Choice::Named(_) if !source.edit.features.forced_tools => {
            source.cannot(
                "tool_choice",
                "This model cannot be made to call a tool: send `auto`.",
            )?;
        }
        Choice::Required => {
            config.put("toolChoice", r#"{"any":{}}"#);
        }
        Choice::Named(name) => {
            config.put("toolChoice", &format!(r#"{{"tool":{{"name":{name}}}}}"#));
        }
    }
    Ok(Some(config.end()))
}

fn tool(function: &Function<'_>) -> String {
    let mut spec = Object::new();
    spec.put("name", function.name)
        .put_some("description", function.description)
        .put(
            "inputSchema",
            &format!(r#"{{"json":{}}}"#, function.parameters),
        );
    if function.strict {
        spec.put("strict", "true");
    }
    let mut tool = format!(r#"{{"toolSpec":{}}}"#, spec.end());
    if let Some(cache) = function.cache {
        join(&mut tool, &cache_point(cache));
    }
    tool
}
