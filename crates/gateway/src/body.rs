//! A client's request body: read whole within bounds of size and time, or thrown away.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt as _;

use crate::{error::ApiError, settings::Settings};

/// What is thrown away of a refused body at most, so that its sender gets to read the refusal.
const DISCARD_BYTES_MAX: usize = 32 << 20;
/// How long that may take.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(3);

/// Reads a body.
///
/// # Errors
/// 413 over the bound, 400 when it does not come whole in time.
pub async fn read(
    headers: &HeaderMap,
    mut body: Body,
    settings: &Settings,
) -> Result<Bytes, ApiError> {
    let max = settings.body_bytes_max;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > max as u64) {
        return Err(refuse(body, ApiError::TooLarge { max }).await);
    }
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| value != "identity")
    {
        // A compressed body could expand without bound.
        let error =
            invalid("Compressed request bodies are not taken. Send it without Content-Encoding.");
        return Err(refuse(body, error).await);
    }
    match tokio::time::timeout(settings.body_timeout, collect(&mut body, max)).await {
        Err(_) => Err(invalid("The request body did not arrive in time.")),
        Ok(Err(error @ ApiError::TooLarge { .. })) => Err(refuse(body, error).await),
        Ok(collected) => collected,
    }
}

/// Throws a body away, within bounds, before its request is refused. A connection that is closed
/// on unread bytes is reset, and the client would see that instead of the refusal.
pub async fn refuse(mut body: Body, error: ApiError) -> ApiError {
    let discard = async {
        let mut bytes = 0;
        while let Some(Ok(frame)) = body.frame().await {
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, discard).await;
    error
}

/// Most bodies come in one piece and are not copied.
async fn collect(body: &mut Body, max: usize) -> Result<Bytes, ApiError> {
    let mut first = Bytes::new();
    let mut all = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| invalid("The request body broke off."))?;
        let Ok(bytes) = frame.into_data() else {
            continue;
        };
        if first.len() + all.len() + bytes.len() > max {
            return Err(ApiError::TooLarge { max });
        }
        if first.is_empty() && all.is_empty() {
            first = bytes;
        } else {
            all.extend_from_slice(&std::mem::take(&mut first));
            all.extend_from_slice(&bytes);
        }
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

fn invalid(message: &'static str) -> ApiError {
    ApiError::Invalid {
        param: None,
        message: message.into(),
    }
}
