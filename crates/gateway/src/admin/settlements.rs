//! Settlements that were put aside, and what the operator decides about them.

use axum::{Json, extract::State};
use billing::{AccountId, Credits, RequestId};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use store::{DeadSettlement, Resolution, ResolvedAs};
use utoipa::ToSchema;

use super::charges::verbatim;
use crate::{
    app::Shared,
    error::ApiError,
    input::{Id, JsonBody, Parameters, invalid, one_of},
    shape::{List, Time},
};

/// A settlement that could not be booked. While one waits for a decision the audit fails.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = DeadSettlement)]
pub struct DeadSettlementView {
    /// Always `dead_settlement`.
    #[schema(example = "dead_settlement")]
    object: &'static str,
    #[schema(value_type = String)]
    request_id: RequestId,
    #[schema(value_type = String)]
    account_id: AccountId,
    /// Why it was not booked.
    problem: String,
    /// Everything that is known of it.
    #[schema(value_type = Object)]
    settlement: Option<Box<RawValue>>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// What was decided, where it was.
    resolution: Option<ResolutionView>,
}

/// A decision; it stays.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Resolution)]
pub struct ResolutionView {
    /// `charge`, `house_loss` or `drop`.
    resolved_as: &'static str,
    /// What the account paid; negative where it got something back.
    #[schema(value_type = String)]
    charged: Credits,
    /// What the operator bears beside the charge.
    #[schema(value_type = String)]
    house_loss: Credits,
    note: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
}

/// What is decided about a settlement.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveSettlement {
    /// `charge`: its account pays as far as credit is there, and the rest is a house loss.
    /// `house_loss`: the operator bears it. `drop`: nobody pays.
    #[serde(rename = "as")]
    resolve_as: String,
    /// Why, in at most 500 characters.
    note: String,
}

impl From<DeadSettlement> for DeadSettlementView {
    fn from(dead: DeadSettlement) -> Self {
        Self {
            object: "dead_settlement",
            request_id: dead.request_id,
            account_id: dead.account_id,
            problem: dead.problem,
            settlement: verbatim(dead.settlement),
            created_at: Time(dead.created_at),
            resolution: dead.resolution.map(ResolutionView::from),
        }
    }
}

impl From<Resolution> for ResolutionView {
    fn from(resolution: Resolution) -> Self {
        Self {
            resolved_as: resolution.resolved_as.as_str(),
            charged: resolution.charged,
            house_loss: resolution.house_loss,
            note: resolution.note,
            created_at: Time(resolution.created_at),
        }
    }
}

/// `GET /settlements`: those that were put aside.
pub async fn list(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<DeadSettlementView>>, ApiError> {
    let page = query.page()?;
    let all = query
        .read("all", |text| {
            text.parse().map_err(|_| "write true or false")
        })?
        .unwrap_or(false);
    query.finish()?;
    let dead = app.store.dead_settlements(all, page).await?;
    Ok(Json(List::of(dead, DeadSettlementView::from)))
}

/// `POST /settlements/{id}/resolve`: once.
pub async fn resolve(
    State(app): State<Shared>,
    Id(request): Id<RequestId>,
    JsonBody(call): JsonBody<ResolveSettlement>,
) -> Result<Json<DeadSettlementView>, ApiError> {
    let way = one_of(&call.resolve_as, &ResolvedAs::ALL, ResolvedAs::as_str)
        .map_err(|problem| invalid("as", problem))?;
    let resolved = app
        .store
        .resolve_settlement(request, way, &call.note)
        .await?;
    Ok(Json(resolved.into()))
}
