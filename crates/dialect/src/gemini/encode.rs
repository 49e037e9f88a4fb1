//! From the client's request to a `generateContent` request: the whole of it, member by member.

use super::contents::Contents;
use super::google::Google;
use super::{parameters, thinking, tools};
use crate::error::RequestError;
use crate::openai::{Edit, WireRequest};
use crate::quirks::Quirks;
use crate::request::ChatRequest;
use crate::source::{Body, Source};

/// Where requests go: plain ones, and those for a stream of events.
const PATH: &str = "/models/{model}:generateContent";
const STREAM_PATH: &str = "/models/{model}:streamGenerateContent?alt=sse";

/// Writes `request` for a provider that speaks Google's dialect.
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
    parameters::MEMBERS.check(&source)?;
    let google = Google::read(&source)?;
    let contents = Contents::write(&source)?;
    let tools = tools::write(&source)?;
    let thinking = thinking::config(&source, google.thinking)?;

    let mut body = Body::new(quirks);
    body.put("contents", &format!("[{}]", contents.turns));
    if !contents.system.is_empty() {
        body.put(
            "systemInstruction",
            &format!(r#"{{"parts":[{}]}}"#, contents.system),
        );
    }
    body.put_some("tools", tools.declarations.as_deref());
    body.put_some("toolConfig", tools.config.as_deref());
    body.put_some("safetySettings", google.safety);
    let generation = parameters::generation_config(&source, thinking.as_deref())?;
    body.put_some("generationConfig", generation.as_deref());
    let path = if request.stream() { STREAM_PATH } else { PATH };
    Ok(WireRequest {
        path: quirks.path_for(path, edit.upstream_model),
        headers: quirks.header_list(),
        body: body.end(),
    })
}
