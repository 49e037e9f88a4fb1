//! What a client can read of its own key, account and requests; works without any credits.

use std::time::Duration;

use axum::{Json, extract::State};
use billing::{AccountId, CostDetails, Credits, End, KeyId, RequestId};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use store::{Balance, ChargeRecord};
use tokens::UsageSource;
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    auth::ClientKey,
    bill::details_json,
    error::ApiError,
    input::{Parameters, invalid},
    shape::{Time, Tokens},
};

/// How long a request that has just ended is looked for: the journal writes it within
/// milliseconds, and SDKs ask at once.
const BOOKING_WAITS: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
];
/// A request admitted longer ago than this is not waited for.
const BOOKING_AGE_MAX: Duration = Duration::from_secs(3600);

/// The key that asks.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct OwnKey {
    /// Always `key`.
    #[schema(example = "key")]
    object: &'static str,
    #[schema(value_type = String)]
    id: KeyId,
    name: String,
    #[schema(value_type = String)]
    account_id: AccountId,
    /// The secret's first letters.
    prefix: String,
    /// The most that it may spend in its life; `null` is no limit.
    #[schema(value_type = Option<String>)]
    limit: Option<Credits>,
    /// What it can still spend: the account's remaining credits, or what is left of its limit
    /// where that is less.
    #[schema(value_type = String, example = "12.5")]
    remaining: Credits,
    /// What its requests have taken so far.
    #[schema(value_type = String)]
    usage: Credits,
    /// The models that it may use; `null` is all.
    models: Option<Vec<String>>,
    /// When it stops working.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

/// The account behind the key; `total = used + held + remaining`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Credits)]
pub struct CreditsView {
    /// Always `credits`.
    #[schema(example = "credits")]
    object: &'static str,
    #[schema(value_type = String)]
    account_id: AccountId,
    /// Everything that was ever added and has not expired unused; an overdraft counts as added.
    #[schema(value_type = String, example = "20")]
    total: Credits,
    /// What requests have taken.
    #[schema(value_type = String, example = "7.5")]
    used: Credits,
    /// What is set aside for requests that are running.
    #[schema(value_type = String, example = "0")]
    held: Credits,
    /// What a new request can spend.
    #[schema(value_type = String, example = "12.5")]
    remaining: Credits,
}

/// One request that has ended.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Generation {
    /// Always `generation`.
    #[schema(example = "generation")]
    object: &'static str,
    #[schema(value_type = String)]
    id: RequestId,
    #[schema(value_type = String)]
    key_id: KeyId,
    /// Such as `chat.completions`.
    endpoint: String,
    model: String,
    provider: String,
    /// Whether a stream was asked for.
    stream: bool,
    /// `completed`, `client_gone`, `upstream_failed`, `credits_exhausted` or `gateway_lost`.
    #[schema(value_type = String)]
    end: End,
    /// What was taken from the account.
    #[schema(value_type = String, example = "0.0125")]
    cost: Credits,
    usage: CostedTokens,
    /// `reported` by the provider or `counted` here.
    #[schema(value_type = String)]
    usage_source: UsageSource,
    /// From admission to the first output, in microseconds.
    first_token_us: Option<u64>,
    /// From admission to the end, in microseconds.
    duration_us: u64,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

/// What a request consumed, with what was taken for it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CostedTokens {
    #[serde(flatten)]
    tokens: Tokens,
    /// What was taken from the account.
    #[schema(value_type = String, example = "0.0125")]
    cost: Credits,
    /// What that is made up of, by kind: the parts add up to it.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    #[serde(skip_serializing_if = "Option::is_none")]
    cost_details: Option<Box<RawValue>>,
}

impl Generation {
    fn of(charge: ChargeRecord, details: Option<CostDetails>) -> Self {
        let details = details.map(|details| details.charging(charge.charged));
        Self {
            object: "generation",
            id: charge.id,
            key_id: charge.key_id,
            endpoint: charge.endpoint,
            model: charge.model,
            provider: charge.provider,
            stream: charge.stream,
            end: charge.end,
            // What the operator bears is none of the client's bill.
            cost: charge.charged,
            usage: CostedTokens {
                tokens: Tokens::from(&charge.usage),
                cost: charge.charged,
                cost_details: details.as_ref().and_then(details_json),
            },
            usage_source: charge.source,
            first_token_us: charge.first_token_us,
            duration_us: charge.duration_us,
            created_at: Time(charge.created_at),
        }
    }
}

/// `GET /v1/key`.
pub async fn key(
    State(app): State<Shared>,
    ClientKey(record): ClientKey,
) -> Result<Json<OwnKey>, ApiError> {
    let key = app.store.key(record.key_id).await?;
    let (_, spendable) = spendable(&app, record.account_id).await?;
    Ok(Json(OwnKey {
        object: "key",
        id: key.id,
        name: key.name,
        account_id: key.account_id,
        prefix: key.prefix,
        limit: key.limit,
        remaining: key.remaining.map_or(spendable, |rest| rest.min(spendable)),
        usage: key.used,
        models: key.models,
        expires_at: key.expires_at.map(Time),
        created_at: Time(key.created_at),
    }))
}

/// `GET /v1/credits`.
pub async fn credits(
    State(app): State<Shared>,
    ClientKey(record): ClientKey,
) -> Result<Json<CreditsView>, ApiError> {
    let (balance, remaining) = spendable(&app, record.account_id).await?;
    Ok(Json(CreditsView {
        object: "credits",
        account_id: record.account_id,
        total: balance
            .used
            .saturating_add(balance.held)
            .saturating_add(remaining),
        used: balance.used,
        held: balance.held,
        remaining,
    }))
}

/// An account's balance and what a new request could use of it: its overdraft too.
pub(crate) async fn spendable(
    app: &App,
    account: AccountId,
) -> Result<(Balance, Credits), ApiError> {
    let balance = app.ledger.balance(account).await?;
    let overdraft = app.store.account(account).await?.overdraft;
    Ok((balance, balance.available.saturating_add(overdraft)))
}

/// `GET /v1/generation?id=req_…`: a request of the key that asks.
pub async fn generation(
    State(app): State<Shared>,
    ClientKey(record): ClientKey,
    mut query: Parameters,
) -> Result<Json<Generation>, ApiError> {
    let id: RequestId = query
        .parsed("id")?
        .ok_or_else(|| invalid("id", "is missing; pass the x-request-id of an answer"))?;
    query.finish()?;
    match booked(&app, record.account_id, id).await? {
        Some(charge) if charge.key_id == record.key_id => {
            let price = app.store.price(charge.price_id).await?;
            let details = price.and_then(|price| price.details(&charge.usage).ok());
            // Nothing was delivered, so that not even a fee was charged.
            let details = details.filter(|_| !charge.cost.is_zero());
            Ok(Json(Generation::of(charge, details)))
        }
        // Keys of one account may be in different hands: another key's requests are not shown.
        Some(_) | None => Err(ApiError::NotFound(
            "This key has no finished request of this id. A request is here as soon as it has ended; one that was refused never is.".into(),
        )),
    }
}

/// The charge, waited for a moment where it may be on its way into the books.
async fn booked(
    app: &App,
    account: AccountId,
    id: RequestId,
) -> Result<Option<ChargeRecord>, ApiError> {
    let waits = if is_recent(id, Timestamp::now()) {
        &BOOKING_WAITS[..]
    } else {
        &[]
    };
    for wait in waits {
        if let Some(charge) = app.store.charge(account, id).await? {
            return Ok(Some(charge));
        }
        tokio::time::sleep(*wait).await;
    }
    Ok(app.store.charge(account, id).await?)
}

/// A request id carries its time of admission: milliseconds in its leading 48 bits.
fn is_recent(id: RequestId, now: Timestamp) -> bool {
    let millis = i64::try_from(id.uuid().as_u128() >> 80).unwrap_or(i64::MAX);
    let age = now.as_millisecond().saturating_sub(millis);
    u64::try_from(age).is_ok_and(|age| u128::from(age) <= BOOKING_AGE_MAX.as_millis())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_fresh_ids_are_waited_for() {
        let now = Timestamp::now();
        let id = RequestId::from_uuid(Uuid::now_v7());
        assert!(is_recent(id, now + Duration::from_secs(1)));
        assert!(!is_recent(id, now + BOOKING_AGE_MAX * 2));
        for absurd in [0, u128::MAX] {
            assert!(!is_recent(
                RequestId::from_uuid(Uuid::from_u128(absurd)),
                now
            ));
        }
    }
}
