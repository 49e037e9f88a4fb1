//! The client's Messages request: read once and borrowed, only for what the gateway needs to know.

use std::borrow::Cow;

use bytes::Bytes;

use super::compose;
use crate::body::{Body, Kind, Member, Reads, kind};
use crate::error::RequestError;
use crate::json;
use crate::quirks::Quirks;
use crate::request::RequestLimits;

/// The members that are read, and what each may be besides `null`.
const READ: Reads = &[
    ("model", &[Kind::Text]),
    ("messages", &[Kind::List]),
    ("system", &[Kind::Text, Kind::List]),
    ("max_tokens", &[Kind::Number]),
    ("stream", &[Kind::Bool]),
    ("tools", &[Kind::List]),
    ("tool_choice", &[Kind::Object]),
    ("stop_sequences", &[Kind::List]),
    ("thinking", &[Kind::Object]),
    ("output_config", &[Kind::Object]),
    ("output_format", &[Kind::Object]),
    ("metadata", &[Kind::Object]),
];

/// A Messages request that is sound as far as the gateway reads it.
#[derive(Clone, Debug)]
pub struct MessagesRequest<'a> {
    body: Body<'a>,
    model: Cow<'a, str>,
    stream: bool,
    output_limit: Option<u64>,
}

/// What a request is written for.
#[derive(Clone, Copy, Debug)]
pub struct Composing<'a> {
    /// The provider's deviations.
    pub quirks: &'a Quirks,
    /// Whether the model reasons, and can be told how much.
    pub reasons: bool,
    /// Whether the provider gets the request as it came: then this one is only counted and held for.
    pub native: bool,
    /// Whether the provider keeps the prompt up to each `cache_control`, at a price of its own.
    pub cache_marks: bool,
}

/// A request of another dialect as a chat request.
#[derive(Clone, Debug)]
pub struct Composed {
    /// The chat request.
    pub body: Bytes,
    /// The first thing in it that a chat request cannot say.
    pub beyond: Option<RequestError>,
}

impl<'a> MessagesRequest<'a> {
    /// Reads a request body.
    ///
    /// # Errors
    /// Not JSON, a wrong shape, `max_tokens` missing or out of range, a member that is read given twice.
    pub fn parse(body: &'a [u8], limits: &RequestLimits) -> Result<Self, RequestError> {
        let request = Self::parse_to_count(body, limits)?;
        if request.output_limit.is_none() {
            return Err(RequestError::param(
                "max_tokens",
                "`max_tokens` is missing: say how many tokens the answer may have.",
            ));
        }
        Ok(request)
    }

    /// Reads the body of a request that is only counted: it needs no `max_tokens`.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    pub fn parse_to_count(body: &'a [u8], limits: &RequestLimits) -> Result<Self, RequestError> {
        let body = Body::read(body, limits, READ, &[])?;
        let request = Self {
            model: body.model(limits)?,
            stream: body.stream(),
            output_limit: body.limit("max_tokens")?,
            body,
        };
        request.check_messages(limits)?;
        Ok(request)
    }

    fn check_messages(&self, limits: &RequestLimits) -> Result<(), RequestError> {
        let wrong = |message: &'static str| Err(RequestError::param("messages", message));
        let list = self.get("messages").unwrap_or("[]");
        let mut count = 0;
        for at in json::elements(list, 0) {
            count += 1;
            if count > limits.messages_max {
                return wrong("`messages` has too many messages.");
            }
            let message = json::slice(list, &at);
            if kind(message) != Kind::Object {
                return wrong("Every message must be an object.");
            }
            if !matches!(
                member(message, "role"),
                Some(r#""user""# | r#""assistant""#)
            ) {
                return wrong("`role` must be user or assistant; instructions go into `system`.");
            }
            let content = member(message, "content").map(kind);
            if !matches!(content, Some(Kind::Text | Kind::List)) {
                return wrong("`content` must be a string or a list of blocks.");
            }
        }
        if count == 0 {
            return wrong("`messages` is missing or empty: send at least one message.");
        }
        Ok(())
    }

    /// The model asked for.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to be streamed.
    #[must_use]
    pub const fn stream(&self) -> bool {
        self.stream
    }

    /// The same as a chat request.
    ///
    /// # Errors
    /// A block that is none, which no provider could read.
    pub fn compose(&self, target: &Composing<'_>) -> Result<Composed, RequestError> {
        compose::compose(self, target)
    }

    /// The JSON of a top-level member; `null` counts as absent.
    pub(crate) fn get(&self, name: &str) -> Option<&'a str> {
        self.body.get(name)
    }

    pub(crate) const fn output_limit(&self) -> Option<u64> {
        self.output_limit
    }

    pub(crate) const fn text(&self) -> &'a str {
        self.body.text()
    }

    pub(crate) fn members(&self) -> &[Member<'a>] {
        self.body.members()
    }
}

/// A member of the object at the beginning of `object`; `None` when it is null.
pub(crate) fn member<'j>(object: &'j str, name: &str) -> Option<&'j str> {
    json::find(object, &[name.to_owned()]).map(|at| json::slice(object, &at))
}

/// The same where it is a string.
pub(crate) fn literal<'j>(object: &'j str, name: &str) -> Option<&'j str> {
    member(object, name).filter(|json| json.starts_with('"'))
}
