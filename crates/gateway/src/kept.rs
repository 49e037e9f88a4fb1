//! Responses that clients come back to: what a request goes on with, and how its response is kept.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dialect::{ClientRequest, FinishedResponse, Keep, Pair, ResponsesApi};
use store::{KeptResponse, KeyRecord, ResponseBody, StoreError};

use crate::{
    app::Shared,
    arrival::Asked,
    catalogue::{Model, Provider},
    error::ApiError,
};

/// How long an answer waits for its response to be written down.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// What is kept is bounded anew when so much of the bound (one in so many) has been added.
const BOUND_SHARE: u64 = 16;

/// What this replica has kept of responses since they were last bounded.
#[derive(Debug, Default)]
pub struct KeptBytes(AtomicU64);

impl KeptBytes {
    /// Adds so many; true where that is more than `most` together, and nothing is then.
    fn add(&self, bytes: u64, most: u64) -> bool {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let full = before.saturating_add(bytes) > most;
        if full {
            self.0.store(0, Ordering::Relaxed);
        }
        full
    }
}

/// What a request of Responses has to do with others.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    /// Whether its response may be kept.
    keep: bool,
    /// The response that it goes on with.
    before: Option<Before>,
}

/// A response that a request goes on with.
#[derive(Debug)]
enum Before {
    /// Kept here: this is the request with all that was said before.
    Here(Bytes),
    /// Kept by its provider, who reads it again.
    There {
        /// The name of the provider.
        provider: Arc<str>,
        tokens: u64,
        thought: u64,
    },
}

/// How the response of one attempt is kept.
#[derive(Debug)]
pub(crate) struct Keeping {
    app: Shared,
    key: Arc<KeyRecord>,
    model: Arc<str>,
    /// All items that were sent, where it is kept here.
    input: Option<String>,
}

impl Conversation {
    /// Looks up what a request goes on with.
    ///
    /// # Errors
    /// 400 for a response that is not there or is another key's, 503 where the books cannot be asked.
    pub(crate) async fn find(asked: &Asked, said: &ClientRequest<'_>) -> Result<Self, ApiError> {
        let ClientRequest::Responses(request) = said else {
            return Ok(Self::default());
        };
        let app = &asked.app;
        let keep = !app.settings.responses_kept.is_zero() && request.stores();
        let Some(id) = request.previous() else {
            return Ok(Self { keep, before: None });
        };
        let unknown = || {
            ApiError::Invalid {
            param: Some("previous_response_id".into()),
            message: "There is no such response: it is not this key's, was not kept, or has expired. Send the whole conversation as `input`.".into(),
        }
        };
        let kept = find(app, &asked.key, &id).await?.ok_or_else(unknown)?;
        let before = match kept.body {
            Some(body) => {
                let text = |bytes| String::from_utf8(bytes).map_err(|_| ApiError::Internal);
                let (input, response) = (text(body.input)?, text(body.response)?);
                let whole = request.after(&input, &response)?;
                let max = app.settings.body_bytes_max;
                if whole.len() > max {
                    return Err(ApiError::TooLarge { max });
                }
                Before::Here(whole.into())
            }
            None => Before::There {
                provider: provider(app, &kept.model).ok_or_else(unknown)?.name.clone(),
                tokens: kept.tokens,
                thought: kept.thought,
            },
        };
        Ok(Self {
            keep,
            before: Some(before),
        })
    }

    /// The request with all that was said before, where that is kept here.
    pub(crate) fn whole(&self) -> Option<&Bytes> {
        match &self.before {
            Some(Before::Here(body)) => Some(body),
            Some(Before::There { .. }) | None => None,
        }
    }

    /// Those of the targets that can go on with it.
    ///
    /// # Errors
    /// 400 where none can.
    pub(crate) fn retain(&self, targets: &mut Vec<&Arc<Model>>) -> Result<(), ApiError> {
        let Some(Before::There { provider, .. }) = &self.before else {
            return Ok(());
        };
        targets.retain(|model| {
            model.provider.name == *provider
                && model.provider.quirks.responses == ResponsesApi::Stored
        });
        if targets.is_empty() {
            return Err(ApiError::Invalid {
                param: Some("previous_response_id".into()),
                message: "Another provider keeps that response: go on with a model of the same, or send the whole conversation as `input`.".into(),
            });
        }
        Ok(())
    }

    /// The tokens that the provider puts before what was sent, and how much of them was thought.
    pub(crate) fn remembered(&self) -> Option<(u64, u64)> {
        match &self.before {
            Some(Before::There {
                tokens, thought, ..
            }) => Some((*tokens, *thought)),
            Some(Before::Here(_)) | None => None,
        }
    }

    /// Whether the response is kept by its provider.
    pub(crate) fn keeps_there(&self, pair: Pair, provider: &Provider) -> bool {
        self.keep && pair.is_native() && provider.quirks.responses == ResponsesApi::Stored
    }

    /// How the response of this attempt is kept; `None` where it is not.
    pub(crate) fn keeping(
        &self,
        asked: &Asked,
        said: &ClientRequest<'_>,
        pair: Pair,
        model: &Model,
    ) -> Option<Keeping> {
        let ClientRequest::Responses(request) = said else {
            return None;
        };
        if !self.keep {
            return None;
        }
        let there = self.keeps_there(pair, &model.provider);
        let input = (!there).then(|| request.items());
        let max = asked.app.settings.response_bytes_max;
        if input.as_ref().is_some_and(|input| input.len() > max) {
            return None;
        }
        Some(Keeping {
            app: asked.app.clone(),
            key: asked.key.clone(),
            model: model.full_name.clone(),
            input,
        })
    }
}

impl Keeping {
    /// Who keeps it.
    pub(crate) fn by(&self) -> Keep {
        match self.input {
            Some(_) => Keep::Gateway,
            None => Keep::Provider,
        }
    }

    /// Keeps a response that is over, as its client reads it. A client that comes back for it at once
    /// finds it, unless the books are away.
    pub(crate) async fn keep(self, response: Bytes) {
        let Some(finished) = FinishedResponse::read(&response) else {
            return;
        };
        let settings = &self.app.settings;
        let body = match self.input {
            Some(input) if input.len() + response.len() <= settings.response_bytes_max => {
                Some(ResponseBody {
                    input: input.into_bytes(),
                    response: response.into(),
                })
            }
            None if finished.stored => None,
            Some(_) | None => return,
        };
        let kept = KeptResponse {
            id: finished.id,
            model: self.model.to_string(),
            tokens: finished.tokens,
            thought: finished.thought,
            body,
        };
        let (account, key) = (self.key.account_id, self.key.key_id);
        let written = async {
            let store = &self.app.store;
            let kept_for = settings.responses_kept;
            store.keep_response(account, key, &kept, kept_for).await?;
            let most = settings.responses_account_bytes_max as u64;
            if self.app.kept_bytes.add(kept.bytes(), most / BOUND_SHARE) {
                store.bound_responses(most).await?;
            }
            Ok::<(), StoreError>(())
        };
        match tokio::time::timeout(WAIT_MAX, written).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "a response cannot be kept"),
            Err(_) => tracing::warn!("a response cannot be kept in time"),
        }
    }
}

/// A response that this key made.
///
/// # Errors
/// 503 where the books cannot be asked.
pub(crate) async fn find(
    app: &Shared,
    key: &KeyRecord,
    id: &str,
) -> Result<Option<KeptResponse>, ApiError> {
    Ok(app.store.response(key.account_id, key.key_id, id).await?)
}

/// The provider of a model, as `provider/model`.
pub(crate) fn provider<'a>(app: &'a Shared, model: &str) -> Option<&'a Arc<Provider>> {
    let models = app.catalogue.models();
    let named = models.iter().find(|known| *known.full_name == *model);
    // A model that is gone may still have a provider.
    let by_name = || {
        let name = model.split_once('/').map_or(model, |(name, _)| name);
        models.iter().find(|known| *known.provider.name == *name)
    };
    named.or_else(by_name).map(|model| &model.provider)
}
