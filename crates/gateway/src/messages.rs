//! `POST /v1/messages`: Anthropic's Messages over any model, and what a request of it would count.

use axum::{
    Json,
    extract::{Request, State},
    response::Response,
};
use dialect::{
    ChatRequest, ClientDialect, ClientRequest, Endpoint, MessagesRequest, Pair, RequestLimits,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    admit::Ask,
    app::Shared,
    arrival,
    chat::{self, Speaks},
    error::ApiError,
    targets,
};

/// The tokens of a request.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct TokenCount {
    /// Tokens of the messages, the instructions and the tools, counted here.
    input_tokens: u64,
}

/// Answers a message, plain or streamed.
///
/// # Errors
/// Every row of CONTRACT 3, in Anthropic's shape.
pub async fn create(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let speaks = Speaks {
        client: ClientDialect::Messages,
        endpoint: Endpoint::Chat,
    };
    chat::serve(app, request, speaks).await
}

/// Counts the tokens of a message's request. Nothing is spent, and no credit is needed.
///
/// # Errors
/// As the request itself, 402 apart.
pub async fn count(
    State(app): State<Shared>,
    request: Request,
) -> Result<Json<TokenCount>, ApiError> {
    let (key, body) = arrival::read(&app, request).await?;
    let limits = RequestLimits::default();
    let said = MessagesRequest::parse_to_count(&body, &limits)?;
    let said = ClientRequest::Messages(said);
    let targets = targets::serving(&app, &key, said.model(), Endpoint::Chat)?;
    let model = *targets.first().ok_or(ApiError::ModelNotFound)?;
    let provider = &model.provider;
    let pair = Pair::new(ClientDialect::Messages, provider.dialect, &provider.quirks);
    let composed = chat::compose(&said, pair, model)?;
    let request = ChatRequest::parse(&composed, &limits)?;
    let usage = Ask::new(&request, &composed, model).count().await;
    Ok(Json(TokenCount {
        input_tokens: usage.prompt_total(),
    }))
}
