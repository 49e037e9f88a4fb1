//! The client's Responses request: read once and borrowed, only for what the gateway needs to know.

use std::borrow::Cow;

use super::{compose, tools};
use crate::body::{Body, Kind, Member, Reads};
use crate::error::RequestError;
use crate::json;
use crate::messages::{Composed, Composing};
use crate::request::RequestLimits;

/// The members that are read, and what each may be besides `null`.
const READ: Reads = &[
    ("model", &[Kind::Text]),
    ("input", &[Kind::Text, Kind::List]),
    ("instructions", &[Kind::Text]),
    ("max_output_tokens", &[Kind::Number]),
    ("stream", &[Kind::Bool]),
    ("tools", &[Kind::List]),
    ("tool_choice", &[Kind::Text, Kind::Object]),
    ("text", &[Kind::Object]),
    ("reasoning", &[Kind::Object]),
    ("metadata", &[Kind::Object]),
    ("background", &[Kind::Bool]),
    ("store", &[Kind::Bool]),
    ("previous_response_id", &[Kind::Text]),
];

/// The members that a response repeats, and what stands there where they were not sent.
const REPEATED: [(&str, &str); 16] = [
    ("instructions", "null"),
    ("max_output_tokens", "null"),
    ("max_tool_calls", "null"),
    ("metadata", "{}"),
    ("parallel_tool_calls", "true"),
    ("previous_response_id", "null"),
    ("prompt_cache_key", "null"),
    ("reasoning", r#"{"effort":null,"summary":null}"#),
    ("safety_identifier", "null"),
    // What OpenAI takes them for; clients read numbers.
    ("temperature", "1"),
    ("text", r#"{"format":{"type":"text"}}"#),
    ("tool_choice", r#""auto""#),
    ("top_logprobs", "0"),
    ("top_p", "1"),
    ("truncation", r#""disabled""#),
    ("user", "null"),
];

/// A Responses request that is sound as far as the gateway reads it.
#[derive(Clone, Debug)]
pub struct ResponsesRequest<'a> {
    body: Body<'a>,
    model: Cow<'a, str>,
    stream: bool,
    output_limit: Option<u64>,
}

impl<'a> ResponsesRequest<'a> {
    /// Reads a request body.
    ///
    /// # Errors
    /// Not JSON, a wrong shape, a number out of range, a member that is read given twice.
    pub fn parse(body: &'a [u8], limits: &RequestLimits) -> Result<Self, RequestError> {
        let body = Body::read(body, limits, READ, &[])?;
        let request = Self {
            model: body.model(limits)?,
            stream: body.stream(),
            output_limit: body.limit("max_output_tokens")?,
            body,
        };
        let input = request.get("input").unwrap_or("[]");
        let items = json::elements(input, 0).take(limits.messages_max + 1);
        let count = items.count() + usize::from(input.starts_with('"'));
        if count == 0 || count > limits.messages_max {
            return Err(RequestError::param(
                "input",
                "`input` must be a string or a list of items, and not empty.",
            ));
        }
        Ok(request)
    }

    /// The model asked for.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The same as a chat request.
    ///
    /// # Errors
    /// An item that is none, which no provider could read.
    pub fn compose(&self, target: &Composing<'_>) -> Result<Composed, RequestError> {
        compose::compose(self, target)
    }

    /// What a response repeats of its request, and whether it is kept: the members of an object,
    /// without its braces.
    pub(crate) fn repeated(&self, kept: bool) -> String {
        let members = REPEATED
            .map(|(name, otherwise)| format!("\"{name}\":{}", self.get(name).unwrap_or(otherwise)));
        let tools = tools::shown(self.get("tools").unwrap_or("[]"));
        format!(r#"{},"tools":{tools},"store":{kept}"#, members.join(","))
    }

    /// The service tier that a response says it has until its provider says which, as JSON.
    pub(crate) fn tier(&self) -> &str {
        match self.get("service_tier") {
            None | Some(r#""auto""#) => r#""default""#,
            Some(tier) => tier,
        }
    }

    /// The JSON of a top-level member; `null` counts as absent.
    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.body.get(name)
    }

    pub(super) const fn stream(&self) -> bool {
        self.stream
    }

    pub(super) const fn output_limit(&self) -> Option<u64> {
        self.output_limit
    }

    pub(crate) const fn text(&self) -> &'a str {
        self.body.text()
    }

    pub(crate) fn members(&self) -> &[Member<'a>] {
        self.body.members()
    }
}
