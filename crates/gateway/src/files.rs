//! `/v1/files`: kept by a provider, passed through as they come, and each the key's that sent it.

use std::{io, time::Duration};

use axum::{
    body::Body,
    extract::{FromRequestParts as _, Request, State},
    response::Response,
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use store::{NewObject, ObjectKind};

use crate::{
    answer,
    app::Shared,
    arrival::Arrival,
    body,
    error::ApiError,
    forwarded::relay,
    input::Parameters,
    objects::{self, About},
    owned::{self, owner},
    results,
};

/// The name in the books and in metrics.
const ENDPOINT: &str = "files";
/// What is thrown away of a file that is too large, and how long that may take.
const DISCARD_BYTES_MAX: usize = 32 << 20;
const DISCARD_TIME_MAX: Duration = Duration::from_secs(3);
/// Between two pieces of a file that is sent.
const PIECE_TIME_MAX: Duration = Duration::from_secs(30);

/// `POST /v1/files`: a form with a file, passed on as it comes.
///
/// # Errors
/// 400 for what is no form, 402 without credit, 413 over `file_bytes_max`, what the provider failed
/// with.
pub async fn upload(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |arrival, body| async move {
        match admitted(&arrival).await {
            Ok(headers) => pass_on(&arrival, headers, body).await,
            Err(error) => Err(body::refuse(body, error).await),
        }
    })
    .await
}

/// The headers of a form that may be passed on.
async fn admitted(arrival: &Arrival) -> Result<HeaderMap, ApiError> {
    let theirs = &arrival.parts.headers;
    let form = theirs
        .get(header::CONTENT_TYPE)
        .filter(|value| value.as_bytes().starts_with(b"multipart/form-data"));
    let Some(form) = form else {
        return Err(ApiError::Invalid {
            param: None,
            message: "Send this request as multipart/form-data, with the file in it.".into(),
        });
    };
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, form.clone());
    let max = arrival.app.settings.file_bytes_max;
    let announced = theirs.get(header::CONTENT_LENGTH);
    let bytes = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if bytes.is_some_and(|bytes| bytes > max) {
        return Err(too_large(max));
    }
    if let Some(bytes) = bytes {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    }
    if theirs.contains_key(header::CONTENT_ENCODING) {
        return Err(ApiError::Invalid {
            param: None,
            message: "Compressed request bodies are not taken. Send it without Content-Encoding."
                .into(),
        });
    }
    objects::solvent(&arrival.app, &arrival.key).await?;
    Ok(headers)
}

async fn pass_on(arrival: &Arrival, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let app = &arrival.app;
    let provider = match objects::for_new(app, &arrival.parts.headers) {
        Ok(provider) => provider,
        Err(error) => return Err(body::refuse(body, error).await),
    };
    arrival.watched.goes_upstream();
    let max = app.settings.file_bytes_max;
    let (over, was_over) = tokio::sync::watch::channel(false);
    let state = (body.into_data_stream(), 0_u64, over);
    let pieces = stream::unfold(state, move |(mut pieces, passed, over)| async move {
        let next = tokio::time::timeout(PIECE_TIME_MAX, pieces.next()).await;
        let piece = match next {
            Ok(Some(Ok(piece))) => piece,
            Ok(None) => return None,
            Ok(Some(Err(_))) | Err(_) => {
                let broken = Err(io::Error::other("the file broke off"));
                return Some((broken, (pieces, passed, over)));
            }
        };
        let passed = passed.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        if passed > max {
            over.send_replace(true);
            throw_away(&mut pieces).await;
            let broken = Err(io::Error::other("the file is too large"));
            return Some((broken, (pieces, passed, over)));
        }
        Some((Ok(piece), (pieces, passed, over)))
    });
    let about = About {
        headers,
        coming: Some(reqwest::Body::wrap_stream(pieces)),
        ..About::new(Method::POST, "/files".into())
    };
    let answered = objects::document(app, provider, about).await;
    if *was_over.borrow() {
        return Err(too_large(max));
    }
    let (bytes, value) = answered?;
    let Some(id) = value["id"].as_str() else {
        return Err(ApiError::Upstream(crate::upstream::Failure::Garbage(
            "a file without an id".into(),
        )));
    };
    let about = value.to_string();
    let new = NewObject {
        owner: owner(&arrival.key),
        provider: &provider.name,
        id,
        kind: ObjectKind::File,
        about: Some(&about),
        made_by: None,
        batch: None,
    };
    if !app.store.own(&new).await? {
        return Err(owned::nothing());
    }
    Ok(answer::json(bytes))
}

/// Throws the rest of a file away, within bounds, so that its sender gets to read the refusal.
async fn throw_away(pieces: &mut axum::body::BodyDataStream) {
    let rest = async {
        let mut bytes = 0;
        while let Some(Ok(piece)) = pieces.next().await {
            bytes += piece.len();
            if bytes > DISCARD_BYTES_MAX {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME_MAX, rest).await;
}

fn too_large(max: u64) -> ApiError {
    ApiError::TooLarge {
        max: usize::try_from(max).unwrap_or(usize::MAX),
    }
}

/// `GET /v1/files`: the key's own, from our books.
///
/// # Errors
/// 400 for a parameter, 402 without credit.
pub async fn list(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |mut arrival, _| async move {
        let parameters = Parameters::from_request_parts(&mut arrival.parts, &()).await?;
        let asked = objects::Asked::read(parameters)?;
        objects::solvent(&arrival.app, &arrival.key).await?;
        let page = asked.page(&arrival.app, &arrival.key, ObjectKind::File);
        let (files, more) = page.await?;
        let shown = files.iter().map(objects::about).collect();
        Ok(objects::list(&files, shown, more))
    })
    .await
}

/// `GET /v1/files/{id}`.
///
/// # Errors
/// 404 for what is not the key's, 402 without credit.
pub async fn one(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |arrival, _| async move {
        let (file, provider) = objects::own(&arrival.app, &arrival.key, id(&arrival)).await?;
        objects::solvent(&arrival.app, &arrival.key).await?;
        let about = About::new(Method::GET, format!("/files/{}", file.id));
        let (bytes, value) = objects::document(&arrival.app, provider, about).await?;
        arrival
            .app
            .store
            .describe(&file, &value.to_string())
            .await?;
        Ok(answer::json(bytes))
    })
    .await
}

/// `DELETE /v1/files/{id}`: also without credit; results of a batch when they are paid for.
///
/// # Errors
/// 404 for what is not the key's, 402 where credit for results is missing.
pub async fn delete(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |arrival, _| async move {
        let (file, provider) = objects::own(&arrival.app, &arrival.key, id(&arrival)).await?;
        // Work that was done is not thrown away to get it for nothing.
        if file.made_by.is_some() && !file.paid {
            let request = arrival.watched.request_id();
            results::pay(&arrival.app, &arrival.key, &file, request).await?;
        }
        let about = About::new(Method::DELETE, format!("/files/{}", file.id));
        let deleted = objects::document(&arrival.app, provider, about).await;
        if let Ok(_) | Err(ApiError::NotFound(_)) = &deleted {
            arrival.app.store.disown(&file).await?;
        }
        Ok(answer::json(deleted?.0))
    })
    .await
}

/// `GET /v1/files/{id}/content`: the bytes as they come; results of a batch when they are paid for.
///
/// # Errors
/// 404 for what is not the key's, 402 without credit or where credit for results is missing.
pub async fn content(State(app): State<Shared>, request: Request) -> Result<Response, ApiError> {
    objects::serve(app, ENDPOINT, request, |arrival, _| async move {
        let app = &arrival.app;
        let (file, provider) = objects::own(app, &arrival.key, id(&arrival)).await?;
        if file.made_by.is_some() && !file.paid {
            results::pay(app, &arrival.key, &file, arrival.watched.request_id()).await?;
        } else if file.made_by.is_none() {
            objects::solvent(app, &arrival.key).await?;
        }
        let about = About::new(Method::GET, format!("/files/{}/content", file.id));
        let response = objects::ask(app, provider, about).await?;
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let length = response.headers().get(header::CONTENT_LENGTH);
        let empty =
            response.status() == StatusCode::NO_CONTENT || length.is_some_and(|text| text == "0");
        let body = if empty {
            Body::empty()
        } else {
            let first = relay::first(response, &app.settings).await;
            let bytes = first.map_err(|failure| objects::failed(provider, failure))?;
            bytes.passed_on(arrival.watched.clone())
        };
        let mut answer = Response::new(body);
        let plain = HeaderValue::from_static("application/octet-stream");
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, kind.unwrap_or(plain));
        Ok(answer)
    })
    .await
}

/// The name in the path, as it was written.
fn id(arrival: &Arrival) -> &str {
    let path = arrival.parts.uri.path();
    path.split('/').nth(3).unwrap_or_default()
}
