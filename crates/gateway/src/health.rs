//! Whether the program lives, whether it can serve, and its metrics.

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use billing::Credits;
use http::{StatusCode, header};
use serde::Serialize;
use store::Stats;
use utoipa::ToSchema;

use crate::{app::Shared, error::ApiError, metrics::Metrics};

/// The store answers within this, or the program is not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);

/// That the program lives.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Alive {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the program can serve.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct Ready {
    /// `ready`, or `not_ready` with HTTP 503.
    #[schema(example = "ready")]
    status: &'static str,
    /// Whether the store answered.
    store: bool,
    /// Whether the local journal can be written, where one is kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    local_journal: Option<bool>,
    /// How many providers are served.
    providers: usize,
    /// How many models they have.
    models: usize,
    /// Why it is not ready, where that is not plain from the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

impl Ready {
    /// Not ready, because the books are not open yet.
    #[must_use]
    pub const fn waiting(reason: &'static str) -> Self {
        Self {
            status: "not_ready",
            store: false,
            local_journal: None,
            providers: 0,
            models: 0,
            reason: Some(reason),
        }
    }
}

/// `GET /healthz`: asks nobody.
pub async fn alive() -> Json<Alive> {
    Json(Alive { status: "ok" })
}

/// `GET /readyz`: the store answers, the local journal can be written where one is kept, and
/// there is a model to serve.
pub async fn ready(State(app): State<Shared>) -> Response {
    let store = match app.store.ping(READY_WITHIN).await {
        Ok(()) => true,
        Err(error) => {
            tracing::warn!(%error, "not ready: the store does not answer");
            false
        }
    };
    let models = app.catalogue.models().len();
    let local_journal = app.ledger.stats().local_journal_failing.map(|it| !it);
    let ready = store && local_journal != Some(false) && models > 0;
    let body = Ready {
        status: if ready { "ready" } else { "not_ready" },
        store,
        local_journal,
        providers: app.catalogue.providers().len(),
        models,
        reason: (local_journal == Some(false)).then_some("the local journal cannot be written"),
    };
    let status = if ready {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(body)).into_response()
}

/// `GET /metrics`, in Prometheus's text format 0.0.4.
pub async fn metrics(State(app): State<Shared>) -> Result<Response, ApiError> {
    refresh(&app.metrics, &app.ledger.stats());
    let text = app.metrics.render().map_err(|error| {
        tracing::error!(%error, "the metrics cannot be rendered");
        ApiError::Internal
    })?;
    let kind = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    Ok((kind, text).into_response())
}

/// An amount as Prometheus has it. For display alone: the books never see a float.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a metric has 53 bits")]
pub fn in_credits(amount: Credits) -> f64 {
    amount.nanos() as f64 / 1e9
}

/// Sets what the ledger knows by itself, at the moment of the scrape.
fn refresh(metrics: &Metrics, stats: &Stats) {
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    metrics
        .holds_open
        .set(i64::try_from(stats.holds_open).unwrap_or(i64::MAX));
    metrics.held_credits.set(in_credits(stats.held));
    let free = stats.leased.saturating_sub(stats.held);
    metrics.leased_credits.set(in_credits(free));
    metrics.journal_queue.set(count(stats.journal_queue));
    metrics
        .journal_lag_seconds
        .set(stats.journal_lag.as_secs_f64());
    let failing = stats.local_journal_failing == Some(true);
    metrics.local_journal_failing.set(i64::from(failing));
    // The ledger has the total and a counter only adds: two scrapes at once would add the
    // same difference twice.
    static ADDING: Mutex<()> = Mutex::new(());
    let _adding = ADDING.lock().unwrap_or_else(PoisonError::into_inner);
    for (cause, total) in &stats.house_losses {
        let counter = metrics
            .house_loss_credits_total
            .with_label_values(&[*cause]);
        counter.inc_by((in_credits(*total) - counter.get()).max(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_metrics_follow_the_ledger() {
        let metrics = Metrics::new().unwrap();
        let credits = |text: &str| text.parse::<Credits>().unwrap();
        let mut stats = Stats {
            journal_queue: 3,
            journal_lag: Duration::from_millis(5),
            leased: credits("2"),
            held: credits("0.5"),
            holds_open: 7,
            local_journal_failing: Some(true),
            ..Stats::default()
        };
        for total in ["0.25", "0.25", "1"] {
            stats
                .house_losses
                .insert("usage_above_hold", credits(total));
            refresh(&metrics, &stats);
            let text = metrics.render().unwrap();
            for line in [
                "tollway_holds_open 7",
                "tollway_held_credits 0.5",
                "tollway_leased_credits 1.5",
                "tollway_journal_queue 3",
                "tollway_local_journal_failing 1",
                "tollway_journal_lag_seconds 0.005",
                &format!("tollway_house_loss_credits_total{{cause=\"usage_above_hold\"}} {total}"),
            ] {
                assert!(text.contains(line), "{line}\n{text}");
            }
        }
    }
}
