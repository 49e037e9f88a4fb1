//! What requests cost: each one, and sums over many.

use std::collections::BTreeSet;

use axum::{Json, extract::State};
use billing::{AccountId, Credits, End, KeyId, RequestId};
use serde::Serialize;
use serde_json::value::RawValue;
use store::{ChargeFilter, ChargeRecord, GroupBy, Grouping, UsageSum};
use tokens::UsageSource;
use utoipa::ToSchema;

use crate::{
    app::Shared,
    error::ApiError,
    input::{Parameters, one_of},
    shape::{List, Time, Tokens},
};

/// One request that was booked; `charged + house_loss = cost`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Charge)]
pub struct ChargeView {
    /// Always `charge`.
    #[schema(example = "charge")]
    object: &'static str,
    #[schema(value_type = String)]
    id: RequestId,
    #[schema(value_type = String)]
    account_id: AccountId,
    #[schema(value_type = String)]
    key_id: KeyId,
    /// Such as `chat.completions`.
    endpoint: String,
    model: String,
    provider: String,
    /// The version of the price it was admitted at.
    price_id: String,
    /// Whether a stream was asked for.
    stream: bool,
    /// `completed`, `client_gone`, `upstream_failed`, `credits_exhausted` or `gateway_lost`.
    #[schema(value_type = String)]
    end: End,
    /// The price of its usage.
    #[schema(value_type = String)]
    cost: Credits,
    /// What was taken from the account.
    #[schema(value_type = String)]
    charged: Credits,
    /// What the operator bears.
    #[schema(value_type = String)]
    house_loss: Credits,
    /// What the operator owes the provider for it.
    #[schema(value_type = String)]
    provider_cost: Credits,
    usage: Tokens,
    /// Tokens by our own count, where one was made beside the provider's report.
    counted: Option<CountedTokens>,
    /// `reported` by the provider or `counted` here.
    #[schema(value_type = String)]
    usage_source: UsageSource,
    /// What the provider reported, verbatim.
    #[schema(value_type = Option<Object>)]
    raw_usage: Option<Box<RawValue>>,
    /// From admission to the first output, in microseconds.
    first_token_us: Option<u64>,
    /// From admission to the end, in microseconds.
    duration_us: u64,
    /// Whether its credit had been taken back before it was booked.
    late: bool,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    #[schema(value_type = String, format = DateTime)]
    settled_at: Time,
}

/// Tokens by our own count.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct CountedTokens {
    /// All of the prompt.
    prompt_tokens: u64,
    /// All of the output.
    completion_tokens: u64,
}

impl From<ChargeRecord> for ChargeView {
    fn from(charge: ChargeRecord) -> Self {
        Self {
            object: "charge",
            id: charge.id,
            account_id: charge.account_id,
            key_id: charge.key_id,
            endpoint: charge.endpoint,
            model: charge.model,
            provider: charge.provider,
            price_id: charge.price_id.uuid().simple().to_string(),
            stream: charge.stream,
            end: charge.end,
            cost: charge.cost,
            charged: charge.charged,
            house_loss: charge.house_loss,
            provider_cost: charge.provider_cost,
            usage: Tokens::from(&charge.usage),
            counted: charge.counted.map(|counted| CountedTokens {
                prompt_tokens: counted.prompt,
                completion_tokens: counted.completion,
            }),
            usage_source: charge.source,
            raw_usage: charge.raw_usage.and_then(verbatim),
            first_token_us: charge.first_token_us,
            duration_us: charge.duration_us,
            late: charge.late,
            created_at: Time(charge.created_at),
            settled_at: Time(charge.settled_at),
        }
    }
}

/// One row of sums. Of the dimensions those are there that were asked for.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = UsageSum)]
pub struct UsageSumView {
    /// Always `usage`.
    #[schema(example = "usage")]
    object: &'static str,
    /// The day of admission, UTC; the month for what is left of a month that was closed.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01-31")]
    day: Option<String>,
    /// The month of admission, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "2026-01")]
    month: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    key_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    account_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    end: Option<End>,
    /// How many requests.
    requests: u64,
    usage: Tokens,
    /// The price of that.
    #[schema(value_type = String)]
    cost: Credits,
    /// What was taken from accounts.
    #[schema(value_type = String)]
    charged: Credits,
    /// What the operator bears.
    #[schema(value_type = String)]
    house_loss: Credits,
    /// What the operator owes the providers.
    #[schema(value_type = String)]
    provider_cost: Credits,
    /// What was charged less what is owed to the providers.
    #[schema(value_type = String)]
    margin: Credits,
}

impl From<UsageSum> for UsageSumView {
    fn from(sum: UsageSum) -> Self {
        Self {
            object: "usage",
            day: sum.day,
            month: sum.month,
            model: sum.model,
            provider: sum.provider,
            key_id: sum.key_id,
            account_id: sum.account_id,
            end: sum.end,
            requests: sum.requests,
            usage: Tokens::from(&sum.usage),
            cost: sum.cost,
            charged: sum.charged,
            house_loss: sum.house_loss,
            provider_cost: sum.provider_cost,
            margin: sum.charged.saturating_sub(sum.provider_cost),
        }
    }
}

/// `GET /charges`.
pub async fn list(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<ChargeView>>, ApiError> {
    let page = query.page()?;
    let filter = filter(&mut query)?;
    query.finish()?;
    let charges = app.store.charges(&filter, page).await?;
    Ok(Json(List::of(charges, ChargeView::from)))
}

/// `GET /usage`.
pub async fn usage(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<UsageSumView>>, ApiError> {
    let by = query.read("group_by", grouping)?.unwrap_or_default();
    let filter = filter(&mut query)?;
    let (limit, start) = query.slice()?;
    query.finish()?;
    let sums = app.store.usage(&filter, &by).await?;
    let sums = sums.into_iter().map(UsageSumView::from).collect();
    Ok(Json(List::slice(sums, limit, start)))
}

pub(super) fn filter(query: &mut Parameters) -> Result<ChargeFilter, ApiError> {
    Ok(ChargeFilter {
        account_id: query.parsed("account_id")?,
        key_id: query.parsed("key_id")?,
        model: query.text("model")?,
        from: query.time("from")?,
        to: query.time("to")?,
        end: query.one_of("end", &End::ALL, End::as_str)?,
    })
}

/// Dimensions, with commas between them.
fn grouping(text: &str) -> Result<Grouping, String> {
    let mut by = BTreeSet::new();
    for name in text.split(',') {
        let dimension = one_of(name.trim(), &GroupBy::ALL, GroupBy::as_str)?;
        if !by.insert(dimension) {
            return Err(format!("{name} is there twice"));
        }
    }
    Ok(by)
}

/// The text as the JSON that it is; as a JSON string where it is none.
pub(super) fn verbatim(text: String) -> Option<Box<RawValue>> {
    RawValue::from_string(text.clone())
        .or_else(|_| serde_json::value::to_raw_value(&text))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groupings() {
        let all = "day,month,model,provider,key,account,end";
        assert_eq!(grouping(all).unwrap().len(), GroupBy::ALL.len());
        assert_eq!(
            grouping("model, day").unwrap(),
            grouping("day,model").unwrap()
        );
        for bad in ["", "day,", "day,day", "user", "Day"] {
            assert!(grouping(bad).is_err(), "{bad:?}");
        }
        assert!(grouping("user").unwrap_err().contains("day, month, model"));
    }

    #[test]
    fn a_report_is_shown_as_it_came() {
        let shown = |text: &str| verbatim(text.to_owned()).unwrap().get().to_owned();
        assert_eq!(shown(r#"{"a":1.10}"#), r#"{"a":1.10}"#);
        assert_eq!(shown("not json"), r#""not json""#);
    }
}
