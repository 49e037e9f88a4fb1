//! While the books cannot be opened: whoever asks whether the gateway is ready is told why not, everybody else to come again.

use std::time::Duration;

use axum::{
    Router,
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::get,
};
use billing::RequestId;
use dialect::ClientDialect;
use tokio::{net::TcpListener, sync::watch};
use uuid::Uuid;

use crate::{
    error::ApiError,
    health,
    serve::ServeError,
    server::{self, Bounds},
};

/// Between two attempts to open the books.
const RETRY_EVERY: Duration = Duration::from_millis(500);

/// Opens the books, however long they are away, and answers on the listener meanwhile. Gives the
/// listener back for the gateway itself.
///
/// # Errors
/// What does not pass by itself.
pub async fn until_open<T>(
    listener: TcpListener,
    bounds: Bounds,
    open: impl AsyncFn() -> Result<T, ServeError>,
) -> Result<(T, TcpListener), ServeError> {
    match open().await {
        Err(error) if error.may_pass() => {
            tracing::warn!(%error, "the books are away; nothing is served before what an earlier life left in the local journal is booked");
        }
        result => return Ok((result?, listener)),
    }
    let listener = listener.into_std()?;
    let meanwhile = TcpListener::from_std(listener.try_clone()?)?;
    let (open_now, mut opened) = watch::channel(false);
    let answering = server::serve(meanwhile, router(), bounds, async move {
        let _ = opened.wait_for(|open| *open).await;
    });
    let opening = async {
        let result = loop {
            tokio::time::sleep(RETRY_EVERY).await;
            match open().await {
                Err(error) if error.may_pass() => {}
                result => break result,
            }
        };
        let _ = open_now.send(true);
        result
    };
    let (result, ()) = tokio::join!(opening, answering);
    Ok((result?, TcpListener::from_std(listener)?))
}

fn router() -> Router {
    Router::new()
        .route("/healthz", get(health::alive))
        .route("/readyz", get(not_ready))
        .fallback(refuse)
}

async fn not_ready() -> Response {
    let body = health::Ready::waiting(
        "the database is away, and what an earlier life of this gateway left in its local journal is not booked yet",
    );
    (StatusCode::SERVICE_UNAVAILABLE, axum::Json(body)).into_response()
}

async fn refuse(uri: Uri) -> Response {
    let id = RequestId::from_uuid(Uuid::now_v7());
    ApiError::Unaccountable.response(ClientDialect::of_path(uri.path()), id, None)
}
