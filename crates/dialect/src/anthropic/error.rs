//! What Anthropic's errors mean: their kinds as HTTP statuses, and whose trouble they are.

use crate::error::UpstreamError;

/// An error inside an answer, with the status that its kind has where it is an answer of its own.
pub(super) fn error(json: &str) -> UpstreamError {
    let mut error = UpstreamError::from_json(json);
    error.status = error.status.or(error.kind.as_deref().and_then(status));
    error
}

/// The status that a kind of error has where it is an answer of its own.
///
/// Source: Anthropic's API reference, "Errors".
fn status(kind: &str) -> Option<u16> {
    Some(match kind {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "api_error" => 500,
        "timeout_error" => 504,
        "overloaded_error" => 529,
        _ => return None,
    })
}

/// The status that an answer should have had. A provider account that is out of credit or switched
/// off answers 400, as if the request were wrong.
pub(crate) fn cause(status: u16, error: &UpstreamError) -> u16 {
    let says = |part: &str| {
        let message = error.message.as_deref().unwrap_or_default();
        message.to_ascii_lowercase().contains(part)
    };
    match (status, error.kind.as_deref()) {
        (400, Some("billing_error")) => 402,
        (400, _) if says("credit balance is too low") || says("usage limits") => 402,
        (400, _) if says("organization has been disabled") => 403,
        _ => status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(status: u16, body: &str, expected: u16) {
        let error = UpstreamError::from_body(status, None, body.as_bytes());
        assert_eq!(cause(status, &error), expected, "{body}");
    }

    #[test]
    fn an_empty_account_of_the_operator_is_no_fault_of_the_request() {
        check(
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the Anthropic API."}}"#,
            402,
        );
        check(
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#,
            403,
        );
        check(
            400,
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: must be positive"}}"#,
            400,
        );
        check(
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
            529,
        );
        check(400, "<html>", 400);
    }
}
