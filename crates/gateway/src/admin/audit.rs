//! The proof of the books, as the command `tollway audit` gives it.

use std::collections::BTreeMap;

use axum::{Json, extract::State};
use billing::Credits;
use serde::Serialize;
use store::{Audit, BrokenRow, Check, StoreError};
use utoipa::ToSchema;

use crate::{
    app::{App, Shared},
    error::ApiError,
};

/// The result of a proof.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Audit)]
pub struct AuditView {
    /// Always `audit`.
    #[schema(example = "audit")]
    object: &'static str,
    /// True when every check holds.
    balanced: bool,
    checks: Vec<CheckView>,
    /// What the operator has borne so far, by cause.
    #[schema(value_type = BTreeMap<String, String>)]
    house_losses: BTreeMap<String, Credits>,
    /// All differences between balances and their ledgers, without sign.
    #[schema(value_type = String, example = "0")]
    imbalance: Credits,
}

/// One check.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AuditCheck)]
pub struct CheckView {
    /// Its name.
    name: &'static str,
    /// What it says.
    says: &'static str,
    /// Whether it holds.
    ok: bool,
    rows_checked: u64,
    /// The first row that breaks it, as a sentence.
    first_broken: Option<String>,
    /// The same row, taken apart.
    broken_row: Option<BrokenRowView>,
}

/// A row that breaks a check.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = AuditBrokenRow)]
pub struct BrokenRowView {
    /// Its ids, the account first.
    ids: Vec<String>,
    /// What else names it or says what is wrong.
    note: Option<String>,
    /// What is there.
    has: String,
    /// What should be.
    should: String,
}

impl From<BrokenRow> for BrokenRowView {
    fn from(row: BrokenRow) -> Self {
        Self {
            ids: row.ids,
            note: row.note,
            has: row.has,
            should: row.should,
        }
    }
}

impl From<Audit> for AuditView {
    fn from(audit: Audit) -> Self {
        Self {
            object: "audit",
            balanced: audit.balanced,
            checks: audit.checks.into_iter().map(CheckView::from).collect(),
            house_losses: audit.house_losses,
            imbalance: audit.imbalance,
        }
    }
}

impl From<Check> for CheckView {
    fn from(check: Check) -> Self {
        Self {
            name: check.name,
            says: check.says,
            ok: check.ok,
            rows_checked: check.rows_checked,
            first_broken: check.first_broken.as_ref().map(BrokenRow::to_string),
            broken_row: check.first_broken.map(BrokenRowView::from),
        }
    }
}

/// `GET /audit`: 200 whatever it finds; the metric follows.
pub async fn prove(State(app): State<Shared>) -> Result<Json<AuditView>, ApiError> {
    Ok(Json(prove_now(&app).await?.into()))
}

/// Proves the books again and again, for the metric; never ends.
pub async fn prove_regularly(app: &App) {
    loop {
        tokio::time::sleep(app.settings.audit_every).await;
        if let Err(error) = prove_now(app).await {
            tracing::warn!(%error, "the books could not be proved now");
        }
    }
}

async fn prove_now(app: &App) -> Result<Audit, StoreError> {
    let audit = app.store.audit().await?;
    app.metrics
        .ledger_imbalance_credits
        .set(crate::health::in_credits(audit.imbalance));
    if !audit.balanced {
        tracing::error!(imbalance = %audit.imbalance, "the books do not balance; see GET /admin/v1/audit");
    }
    Ok(audit)
}
