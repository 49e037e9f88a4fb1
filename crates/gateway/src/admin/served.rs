//! What is configured: models with their prices and providers, without any secret.

use axum::{Json, extract::State};
use reqwest::Url;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::Shared,
    catalogue::{Model, Provider, Unserved},
    error::ApiError,
    input::Parameters,
    shape::{List, Pricing},
};

/// A model as configured.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServedModel {
    /// Always `model`.
    #[schema(example = "model")]
    object: &'static str,
    /// What clients ask for.
    id: String,
    /// `provider/id`, which clients can ask for too.
    full_name: String,
    /// What the provider calls it.
    upstream_id: String,
    provider: String,
    /// Prompt and output together, in tokens.
    context_window: u32,
    /// Output at most, in tokens.
    max_output_tokens: u32,
    /// Whether it reasons out of sight.
    hidden_output: bool,
    /// Whether the provider says to move on.
    deprecated: bool,
    /// `null`: the model is refused until a price is written.
    price: Option<Pricing>,
    /// The version of the price, as charges name it.
    price_id: Option<String>,
}

/// A provider as configured.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ServedProvider {
    /// Always `provider`.
    #[schema(example = "provider")]
    object: &'static str,
    name: String,
    /// Whether it is served.
    served: bool,
    /// The environment variables that it waits for.
    missing: Vec<String>,
    /// What it speaks.
    #[schema(value_type = Option<String>)]
    dialect: Option<dialect::Dialect>,
    /// Where it is, without user, password and parameters.
    base_url: Option<String>,
    /// How many models it serves.
    models: usize,
}

/// `GET /models`.
pub async fn models(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<ServedModel>>, ApiError> {
    let (limit, start) = query.slice()?;
    query.finish()?;
    let models = app.catalogue.models().iter().map(|m| model(m)).collect();
    Ok(Json(List::slice(models, limit, start)))
}

/// `GET /providers`.
pub async fn providers(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<ServedProvider>>, ApiError> {
    let (limit, start) = query.slice()?;
    query.finish()?;
    let models = app.catalogue.models();
    let count = |name: &str| models.iter().filter(|m| &*m.provider.name == name).count();
    let served = app.catalogue.providers();
    let mut all: Vec<_> = served
        .iter()
        .map(|one| provider(one, count(&one.name)))
        .chain(app.catalogue.unserved().iter().map(waiting))
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(List::slice(all, limit, start)))
}

fn model(model: &Model) -> ServedModel {
    let price = model.price.as_ref();
    ServedModel {
        object: "model",
        id: model.id.to_string(),
        full_name: model.full_name.to_string(),
        upstream_id: model.upstream_id.clone(),
        provider: model.provider.name.to_string(),
        context_window: model.context_window,
        max_output_tokens: model.output_tokens_max,
        hidden_output: model.hidden_output,
        deprecated: model.deprecated,
        price: price.map(|(price, _)| Pricing::from(&**price)),
        price_id: price.map(|(_, id)| id.uuid().simple().to_string()),
    }
}

fn provider(provider: &Provider, models: usize) -> ServedProvider {
    ServedProvider {
        object: "provider",
        name: provider.name.to_string(),
        served: true,
        missing: Vec::new(),
        dialect: Some(provider.dialect),
        base_url: without_secrets(&provider.base_url),
        models,
    }
}

fn waiting(unserved: &Unserved) -> ServedProvider {
    ServedProvider {
        object: "provider",
        name: unserved.name.clone(),
        served: false,
        missing: unserved.missing.clone(),
        dialect: None,
        base_url: None,
        models: 0,
    }
}

/// An address may carry a password or a key; what cannot be taken apart is not shown.
fn without_secrets(url: &str) -> Option<String> {
    let mut url = Url::parse(url).ok()?;
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    url.set_query(None);
    url.set_fragment(None);
    Some(url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_shown_without_secrets() {
        assert_eq!(
            without_secrets("https://user:pass@h.example:1/v1?key=x#y").as_deref(),
            Some("https://h.example:1/v1")
        );
        assert_eq!(without_secrets("no address"), None);
    }
}
