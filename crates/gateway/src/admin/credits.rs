//! Credits added to an account, once for each Idempotency-Key, and the ledger that shows them.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use billing::{AccountId, Credits, EntryId, KeyId, rules::EntryKind};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::{Deserialize, Deserializer, Serialize, de};
use store::{Entry, NewCredits};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    error::ApiError,
    input::{Id, JsonBody, Parameters, one_of},
    once::{self, REPLAYED},
    shape::{List, Time},
};

/// The kinds that an operator may book; `expiry`, `closing` and `late_charge` are the program's own.
pub const KINDS: [EntryKind; 6] = [
    EntryKind::Purchase,
    EntryKind::Promo,
    EntryKind::Trial,
    EntryKind::Allowance,
    EntryKind::Adjustment,
    EntryKind::Refund,
];

/// Credits to add.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AddCredits {
    /// Credits as decimal text; positive, except for an adjustment or a refund.
    #[schema(value_type = String, example = "12.5")]
    amount: Credits,
    /// `purchase` (where it is absent), `promo`, `trial`, `allowance`, `adjustment` or `refund`.
    #[serde(default = "purchase", deserialize_with = "kind")]
    #[schema(value_type = Option<String>, example = "purchase")]
    kind: EntryKind,
    /// When the rest of them expires.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    /// Your reference, such as a payment's id.
    #[schema(max_length = 500)]
    reference: Option<String>,
    /// A note.
    #[schema(max_length = 500)]
    note: Option<String>,
}

/// One row of the ledger.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Entry)]
pub struct EntryView {
    /// Always `entry`.
    #[schema(example = "entry")]
    object: &'static str,
    /// `ent_…`, or `req_…` for a charge.
    id: String,
    #[schema(value_type = String)]
    account_id: AccountId,
    /// A kind of credits, `expiry`, `late_charge`, `closing` (the charges of a closed month, in one sum), or `charge`.
    kind: &'static str,
    /// By how much it changed the balance.
    #[schema(value_type = String, example = "-0.0125")]
    amount: Credits,
    /// The grant that it made or ended.
    #[schema(value_type = Option<String>)]
    grant_id: Option<EntryId>,
    /// When the rest of the grant expires.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    reference: Option<String>,
    note: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

impl From<Entry> for EntryView {
    fn from(entry: Entry) -> Self {
        Self {
            object: "entry",
            id: entry.id,
            account_id: entry.account_id,
            kind: entry.kind,
            amount: entry.amount,
            grant_id: entry.grant_id,
            expires_at: entry.expires_at.map(Time),
            reference: entry.reference,
            note: entry.note,
            created_at: Time(entry.created_at),
        }
    }
}

/// `POST /accounts/{id}/credits`.
pub async fn add_to_account(
    State(app): State<Shared>,
    Id(account): Id<AccountId>,
    headers: HeaderMap,
    JsonBody(call): JsonBody<AddCredits>,
) -> Result<Response, ApiError> {
    add(&app, account, &headers, call).await
}

/// `POST /keys/{id}/credits`: to the key's account.
pub async fn add_to_key(
    State(app): State<Shared>,
    Id(key): Id<KeyId>,
    headers: HeaderMap,
    JsonBody(call): JsonBody<AddCredits>,
) -> Result<Response, ApiError> {
    let account = app.store.key(key).await?.account_id;
    add(&app, account, &headers, call).await
}

/// `GET /accounts/{id}/entries`.
pub async fn entries(
    State(app): State<Shared>,
    Id(account): Id<AccountId>,
    mut query: Parameters,
) -> Result<Json<List<EntryView>>, ApiError> {
    let page = query.page()?;
    query.finish()?;
    let entries = app.store.entries(account, page).await?;
    Ok(Json(List::of(entries, EntryView::from)))
}

async fn add(
    app: &App,
    account: AccountId,
    headers: &HeaderMap,
    call: AddCredits,
) -> Result<Response, ApiError> {
    let once = once::key(headers)?;
    let credits = NewCredits {
        amount: call.amount,
        kind: call.kind,
        expires_at: call.expires_at.map(|time| time.0),
        reference: call.reference,
        note: call.note,
    };
    let credited = app
        .store
        .add_credits(account, credits, once.as_ref())
        .await?;
    let entry = Json(EntryView::from(credited.entry));
    Ok(if credited.replayed {
        let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
        (StatusCode::OK, replayed, entry).into_response()
    } else {
        (StatusCode::CREATED, entry).into_response()
    })
}

const fn purchase() -> EntryKind {
    EntryKind::Purchase
}

fn kind<'de, D: Deserializer<'de>>(deserializer: D) -> Result<EntryKind, D::Error> {
    let text = String::deserialize(deserializer)?;
    one_of(&text, &KINDS, EntryKind::as_str).map_err(de::Error::custom)
}
