//! What files and batches have in common: who asks, which provider keeps them, how it is asked, and lists of a key's own.

use std::{future::Future, sync::Arc};

use axum::{body::Body, extract::Request, response::Response};
use bytes::Bytes;
use http::{HeaderMap, Method};
use serde_json::{Value, json};
use store::{KeyRecord, ObjectKind, ObjectPage, OwnedObject, PAGE_ROWS_MAX};

use crate::{
    admit, answer,
    app::Shared,
    arrival::{self, Arrival},
    catalogue::Provider,
    error::ApiError,
    input::{Parameters, invalid},
    owned::{self, Names, owner},
    passthrough::{PlainPath, X_PROVIDER, theirs},
    upstream::{Failure, Passed, Reply},
};

/// Objects that a list has where nobody says how many.
const LISTED: u16 = 100;
/// Pages that are looked through for what a filter lets through.
const PAGES_MAX: usize = 100;

/// Lets a request in whose body is not read yet, and follows it to its end.
///
/// # Errors
/// As every endpoint has them, and what `run` says.
pub async fn serve<F>(
    app: Shared,
    endpoint: &'static str,
    request: Request,
    run: impl FnOnce(Arrival, Body) -> F,
) -> Result<Response, ApiError>
where
    F: Future<Output = Result<Response, ApiError>>,
{
    let watched = arrival::watched(app.clone(), endpoint, &request)?;
    let served = async {
        let (arrival, body) = Arrival::enter(app, watched.clone(), request).await?;
        run(arrival, body).await
    };
    let result = served.await;
    match &result {
        Ok(_) => watched.succeeded(),
        Err(error) => watched.failed(error),
    }
    result
}

/// Refuses an account without any credit.
///
/// # Errors
/// 402, or 503 when the books cannot be asked.
pub async fn solvent(app: &Shared, key: &KeyRecord) -> Result<(), ApiError> {
    admit::solvent(&app.ledger, &key.path).await
}

/// The key's own object of this name, and who keeps it.
///
/// # Errors
/// 404 for what is not the key's.
pub async fn own<'a>(
    app: &'a Shared,
    key: &KeyRecord,
    id: &str,
) -> Result<(OwnedObject, &'a Arc<Provider>), ApiError> {
    let mut names = Names::default();
    names.add(id);
    let known = names.look_up(&app.store, key).await?;
    let object = known.own(id)?.clone();
    let provider = kept_by(app, &object)?;
    Ok((object, provider))
}

/// Who keeps an object.
///
/// # Errors
/// 404 where the operator has taken the provider away.
pub fn kept_by<'a>(app: &'a Shared, object: &OwnedObject) -> Result<&'a Arc<Provider>, ApiError> {
    let providers = app.catalogue.providers();
    let found = providers
        .into_iter()
        .find(|provider| *provider.name == object.provider);
    found.ok_or_else(owned::nothing)
}

/// The provider that new files go to: the one in the header, the one that is set, or the only one.
///
/// # Errors
/// 404 where nobody keeps files, 400 where several do.
pub fn for_new<'a>(app: &'a Shared, headers: &HeaderMap) -> Result<&'a Arc<Provider>, ApiError> {
    let mut keep = app.catalogue.providers();
    keep.retain(|provider| provider.files);
    let all: Vec<&str> = keep.iter().map(|provider| &*provider.name).collect();
    let names = all.join(", ");
    if keep.is_empty() {
        return Err(ApiError::NotFound(
            "No provider here keeps files or works off batches.".into(),
        ));
    }
    let header = headers.get(X_PROVIDER);
    let set = app.settings.passthrough_provider.as_deref();
    if let Some(name) = header {
        keep.retain(|provider| name.as_bytes() == provider.name.as_bytes());
    } else if keep.iter().any(|provider| Some(&*provider.name) == set) {
        keep.retain(|provider| Some(&*provider.name) == set);
    }
    match keep.as_slice() {
        [provider] => Ok(provider),
        _ => Err(ApiError::Invalid {
            param: Some(X_PROVIDER.to_string().into()),
            message: format!(
                "Name the provider in the header {X_PROVIDER}; files are kept by: {names}."
            )
            .into(),
        }),
    }
}

/// A request about an object: its path below `/v1`, and what it carries.
pub struct About {
    /// Its method.
    pub method: Method,
    /// As `/files/file-abc`.
    pub path: String,
    /// What travels of its headers.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Option<Bytes>,
    /// In place of that, a body that comes piece by piece.
    pub coming: Option<reqwest::Body>,
}

impl About {
    /// One without a body.
    #[must_use]
    pub fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            headers: HeaderMap::new(),
            body: None,
            coming: None,
        }
    }
}

/// Asks a provider.
///
/// # Errors
/// What it failed with; that it has no such thing is a 404.
pub async fn ask(app: &Shared, provider: &Provider, about: About) -> Result<Reply, ApiError> {
    // What a provider has named is checked as what a client names.
    if PlainPath::read(&format!("/v1{}", about.path)).is_none() {
        return Err(owned::nothing());
    }
    let passed = Passed {
        method: about.method,
        path: about.path,
        query: None,
        headers: about.headers,
        body: about.body,
        coming: about.coming,
    };
    let answer = app.upstream.pass(provider, passed).await;
    answer.map_err(|failure| failed(provider, failure))
}

/// Asks a provider for a document.
///
/// # Errors
/// As [`ask`]; an answer that is no document.
pub async fn document(
    app: &Shared,
    provider: &Provider,
    about: About,
) -> Result<(Bytes, Value), ApiError> {
    let response = ask(app, provider, about).await?;
    let read = answer::read(response, &app.settings).await;
    let bytes = read.map_err(|failure| failed(provider, failure))?;
    let value: Value = serde_json::from_slice(&bytes)
        .ok()
        .filter(Value::is_object)
        .ok_or_else(|| failed(provider, Failure::Garbage("not a JSON object".into())))?;
    Ok((bytes, value))
}

/// A failure of a provider, logged.
pub fn failed(provider: &Provider, failure: Failure) -> ApiError {
    tracing::warn!(provider = &*provider.name, %failure, "a provider failed");
    theirs(ApiError::Upstream(failure))
}

/// What a list is asked for.
pub struct Asked {
    limit: u16,
    after: Option<String>,
    oldest_first: bool,
    purpose: Option<String>,
}

impl Asked {
    /// Takes the parameters of OpenAI's lists.
    ///
    /// # Errors
    /// 400 that names the parameter.
    pub fn read(mut parameters: Parameters) -> Result<Self, ApiError> {
        let limit = parameters.read("limit", |text| {
            text.parse()
                .ok()
                .filter(|limit: &u32| (1..=10_000).contains(limit))
                .ok_or("is a whole number from 1 to 10000")
        })?;
        let limit = limit.map_or(LISTED, |limit| {
            u16::try_from(limit)
                .unwrap_or(PAGE_ROWS_MAX)
                .min(PAGE_ROWS_MAX)
        });
        let after = match parameters.text("after")? {
            Some(after) => Some(after),
            None => parameters.text("cursor")?,
        };
        let order = parameters.text("order")?;
        let oldest_first = match order.as_deref() {
            None | Some("desc") => false,
            Some("asc") => true,
            Some(_) => return Err(invalid("order", "is asc or desc")),
        };
        let purpose = parameters.text("purpose")?;
        parameters.finish()?;
        Ok(Self {
            limit,
            after,
            oldest_first,
            purpose,
        })
    }

    /// The page of the key's own objects, and whether there are more.
    ///
    /// # Errors
    /// 404 for an `after` that is not the key's; 503.
    pub async fn page(
        &self,
        app: &Shared,
        key: &KeyRecord,
        kind: ObjectKind,
    ) -> Result<(Vec<OwnedObject>, bool), ApiError> {
        let mut after = match &self.after {
            None => None,
            Some(id) => Some(own(app, key, id).await?.0),
        };
        let mut found = Vec::new();
        for _ in 0..PAGES_MAX {
            let page = ObjectPage {
                limit: self.limit,
                after: after.as_ref(),
                oldest_first: self.oldest_first,
            };
            let (objects, more) = app.store.objects_of(owner(key), kind, page).await?;
            after = objects.last().cloned();
            let wanted = |object: &OwnedObject| match &self.purpose {
                None => true,
                Some(purpose) => about(object)["purpose"] == **purpose,
            };
            found.extend(objects.into_iter().filter(wanted));
            let limit = usize::from(self.limit);
            if found.len() > limit {
                found.truncate(limit);
                return Ok((found, true));
            }
            if !more || found.len() == limit {
                return Ok((found, more));
            }
        }
        Ok((found, true))
    }
}

/// What the provider said of an object last.
#[must_use]
pub fn about(object: &OwnedObject) -> Value {
    let kept = object.about.as_deref().unwrap_or_default();
    serde_json::from_str(kept).unwrap_or_else(|_| json!({"id": object.id}))
}

/// A list as OpenAI's clients and ours read it.
#[must_use]
pub fn list(objects: &[OwnedObject], shown: Vec<Value>, more: bool) -> Response {
    let first = objects.first().map(|object| &*object.id);
    let last = objects.last().map(|object| &*object.id);
    let body = json!({
        "object": "list",
        "data": shown,
        "first_id": first,
        "last_id": last,
        "has_more": more,
        "next_cursor": last.filter(|_| more),
    });
    answer::json(Bytes::from(body.to_string()))
}
