//! `/v1/batches`: requests in a file that a provider works off, checked before, and paid for before their results are handed out.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::{FromRequestParts as _, Request, State},
    response::Response,
};
use bytes::Bytes;
use dialect::{Endpoint, Forwarded, RequestLimits};
use futures_util::future::join_all;
use http::{HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};
use store::{KeyRecord, NewObject, ObjectKind, OwnedObject, StandingHold, Stood};
use tokens::Usage;

use billing::{Credits, Price};

use crate::{
    admit, answer,
    app::Shared,
    arrival::{self, Asked},
    batch_lines::Lines,
    catalogue::{Model, Provider},
    chat,
    error::ApiError,
    input::Parameters,
    objects::{self, About},
    owned::{self, Names, owner},
    recording::Recording,
    results,
    upstream::Failure,
    words::Words,
};

/// The name in the books and in metrics.
const ENDPOINT: &str = "batches";
/// Batches of a list that are asked about at once.
const ASKED_AT_ONCE: usize = 8;
/// Tokens that a model may put around what it reads.
const FRAME_TOKENS: u64 = 16;

/// A request in a file.
#[derive(Deserialize)]
struct Line<'a> {
    custom_id: String,
    url: String,
    #[serde(borrow)]
    body: &'a RawValue,
}

/// `POST /v1/batches`.
///
/// # Errors
/// 400 for what the file's requests may not do, 402 where their worst case is not there, 404 for a
/// file that is not the key's.
pub async fn create(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    let check = |asked: &Asked| wanted(&asked.body).map(|_| ());
    arrival::serve(app, ENDPOINT, request, check, run).await
}

/// What a batch is made of.
struct Wanted {
    value: Value,
    input: String,
    /// As in the body, `/v1/chat/completions`.
    path: String,
    endpoint: Endpoint,
}

fn wanted(body: &[u8]) -> Result<Wanted, ApiError> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &'static str| match value[name].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong(name, format!("`{name}` is missing; it is a text."))),
    };
    let (input, path) = (text("input_file_id")?, text("endpoint")?);
    let endpoint = match path.as_str() {
        "/v1/chat/completions" | "/v1/responses" => Endpoint::Chat,
        "/v1/completions" => Endpoint::Completions,
        "/v1/embeddings" => Endpoint::Embeddings,
        "/v1/moderations" => Endpoint::Moderations,
        _ => {
            return Err(wrong(
                "endpoint",
                "`endpoint` is /v1/chat/completions, /v1/responses, /v1/completions, /v1/embeddings or /v1/moderations.".into(),
            ));
        }
    };
    Ok(Wanted {
        value,
        input,
        path,
        endpoint,
    })
}

async fn run(asked: Asked, mut recording: Option<Recording>) -> Result<Response, ApiError> {
    let Asked {
        app, key, watched, ..
    } = &asked;
    let wanted = wanted(&asked.body)?;
    let (file, provider) = objects::own(app, key, &wanted.input).await?;
    let mut names = Names::default();
    names.add_json(&wanted.value);
    let known = names.look_up(&app.store, key).await?;
    known.allow(&provider.name)?;
    if !provider.files {
        return Err(owned::nothing());
    }
    objects::solvent(app, key).await?;
    let plan = plan(app, key, provider, &file, &wanted).await?;
    watched.goes_upstream();
    let beginning = Beginning {
        app: Arc::clone(app),
        key: Arc::clone(key),
        provider: Arc::clone(provider),
        body: asked.body.clone(),
        plan,
    };
    // Goes on when the client leaves: what the provider has begun has its owner and its hold.
    let bytes = match tokio::spawn(beginning.run()).await {
        Ok(begun) => begun?,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(_) => return Err(ApiError::Stopping),
    };
    watched.succeeded();
    if let Some(recording) = recording.take() {
        recording.answered(&bytes);
    }
    Ok(answer::json(bytes))
}

/// A batch that was looked through, and is about to begin.
struct Beginning {
    app: Shared,
    key: Arc<KeyRecord>,
    provider: Arc<Provider>,
    body: Bytes,
    plan: Plan,
}

impl Beginning {
    /// Sets the worst case aside in the database, which holds it until the results are paid for,
    /// and has the provider begin. Where that does not, it is given back.
    async fn run(self) -> Result<Bytes, ApiError> {
        let (app, key) = (&self.app, &self.key);
        let (owner, worst) = (owner(key), self.plan.worst);
        let hold = match app.store.stand(owner, key.has_limit(), worst).await? {
            Stood::Held(hold) => hold,
            Stood::Short(shortfall) => {
                return Err(admit::refused(&shortfall, worst, Credits::ZERO));
            }
        };
        let begun = self.begin(&hold).await;
        if begun.is_err() {
            app.store.end_standing(&hold).await?;
        }
        begun
    }

    async fn begin(&self, hold: &StandingHold) -> Result<Bytes, ApiError> {
        let (app, provider) = (&self.app, &self.provider);
        let mut about = About::new(Method::POST, "/batches".into());
        let json = HeaderValue::from_static("application/json");
        about.headers.insert(header::CONTENT_TYPE, json);
        about.body = Some(self.body.clone());
        let (bytes, value) = objects::document(app, provider, about).await?;
        let Some(id) = value["id"].as_str() else {
            let failure = Failure::Garbage("a batch without an id".into());
            return Err(objects::failed(provider, failure));
        };
        let said = value.to_string();
        let new = NewObject {
            owner: hold.owner,
            provider: &provider.name,
            id,
            kind: ObjectKind::Batch,
            about: Some(&said),
            made_by: None,
            batch: Some((&self.plan.model.full_name, hold)),
        };
        if !app.store.own(&new).await? {
            return Err(owned::nothing());
        }
        Ok(bytes)
    }
}

/// What a file's requests come to.
struct Plan {
    model: Arc<Model>,
    worst: Credits,
}

/// Reads the requests in a file: one model, one endpoint, nothing that is somebody else's, and what
/// they may cost at most.
async fn plan(
    app: &Shared,
    key: &KeyRecord,
    provider: &Arc<Provider>,
    file: &OwnedObject,
    wanted: &Wanted,
) -> Result<Plan, ApiError> {
    let about = About::new(Method::GET, format!("/files/{}/content", file.id));
    let response = objects::ask(app, provider, about).await?;
    let mut lines = Lines::new(response, app, provider);
    let mut plan: Option<(Plan, Arc<Price>)> = None;
    let mut number = 0_usize;
    while let Some(line) = lines.next().await? {
        number += 1;
        if line.trim_ascii().is_empty() {
            continue;
        }
        let wrong = |what: &str| wrong_line(number, what);
        let read: Line<'_> = serde_json::from_slice(&line)
            .map_err(|_| wrong("is no request: it has custom_id, method, url and body"))?;
        if read.url != wanted.path {
            return Err(wrong("is for another endpoint than the batch"));
        }
        if read.custom_id.is_empty() {
            return Err(wrong("has an empty custom_id"));
        }
        let body = read.body.get().as_bytes();
        let limits = RequestLimits::default();
        let request =
            Forwarded::parse_unknown(body, &limits).map_err(|error| wrong(&error.message))?;
        owned::guard(app, key, body).await?;
        if plan.is_none() {
            let model = model(app, key, provider, request.model(), wanted.endpoint)?;
            let quoted = app.prices.quote_batch(&app.store, key, &model).await?;
            let worst = Credits::ZERO;
            plan = Some((Plan { model, worst }, quoted.priced.price.clone()));
        }
        let Some((plan, price)) = &mut plan else {
            return Err(ApiError::Internal);
        };
        if request.model() != plan.model.upstream_id {
            return Err(wrong("is for another model than those before it"));
        }
        if let Some(name) = unsupported(&provider.quirks.unsupported, body) {
            return Err(wrong(&format!(
                "has {name}, which this provider charges apart"
            )));
        }
        plan.worst =
            plan.worst
                .saturating_add(worst(&request, body, &plan.model, price, wanted.endpoint)?);
    }
    let plan = plan.map(|(plan, _)| plan);
    plan.ok_or_else(|| wrong("input_file_id", "The file has no requests.".into()))
}

/// The model of a batch, which its requests name as the provider does.
fn model(
    app: &Shared,
    key: &KeyRecord,
    provider: &Arc<Provider>,
    name: &str,
    endpoint: Endpoint,
) -> Result<Arc<Model>, ApiError> {
    let targets = chat::permitted(app, key, name)?;
    let here = |model: &&Arc<Model>| model.provider.name == provider.name;
    let Some(model) = targets.into_iter().find(here) else {
        return Err(ApiError::ModelNotFound);
    };
    if model.upstream_id != name {
        return Err(wrong(
            "model",
            format!(
                "A batch's file goes to its provider as it is: write {:?} in place of {name:?}.",
                model.upstream_id
            ),
        ));
    }
    if !model.endpoints.contains(&endpoint) {
        return Err(wrong(
            "model",
            "This model does not answer the endpoint of the batch.".into(),
        ));
    }
    Ok(Arc::clone(model))
}

/// What a request may cost at most: a token is at least a byte.
fn worst(
    request: &Forwarded<'_>,
    body: &[u8],
    model: &Model,
    price: &Price,
    endpoint: Endpoint,
) -> Result<Credits, ApiError> {
    let window = u64::from(model.context_window);
    let letters = model.tokenizer.upper_bound(body.len());
    /// An image by its address, or a file by its name, may be as much as the model can read.
    static ELSEWHERE: LazyLock<Words> = LazyLock::new(|| Words::new(&["image", "file"]));
    let elsewhere = ELSEWHERE.may_be_in(body);
    let many = matches!(endpoint, Endpoint::Embeddings | Endpoint::Moderations);
    let prompt = match (many, elsewhere) {
        // Each of many inputs may fill the window.
        (true, _) => letters.saturating_add(FRAME_TOKENS),
        (false, true) => window,
        (false, false) => letters.saturating_add(FRAME_TOKENS).min(window),
    };
    let output = if many {
        0
    } else {
        request
            .output_limit()
            .unwrap_or_else(|| u64::from(model.output_tokens_max))
            .min(window)
            .saturating_mul(request.inputs())
    };
    let usage = Usage {
        prompt,
        ..Usage::default()
    };
    Ok(price.worst_cost(&usage, output)?)
}

/// The first member that a request must not have.
fn unsupported<'a>(names: &'a [String], body: &[u8]) -> Option<&'a str> {
    let value: Value = serde_json::from_slice(body).unwrap_or_default();
    let has = |name: &&String| {
        value
            .get(name.as_str())
            .is_some_and(|value| !value.is_null())
    };
    names.iter().find(has).map(String::as_str)
}

fn wrong(param: &'static str, message: String) -> ApiError {
    ApiError::Invalid {
        param: Some(param.into()),
        message: message.into(),
    }
}

fn wrong_line(number: usize, what: &str) -> ApiError {
    wrong(
        "input_file_id",
        format!("Line {number} of the file {what}."),
    )
}

/// `GET /v1/batches/{id}`.
///
/// # Errors
/// 404 for what is not the key's, 402 without credit.
pub async fn one(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |arrival, _| async move {
        let id = id(arrival.parts.uri.path());
        let (batch, _) = objects::own(&arrival.app, &arrival.key, id).await?;
        objects::solvent(&arrival.app, &arrival.key).await?;
        let (bytes, _) = look(&arrival.app, &batch, Method::GET, "").await?;
        Ok(answer::json(bytes))
    })
    .await
}

/// `POST /v1/batches/{id}/cancel`: also without credit.
///
/// # Errors
/// 404 for what is not the key's.
pub async fn cancel(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |arrival, _| async move {
        let id = id(arrival.parts.uri.path());
        let (batch, _) = objects::own(&arrival.app, &arrival.key, id).await?;
        let (bytes, _) = look(&arrival.app, &batch, Method::POST, "/cancel").await?;
        Ok(answer::json(bytes))
    })
    .await
}

/// `GET /v1/batches`: the key's own.
///
/// # Errors
/// 400 for a parameter, 402 without credit.
pub async fn list(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |mut arrival, _| async move {
        let parameters = Parameters::from_request_parts(&mut arrival.parts, &()).await?;
        let asked = objects::Asked::read(parameters)?;
        let app = &arrival.app;
        objects::solvent(app, &arrival.key).await?;
        let page = asked.page(app, &arrival.key, ObjectKind::Batch);
        let (batches, more) = page.await?;
        let mut shown = Vec::with_capacity(batches.len());
        for some in batches.chunks(ASKED_AT_ONCE) {
            let mut looks = Vec::with_capacity(some.len());
            for batch in some {
                looks.push(seen(app, batch));
            }
            shown.extend(join_all(looks).await);
        }
        Ok(objects::list(&batches, shown, more))
    })
    .await
}

/// A batch as it is now; as it was known last where its provider does not say.
async fn seen(app: &Shared, batch: &OwnedObject) -> Value {
    let known = objects::about(batch);
    if is_over(&known) {
        return known;
    }
    match look(app, batch, Method::GET, "").await {
        Ok((_, now)) => now,
        Err(_) => known,
    }
}

/// Asks about a batch, and writes down what became of it: its results are the key's, unpaid. Where
/// nothing is left to be paid, its hold ends.
///
/// # Errors
/// What its provider failed with, 404 where that knows it no more.
pub(crate) async fn look(
    app: &Shared,
    batch: &OwnedObject,
    method: Method,
    more: &str,
) -> Result<(Bytes, Value), ApiError> {
    let provider = objects::kept_by(app, batch)?;
    let about = About::new(method, format!("/batches/{}{more}", batch.id));
    let (bytes, value) = objects::document(app, provider, about).await?;
    app.store.describe(batch, &value.to_string()).await?;
    // Results that are still being written are nobody's: what is paid for is all of them.
    if !is_over(&value) {
        return Ok((bytes, value));
    }
    for name in ["output_file_id", "error_file_id"] {
        let Some(id) = value[name].as_str() else {
            continue;
        };
        let new = NewObject {
            owner: batch.owner,
            provider: &provider.name,
            id,
            kind: ObjectKind::File,
            about: None,
            made_by: Some(&batch.id),
            batch: None,
        };
        if !app.store.own(&new).await? {
            return Err(owned::nothing());
        }
    }
    results::release(app, batch).await?;
    Ok((bytes, value))
}

/// Whether nothing more becomes of a batch.
fn is_over(batch: &Value) -> bool {
    let status = batch["status"].as_str().unwrap_or_default();
    matches!(status, "completed" | "failed" | "expired" | "cancelled")
}

/// The name in the path, as it was written.
fn id(path: &str) -> &str {
    path.split('/').nth(3).unwrap_or_default()
}
