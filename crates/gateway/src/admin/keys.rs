//! API keys: made, listed, changed, rotated and revoked. The secret is in two answers only.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use billing::{AccountId, Credits, KeyId};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use store::{CreatedKey, CreatedOnce, Key, KeyFilter, KeyPatch, NewKey};
use utoipa::ToSchema;

use super::{
    accounts::AccountView,
    metadata::{Metadata, clearable, present},
};
use crate::{
    app::Shared,
    error::ApiError,
    input::{Id, JsonBody, Parameters},
    once::{self, REPLAYED},
    shape::{List, Time},
};

/// An answer with a secret is kept by no cache.
const NO_STORE: [(HeaderName, HeaderValue); 1] =
    [(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))];

/// A new key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateKey {
    /// For your eyes; 1 to 200 characters.
    name: String,
    /// Whose it is; absent: the key gets an account of its own.
    #[schema(value_type = Option<String>)]
    account_id: Option<AccountId>,
    /// Credits to add to the account as a purchase.
    #[schema(value_type = Option<String>, example = "5")]
    credits: Option<Credits>,
    /// The most that the key may spend in its life.
    #[schema(value_type = Option<String>)]
    limit: Option<Credits>,
    /// The models that it may use; absent: all.
    models: Option<Vec<String>>,
    /// When it stops working.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    #[serde(default)]
    #[schema(value_type = Option<Metadata>)]
    metadata: Metadata,
}

/// What to change of a key; what is absent stays, `null` takes a limit away.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeKey {
    #[serde(default, deserialize_with = "present")]
    name: Option<String>,
    /// The most that the key may spend in its life.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<String>)]
    limit: Option<Option<Credits>>,
    /// The models that it may use.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<Vec<String>>)]
    models: Option<Option<Vec<String>>>,
    /// When it stops working.
    #[serde(default, deserialize_with = "clearable")]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Option<Time>>,
    /// Replaces the old notes.
    #[serde(default, deserialize_with = "present")]
    metadata: Option<Metadata>,
}

/// A key without its secret.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Key)]
pub struct KeyView {
    /// Always `key`.
    #[schema(example = "key")]
    object: &'static str,
    #[schema(value_type = String, example = "key_0190aabbccdd70000000000000000000")]
    id: KeyId,
    #[schema(value_type = String)]
    account_id: AccountId,
    name: String,
    /// The secret's first letters.
    prefix: String,
    /// The most that it may spend in its life.
    #[schema(value_type = Option<String>)]
    limit: Option<Credits>,
    /// What is left of the limit.
    #[schema(value_type = Option<String>)]
    remaining: Option<Credits>,
    /// What its requests have taken so far.
    #[schema(value_type = String)]
    usage: Credits,
    /// The models that it may use; `null` is all.
    models: Option<Vec<String>>,
    /// When it stops working.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Time>,
    metadata: Metadata,
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Time,
}

/// A key that an earlier call made, as it is now, with its account.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct KeyMadeBefore {
    #[serde(flatten)]
    key: KeyView,
    /// Always `null`: the secret was in the first answer alone and is kept nowhere. Where that
    /// answer was lost, `POST /admin/v1/keys/{id}/rotate` gives the key a new one.
    secret: Option<String>,
    account: AccountView,
}

/// A key with its secret, which is shown this once.
#[derive(Clone, Serialize, ToSchema)]
pub struct KeyWithSecret {
    #[serde(flatten)]
    key: KeyView,
    /// What clients send. It cannot be read again.
    #[schema(example = "sk-tw-…")]
    secret: String,
    /// The key's account, where the key is new.
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<AccountView>,
}

impl std::fmt::Debug for KeyWithSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KeyWithSecret")
            .field("key", &self.key)
            .finish_non_exhaustive()
    }
}

impl From<Key> for KeyView {
    fn from(key: Key) -> Self {
        Self {
            object: "key",
            id: key.id,
            account_id: key.account_id,
            name: key.name,
            prefix: key.prefix,
            limit: key.limit,
            remaining: key.remaining,
            usage: key.used,
            models: key.models,
            expires_at: key.expires_at.map(Time),
            revoked_at: key.revoked_at.map(Time),
            metadata: Metadata(key.metadata),
            created_at: Time(key.created_at),
            updated_at: Time(key.updated_at),
        }
    }
}

type Shown = (
    StatusCode,
    [(HeaderName, HeaderValue); 1],
    Json<KeyWithSecret>,
);

/// `POST /keys`: once for each Idempotency-Key, credits included.
pub async fn create(
    State(app): State<Shared>,
    headers: HeaderMap,
    JsonBody(call): JsonBody<CreateKey>,
) -> Result<Response, ApiError> {
    let once = once::key(&headers)?;
    let key = NewKey {
        name: call.name,
        account_id: call.account_id,
        credits: call.credits,
        limit: call.limit,
        models: call.models,
        expires_at: call.expires_at.map(|time| time.0),
        metadata: call.metadata.0,
    };
    let Some(once) = once else {
        return Ok(shown(app.store.create_key(key).await?).into_response());
    };
    match app.store.create_key_once(key, &once).await? {
        CreatedOnce::Made(created) => Ok(shown(*created).into_response()),
        CreatedOnce::Before(before) => {
            let (key, account) = *before;
            let before = KeyMadeBefore {
                key: key.into(),
                secret: None,
                account: account.into(),
            };
            let replayed = [(REPLAYED, HeaderValue::from_static("true"))];
            Ok((StatusCode::OK, NO_STORE, replayed, Json(before)).into_response())
        }
    }
}

fn shown(created: CreatedKey) -> Shown {
    let shown = KeyWithSecret {
        key: created.key.into(),
        secret: created.secret.expose().to_owned(),
        account: Some(created.account.into()),
    };
    (StatusCode::CREATED, NO_STORE, Json(shown))
}

/// `GET /keys`.
pub async fn list(
    State(app): State<Shared>,
    mut query: Parameters,
) -> Result<Json<List<KeyView>>, ApiError> {
    let page = query.page()?;
    let filter = KeyFilter {
        account_id: query.parsed("account_id")?,
        with_revoked: query
            .read("with_revoked", |text| {
                text.parse().map_err(|_| "write true or false")
            })?
            .unwrap_or(false),
    };
    query.finish()?;
    let keys = app.store.keys(filter, page).await?;
    Ok(Json(List::of(keys, KeyView::from)))
}

/// `GET /keys/{id}`.
pub async fn one(State(app): State<Shared>, Id(id): Id<KeyId>) -> Result<Json<KeyView>, ApiError> {
    Ok(Json(app.store.key(id).await?.into()))
}

/// `PATCH /keys/{id}`.
pub async fn change(
    State(app): State<Shared>,
    Id(id): Id<KeyId>,
    JsonBody(call): JsonBody<ChangeKey>,
) -> Result<Json<KeyView>, ApiError> {
    let patch = KeyPatch {
        name: call.name,
        limit: call.limit,
        models: call.models,
        expires_at: call.expires_at.map(|time| time.map(|time| time.0)),
        metadata: call.metadata.map(|metadata| metadata.0),
    };
    Ok(Json(app.store.update_key(id, patch).await?.into()))
}

/// `DELETE /keys/{id}`: the key as it is now, revoked.
pub async fn revoke(
    State(app): State<Shared>,
    Id(id): Id<KeyId>,
) -> Result<Json<KeyView>, ApiError> {
    Ok(Json(app.store.revoke_key(id).await?.into()))
}

/// `POST /keys/{id}/rotate`.
pub async fn rotate(State(app): State<Shared>, Id(id): Id<KeyId>) -> Result<Shown, ApiError> {
    let (key, secret) = app.store.rotate_key(id).await?;
    let shown = KeyWithSecret {
        key: key.into(),
        secret: secret.expose().to_owned(),
        account: None,
    };
    Ok((StatusCode::OK, NO_STORE, Json(shown)))
}
