//! Batches that credits are set aside for and nobody asks about: looked at now and then, so that no hold outlives what it is for.

use std::time::Duration;

use futures_util::future::join_all;
use http::Method;
use jiff::Timestamp;
use store::{StoreError, Unattended};

use crate::{app::Shared, batches, error::ApiError, objects};

/// Batches that are asked about at once.
const ASKED_AT_ONCE: u16 = 8;
/// A provider that is asked to begin a batch has answered by then, or whoever asked it has ended.
const BEGUN_WITHIN: Duration = Duration::from_secs(3600);
/// Results are no longer there by then: OpenAI keeps them for 30 days.
const RESULTS_KEPT: Duration = Duration::from_secs(32 * 24 * 3600);

/// Looks at every batch that holds credits, again and again; never ends.
pub async fn look_regularly(app: &Shared) {
    loop {
        tokio::time::sleep(app.settings.batch_look_every).await;
        if let Err(error) = Box::pin(look(app)).await {
            tracing::warn!(%error, "batches that hold credits could not be looked at now");
        }
    }
}

/// Looks at each batch that no replica has looked at meanwhile.
async fn look(app: &Shared) -> Result<(), StoreError> {
    let every = app.settings.batch_look_every;
    loop {
        let some = app.store.unattended(every, ASKED_AT_ONCE).await?;
        if some.is_empty() {
            return Ok(());
        }
        for looked in join_all(some.iter().map(|one| attend(app, one))).await {
            looked?;
        }
    }
}

/// Ends a hold that nothing more becomes of.
async fn attend(app: &Shared, one: &Unattended) -> Result<(), StoreError> {
    let age = Timestamp::now()
        .duration_since(one.created_at)
        .unsigned_abs();
    let over = match &one.object {
        None => age > BEGUN_WITHIN,
        // Where its provider was taken away, it may come back.
        Some(batch) if objects::kept_by(app, batch).is_err() => age > RESULTS_KEPT,
        Some(batch) => match batches::look(app, batch, Method::GET, "").await {
            Err(ApiError::NotFound(_)) => true,
            // That has ended the hold where nothing is left to be paid.
            Ok(_) | Err(_) => age > RESULTS_KEPT,
        },
    };
    if over {
        app.store.end_standing(&one.hold).await?;
    }
    Ok(())
}
