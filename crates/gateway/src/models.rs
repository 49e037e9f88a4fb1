//! The models that a key may use, in the shape of OpenAI's list, with limits and prices.

use axum::{Json, extract::State};
use dialect::Endpoint;
use serde::Serialize;
use store::KeyRecord;
use utoipa::ToSchema;

use crate::{
    app::Shared,
    auth::ClientKey,
    chat,
    error::ApiError,
    input::Id,
    shape::{List, Pricing},
};

/// A model as clients see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Model)]
pub struct ModelView {
    /// What to ask for.
    id: String,
    /// Always `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// Always 0: providers do not say, and OpenAI's SDKs want a number.
    created: u64,
    /// The provider that serves it first.
    owned_by: String,
    /// What it does, as in `chat` or `embeddings`.
    #[schema(value_type = Vec<String>)]
    endpoints: Vec<Endpoint>,
    /// Prompt and output together, in tokens.
    context_window: u32,
    /// Output at most, in tokens.
    max_output_tokens: u32,
    /// `null`: the model is refused until the operator sets a price.
    pricing: Option<Pricing>,
}

/// `GET /v1/models`: every name that the key may ask for.
pub async fn list(State(app): State<Shared>, ClientKey(key): ClientKey) -> Json<List<ModelView>> {
    let names = app.catalogue.names();
    let models = names
        .into_iter()
        .filter_map(|(name, _)| view(&app, &key, name).ok())
        .collect();
    Json(List::whole(models))
}

/// `GET /v1/models/{id}`; the id may have slashes.
///
/// # Errors
/// 404 for a model that is not served; 403 for one that the key may not use.
pub async fn one(
    State(app): State<Shared>,
    ClientKey(key): ClientKey,
    Id(name): Id<String>,
) -> Result<Json<ModelView>, ApiError> {
    view(&app, &key, &name).map(Json)
}

/// The model that would serve this key first under a name: the rule is that of the request path.
fn view(app: &Shared, key: &KeyRecord, name: &str) -> Result<ModelView, ApiError> {
    let targets = chat::permitted(app, key, name)?;
    let model = targets.first().ok_or(ApiError::ModelNotFound)?;
    let offer = app.prices.offer(key, model).ok();
    Ok(ModelView {
        id: name.to_owned(),
        object: "model",
        created: 0,
        owned_by: model.provider.name.to_string(),
        endpoints: model.endpoints.clone(),
        context_window: model.context_window,
        max_output_tokens: model.output_tokens_max,
        pricing: offer
            .as_ref()
            .map(|offer| Pricing::from(&*offer.standard().price)),
    })
}
