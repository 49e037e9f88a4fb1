//! Errors: the one mapping to status, code and body (CONTRACT 3), before and in the middle of a stream.

mod from;
mod payment;

use std::{borrow::Cow, sync::Arc};

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use billing::{Credits, RequestId};
use bytes::BytesMut;
use dialect::{Bill, ChunkTemplate, ClientDialect, ErrorBody, StreamWriter};
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

pub use self::payment::{PaymentReason, PaymentRequired, Scope};
use crate::upstream::Failure;

/// Seconds after which a client may try again when the gateway itself cannot serve.
const RETRY_AFTER_S: u32 = 1;
/// The same where idempotency keys have to expire first.
const KEYS_RETRY_AFTER_S: u32 = 3600;
/// Anthropic's status for whoever cannot take more for now.
const OVERLOADED: u16 = 529;
/// Tells OpenAI's SDKs whether to try again, whatever the status.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");

/// Why a request was not served.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The request is wrong.
    #[error("{message}")]
    Invalid {
        /// The parameter at fault.
        param: Option<Cow<'static, str>>,
        /// What to send instead.
        message: Cow<'static, str>,
    },
    /// The key is missing, unknown, revoked or expired.
    #[error("{0}")]
    InvalidKey(&'static str),
    /// Paying is what is missing.
    #[error("credits are missing")]
    PaymentRequired(Box<PaymentRequired>),
    /// The key may not do this.
    #[error("{0}")]
    NotPermitted(Cow<'static, str>),
    /// No such path or thing.
    #[error("{0}")]
    NotFound(Cow<'static, str>),
    /// No such model.
    #[error("no such model")]
    ModelNotFound,
    /// The path knows other methods.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// The body is over the bound.
    #[error("body too large")]
    TooLarge {
        /// The bound in bytes.
        max: usize,
    },
    /// The same idempotency key came with another body, or a name is taken.
    #[error("{0}")]
    Conflict(Cow<'static, str>),
    /// The Idempotency-Key came before with another request.
    #[error("the idempotency key was used for another request")]
    KeyReused,
    /// The first request with this Idempotency-Key still runs.
    #[error("{0} with the same idempotency key still runs")]
    StillRunning(RequestId),
    /// The first request with this Idempotency-Key was charged, and its answer is not kept.
    #[error("the answer of {0} is not kept")]
    AnswerNotKept(RequestId),
    /// At the end of a replayed stream whose client left before its end.
    #[error("the answer of {0} was cut")]
    AnswerCut(RequestId),
    /// The account has too many idempotency keys.
    #[error("too many idempotency keys")]
    TooManyKeys,
    /// The key has too many requests in flight.
    #[error("too many requests of this key in flight")]
    KeyBusy {
        /// How many it may have.
        max: usize,
    },
    /// A provider failed.
    #[error("upstream: {0}")]
    Upstream(Failure),
    /// The model has no price yet: its name, and the provider file.
    #[error("the model has no price")]
    NoPrice(Box<str>, Box<str>),
    /// Too many requests in flight.
    #[error("too many requests in flight")]
    Busy,
    /// The books cannot be asked now.
    #[error("the ledger cannot be reached")]
    Unaccountable,
    /// The gateway stops.
    #[error("the gateway is stopping")]
    Stopping,
    /// A mistake of ours, already logged.
    #[error("internal error")]
    Internal,
}

#[derive(Serialize)]
struct PaymentMetadata<'a> {
    reason: PaymentReason,
    scope: Scope,
    available: Credits,
    held: Credits,
    required: Credits,
    affordable_tokens: u64,
    top_up_url: Option<&'a str>,
    request_id: RequestId,
}

impl ApiError {
    /// The status, also of an error in the middle of a stream.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.row().0
    }

    /// The code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.row().1
    }

    /// The answer before a stream, as a client of this dialect reads it.
    #[must_use]
    pub fn response(
        &self,
        dialect: ClientDialect,
        request_id: RequestId,
        top_up_url: Option<&str>,
    ) -> Response {
        let status = self.status_for(dialect);
        let json = self.with_body(request_id, top_up_url, |body| {
            body.to_client_json(dialect, status.as_u16(), &request_id.to_string())
        });
        let mut response = Response::new(Body::from(json.unwrap_or_default()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(retry) = self.should_retry() {
            let value = if retry { "true" } else { "false" };
            headers.insert(SHOULD_RETRY, HeaderValue::from_static(value));
        }
        if matches!(self, Self::InvalidKey(_)) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }

    /// The status that clients of this dialect get: Anthropic's have one for whoever is overloaded.
    #[must_use]
    pub fn status_for(&self, dialect: ClientDialect) -> StatusCode {
        let overloaded = match self {
            Self::Busy | Self::Unaccountable | Self::Stopping => true,
            Self::Upstream(Failure::Refused { status, .. }) => {
                matches!(status.as_u16(), 503 | 529)
            }
            Self::Upstream(_)
            | Self::Invalid { .. }
            | Self::InvalidKey(_)
            | Self::PaymentRequired(_)
            | Self::NotPermitted(_)
            | Self::NotFound(_)
            | Self::ModelNotFound
            | Self::MethodNotAllowed
            | Self::TooLarge { .. }
            | Self::Conflict(_)
            | Self::KeyReused
            | Self::StillRunning(_)
            | Self::AnswerNotKept(_)
            | Self::AnswerCut(_)
            | Self::TooManyKeys
            | Self::KeyBusy { .. }
            | Self::NoPrice(..)
            | Self::Internal => false,
        };
        match dialect {
            ClientDialect::Messages if overloaded => {
                StatusCode::from_u16(OVERLOADED).unwrap_or_else(|_| self.status())
            }
            ClientDialect::Chat | ClientDialect::Messages | ClientDialect::Responses => {
                self.status()
            }
        }
    }

    /// Ends a stream with this error.
    pub fn end_stream(
        &self,
        writer: &mut StreamWriter,
        request_id: RequestId,
        top_up_url: Option<&str>,
        bill: Option<&Bill<'_>>,
        template: Option<&ChunkTemplate>,
        out: &mut BytesMut,
    ) {
        let status = self.status_for(writer.dialect()).as_u16();
        self.with_body(request_id, top_up_url, |body| {
            writer.fail(&body, status, bill, template, out);
        });
    }

    fn with_body<T>(
        &self,
        request_id: RequestId,
        top_up_url: Option<&str>,
        write: impl FnOnce(ErrorBody<'_, PaymentMetadata<'_>>) -> T,
    ) -> T {
        let (_, code, kind) = self.row();
        let metadata = self.payment().map(|payment| PaymentMetadata {
            reason: payment.reason,
            scope: payment.scope,
            available: payment.available,
            held: payment.held,
            required: payment.required,
            affordable_tokens: payment.affordable_tokens,
            top_up_url,
            request_id,
        });
        let message = self.message(top_up_url);
        let param = self.param();
        write(ErrorBody {
            message: &message,
            kind,
            param: param.as_deref(),
            code,
            metadata,
        })
    }

    const fn payment(&self) -> Option<&PaymentRequired> {
        if let Self::PaymentRequired(payment) = self {
            Some(payment)
        } else {
            None
        }
    }

    fn should_retry(&self) -> Option<bool> {
        match self {
            Self::PaymentRequired(payment) => {
                Some(payment.reason == PaymentReason::HeldByRunningRequests)
            }
            Self::StillRunning(_) | Self::KeyBusy { .. } => Some(true),
            // OpenAI's SDKs try every 409 and 429 again, which does not help here.
            Self::AnswerNotKept(_) | Self::AnswerCut(_) | Self::TooManyKeys => Some(false),
            Self::Invalid { .. }
            | Self::InvalidKey(_)
            | Self::NotPermitted(_)
            | Self::NotFound(_)
            | Self::ModelNotFound
            | Self::MethodNotAllowed
            | Self::TooLarge { .. }
            | Self::Conflict(_)
            | Self::KeyReused
            | Self::Upstream(_)
            | Self::NoPrice(..)
            | Self::Busy
            | Self::Unaccountable
            | Self::Stopping
            | Self::Internal => None,
        }
    }

    /// The table of CONTRACT 3: status, code, type.
    fn row(&self) -> (StatusCode, &'static str, &'static str) {
        const INVALID: &str = "invalid_request_error";
        match self {
            Self::Invalid { .. } => (StatusCode::BAD_REQUEST, "invalid_request", INVALID),
            Self::InvalidKey(_) => (
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                "authentication_error",
            ),
            Self::PaymentRequired(_) => (
                StatusCode::PAYMENT_REQUIRED,
                "insufficient_quota",
                "insufficient_quota",
            ),
            Self::NotPermitted(_) => (StatusCode::FORBIDDEN, "not_permitted", "permission_error"),
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", INVALID),
            Self::ModelNotFound => (StatusCode::NOT_FOUND, "model_not_found", INVALID),
            Self::MethodNotAllowed => (
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                INVALID,
            ),
            Self::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", INVALID),
            Self::Conflict(_) => (StatusCode::CONFLICT, "conflict", INVALID),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                INVALID,
            ),
            Self::StillRunning(_) => (StatusCode::CONFLICT, "request_still_running", INVALID),
            Self::AnswerNotKept(_) => (StatusCode::CONFLICT, "answer_not_kept", INVALID),
            Self::AnswerCut(_) => (StatusCode::CONFLICT, "answer_cut", INVALID),
            Self::TooManyKeys | Self::KeyBusy { .. } => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "rate_limit_error",
            ),
            Self::Upstream(failure) => upstream_row(failure),
            Self::NoPrice(..)
            | Self::Busy
            | Self::Unaccountable
            | Self::Stopping
            | Self::Internal => (
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "server_error",
            ),
        }
    }

    fn message(&self, top_up_url: Option<&str>) -> Cow<'static, str> {
        match self {
            Self::Invalid { message, .. } => message.clone(),
            Self::InvalidKey(message) => Cow::Borrowed(*message),
            Self::PaymentRequired(payment) => payment.message(top_up_url).into(),
            Self::NotPermitted(message) | Self::NotFound(message) | Self::Conflict(message) => {
                message.clone()
            }
            Self::ModelNotFound => {
                "This model is not served here. GET /v1/models lists the models that are.".into()
            }
            Self::MethodNotAllowed => {
                "This path does not answer this method; the Allow header names those it does.".into()
            }
            Self::TooLarge { max } => {
                format!("The request body is larger than {max} bytes. Send a smaller one.").into()
            }
            Self::KeyReused => {
                "This Idempotency-Key was used before for another request: another body, path or API key. Use a new Idempotency-Key for a new request.".into()
            }
            Self::StillRunning(id) => {
                format!("The first request with this Idempotency-Key, {id}, is still running. Repeat this one in a moment to get its answer; nothing was charged for this one.").into()
            }
            Self::AnswerNotKept(id) => {
                format!("The request with this Idempotency-Key ran as {id} and was charged once; its answer is not kept. GET /v1/generation?id={id} tells what it cost. Use a new Idempotency-Key to ask anew.").into()
            }
            Self::AnswerCut(id) => {
                format!("The client of {id} left before its end, and this is as much of its answer as was read. It was charged once. Use a new Idempotency-Key to ask anew.").into()
            }
            Self::TooManyKeys => {
                "This account has too many Idempotency-Keys that have not expired. Send requests without one, or wait until the oldest expire.".into()
            }
            Self::KeyBusy { max } => {
                format!("This key has {max} requests in flight, which is all that one key may have. Try again when some of them have ended.").into()
            }
            Self::Upstream(failure) => upstream_message(failure),
            Self::NoPrice(model, file) => {
                format!("This model has no price yet, so it cannot be charged for. Ask the operator to write one: as the price of {model:?} in the file of own prices, or in the provider file {file} (`tollway check-config` says where it is). Or choose another model.").into()
            }
            Self::Busy => "Too many requests are in flight here. Try again in a moment.".into(),
            Self::Unaccountable => {
                "The gateway cannot account for this request now. Try again in a moment; nothing was charged.".into()
            }
            Self::Stopping => "The gateway is restarting. Try again in a moment.".into(),
            Self::Internal => {
                "Something went wrong in the gateway. Try again; if it goes on, tell the operator the x-request-id of this answer.".into()
            }
        }
    }

    fn param(&self) -> Option<Cow<'static, str>> {
        if let Self::Invalid { param, .. } = self {
            param.clone()
        } else {
            matches!(self, Self::ModelNotFound | Self::NoPrice(..)).then_some("model".into())
        }
    }

    fn retry_after(&self) -> Option<u32> {
        match self {
            Self::PaymentRequired(payment) => {
                (payment.reason == PaymentReason::HeldByRunningRequests).then_some(RETRY_AFTER_S)
            }
            Self::Busy
            | Self::Unaccountable
            | Self::Stopping
            | Self::NoPrice(..)
            | Self::Internal
            | Self::StillRunning(_)
            | Self::KeyBusy { .. } => Some(RETRY_AFTER_S),
            Self::TooManyKeys => Some(KEYS_RETRY_AFTER_S),
            Self::Upstream(failure) => failure.retry_after(),
            Self::Invalid { .. }
            | Self::InvalidKey(_)
            | Self::NotPermitted(_)
            | Self::NotFound(_)
            | Self::ModelNotFound
            | Self::MethodNotAllowed
            | Self::TooLarge { .. }
            | Self::Conflict(_)
            | Self::KeyReused
            | Self::AnswerNotKept(_)
            | Self::AnswerCut(_) => None,
        }
    }
}

/// What a provider's failure means to a client. Its 401, 402 and 403 are the operator's trouble.
fn upstream_row(failure: &Failure) -> (StatusCode, &'static str, &'static str) {
    const INVALID: &str = "invalid_request_error";
    match failure {
        Failure::Timeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "upstream_timeout",
            "server_error",
        ),
        Failure::Refused { status, .. } => match status.as_u16() {
            400 | 422 => (StatusCode::BAD_REQUEST, "invalid_request", INVALID),
            413 => (StatusCode::PAYLOAD_TOO_LARGE, "request_too_large", INVALID),
            429 => (
                StatusCode::TOO_MANY_REQUESTS,
                "rate_limit_exceeded",
                "rate_limit_error",
            ),
            408 | 504 => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "server_error",
            ),
            _ => (StatusCode::BAD_GATEWAY, "upstream_error", "server_error"),
        },
        Failure::Connect
        | Failure::Credentials(_)
        | Failure::Broken
        | Failure::Garbage(_)
        | Failure::Inside(_) => (StatusCode::BAD_GATEWAY, "upstream_error", "server_error"),
    }
}

/// Said where the operator's own account at a provider is the trouble.
const NOT_ACCEPTED: &str =
    "The provider did not accept the gateway's own account. Tell the operator; your key is fine.";

fn upstream_message(failure: &Failure) -> Cow<'static, str> {
    match failure {
        Failure::Timeout => {
            "The provider did not answer in time. Try again, or choose another model.".into()
        }
        Failure::Refused { status, error } => match status.as_u16() {
            400 | 422 => match error.code.as_deref().filter(|code| is_label(code)) {
                Some(code) => format!(
                    "The provider found the request wrong ({code}). Check its parameters against what the model supports."
                )
                .into(),
                None => "The provider found the request wrong. Check its parameters against what the model supports.".into(),
            },
            413 => "The request is too large for the provider. Send less.".into(),
            429 => "The provider takes no more requests for now. Wait as Retry-After says, or choose another model.".into(),
            408 | 504 => {
                "The provider did not answer in time. Try again, or choose another model.".into()
            }
            401..=403 => NOT_ACCEPTED.into(),
            _ => "The provider failed. Try again, or choose another model.".into(),
        },
        Failure::Credentials(_) => NOT_ACCEPTED.into(),
        Failure::Connect | Failure::Broken | Failure::Garbage(_) | Failure::Inside(_) => {
            "The provider failed. Try again, or choose another model.".into()
        }
    }
}

/// A provider's error code is shown only where it is a plain word: nothing else of its body is.
fn is_label(code: &str) -> bool {
    (1..=64).contains(&code.len())
        && code
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// The error as an answer without its body: the outermost layer, which knows the request's id,
/// writes it ([`crate::app`]).
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = self.status();
        response.extensions_mut().insert(Arc::new(self));
        response
    }
}
