//! Accounts: made, listed, read and changed.

use axum::{Json, extract::State};
use billing::{AccountId, Credits};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use store::{Account, AccountPatch, Balance, NewAccount};
use utoipa::ToSchema;

use super::metadata::{Metadata, present};
use crate::{
    app::{App, Shared},
    error::ApiError,
    input::{Id, JsonBody, Parameters},
    shape::{List, Time},
};

/// A new account.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAccount {
    /// For your eyes; 1 to 200 characters.
    name: String,
    /// How far below zero the balance may go; zero where it is absent.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "0")]
    overdraft: Credits,
    #[serde(default)]
    #[schema(value_type = Option<Metadata>)]
    metadata: Metadata,
}

/// What to change of an account; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeAccount {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// How far below zero the balance may go.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    overdraft: Option<Credits>,
    /// True: its keys are refused.
    #[serde(default, deserialize_with = "present")]
    disabled: Option<bool>,
    /// Replaces the old notes.
    #[serde(default, deserialize_with = "present")]
    metadata: Option<Metadata>,
}

/// An account.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Account)]
pub struct AccountView {
    /// Always `account`.
    #[schema(example = "account")]
    object: &'static str,
    #[schema(value_type = String, example = "acct_0190aabbccdd70000000000000000000")]
    id: AccountId,
    name: String,
    /// How far below zero the balance may go.
    #[schema(value_type = String)]
    overdraft: Credits,
    /// Whether its keys are refused.
    disabled: bool,
    balance: BalanceView,
    metadata: Metadata,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
}

/// What an account has, in credits; `available + held = total`.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Balance)]
pub struct BalanceView {
    /// Can be spent by a new request.
    #[schema(value_type = String, example = "12.5")]
    available: Credits,
    /// Set aside for running requests.
    #[schema(value_type = String)]
    held: Credits,
    /// The sum of the ledger.
    #[schema(value_type = String)]
    total: Credits,
    /// What its requests have taken so far.
    #[schema(value_type = String)]
    used: Credits,
}

impl From<Account> for AccountView {
    fn from(account: Account) -> Self {
        Self {
            object: "account",
            id: account.id,
            name: account.name,
            overdraft: account.overdraft,
            disabled: account.disabled,
            balance: account.balance.into(),
            metadata: Metadata(account.metadata),
            created_at: Time(account.created_at),
            updated_at: Time(account.updated_at),
        }
    }
}

impl From<Balance> for BalanceView {
    fn from(balance: Balance) -> Self {
        Self {
            available: balance.available,
            held: balance.held,
            total: balance.total,
            used: balance.used,
        }
    }
}

/// `POST /accounts`.
pub async fn create(
    State(app): State<Shared>,
    JsonBody(call): JsonBody<CreateAccount>,
) -> Result<(StatusCode, Json<AccountView>), ApiError> {
    let account = NewAccount {
        name: call.name,
        overdraft: call.overdraft,
        metadata: call.metadata.0,
    };
    let account = app.store.create_account(account).await?;
    Ok((StatusCode::CREATED, Json(account.into())))
}

/// `GET /accounts`.
pub async fn list(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<AccountView>>, ApiError> {
    let page = query.page()?;
    query.finish()?;
    let accounts = app.store.accounts(page).await?;
    Ok(Json(List::of(accounts, AccountView::from)))
}

/// `GET /accounts/{id}`.
pub async fn one(
    State(app): State<Shared>,
    Id(id): Id<AccountId>,
) -> Result<Json<AccountView>, ApiError> {
    let account = app.store.account(id).await?;
    Ok(Json(exact(&app, account).await?))
}

/// `PATCH /accounts/{id}`.
pub async fn change(
    State(app): State<Shared>,
    Id(id): Id<AccountId>,
    JsonBody(call): JsonBody<ChangeAccount>,
) -> Result<Json<AccountView>, ApiError> {
    let patch = AccountPatch {
        name: call.name,
        overdraft: call.overdraft,
        disabled: call.disabled,
        metadata: call.metadata.map(|metadata| metadata.0),
    };
    let account = app.store.update_account(id, patch).await?;
    Ok(Json(exact(&app, account).await?))
}

/// The account with this replica's view of its balance, which knows the holds of this moment;
/// the store knows those of the last heartbeat.
async fn exact(app: &App, mut account: Account) -> Result<AccountView, ApiError> {
    account.balance = app.ledger.balance(account.id).await?;
    Ok(account.into())
}
