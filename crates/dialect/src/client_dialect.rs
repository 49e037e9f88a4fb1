//! What clients speak: a closed list, and how an error looks in each.

use serde::Serialize;
use serde_json::value::RawValue;

use crate::client::ErrorBody;
use crate::sse::DONE_EVENT;

/// A wire language that clients speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientDialect {
    /// OpenAI's chat completions, and every endpoint beside it whose errors look the same.
    Chat,
    /// Anthropic's Messages.
    Messages,
    /// OpenAI's Responses.
    Responses,
}

impl ClientDialect {
    /// The dialect of a path, also of one that leads nowhere.
    #[must_use]
    pub fn of_path(path: &str) -> Self {
        let below = |root: &str| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if below("/v1/messages") {
            Self::Messages
        } else if below("/v1/responses") {
            Self::Responses
        } else {
            Self::Chat
        }
    }

    /// The name of its endpoint in the books and in metrics.
    #[must_use]
    pub const fn endpoint(self) -> &'static str {
        match self {
            Self::Chat => "chat.completions",
            Self::Messages => "messages",
            Self::Responses => "responses",
        }
    }

    /// What a stream of it ends with, whatever came before.
    #[must_use]
    pub const fn stream_end(self) -> &'static [u8] {
        match self {
            Self::Chat => DONE_EVENT,
            Self::Messages | Self::Responses => b"",
        }
    }
}

/// Anthropic's word for an error of this status.
///
/// Source: Anthropic's API reference, "Errors".
pub(crate) const fn anthropic_kind(status: u16) -> &'static str {
    match status {
        401 => "authentication_error",
        402 => "billing_error",
        403 => "permission_error",
        404 => "not_found_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        504 => "timeout_error",
        529 => "overloaded_error",
        400..=499 => "invalid_request_error",
        _ => "api_error",
    }
}

/// An error as Anthropic's clients read it, with what OpenAI's shape has beside it.
#[derive(Serialize)]
struct AnthropicError<'a, M> {
    r#type: &'static str,
    error: AnthropicDetails<'a, M>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct AnthropicDetails<'a, M> {
    r#type: &'static str,
    message: &'a str,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    param: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a M>,
}

impl<M: Serialize> ErrorBody<'_, M> {
    /// The body of an HTTP answer with this status, as clients of `dialect` read it.
    ///
    /// # Errors
    /// `metadata` does not serialise.
    pub fn to_client_json(
        &self,
        dialect: ClientDialect,
        status: u16,
        request_id: &str,
    ) -> Result<Vec<u8>, serde_json::Error> {
        match dialect {
            ClientDialect::Chat | ClientDialect::Responses => self.to_json(),
            ClientDialect::Messages => self.to_anthropic_json(status, request_id, None),
        }
    }

    /// An error of Anthropic's shape: with `usage` the data of the event that ends a stream.
    pub(crate) fn to_anthropic_json(
        &self,
        status: u16,
        request_id: &str,
        usage: Option<&str>,
    ) -> Result<Vec<u8>, serde_json::Error> {
        let in_stream = usage.is_some();
        let usage = usage.map(serde_json::from_str::<&RawValue>).transpose()?;
        serde_json::to_vec(&AnthropicError {
            r#type: "error",
            error: AnthropicDetails {
                r#type: anthropic_kind(status),
                message: self.message,
                code: self.code,
                param: self.param,
                status: in_stream.then_some(status),
                usage,
                metadata: self.metadata.as_ref(),
            },
            request_id,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_the_dialect_of_its_root() {
        for (path, dialect) in [
            ("/v1/chat/completions", ClientDialect::Chat),
            ("/v1/messages", ClientDialect::Messages),
            ("/v1/messages/count_tokens", ClientDialect::Messages),
            ("/v1/messagesome", ClientDialect::Chat),
            ("/v1/responses", ClientDialect::Responses),
            ("/v1/responses/resp_1", ClientDialect::Responses),
            ("/", ClientDialect::Chat),
        ] {
            assert_eq!(ClientDialect::of_path(path), dialect, "{path}");
        }
    }
}
