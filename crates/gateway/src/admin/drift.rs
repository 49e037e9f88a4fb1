//! `GET /drift`: per day and model, our count beside the provider's report, and what was charged.

use axum::{Json, extract::State};
use billing::Credits;
use serde::Serialize;
use store::{DriftRow, DriftTokens};
use utoipa::ToSchema;

use crate::{admin::charges::filter, app::Shared, error::ApiError, input::Parameters, shape::List};

/// The requests of one day to one model.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Drift)]
pub struct DriftView {
    /// Always `drift`.
    #[schema(example = "drift")]
    object: &'static str,
    /// The day of admission, UTC.
    #[schema(example = "2026-01-31")]
    day: String,
    model: String,
    provider: String,
    /// All requests.
    requests: u64,
    /// Those whose usage the provider reported.
    reported_requests: u64,
    /// Of these, those that were counted here too; the tokens below are theirs.
    compared_requests: u64,
    reported: DriftTokensView,
    counted: DriftTokensView,
    /// How much more was counted than was reported, in thousandths of what was reported.
    drift_permille: DriftPermille,
    /// The price of all requests' usage.
    #[schema(value_type = String)]
    cost: Credits,
    /// What was taken from accounts.
    #[schema(value_type = String)]
    charged: Credits,
    /// What the operator owes the provider.
    #[schema(value_type = String)]
    provider_cost: Credits,
}

/// Prompt and output, in tokens.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct DriftTokensView {
    prompt_tokens: u64,
    completion_tokens: u64,
}

/// Differences in thousandths; `null` where nothing was reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct DriftPermille {
    prompt: Option<i64>,
    completion: Option<i64>,
}

impl From<DriftTokens> for DriftTokensView {
    fn from(tokens: DriftTokens) -> Self {
        Self {
            prompt_tokens: tokens.prompt,
            completion_tokens: tokens.completion,
        }
    }
}

impl From<DriftRow> for DriftView {
    fn from(row: DriftRow) -> Self {
        Self {
            object: "drift",
            drift_permille: DriftPermille {
                prompt: permille(row.counted.prompt, row.reported.prompt),
                completion: permille(row.counted.completion, row.reported.completion),
            },
            day: row.day,
            model: row.model,
            provider: row.provider,
            requests: row.requests,
            reported_requests: row.reported_requests,
            compared_requests: row.compared_requests,
            reported: row.reported.into(),
            counted: row.counted.into(),
            cost: row.cost,
            charged: row.charged,
            provider_cost: row.provider_cost,
        }
    }
}

/// `GET /drift`.
pub async fn report(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<DriftView>>, ApiError> {
    let filter = filter(&mut query)?;
    let (limit, start) = query.slice()?;
    query.finish()?;
    let rows = app.store.drift(&filter).await?;
    let rows = rows.into_iter().map(DriftView::from).collect();
    Ok(Json(List::slice(rows, limit, start)))
}

fn permille(counted: u64, reported: u64) -> Option<i64> {
    let (counted, reported) = (i128::from(counted), i128::from(reported));
    let thousandths = (counted - reported).checked_mul(1000)?;
    i64::try_from(thousandths.checked_div(reported)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousandths() {
        for (counted, reported, expected) in [
            (101, 100, Some(10)),
            (99, 100, Some(-10)),
            (100, 100, Some(0)),
            (5, 0, None),
            (u64::MAX, 1, None),
        ] {
            assert_eq!(
                permille(counted, reported),
                expected,
                "{counted} {reported}"
            );
        }
    }
}
