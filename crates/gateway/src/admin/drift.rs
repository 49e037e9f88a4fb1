//! `GET /drift`: per day and model, our count beside the provider's report, and what was charged.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use billing::Credits;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use store::{ChargeFilter, DriftRow, DriftTokens, StoreError};
use tokens::Side;
use utoipa::ToSchema;

use crate::{
    admin::charges::filter,
    app::{App, Shared},
    error::ApiError,
    input::Parameters,
    shape::List,
};

/// What the metric looks back on: all of yesterday and today, wherever in the day it is.
const SHOWN: SignedDuration = SignedDuration::from_hours(48);

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

/// Writes the drift of yesterday and today into the metric, again and again; never ends.
pub async fn show_regularly(app: &App) {
    loop {
        tokio::time::sleep(app.settings.audit_every).await;
        if let Err(error) = Box::pin(show(app)).await {
            tracing::warn!(%error, "the drift could not be read now");
        }
    }
}

/// Writes the drift of yesterday and today into the metric.
///
/// # Errors
/// As [`store::Store::drift`].
pub async fn show(app: &App) -> Result<(), StoreError> {
    let filter = ChargeFilter {
        from: Some(
            Timestamp::now()
                .saturating_sub(SHOWN)
                .unwrap_or(Timestamp::MIN),
        ),
        ..ChargeFilter::default()
    };
    let mut sums: BTreeMap<(String, String), (DriftTokens, DriftTokens)> = BTreeMap::new();
    for row in app.store.drift(&filter).await? {
        let (counted, reported) = sums.entry((row.model, row.provider)).or_default();
        add(counted, row.counted);
        add(reported, row.reported);
    }
    // What was not asked for since is not shown with its old drift.
    app.metrics.drift_ratio.reset();
    for ((model, provider), (counted, reported)) in &sums {
        for (side, counted, reported) in [
            (Side::Prompt, counted.prompt, reported.prompt),
            (Side::Completion, counted.completion, reported.completion),
        ] {
            if let Some(permille) = permille(counted, reported) {
                let labels = [model.as_str(), provider.as_str(), side.as_str()];
                let gauge = app.metrics.drift_ratio.with_label_values(&labels);
                gauge.set(thousandths(permille));
            }
        }
    }
    Ok(())
}

fn add(sum: &mut DriftTokens, more: DriftTokens) {
    sum.prompt = sum.prompt.saturating_add(more.prompt);
    sum.completion = sum.completion.saturating_add(more.completion);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a share: nobody looks at its sixteenth digit"
)]
fn thousandths(permille: i64) -> f64 {
    permille as f64 / 1000.0
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
