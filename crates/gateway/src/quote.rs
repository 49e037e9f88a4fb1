//! `POST /v1/quote`: a chat body in; its tokens, price and highest cost out, and what is affordable. Nothing is spent.

use axum::{
    Json,
    extract::{Request, State},
};
use billing::{Credits, Rates};
use dialect::{ChatRequest, Endpoint, RequestLimits};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{account, admit::Ask, app::Shared, arrival, error::ApiError, targets};

/// What a request would cost.
#[derive(Debug, Serialize, ToSchema)]
pub struct Quote {
    /// Always `quote`.
    object: &'static str,
    /// The model that would serve it first, as `provider/model`.
    model: String,
    /// Tokens of the prompt, counted here.
    prompt_tokens: u64,
    /// Output at most, per choice: what was asked, else what the model can.
    max_output_tokens: u64,
    /// How many choices were asked for.
    choices: u64,
    /// Credits per million tokens of each kind, as decimal strings.
    #[schema(value_type = std::collections::BTreeMap<String, String>)]
    price: std::collections::BTreeMap<&'static str, Credits>,
    /// Credits for the prompt and one token of output: less is refused.
    #[schema(value_type = String)]
    lowest_cost: Credits,
    /// Credits for the prompt and all the output there can be, at the dearest kinds.
    #[schema(value_type = String)]
    highest_cost: Credits,
    /// Credits that a request could use now.
    #[schema(value_type = String)]
    available: Credits,
    /// Output tokens per choice that are affordable now, at most `max_output_tokens`; 0 means 402.
    affordable_output_tokens: u64,
}

/// Says what a chat completion would cost.
///
/// # Errors
/// As the request itself, 402 apart.
pub async fn create(State(app): State<Shared>, request: Request) -> Result<Json<Quote>, ApiError> {
    let (key, body) = arrival::read(&app, request).await?;
    let request = ChatRequest::parse(&body, &RequestLimits::default())?;
    let targets = targets::serving(&app, &key, request.model(), Endpoint::Chat)?;
    let model = *targets.first().ok_or(ApiError::ModelNotFound)?;
    let tier = request.get("service_tier");
    let quoted = app.prices.quote(&app.store, &key, model, tier).await?;
    let price = &quoted.priced.price;
    let mut ask = Ask::new(&request, &body, model);
    let prompt = ask.count().await;
    let (_, account) = account::spendable(&app, key.account_id).await?;
    let limit = app.store.key(key.key_id).await?.remaining;
    let available = limit.map_or(account, |limit| limit.min(account));
    let affordable = price.affordable_output(&prompt, available)? / ask.choices.max(1);
    Ok(Json(Quote {
        object: "quote",
        model: model.full_name.to_string(),
        prompt_tokens: prompt.prompt_total(),
        max_output_tokens: ask.output_limit,
        choices: ask.choices,
        price: rates(price.rates(prompt.prompt_total())),
        lowest_cost: ask.least(price)?,
        highest_cost: ask.cost(price, ask.output_limit)?,
        available,
        affordable_output_tokens: affordable.min(ask.output_limit),
    }))
}

fn rates(rates: &Rates) -> std::collections::BTreeMap<&'static str, Credits> {
    rates.all().into_iter().collect()
}
