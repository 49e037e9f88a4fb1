//! `/v1/responses/{id}`: responses that were kept, for the key that made them; and what a request would count.

use axum::{
    Json,
    extract::{Request, State},
    response::Response,
};
use bytes::Bytes;
use dialect::{
    ChatRequest, ClientDialect, ClientRequest, Endpoint, Pair, RequestLimits, listed_input,
};
use http::{HeaderMap, Method, StatusCode, Uri};
use serde::Serialize;
use store::{KeptResponse, KeyRecord};
use utoipa::ToSchema;

use crate::{
    admit::Ask,
    answer,
    app::Shared,
    arrival,
    auth::ClientKey,
    chat,
    error::ApiError,
    input::{Id, Parameters, invalid},
    kept, targets,
    upstream::{Failure, Passed},
};

/// Items of a page where the client does not say.
const ITEMS: usize = 20;
/// Items of a page at most.
const ITEMS_MAX: usize = 100;

/// What is left of a response that was deleted.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DeletedResponse {
    id: String,
    /// Always `response`.
    #[schema(example = "response")]
    object: &'static str,
    /// Always `true`.
    deleted: bool,
}

/// The tokens of a request.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
pub struct InputTokens {
    /// Always `response.input_tokens`.
    #[schema(example = "response.input_tokens")]
    object: &'static str,
    /// Tokens of the input, the instructions and the tools, counted here.
    input_tokens: u64,
}

/// In which order items are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Newest,
    Oldest,
}

impl Order {
    const fn name(self) -> &'static str {
        match self {
            Self::Newest => "desc",
            Self::Oldest => "asc",
        }
    }
}

/// `GET /v1/responses/{id}`: a response that was kept, as it was given.
///
/// # Errors
/// 404 for one that this key did not make, 400 for what is asked of it and not offered.
pub async fn retrieve(
    State(app): State<Shared>,
    ClientKey(key): ClientKey,
    Id(id): Id<String>,
    uri: Uri,
    mut query: Parameters,
) -> Result<Response, ApiError> {
    skip_include(&mut query);
    if query.parsed::<bool>("stream")? == Some(true) {
        let problem = "a response that is over is not streamed again; leave it out";
        return Err(invalid("stream", problem));
    }
    let _ = query.parsed::<bool>("include_obfuscation")?;
    query.finish()?;
    let kept = find(&app, &key, &id).await?;
    match &kept.body {
        Some(body) => Ok(answer::json(Bytes::copy_from_slice(&body.response))),
        None => {
            let path = format!("/responses/{id}");
            let asked = ask(&app, &kept, Method::GET, path, uri.query()).await;
            asked.map(answer::json)
        }
    }
}

/// `GET /v1/responses/{id}/input_items`: what was sent, the newest first.
///
/// # Errors
/// As [`retrieve`].
pub async fn input_items(
    State(app): State<Shared>,
    ClientKey(key): ClientKey,
    Id(id): Id<String>,
    uri: Uri,
    mut query: Parameters,
) -> Result<Response, ApiError> {
    skip_include(&mut query);
    let limit = query.read("limit", |text| {
        let limit = text
            .parse()
            .ok()
            .filter(|limit| (1..=ITEMS_MAX).contains(limit));
        limit.ok_or_else(|| format!("expected a whole number from 1 to {ITEMS_MAX}"))
    })?;
    let order = query.one_of("order", &[Order::Newest, Order::Oldest], Order::name)?;
    let after = query.text("after")?;
    query.finish()?;
    let kept = find(&app, &key, &id).await?;
    let Some(body) = &kept.body else {
        let path = format!("/responses/{id}/input_items");
        let asked = ask(&app, &kept, Method::GET, path, uri.query()).await;
        return asked.map(answer::json);
    };
    let input = std::str::from_utf8(&body.input).map_err(|_| ApiError::Internal)?;
    let mut items = listed_input(input, &id);
    if order != Some(Order::Oldest) {
        items.reverse();
    }
    if let Some(after) = after {
        let place = items.iter().position(|(id, _)| *id == after);
        let place = place.ok_or_else(|| invalid("after", "there is no such item"))?;
        items.drain(..=place);
    }
    let limit = limit.unwrap_or(ITEMS);
    let more = items.len() > limit;
    items.truncate(limit);
    let quoted = |item: Option<&(String, String)>| {
        serde_json::to_string(&item.map_or("", |(id, _)| id)).unwrap_or_default()
    };
    let shown: Vec<&str> = items.iter().map(|(_, item)| item.as_str()).collect();
    Ok(answer::json(Bytes::from(format!(
        r#"{{"object":"list","data":[{}],"first_id":{},"last_id":{},"has_more":{more}}}"#,
        shown.join(","),
        quoted(items.first()),
        quoted(items.last()),
    ))))
}

/// `DELETE /v1/responses/{id}`: forgets a response, here and at its provider.
///
/// # Errors
/// 404 for one that this key did not make.
pub async fn delete(
    State(app): State<Shared>,
    ClientKey(key): ClientKey,
    Id(id): Id<String>,
) -> Result<Json<DeletedResponse>, ApiError> {
    let kept = find(&app, &key, &id).await?;
    if kept.body.is_none() {
        let path = format!("/responses/{id}");
        match ask(&app, &kept, Method::DELETE, path, None).await {
            // What its provider has forgotten is forgotten.
            Ok(_) | Err(ApiError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
    }
    app.store
        .forget_response(key.account_id, key.key_id, &id)
        .await?;
    Ok(Json(DeletedResponse {
        id,
        object: "response",
        deleted: true,
    }))
}

/// `POST /v1/responses/{id}/cancel`: nothing runs in the background, so nothing can be cancelled.
///
/// # Errors
/// 404 for one that this key did not make, else 400.
pub async fn cancel(
    State(app): State<Shared>,
    ClientKey(key): ClientKey,
    Id(id): Id<String>,
) -> Result<Response, ApiError> {
    find(&app, &key, &id).await?;
    Err(ApiError::Invalid {
        param: None,
        message: "Only a response that runs in the background can be cancelled; this one is over."
            .into(),
    })
}

/// `POST /v1/responses/input_tokens`: counts the tokens of a request. Nothing is spent, and no credit
/// is needed.
///
/// # Errors
/// As the request itself, 402 apart.
pub async fn count(
    State(app): State<Shared>,
    request: Request,
) -> Result<Json<InputTokens>, ApiError> {
    let (key, body) = arrival::read(&app, request).await?;
    let limits = RequestLimits::default();
    let said = ClientRequest::parse(ClientDialect::Responses, &body, &limits)?;
    let targets = targets::serving(&app, &key, said.model(), Endpoint::Chat)?;
    let model = *targets.first().ok_or(ApiError::ModelNotFound)?;
    let provider = &model.provider;
    let pair = Pair::new(ClientDialect::Responses, provider.dialect, &provider.quirks);
    let composed = chat::compose(&said, pair, model)?;
    let request = ChatRequest::parse(&composed, &limits)?;
    let usage = Ask::new(&request, &composed, model).count().await;
    Ok(Json(InputTokens {
        object: "response.input_tokens",
        input_tokens: usage.prompt_total(),
    }))
}

async fn find(app: &Shared, key: &KeyRecord, id: &str) -> Result<KeptResponse, ApiError> {
    kept::find(app, key, id).await?.ok_or_else(not_found)
}

fn not_found() -> ApiError {
    ApiError::NotFound(
        "There is no such response: it is not this key's, was not kept, was deleted, or has expired."
            .into(),
    )
}

/// What is to be shown beside is for a provider that keeps the response: what is kept here has all.
fn skip_include(query: &mut Parameters) {
    for name in ["include", "include[]"] {
        query.skip(name);
    }
}

/// Asks the provider that keeps a response. Of the query every name was looked at.
async fn ask(
    app: &Shared,
    kept: &KeptResponse,
    method: Method,
    path: String,
    query: Option<&str>,
) -> Result<Bytes, ApiError> {
    let provider = kept::provider(app, &kept.model).ok_or_else(not_found)?;
    let passed = Passed {
        method,
        path,
        query: query.map(str::to_owned),
        headers: HeaderMap::new(),
        body: None,
        coming: None,
    };
    let answered = match app.upstream.pass(provider, passed).await {
        Ok(response) => answer::read(response, &app.settings).await,
        Err(failure) => Err(failure),
    };
    answered.map_err(|failure| {
        let missing = matches!(&failure, Failure::Refused { status, .. }
            if *status == StatusCode::NOT_FOUND);
        if missing {
            not_found()
        } else {
            ApiError::Upstream(failure)
        }
    })
}
