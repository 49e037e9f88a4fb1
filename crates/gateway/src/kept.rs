//! Responses that clients come back to: what a request goes on with, and how its response is kept.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use dialect::{
    ClientRequest, FinishedResponse, Keep, Pair, RequestLimits, ResponsesApi, ResponsesRequest,
    items_of,
};
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
/// Items that one request may name.
const ITEMS_MAX: usize = 1_000;

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
    /// The request with all that it goes on with or names, where that is kept here.
    whole: Option<Bytes>,
    /// What it goes on with or names that its provider keeps, who reads it again.
    there: Option<There>,
}

/// What a provider keeps.
#[derive(Debug)]
struct There {
    /// The member of the request that names it.
    param: &'static str,
    /// The name of the provider.
    provider: Arc<str>,
    tokens: u64,
    thought: u64,
    /// The ids of the items that are named one by one.
    items: Vec<String>,
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
    /// Looks up what a request goes on with, and the items that it names.
    ///
    /// # Errors
    /// 400 for what is not there or is another key's, 503 where the books cannot be asked.
    pub(crate) async fn find(asked: &Asked, said: &ClientRequest<'_>) -> Result<Self, ApiError> {
        let ClientRequest::Responses(request) = said else {
            return Ok(Self::default());
        };
        let app = &asked.app;
        let mut found = Self {
            keep: !app.settings.responses_kept.is_zero() && request.stores(),
            ..Self::default()
        };
        Box::pin(found.find_items(asked, request)).await?;
        let Some(id) = request.previous() else {
            return Ok(found);
        };
        let unknown = || {
            invalid(
                "previous_response_id",
                "There is no such response: it is not this key's, was not kept, or has expired. Send the whole conversation as `input`.",
            )
        };
        let kept = Box::pin(find(app, &asked.key, &id))
            .await?
            .ok_or_else(unknown)?;
        let Some(body) = &kept.body else {
            let provider = provider(app, &kept.model).ok_or_else(unknown)?;
            found.add("previous_response_id", provider, &kept, &[])?;
            return Ok(found);
        };
        let (input, response) = (text(&body.input)?, text(&body.response)?);
        let whole = match &found.whole {
            Some(filled) => {
                let limits = RequestLimits::default();
                ResponsesRequest::parse(filled, &limits)?.after(input, response)?
            }
            None => request.after(input, response)?,
        };
        found.bounded(whole, app)?;
        Ok(found)
    }

    /// Looks up the items that a request names in place of saying them.
    async fn find_items(
        &mut self,
        asked: &Asked,
        request: &ResponsesRequest<'_>,
    ) -> Result<(), ApiError> {
        let named = request.references();
        let Some((first, _)) = named.first() else {
            return Ok(());
        };
        let (app, key) = (&asked.app, &asked.key);
        let unknown = |place: usize| {
            ApiError::Invalid {
            param: Some(format!("input[{place}]").into()),
            message: "There is no such item: it is not of a response of this key's that was kept and has not expired. Send the item itself.".into(),
        }
        };
        if named.len() > ITEMS_MAX {
            return Err(invalid("input", "Too many items are named: send them."));
        }
        let ids: Vec<&str> = named.iter().map(|(_, id)| id.as_str()).collect();
        let store = &app.store;
        let kept = store.responses_that_said(key.account_id, key.key_id, &ids);
        let kept = kept.await?;
        let mut said = BTreeMap::new();
        for response in &kept {
            let items: Vec<&str> = response.items.iter().map(String::as_str).collect();
            match &response.body {
                Some(body) => said.extend(items_of(text(&body.response)?, &items)),
                None => {
                    let provider = provider(app, &response.model);
                    let provider = provider.ok_or_else(|| unknown(*first))?;
                    self.add("input", provider, response, &items)?;
                }
            }
        }
        let there = self.items();
        for (place, id) in &named {
            if !said.contains_key(id) && !there.contains(&id.as_str()) {
                return Err(unknown(*place));
            }
        }
        if said.is_empty() {
            return Ok(());
        }
        self.bounded(request.with_items(&said), app)
    }

    /// Adds what a provider keeps.
    fn add(
        &mut self,
        param: &'static str,
        provider: &Arc<Provider>,
        kept: &KeptResponse,
        items: &[&str],
    ) -> Result<(), ApiError> {
        let there = self.there.get_or_insert_with(|| There {
            param,
            provider: Arc::clone(&provider.name),
            tokens: 0,
            thought: 0,
            items: Vec::new(),
        });
        if there.provider != provider.name {
            return Err(invalid(
                param,
                "What this goes on with is kept by several providers: send the whole conversation as `input`.",
            ));
        }
        there.tokens = there.tokens.saturating_add(kept.tokens);
        there.thought = there.thought.saturating_add(kept.thought);
        there.items.extend(items.iter().map(ToString::to_string));
        Ok(())
    }

    /// Takes the whole request, within the bound of every other.
    fn bounded(&mut self, whole: Vec<u8>, app: &Shared) -> Result<(), ApiError> {
        let max = app.settings.body_bytes_max;
        if whole.len() > max {
            return Err(ApiError::TooLarge { max });
        }
        self.whole = Some(whole.into());
        Ok(())
    }

    /// The request with all that it goes on with or names, where that is kept here.
    pub(crate) const fn whole(&self) -> Option<&Bytes> {
        self.whole.as_ref()
    }

    /// The ids of the items that it names and its provider keeps.
    pub(crate) fn items(&self) -> Vec<&str> {
        let there = self.there.iter();
        let items = there.flat_map(|there| &there.items);
        items.map(String::as_str).collect()
    }

    /// Those of the targets that can go on with it.
    ///
    /// # Errors
    /// 400 where none can.
    pub(crate) fn retain(&self, targets: &mut Vec<&Arc<Model>>) -> Result<(), ApiError> {
        let Some(there) = &self.there else {
            return Ok(());
        };
        targets.retain(|model| {
            model.provider.name == there.provider
                && model.provider.quirks.responses == ResponsesApi::Stored
        });
        if targets.is_empty() {
            return Err(invalid(
                there.param,
                "Another provider keeps that response: go on with a model of the same, or send the whole conversation as `input`.",
            ));
        }
        Ok(())
    }

    /// The tokens that the provider puts before what was sent, and how much of them was thought.
    pub(crate) fn remembered(&self) -> Option<(u64, u64)> {
        let there = self.there.as_ref();
        there.map(|there| (there.tokens, there.thought))
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
            items: finished.items,
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

fn text(bytes: &[u8]) -> Result<&str, ApiError> {
    std::str::from_utf8(bytes).map_err(|_| ApiError::Internal)
}

fn invalid(param: &'static str, message: &'static str) -> ApiError {
    ApiError::Invalid {
        param: Some(param.into()),
        message: message.into(),
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
