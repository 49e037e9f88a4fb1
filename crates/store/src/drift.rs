//! Drift: per day and model, what was counted here beside what the providers reported, and what was charged.

use billing::Credits;

use crate::{
    ChargeFilter, Store, StoreError,
    charge::{DAY, condition, day_of},
    check,
    sql::sql,
};

/// The most rows of one report.
const ROWS_MAX: i64 = 10_000;

/// Prompt and output, in tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DriftTokens {
    /// All of the prompt.
    pub prompt: u64,
    /// All of the output.
    pub completion: u64,
}

/// The requests of one day to one model of one provider.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DriftRow {
    /// The day of admission, UTC, such as `2026-01-31`.
    pub day: String,
    /// The model.
    pub model: String,
    /// The provider.
    pub provider: String,
    /// All requests.
    pub requests: u64,
    /// Those whose usage the provider reported.
    pub reported_requests: u64,
    /// Of these, those that were counted here too.
    pub compared_requests: u64,
    /// What the provider reported for those that were compared.
    pub reported: DriftTokens,
    /// What was counted for them.
    pub counted: DriftTokens,
    /// The price of all requests' usage.
    pub cost: Credits,
    /// What was taken from accounts.
    pub charged: Credits,
    /// What the operator owes the provider.
    pub provider_cost: Credits,
}

#[derive(sqlx::FromRow)]
struct Row {
    day: String,
    model: String,
    provider: String,
    requests: i64,
    reported_requests: i64,
    compared_requests: i64,
    reported_prompt: i64,
    reported_completion: i64,
    counted_prompt: i64,
    counted_completion: i64,
    cost: i64,
    charged: i64,
    provider_cost: i64,
}

impl Store {
    /// The drift of the days in the filter's time, newest day first; at most 10,000 rows. Of
    /// closed months nothing is left to compare.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] when the answer would be longer; [`StoreError::Database`].
    pub async fn drift(&self, filter: &ChargeFilter) -> Result<Vec<DriftRow>, StoreError> {
        let mut reader = self.read().await?;
        let mut link = reader.link();
        let (condition, bind) = condition(filter);
        let sums: Vec<_> = [
            ("requests", "1"),
            (
                "reported_requests",
                "CASE WHEN source = 'reported' THEN 1 ELSE 0 END",
            ),
            (
                "compared_requests",
                "CASE WHEN counted_prompt IS NULL THEN 0 ELSE 1 END",
            ),
            (
                "reported_prompt",
                "CASE WHEN counted_prompt IS NULL THEN 0 ELSE prompt + cached_prompt + \
                 cache_write_5m + cache_write_1h + audio_prompt + image_prompt END",
            ),
            (
                "reported_completion",
                "CASE WHEN counted_completion IS NULL THEN 0 ELSE completion + reasoning + \
                 audio_completion + COALESCE(image_completion, 0) END",
            ),
            ("counted_prompt", "COALESCE(counted_prompt, 0)"),
            ("counted_completion", "COALESCE(counted_completion, 0)"),
            ("cost", "cost"),
            ("charged", "charged"),
            ("provider_cost", "COALESCE(provider_cost, cost)"),
        ]
        .into_iter()
        .map(|(name, of)| format!("CAST(SUM({of}) AS bigint) AS {name}"))
        .collect();
        let select = sql(format!(
            "SELECT {DAY} AS day, model, provider, {} FROM charges WHERE {condition} \
             GROUP BY {DAY}, model, provider ORDER BY 1 DESC, model, provider LIMIT ?",
            sums.join(", ")
        ));
        let select = bind(select).with(DAY, day_of(link.flavor()));
        let rows: Vec<Row> = link.all(select.int(ROWS_MAX + 1)).await?;
        if i64::try_from(rows.len()).unwrap_or(i64::MAX) > ROWS_MAX {
            return Err(StoreError::Invalid {
                field: "from",
                problem: "more than 10000 rows; narrow it with from, to and model",
            });
        }
        Ok(rows.into_iter().map(Row::drift).collect())
    }
}

impl Row {
    fn drift(self) -> DriftRow {
        DriftRow {
            day: self.day,
            model: self.model,
            provider: self.provider,
            requests: check::count(self.requests),
            reported_requests: check::count(self.reported_requests),
            compared_requests: check::count(self.compared_requests),
            reported: DriftTokens {
                prompt: check::count(self.reported_prompt),
                completion: check::count(self.reported_completion),
            },
            counted: DriftTokens {
                prompt: check::count(self.counted_prompt),
                completion: check::count(self.counted_completion),
            },
            cost: Credits::from_nanos(self.cost),
            charged: Credits::from_nanos(self.charged),
            provider_cost: Credits::from_nanos(self.provider_cost),
        }
    }
}
