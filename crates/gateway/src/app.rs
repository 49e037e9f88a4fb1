//! The application: its state, its routes, and the layers around them.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Instant};

use axum::{
    Router,
    extract::{Request, State},
    middleware::{self, Next},
    response::{IntoResponse as _, Response},
    routing::{any, get, post},
};
use billing::RequestId;
use dialect::{ClientDialect, Endpoint};
use futures_util::FutureExt as _;
use http::{HeaderName, HeaderValue, header};
use store::{AdminKey, Ledger, Store};
use tokio::sync::watch;
use uuid::Uuid;

use crate::{
    account, admin, batches, body::Room, catalogue::Catalogue, chat, counting::Counting,
    error::ApiError, files, forwarded, health, kept::KeptBytes, messages, metrics::Metrics, models,
    once::Once, openapi, passthrough, places::Places, prices::Prices, quote, responses,
    settings::Settings, upstream::Upstream,
};

/// Every answer names its request in this header.
const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// What every request can reach.
#[derive(Debug)]
pub struct App {
    /// How it was set up.
    pub settings: Settings,
    /// What is served.
    pub catalogue: Catalogue,
    /// What requests are charged by.
    pub prices: Prices,
    /// The books, for what is not on the request path.
    pub store: Store,
    /// The books, for the request path.
    pub ledger: Ledger,
    /// The operator's key.
    pub admin_key: AdminKey,
    /// The way to the providers.
    pub upstream: Upstream,
    /// Figures for Prometheus.
    pub metrics: Metrics,
    /// Requests with an Idempotency-Key that run here.
    pub once: Once,
    /// Requests in flight, by key.
    pub places: Places,
    /// The one place for counting what providers have counted too.
    pub counting: Counting,
    /// The memory that large bodies may take.
    pub body_room: Room,
    /// What has been kept of responses.
    pub kept_bytes: KeptBytes,
    /// Becomes true when running streams must end now.
    pub cut_streams: watch::Receiver<bool>,
}

/// The state of every handler.
pub type Shared = Arc<App>;

/// When a request arrived, for its timings.
#[derive(Clone, Copy, Debug)]
pub struct Arrived(pub Instant);

/// Of an answer that is another request's: its id is the one that the header names.
#[derive(Clone, Copy, Debug)]
pub struct ReplayOf(pub RequestId);

/// Every route. `/metrics` is left out where it has an address of its own.
pub fn router(app: Shared) -> Router {
    let mut router = Router::new()
        .route("/v1/chat/completions", post(chat::create))
        .route("/v1/completions", post(chat::complete))
        .route("/v1/embeddings", forwarded::handler(Endpoint::Embeddings))
        .route("/v1/moderations", forwarded::handler(Endpoint::Moderations))
        .route("/v1/rerank", forwarded::handler(Endpoint::Rerank))
        .route("/v1/responses", post(chat::respond))
        .route("/v1/responses/input_tokens", post(responses::count))
        .route(
            "/v1/responses/{id}",
            get(responses::retrieve).delete(responses::delete),
        )
        .route(
            "/v1/responses/{id}/input_items",
            get(responses::input_items),
        )
        .route("/v1/responses/{id}/cancel", post(responses::cancel))
        // A word of OpenAI's where an id would stand: the path is what is unknown, not the method.
        .route("/v1/responses/compact", any(passthrough::unknown_path))
        .route("/v1/messages", post(messages::create))
        .route("/v1/messages/count_tokens", post(messages::count))
        .route(
            "/v1/images/generations",
            forwarded::handler(Endpoint::ImageGenerations),
        )
        .route("/v1/images/edits", forwarded::handler(Endpoint::ImageEdits))
        .route("/v1/audio/speech", forwarded::handler(Endpoint::Speech))
        .route(
            "/v1/audio/transcriptions",
            forwarded::handler(Endpoint::Transcriptions),
        )
        .route(
            "/v1/audio/translations",
            forwarded::handler(Endpoint::Translations),
        )
        .route("/v1/files", get(files::list).post(files::upload))
        .route("/v1/files/{id}", get(files::one).delete(files::delete))
        .route("/v1/files/{id}/content", get(files::content))
        .route("/v1/batches", get(batches::list).post(batches::create))
        .route("/v1/batches/{id}", get(batches::one))
        .route("/v1/batches/{id}/cancel", post(batches::cancel))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/key", get(account::key))
        .route("/v1/credits", get(account::credits))
        .route("/v1/generation", get(account::generation))
        .route("/v1/quote", post(quote::create))
        .nest("/admin/v1", admin::router(app.clone()))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/openapi.json", get(openapi::document));
    if app.settings.metrics_listen.is_none() {
        router = router.route("/metrics", get(health::metrics));
    }
    router
        .fallback(passthrough::unknown_path)
        .method_not_allowed_fallback(passthrough::unknown_method)
        // Outermost: gives the request its id, catches panics, writes the bodies of errors.
        .layer(middleware::from_fn_with_state(app.clone(), boundary))
        .with_state(app)
}

/// The routes of the metrics' own address.
pub fn metrics_router(app: Shared) -> Router {
    Router::new()
        .route("/metrics", get(health::metrics))
        .route("/healthz", get(health::alive))
        .with_state(app)
}

async fn boundary(State(app): State<Shared>, mut request: Request, next: Next) -> Response {
    let id = RequestId::from_uuid(Uuid::now_v7());
    request.extensions_mut().insert(id);
    request.extensions_mut().insert(Arrived(Instant::now()));
    let dialect = ClientDialect::of_path(request.uri().path());
    // What a panic unwinds through settles itself: holds and charges do so when dropped.
    let caught = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = caught.unwrap_or_else(|_| {
        app.metrics.panics_total.inc();
        tracing::error!(request_id = %id, "a handler panicked; this is a mistake in the gateway");
        ApiError::Internal.into_response()
    });
    if let Some(error) = response.extensions_mut().remove::<Arc<ApiError>>() {
        let allow = response.headers_mut().remove(header::ALLOW);
        response = error.response(dialect, id, app.settings.top_up_url.as_deref());
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let replayed = response.extensions_mut().remove::<ReplayOf>();
    let id = replayed.map_or(id, |ReplayOf(original)| original);
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    response
}
