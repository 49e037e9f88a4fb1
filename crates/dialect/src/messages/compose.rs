//! From a Messages request to a chat request, member by member: translated, without effect, or named as beyond it.

use bytes::Bytes;

use super::blocks::Conversation;
use super::request::{Composed, Composing, MessagesRequest, literal, member};
use super::tools;
use crate::error::RequestError;
use crate::json;

/// Members that are translated.
const TRANSLATED: [&str; 15] = [
    "model",
    "messages",
    "system",
    "max_tokens",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "stop_sequences",
    "tools",
    "tool_choice",
    "thinking",
    "output_config",
    "output_format",
    "metadata",
];

/// Members that have no effect on what is answered: left out without a word.
const NO_EFFECT: [&str; 3] = ["cache_control", "context_management", "service_tier"];

/// The body being written, and the first thing that it cannot say.
pub(crate) struct Writing<'a> {
    pub(crate) target: &'a Composing<'a>,
    pub(crate) beyond: Option<RequestError>,
    json: String,
}

impl<'a> Writing<'a> {
    /// Begins a body; `bytes` is about how long it will be.
    pub(crate) fn begin(target: &'a Composing<'a>, bytes: usize) -> Self {
        let mut json = String::with_capacity(bytes + 256);
        json.push('{');
        Self {
            target,
            beyond: None,
            json,
        }
    }

    /// The chat request.
    pub(crate) fn end(mut self) -> Composed {
        self.json.push('}');
        Composed {
            body: Bytes::from(self.json),
            beyond: self.beyond,
        }
    }

    /// Something that chat requests have no words for.
    pub(crate) fn beyond(&mut self, param: impl Into<String>, message: &'static str) {
        if self.beyond.is_none() {
            self.beyond = Some(RequestError::param(param.into(), message));
        }
    }

    /// What an object says of being kept, where the provider heeds it.
    pub(super) fn mark<'j>(&self, object: &'j str) -> Option<&'j str> {
        let mark = member(object, "cache_control").filter(|mark| mark.starts_with('{'));
        mark.filter(|_| self.target.cache_marks)
    }

    pub(crate) fn write(&mut self, name: &str, value: &str) {
        if self.json.len() > 1 {
            self.json.push(',');
        }
        self.json.push_str(&json::quote(name));
        self.json.push(':');
        self.json.push_str(value);
    }

    pub(crate) fn write_some(&mut self, name: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.write(name, value);
        }
    }

    /// A hint that is left out where the provider is known not to take it.
    pub(crate) fn hint(&mut self, name: &str, value: &str) {
        let quirks = self.target.quirks;
        if !quirks.unsupported.iter().any(|other| other == name) {
            self.write(name, value);
        }
    }
}

pub(super) fn compose(
    request: &MessagesRequest<'_>,
    target: &Composing<'_>,
) -> Result<Composed, RequestError> {
    let mut body = Writing::begin(target, request.text().len());
    check_members(request, &mut body);
    body.write("model", request.get("model").unwrap_or_default());
    let mut conversation = Conversation::default();
    conversation.system(request.get("system"), &mut body);
    conversation.turns(request.get("messages").unwrap_or_default(), &mut body)?;
    body.write("messages", &format!("[{}]", conversation.messages));
    let limit = request.output_limit().map(|limit| limit.to_string());
    let name = target.quirks.output_limit_field.name();
    body.write_some(name, limit.as_deref());
    if request.stream() {
        body.write("stream", "true");
    }
    for name in ["temperature", "top_p", "top_k"] {
        body.write_some(name, request.get(name));
    }
    body.write_some(
        "stop",
        request.get("stop_sequences").filter(|list| *list != "[]"),
    );
    tools::write(request, &mut body);
    format(request, &mut body);
    reasoning(request, &mut body);
    if let Some(user) = request
        .get("metadata")
        .and_then(|metadata| literal(metadata, "user_id"))
    {
        body.hint("user", user);
    }
    Ok(body.end())
}

fn check_members(request: &MessagesRequest<'_>, body: &mut Writing<'_>) {
    for sent in request.members() {
        let name = sent.name.as_ref();
        let known = TRANSLATED.contains(&name) || NO_EFFECT.contains(&name);
        if !known && request.get(name).is_some() {
            body.beyond(
                name,
                "This member means nothing to the provider of this model: leave it out.",
            );
        }
    }
}

/// The format of the answer: a schema.
fn format(request: &MessagesRequest<'_>, body: &mut Writing<'_>) {
    let configured = request
        .get("output_config")
        .and_then(|config| member(config, "format"));
    let Some(format) = configured.or_else(|| request.get("output_format")) else {
        return;
    };
    match member(format, "schema").filter(|schema| schema.starts_with('{')) {
        Some(schema) => body.write(
            "response_format",
            &format!(
                r#"{{"type":"json_schema","json_schema":{{"name":"answer","strict":true,"schema":{schema}}}}}"#
            ),
        ),
        None => body.beyond("output_config", "A format needs its `schema`."),
    }
}

/// How much to think. It is leave to think, not an order: a model that does not think has nothing
/// to be told.
fn reasoning(request: &MessagesRequest<'_>, body: &mut Writing<'_>) {
    let thinking = request.get("thinking");
    let config = request.get("output_config");
    let effort = config.and_then(|config| literal(config, "effort"));
    if body.target.native {
        body.write_some("thinking", thinking);
        return;
    }
    if !body.target.reasons {
        return;
    }
    let kind = thinking.and_then(|thinking| literal(thinking, "type"));
    let budget = thinking
        .and_then(|thinking| member(thinking, "budget_tokens"))
        .and_then(|tokens| tokens.parse::<u64>().ok());
    let effort = match (effort.map(json::inside), kind.map(json::inside), budget) {
        (_, Some("disabled"), _) => return,
        (Some("max"), _, _) => r#""xhigh""#,
        (Some(_), _, _) => effort.unwrap_or(r#""medium""#),
        (None, Some("enabled"), Some(..4_096)) => r#""low""#,
        (None, Some("enabled"), Some(4_096..16_384)) => r#""medium""#,
        (None, Some("enabled"), Some(_)) => r#""high""#,
        (None, Some(_), _) => r#""medium""#,
        (None, None, _) => return,
    };
    body.hint("reasoning_effort", effort);
}
