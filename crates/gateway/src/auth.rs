//! Who calls: the API key of a client or the operator's key, from the headers that SDKs use.

use std::{fmt, sync::Arc};

use axum::extract::FromRequestParts;
use http::{HeaderMap, header, request::Parts};
use store::KeyRecord;

use crate::{app::Shared, error::ApiError};

/// The client's key, known and in force.
#[derive(Clone, Debug)]
pub struct ClientKey(pub Arc<KeyRecord>);

impl FromRequestParts<Shared> for ClientKey {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiError> {
        client(app, &parts.headers).await.map(Self)
    }
}

/// The client's key out of its headers, for handlers that read the body themselves.
///
/// # Errors
/// 401, 403 for a disabled account, 503 when keys cannot be looked up.
pub async fn client(app: &Shared, headers: &HeaderMap) -> Result<Arc<KeyRecord>, ApiError> {
    let secret = presented(headers).ok_or(ApiError::InvalidKey(
        "No API key was sent. Send it as `Authorization: Bearer sk-tw-…`.",
    ))?;
    Ok(app.ledger.authenticate(secret.0).await?)
}

/// Proof that the operator calls.
#[derive(Clone, Copy, Debug)]
pub struct Admin(());

impl FromRequestParts<Shared> for Admin {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiError> {
        let secret = presented(&parts.headers).ok_or(ApiError::InvalidKey(
            "This is the operator's side. Send the admin key as `Authorization: Bearer …`.",
        ))?;
        if app.admin_key.matches(secret.0) {
            Ok(Self(()))
        } else {
            Err(ApiError::InvalidKey(
                "This is not the admin key. It is the one of TOLLWAY_ADMIN_KEY, or the one that the first start printed.",
            ))
        }
    }
}

/// A secret as it came; never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Presented<'a>(&'a str);

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Presented(…)")
    }
}

/// The first key that is there: `Authorization: Bearer`, `x-api-key` (Anthropic's SDKs),
/// `api-key` (Azure's). An `Authorization` of another scheme is for a proxy, not for us.
#[must_use]
pub fn presented(headers: &HeaderMap) -> Option<Presented<'_>> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(bearer)
        .or_else(|| text("x-api-key"))
        .or_else(|| text("api-key"))
        .map(str::trim)
        .filter(|secret| !secret.is_empty())
        .map(Presented)
}

/// The token of the scheme Bearer, whose name has any case (RFC 9110, 11.1).
fn bearer(value: &str) -> Option<&str> {
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn the_first_key_that_is_there() {
        for (lines, key) in [
            (&[("authorization", "Bearer a")][..], Some("a")),
            (&[("authorization", "bearer  a ")], Some("a")),
            (&[("x-api-key", "b")], Some("b")),
            (&[("api-key", "c")], Some("c")),
            (&[("api-key", "c"), ("x-api-key", "b")], Some("b")),
            (
                &[("x-api-key", "b"), ("authorization", "Bearer a")],
                Some("a"),
            ),
            (&[("authorization", "Basic a"), ("api-key", "c")], Some("c")),
            (&[("authorization", "a")], None),
            (&[("authorization", "Bearer ")], None),
            (&[("x-api-key", "")], None),
            (&[], None),
        ] {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                );
            }
            assert_eq!(presented(&headers).map(|p| p.0), key, "{lines:?}");
            assert!(!format!("{:?}", presented(&headers)).contains("\""));
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_no_key() {
        let mut headers = HeaderMap::new();
        headers.insert("x-api-key", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        assert_eq!(presented(&headers), None);
    }
}
