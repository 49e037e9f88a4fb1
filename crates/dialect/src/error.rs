//! What can be wrong with a request, a stream or an answer, and what a provider said went wrong.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::json;

/// An event stream that cannot be cut into events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// A line or an event is longer than the bound. Final.
    #[error("an event of the stream is longer than {max} bytes")]
    TooLong {
        /// The bound in bytes.
        max: usize,
    },
    /// A frame is not what its checksums or lengths say. Final.
    #[error("a frame of the stream is damaged")]
    Damaged,
    /// The data of one event is not UTF-8. The events after it can still be read.
    #[error("an event of the stream is not valid UTF-8")]
    Utf8,
}

/// A request that cannot be served as it is: CONTRACT 3, status 400, code `invalid_request`.
///
/// Neither field ever repeats a value that the client sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RequestError {
    /// The parameter at fault, where one can be named.
    pub param: Option<Cow<'static, str>>,
    /// What is wrong and what to send instead.
    pub message: Cow<'static, str>,
}

impl RequestError {
    /// An error about the body as a whole.
    #[must_use]
    pub fn body(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            param: None,
            message: message.into(),
        }
    }

    /// An error about one parameter.
    #[must_use]
    pub fn param(
        param: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self {
            param: Some(param.into()),
            message: message.into(),
        }
    }
}

/// An answer or an event that is not what its dialect says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not JSON, or JSON of another shape. Only the place is kept, never the text.
    #[error("not a chat answer: line {line}, column {column}: {what}")]
    Shape {
        /// Line of the fault, from 1; 0 when unknown.
        line: usize,
        /// Column of the fault, from 1; 0 when unknown.
        column: usize,
        /// `syntax`, `shape`, `cut short`, …
        what: &'static str,
    },
    /// Not valid UTF-8.
    #[error("not valid UTF-8")]
    Utf8,
    /// Larger than spans can say (4 GiB).
    #[error("larger than 4 GiB")]
    TooLarge,
    /// The provider answered 200 with an error inside.
    #[error("the provider reported an error inside a successful answer")]
    Upstream(Box<UpstreamError>),
}

impl DecodeError {
    pub(crate) const fn shape(what: &'static str) -> Self {
        Self::Shape {
            line: 0,
            column: 0,
            what,
        }
    }
}

impl From<serde_json::Error> for DecodeError {
    /// Keeps the place and the kind; serde's own message can quote the text.
    fn from(error: serde_json::Error) -> Self {
        use serde_json::error::Category;
        let what = match error.classify() {
            Category::Io => "unreadable",
            Category::Syntax => "syntax",
            Category::Data => "shape",
            Category::Eof => "cut short",
        };
        Self::Shape {
            line: error.line(),
            column: error.column(),
            what,
        }
    }
}

/// Why a provider's usage report cannot be billed. The gateway then bills its own count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum UsageFault {
    /// `usage` is not an object.
    #[error("usage is not an object")]
    NotAnObject,
    /// A count is negative, fractional, a string, or anything but an integer.
    #[error("{field} is not a count")]
    NotACount {
        /// Name of the count.
        field: &'static str,
    },
    /// A count is above `u32::MAX`.
    #[error("{field} is absurdly large")]
    TooLarge {
        /// Name of the count.
        field: &'static str,
    },
    /// A count that the others cannot replace is missing.
    #[error("{field} is missing")]
    Missing {
        /// Name of the count.
        field: &'static str,
    },
    /// A part is larger than what it is a part of.
    #[error("{field} exceeds the total it belongs to")]
    PartExceedsTotal {
        /// Name of the part.
        field: &'static str,
    },
    /// `total_tokens` is not the sum of its parts under the provider's convention.
    #[error("total_tokens does not agree with its parts")]
    TotalDisagrees,
}

/// What a provider said went wrong. For the operator's log only: it is never sent to a client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpstreamError {
    /// HTTP status, or a status that the error object carries.
    pub status: Option<u16>,
    /// `code`, as text, at most 128 bytes.
    pub code: Option<String>,
    /// `type`, at most 128 bytes.
    pub kind: Option<String>,
    /// `message`, at most 1 KiB.
    pub message: Option<String>,
    /// Whole seconds from a `Retry-After` header or Google's `retryDelay`; the date form is not read.
    pub retry_after: Option<u32>,
}

/// Longest `code` and `type` kept of an upstream error.
const LABEL_BYTES_MAX: usize = 128;
/// Longest `message` kept of an upstream error.
const MESSAGE_BYTES_MAX: usize = 1024;

#[derive(Deserialize)]
struct RawError<'a> {
    #[serde(borrow, default)]
    message: Option<&'a RawValue>,
    #[serde(borrow, default)]
    r#type: Option<&'a RawValue>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
    #[serde(borrow, default)]
    status: Option<&'a RawValue>,
    #[serde(borrow, default)]
    details: Option<&'a RawValue>,
}

impl UpstreamError {
    /// Reads the body of an answer that is not 2xx. Any body gives an error; what it does not say is `None`.
    #[must_use]
    pub fn from_body(status: u16, retry_after: Option<&str>, body: &[u8]) -> Self {
        let mut error = std::str::from_utf8(body)
            .ok()
            .map(|text| {
                let steps = ["error".into()];
                // Google: the first of a list.
                let at = json::find(text, &steps)
                    .or_else(|| json::find(text, &[String::from("0"), "error".into()]));
                at.map_or(text, |at| json::slice(text, &at))
            })
            .map(Self::from_json)
            .unwrap_or_default();
        error.status = Some(status);
        let header = retry_after.and_then(|seconds| seconds.trim().parse().ok());
        error.retry_after = header.or(error.retry_after);
        error
    }

    /// Reads an error object, or a string in its place.
    pub(crate) fn from_json(text: &str) -> Self {
        let trimmed = text.trim_ascii();
        if trimmed.starts_with('"') {
            return Self {
                message: kept(trimmed, MESSAGE_BYTES_MAX),
                ..Self::default()
            };
        }
        let raw = trimmed
            .starts_with('{')
            .then(|| serde_json::from_str::<RawError<'_>>(trimmed));
        let Some(Ok(raw)) = raw else {
            return Self::default();
        };
        let code = raw.code.and_then(|code| kept(code.get(), LABEL_BYTES_MAX));
        let status = |text: &str| {
            text.parse()
                .ok()
                .filter(|status| (100..=599).contains(status))
        };
        // Google: a word beside a number that is the status itself.
        let word = raw
            .status
            .filter(|raw| raw.get().starts_with('"') && status(json::inside(raw.get())).is_none())
            .and_then(|raw| kept(raw.get(), LABEL_BYTES_MAX));
        Self {
            status: raw
                .status
                .and_then(|raw| status(raw.get()))
                .or_else(|| code.as_deref().and_then(status)),
            kind: raw
                .r#type
                .and_then(|kind| kept(kind.get(), LABEL_BYTES_MAX))
                .or_else(|| word.clone()),
            message: raw
                .message
                .and_then(|message| kept(message.get(), MESSAGE_BYTES_MAX)),
            code: word.map(|word| word.to_ascii_lowercase()).or(code),
            retry_after: raw.details.and_then(|details| retry_delay(details.get())),
        }
    }
}

/// The whole seconds of a `retryDelay` such as `"34.4s"`, rounded up.
fn retry_delay(details: &str) -> Option<u32> {
    let steps = ["retryDelay".into()];
    let mut delays = json::elements(details, 0).filter_map(|at| {
        let detail = json::slice(details, &at);
        json::find(detail, &steps).map(|at| json::inside(json::slice(detail, &at)))
    });
    let seconds = delays.next()?.strip_suffix('s')?;
    let (whole, rest) = seconds.split_once('.').unwrap_or((seconds, ""));
    let whole: u32 = whole.parse().ok()?;
    let more = rest.bytes().any(|digit| digit != b'0');
    Some(whole.saturating_add(u32::from(more)))
}

/// A JSON value as bounded text: strings decoded, the rest as written.
fn kept(json: &str, bytes_max: usize) -> Option<String> {
    if json == "null" {
        return None;
    }
    let inside = json::inside(json);
    let raw = inside.get(..json::raw_prefix(inside, bytes_max))?;
    Some(json::unescape(raw).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn upstream_errors_of_every_shape_are_read() {
        let openai = br#"{"error":{"message":"no \"credit\"","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
        let error = UpstreamError::from_body(429, Some(" 7 "), openai);
        assert_eq!(error.status, Some(429));
        assert_eq!(error.code.as_deref(), Some("insufficient_quota"));
        assert_eq!(error.kind.as_deref(), Some("insufficient_quota"));
        assert_eq!(error.message.as_deref(), Some("no \"credit\""));
        assert_eq!(error.retry_after, Some(7));

        // OpenRouter: the code is a number. Ollama: the error is a string. vLLM: no wrapper.
        assert_eq!(
            UpstreamError::from_json(r#"{"code":502,"message":"x"}"#).status,
            Some(502)
        );
        assert_eq!(
            UpstreamError::from_json(r#""model not found""#)
                .message
                .as_deref(),
            Some("model not found")
        );
        let bare = UpstreamError::from_body(
            400,
            None,
            br#"{"object":"error","message":"bad","code":400}"#,
        );
        assert_eq!(bare.message.as_deref(), Some("bad"));
        for body in [
            &b"<html>"[..],
            b"",
            b"\xff",
            b"[1]",
            b"{\"error\":null}",
            b"{\"error\":5}",
        ] {
            assert_eq!(
                UpstreamError::from_body(500, Some("soon"), body).status,
                Some(500)
            );
        }
    }

    /// After a recorded answer of the Gemini API; a list as Vertex AI has answered.
    #[test]
    fn googles_errors_say_when_to_come_back() {
        let body = br#"{"error":{"code":429,"message":"You exceeded your quota.","status":"RESOURCE_EXHAUSTED","details":[
            {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[{"quotaId":"q"}]},
            {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34.4s"}]}}"#;
        let error = UpstreamError::from_body(429, None, body);
        assert_eq!(error.retry_after, Some(35));
        assert_eq!(error.kind.as_deref(), Some("RESOURCE_EXHAUSTED"));
        assert_eq!(error.code.as_deref(), Some("resource_exhausted"));
        assert_eq!(
            UpstreamError::from_body(429, Some("3"), body).retry_after,
            Some(3)
        );
        let list = br#"[{"error":{"code":503,"message":"busy","status":"UNAVAILABLE"}}]"#;
        assert_eq!(
            UpstreamError::from_body(503, None, list).message.as_deref(),
            Some("busy")
        );
        for (delay, seconds) in [
            ("7s", Some(7)),
            ("7.0s", Some(7)),
            ("0.001s", Some(1)),
            ("soon", None),
            ("s", None),
        ] {
            assert_eq!(
                retry_delay(&format!(r#"[{{"retryDelay":"{delay}"}}]"#)),
                seconds
            );
        }
    }

    #[test]
    fn long_messages_are_cut_at_a_character() {
        let body = format!(r#"{{"message":"{}"}}"#, "\u{20ac}".repeat(1000));
        let message = UpstreamError::from_json(&body).message.unwrap();
        assert_eq!(message.len(), 1023);
    }

    #[test]
    fn decode_errors_do_not_quote_the_text() {
        let error = serde_json::from_str::<u8>("\"secret\"").unwrap_err();
        assert!(!DecodeError::from(error).to_string().contains("secret"));
    }
}
