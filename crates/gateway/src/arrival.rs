//! How every request that may cost something begins: its key, its place, its Idempotency-Key, its body.

use std::{future::Future, sync::Arc};

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Request},
    response::Response,
};
use billing::{PriceId, RequestFacts, RequestId};
use bytes::Bytes;
use http::request::Parts;
use store::{Claim, IdempotencyKey, KeyRecord};
use tokio::sync::oneshot;

use crate::{
    app::{Arrived, Shared},
    auth::ClientKey,
    body,
    catalogue::Model,
    error::ApiError,
    once::{self, Gone, Turn},
    recording::Recording,
    watch::Watched,
};

/// A request that was let in, whose body is still to be read.
#[derive(Debug)]
pub struct Arrival {
    /// What every request can reach.
    pub app: Shared,
    /// Follows the request to its end, and keeps its place among those of its key.
    pub watched: Watched,
    /// Who asks.
    pub key: Arc<KeyRecord>,
    /// Its head.
    pub parts: Parts,
    once: Option<IdempotencyKey>,
}

/// A request as its endpoint runs it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// What every request can reach.
    pub app: Shared,
    /// Follows the request to its end.
    pub watched: Watched,
    /// Who asks.
    pub key: Arc<KeyRecord>,
    /// Its head.
    pub parts: Arc<Parts>,
    /// Its body, whole.
    pub body: Bytes,
}

impl Asked {
    /// What is known of it when it goes upstream to `model` at this price. `endpoint` is its name in
    /// the books.
    pub(crate) fn facts(
        &self,
        endpoint: &'static str,
        model: &Model,
        price_id: PriceId,
        stream: bool,
    ) -> RequestFacts {
        RequestFacts {
            request_id: self.watched.request_id(),
            account_id: self.key.account_id,
            key_id: self.key.key_id,
            key_has_limit: self.key.has_limit(),
            endpoint,
            model: model.id.clone(),
            provider: model.provider.name.clone(),
            price_id,
            stream,
        }
    }
}

/// Answers a request of `endpoint` (its name in the books and in metrics) whose body is read whole:
/// `run` answers it. A request with an Idempotency-Key runs once, in a task of its own; `check`
/// says what is wrong with it before the key is claimed.
///
/// # Errors
/// 401, 403, 429, 400 and 413 as every endpoint has them, and what `check` and `run` say.
pub async fn serve<F>(
    app: Shared,
    endpoint: &'static str,
    request: Request,
    check: impl FnOnce(&Asked) -> Result<(), ApiError>,
    run: impl FnOnce(Asked, Option<Recording>) -> F + Send + 'static,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    let watched = watched(app.clone(), endpoint, &request)?;
    // On the heap at once: the layers above move a handler's future about, and this one is large.
    let result = Box::pin(async {
        let (arrival, body) = Arrival::enter(app, watched.clone(), request).await?;
        arrival.serve(body, check, run).await
    })
    .await;
    if let Err(error) = &result {
        watched.failed(error);
    }
    result
}

/// Follows a request of `endpoint` to its end.
///
/// # Errors
/// 503 for a request that did not come through [`crate::app::router`].
pub fn watched(
    app: Shared,
    endpoint: &'static str,
    request: &Request,
) -> Result<Watched, ApiError> {
    let id = request.extensions().get::<RequestId>();
    let arrived = request.extensions().get::<Arrived>();
    let (Some(id), Some(Arrived(arrived))) = (id, arrived) else {
        return Err(ApiError::Internal);
    };
    Ok(Watched::new(app, endpoint, *id, *arrived))
}

/// The key of a request that takes no place and is read whole: one that costs nothing.
///
/// # Errors
/// 401, 403, 400 and 413 as every endpoint has them.
pub async fn read(app: &Shared, request: Request) -> Result<(Arc<KeyRecord>, Bytes), ApiError> {
    let (mut parts, body) = request.into_parts();
    let ClientKey(key) = match ClientKey::from_request_parts(&mut parts, app).await {
        Ok(key) => key,
        Err(error) => return Err(body::refuse(body, error).await),
    };
    let body = body::read(&parts.headers, body, &app.settings, &app.body_room).await?;
    Ok((key, body))
}

impl Arrival {
    /// Lets a request in: its key is in force, has a place free, and its Idempotency-Key is one.
    ///
    /// # Errors
    /// 401, 403, 429 or 400; what has come of the body is thrown away.
    pub async fn enter(
        app: Shared,
        watched: Watched,
        request: Request,
    ) -> Result<(Self, Body), ApiError> {
        let (mut parts, body) = request.into_parts();
        let ClientKey(key) = match ClientKey::from_request_parts(&mut parts, &app).await {
            Ok(key) => key,
            Err(error) => return Err(body::refuse(body, error).await),
        };
        watched.payer(key.account_id, key.key_id);
        let max = app.settings.requests_per_key_max;
        match app.places.enter(key.key_id, max) {
            Some(place) => watched.keep(place),
            None => return Err(body::refuse(body, ApiError::KeyBusy { max }).await),
        }
        let once = match once::key(&parts.headers) {
            Ok(once) => once,
            Err(error) => return Err(body::refuse(body, error).await),
        };
        let arrival = Self {
            app,
            watched,
            key,
            parts,
            once,
        };
        Ok((arrival, body))
    }

    async fn serve<F>(
        self,
        body: Body,
        check: impl FnOnce(&Asked) -> Result<(), ApiError>,
        run: impl FnOnce(Asked, Option<Recording>) -> F + Send + 'static,
    ) -> Result<Response, ApiError>
    where
        F: Future<Output = Result<Response, ApiError>> + Send + 'static,
    {
        let app = &self.app;
        let body = body::read(&self.parts.headers, body, &app.settings, &app.body_room).await?;
        let asked = Asked {
            app: self.app,
            watched: self.watched,
            key: self.key,
            parts: Arc::new(self.parts),
            body,
        };
        let Some(once) = self.once else {
            return run(asked, None).await;
        };
        // What is refused claims nothing.
        check(&asked)?;
        let path = asked.parts.uri.path();
        let id = asked.watched.request_id();
        let claim = once::claim(&asked.app, &asked.key, once, path, &asked.body, id)?;
        let (_here, gone) = oneshot::channel();
        // In a task of its own: it goes on when the client leaves, which may come back for it.
        match tokio::spawn(run_once(asked, claim, gone, run)).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(ApiError::Stopping),
        }
    }
}

/// Runs a request with an Idempotency-Key, or answers it as the one before it.
async fn run_once<F>(
    asked: Asked,
    claim: Claim,
    mut gone: Gone,
    run: impl FnOnce(Asked, Option<Recording>) -> F + Send + 'static,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<Response, ApiError>> + Send + 'static,
{
    let arrived = asked.watched.arrived();
    match Box::pin(once::turn(&asked.app, claim, arrived, &mut gone)).await? {
        Turn::Run(recording) => Box::pin(run(asked, Some(recording))).await,
        Turn::Replay(response) => {
            asked.watched.succeeded();
            Ok(response)
        }
    }
}
