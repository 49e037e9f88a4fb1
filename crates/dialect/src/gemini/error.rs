//! What Google's errors mean: whose trouble they are.

use crate::error::UpstreamError;

/// The status that an answer should have had. A key that is not valid, an account without billing and
/// a place that is not served are answered with 400, as if the request were wrong.
pub(crate) fn cause(status: u16, error: &UpstreamError) -> u16 {
    let message = error.message.as_deref().unwrap_or_default();
    let message = message.to_ascii_lowercase();
    let says = |part: &str| message.contains(part);
    match status {
        400 if says("api key not valid")
            || says("api key expired")
            || says("api_key_invalid")
            || says("pass a valid api key") =>
        {
            401
        }
        400 if error.kind.as_deref() == Some("FAILED_PRECONDITION")
            || says("user location is not supported") =>
        {
            403
        }
        400 | 429 if says("credits are depleted") => 402,
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
    fn the_operators_key_and_account_are_no_fault_of_the_request() {
        check(
            400,
            r#"{"error":{"code":400,"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}"#,
            401,
        );
        check(
            400,
            r#"[{"error":{"code":400,"message":"User location is not supported for the API use.","status":"FAILED_PRECONDITION"}}]"#,
            403,
        );
        check(
            429,
            r#"{"error":{"code":429,"message":"Your prepayment credits are depleted.","status":"RESOURCE_EXHAUSTED"}}"#,
            402,
        );
    }

    #[test]
    fn other_errors_keep_their_status() {
        check(
            400,
            r#"{"error":{"code":400,"message":"Invalid value at 'contents'","status":"INVALID_ARGUMENT"}}"#,
            400,
        );
        check(
            429,
            r#"{"error":{"code":429,"message":"Quota exceeded","status":"RESOURCE_EXHAUSTED"}}"#,
            429,
        );
        check(503, "<html>", 503);
    }
}
