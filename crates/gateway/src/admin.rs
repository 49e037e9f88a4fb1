//! The operator's side of the API, `/admin/v1`: every route behind the admin key.

pub mod accounts;
pub mod audit;
pub mod charges;
pub mod credits;
pub mod drift;
pub mod factors;
pub mod keys;
pub mod metadata;
pub mod served;
pub mod settlements;
#[cfg(test)]
mod tests;

use axum::{
    Router,
    extract::{FromRequestParts as _, Request, State},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};

use crate::{app::Shared, auth::Admin, body, error::ApiError};

/// The routes below `/admin/v1`.
pub fn router(app: Shared) -> Router<Shared> {
    Router::new()
        .route("/accounts", post(accounts::create).get(accounts::list))
        .route("/accounts/{id}", get(accounts::one).patch(accounts::change))
        .route("/accounts/{id}/credits", post(credits::add_to_account))
        .route("/accounts/{id}/entries", get(credits::entries))
        .route("/keys", post(keys::create).get(keys::list))
        .route(
            "/keys/{id}",
            get(keys::one).patch(keys::change).delete(keys::revoke),
        )
        .route("/keys/{id}/rotate", post(keys::rotate))
        .route("/keys/{id}/credits", post(credits::add_to_key))
        .route("/charges", get(charges::list))
        .route("/usage", get(charges::usage))
        .route("/drift", get(drift::report))
        .route("/audit", get(audit::prove))
        .route("/settlements", get(settlements::list))
        .route("/settlements/{id}/resolve", post(settlements::resolve))
        .route("/models", get(served::models))
        .route("/factors", get(factors::list))
        .route("/providers", get(served::providers))
        // Set here, so that the layer below is around it too.
        .method_not_allowed_fallback(wrong_method)
        // A layer, not an argument of each handler: no new route can forget it. It also runs
        // before a body is read.
        .layer(from_fn_with_state(app, with_the_admin_key))
}

async fn wrong_method(request: Request) -> ApiError {
    body::refuse(request.into_body(), ApiError::MethodNotAllowed).await
}

/// Lets the operator's requests through; what others send is thrown away.
async fn with_the_admin_key(State(app): State<Shared>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match Admin::from_request_parts(&mut parts, &app).await {
        Ok(_) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => body::refuse(body, error).await.into_response(),
    }
}
