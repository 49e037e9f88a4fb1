//! A client's request body: read whole, within bounds of size and time.

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use crate::{error::ApiError, settings::Settings};

/// Reads a body.
///
/// # Errors
/// 413 over the bound (before anything is read, where the client said so), 400 when it does not
/// come whole in time.
pub async fn read(headers: &HeaderMap, body: Body, settings: &Settings) -> Result<Bytes, ApiError> {
    let max = settings.body_bytes_max;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<u64>().ok());
    if announced.is_some_and(|bytes| bytes > max as u64) {
        return Err(ApiError::TooLarge { max });
    }
    if headers
        .get(header::CONTENT_ENCODING)
        .is_some_and(|value| value != "identity")
    {
        // A compressed body could expand without bound.
        return Err(invalid(
            "Compressed request bodies are not taken. Send it without Content-Encoding.",
        ));
    }
    let collect = Limited::new(body, max).collect();
    match tokio::time::timeout(settings.body_timeout, collect).await {
        Err(_) => Err(invalid("The request body did not arrive in time.")),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(ApiError::TooLarge { max }),
        Ok(Err(_)) => Err(invalid("The request body broke off.")),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
    }
}

fn invalid(message: &'static str) -> ApiError {
    ApiError::Invalid {
        param: None,
        message: message.into(),
    }
}
