//! The targets of a request, asked in order until one answers: what every endpoint does alike.

use std::sync::Arc;

use axum::response::Response;
use billing::{Charge, End};
use dialect::Endpoint;
use store::KeyRecord;

use crate::{
    app::Shared, arrival::Asked, catalogue::Model, chat, error::ApiError, recording::Recording,
    upstream::Failure,
};

/// One attempt at a request, at one target.
pub(crate) trait Attempt {
    /// Admits the request at this target's price, sends it and answers it.
    async fn run(
        &self,
        model: &Arc<Model>,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed>;
}

/// How an attempt came out when it did not succeed.
pub(crate) enum Missed {
    /// The request itself is refused; no other target will do.
    Refused(ApiError),
    /// The provider failed before any output.
    Failed(Failure, Option<Box<Charge>>),
}

impl Missed {
    /// The provider failed before any output, which is noted.
    pub(crate) fn failed(asked: &Asked, failure: Failure, charge: Option<Charge>) -> Self {
        asked.watched.upstream_failed(&failure);
        Self::Failed(failure, charge.map(Box::new))
    }
}

impl From<ApiError> for Missed {
    fn from(error: ApiError) -> Self {
        Self::Refused(error)
    }
}

/// What serves an endpoint under a model's name for this key, in order; at least one.
///
/// # Errors
/// 404 where there is no such model, 403 where the key may not use it, 400 where it does something
/// else.
pub(crate) fn serving<'a>(
    app: &'a Shared,
    key: &KeyRecord,
    name: &str,
    endpoint: Endpoint,
) -> Result<Vec<&'a Arc<Model>>, ApiError> {
    let mut targets = chat::permitted(app, key, name)?;
    let does = targets.first().map(|model| model.endpoints.clone());
    targets.retain(|model| model.endpoints.contains(&endpoint));
    if targets.is_empty() {
        let paths: Vec<String> = does
            .unwrap_or_default()
            .iter()
            .map(|other| format!("POST /v1{}", other.path()))
            .collect();
        let message = format!(
            "This model does not answer POST /v1{}; it answers {}. GET /v1/models says what each model does.",
            endpoint.path(),
            paths.join(", ")
        );
        return Err(ApiError::Invalid {
            param: Some("model".into()),
            message: message.into(),
        });
    }
    Ok(targets)
}

/// Asks targets in order, until one answers.
///
/// # Errors
/// What the last one that was asked failed with.
pub(crate) async fn ask(
    asked: &Asked,
    targets: &[&Arc<Model>],
    recording: &mut Option<Recording>,
    attempt: &impl Attempt,
) -> Result<Response, ApiError> {
    let Asked { app, watched, .. } = asked;
    let mut left = app.settings.attempts_max;
    let mut next = targets.iter().peekable();
    while let Some(model) = next.peek() {
        left -= 1;
        watched.target(model);
        let (failure, charge) = match attempt.run(model, recording).await {
            Ok(response) => return Ok(response),
            Err(Missed::Refused(error)) => return Err(error),
            Err(Missed::Failed(failure, charge)) => (failure, charge),
        };
        // The same target is asked again only where it surely did not begin.
        if !failure.same_target_may_help() {
            next.next();
        }
        if left > 0 && failure.another_target_may_help() && next.peek().is_some() {
            // Nothing is owed for it: the hold goes back before the next attempt.
            drop(charge.and_then(|charge| charge.retract()));
            nothing_owed(recording);
            continue;
        }
        let settled = charge.and_then(|charge| charge.finish(End::UpstreamFailed));
        if settled.is_none_or(|settled| settled.charged.is_zero()) {
            nothing_owed(recording);
        }
        watched.settled(End::UpstreamFailed, settled);
        return Err(failure.into());
    }
    Err(ApiError::ModelNotFound)
}

fn nothing_owed(recording: &mut Option<Recording>) {
    if let Some(recording) = recording {
        recording.owes_nothing();
    }
}
