//! From the client's request to a Messages request: the whole of it, member by member.

use super::messages::Messages;
use super::parameters::{MEMBERS, metadata, output_config, output_limit, sampling, stop_sequences};
use super::thinking::{Plan, Wish};
use super::tools;
use crate::Dialect;
use crate::error::RequestError;
use crate::json;
use crate::openai::{Edit, WireRequest};
use crate::quirks::Quirks;
use crate::request::ChatRequest;
use crate::source::Body;
pub(super) use crate::source::Source;

/// Where requests go, unless the provider's file says otherwise.
const PATH: &str = "/messages";
/// The header that pins the version of the API, and the version that this dialect was written for.
pub(super) const VERSION: (&str, &str) = ("anthropic-version", "2023-06-01");

/// Who serves the models.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// Anthropic.
    Own,
    /// Google's Vertex AI: the model and whether to stream are in the path, and the version is in the
    /// body. Source: Google's guide "Claude on Vertex AI".
    Vertex,
}

/// Where requests to Vertex AI go: plain ones, and those for a stream of events.
const VERTEX_PATH: &str = "/models/{model}:rawPredict";
const VERTEX_STREAM_PATH: &str = "/models/{model}:streamRawPredict";
/// The version of the API there, as a member of the body.
pub(super) const VERTEX_VERSION: (&str, &str) = ("anthropic_version", r#""vertex-2023-10-16""#);

impl Host {
    /// Who serves the models of a provider; `None` where it does not speak this dialect.
    pub(crate) const fn of(provider: Dialect) -> Option<Self> {
        match provider {
            Dialect::Anthropic => Some(Self::Own),
            Dialect::AnthropicVertex => Some(Self::Vertex),
            Dialect::OpenAi
            | Dialect::Gemini
            | Dialect::Bedrock
            | Dialect::Cohere
            | Dialect::Ollama => None,
        }
    }

    pub(super) const fn path(self, stream: bool) -> &'static str {
        match (self, stream) {
            (Self::Own, _) => PATH,
            (Self::Vertex, false) => VERTEX_PATH,
            (Self::Vertex, true) => VERTEX_STREAM_PATH,
        }
    }

    /// The headers of the provider's file, and the version of the API where a header says it.
    pub(super) fn headers(self, quirks: &Quirks) -> Vec<(String, String)> {
        let mut headers = quirks.header_list();
        if self == Self::Own && !headers.iter().any(|(name, _)| name == VERSION.0) {
            headers.push((VERSION.0.to_owned(), VERSION.1.to_owned()));
        }
        headers
    }
}

/// Writes `request` for a provider that speaks Anthropic's dialect.
///
/// # Errors
/// What the provider cannot do, named in `param`.
pub(crate) fn encode(
    request: &ChatRequest<'_>,
    edit: &Edit<'_>,
    quirks: &Quirks,
    host: Host,
) -> Result<WireRequest, RequestError> {
    let source = Source {
        request,
        edit,
        quirks,
    };
    MEMBERS.check(&source)?;
    let headers = host.headers(quirks);
    let messages = Messages::write(&source)?;
    let choice = tools::choice(&source)?;
    let limit = output_limit(&source);
    let wish = Wish {
        forced_tools: choice.forced,
        signature_lost: messages.signature_lost,
        output_limit: limit,
    };
    let plan = Plan::of(&source, &wish)?;

    let mut body = Body::new(quirks);
    match host {
        Host::Own => body.put("model", &json::quote(edit.upstream_model)),
        Host::Vertex => body.put(VERTEX_VERSION.0, VERTEX_VERSION.1),
    }
    body.put("max_tokens", &limit.to_string());
    if request.stream() {
        body.put("stream", "true");
    }
    if !messages.system.is_empty() {
        body.put("system", &format!("[{}]", messages.system));
    }
    body.put("messages", &format!("[{}]", messages.turns));
    if let Some(tools) = tools::write(&source)? {
        body.put("tools", &tools);
        body.put_some("tool_choice", choice.json.as_deref());
    }
    for (name, value) in sampling(&source, &headers, plan.thinks())? {
        body.put(name, value);
    }
    body.put_some("stop_sequences", stop_sequences(&source)?.as_deref());
    body.put_some("thinking", plan.thinking.as_deref());
    body.put_some("output_config", output_config(&source, &plan)?.as_deref());
    body.put_some("metadata", metadata(&source).as_deref());
    for name in MEMBERS.native {
        body.put_some(name, source.get(name));
    }
    Ok(WireRequest {
        path: quirks.path_for(host.path(request.stream()), edit.upstream_model),
        headers,
        body: body.end(),
    })
}
