//! What is counted with for each model, and what its answers have taught.

use axum::{Json, extract::State};
use serde::Serialize;
use tokens::{Factor, Side};
use utoipa::ToSchema;

use crate::{
    app::Shared,
    error::ApiError,
    input::Parameters,
    learning::{Learning, Shown},
    shape::{List, Time},
};

/// How one model's tokens are counted.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = TokenFactors)]
pub struct FactorsView {
    /// Always `token_factors`.
    #[schema(example = "token_factors")]
    object: &'static str,
    provider: String,
    model: String,
    /// What text is counted with, before the factor.
    #[schema(example = "o200k_base")]
    tokenizer: String,
    /// The factor as configured.
    #[schema(example = "1.100")]
    configured: String,
    /// Whether answers correct it: not where the tokenizer is the model's own.
    follows: bool,
    /// What the model reads.
    prompt: FactorView,
    /// What it writes.
    completion: FactorView,
}

/// One side of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = TokenFactor)]
pub struct FactorView {
    /// What is counted with now: the model's tokens for one of the tokenizer's.
    #[schema(example = "1.287")]
    factor: String,
    /// The answers that this rests on, over all replicas; what came long before them has faded.
    samples: u32,
    /// All answers that were ever compared, over all replicas.
    compared: u64,
    /// Answers compared on this replica that the others do not know of yet.
    waiting: usize,
    /// When the replicas last learned together.
    #[schema(value_type = Option<String>, format = DateTime)]
    updated_at: Option<Time>,
}

/// `GET /factors`.
pub async fn list(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<FactorsView>>, ApiError> {
    let (provider, model) = (query.text("provider")?, query.text("model")?);
    let (limit, start) = query.slice()?;
    query.finish()?;
    let asked = |asked: &Option<String>, is: &str| asked.as_deref().is_none_or(|name| name == is);
    let views = app
        .catalogue
        .models()
        .iter()
        .map(|served| &*served.learning)
        .filter(|one| asked(&provider, one.provider()) && asked(&model, one.model()))
        .map(view)
        .collect();
    Ok(Json(List::slice(views, limit, start)))
}

fn view(learning: &Learning) -> FactorsView {
    FactorsView {
        object: "token_factors",
        provider: learning.provider().to_owned(),
        model: learning.model().to_owned(),
        tokenizer: learning.tokenizer().encoding().to_string(),
        configured: decimal(learning.tokenizer().factor()),
        follows: learning.follows(),
        prompt: side(&learning.show(Side::Prompt)),
        completion: side(&learning.show(Side::Completion)),
    }
}

fn side(shown: &Shown) -> FactorView {
    FactorView {
        factor: decimal(shown.factor),
        samples: shown.known.map_or(0, |known| known.estimate.samples()),
        compared: shown.known.map_or(0, |known| known.compared),
        waiting: shown.waiting,
        updated_at: shown.known.map(|known| Time(known.updated_at)),
    }
}

fn decimal(factor: Factor) -> String {
    let thousandths = factor.thousandths();
    format!("{}.{:03}", thousandths / 1000, thousandths % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_are_decimals() {
        let shown = |thousandths| decimal(Factor::new(thousandths).unwrap());
        assert_eq!(shown(1000), "1.000");
        assert_eq!(shown(1287), "1.287");
        assert_eq!(shown(250), "0.250");
    }
}
