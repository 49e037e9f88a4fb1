//! The OpenAPI document: every route of [`crate::app::router`], described from one table.

mod forwarded;
mod responses;
pub(crate) mod route;
pub(crate) mod routes;
mod schemas;

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;
use serde_json::{Map, Value, json};

use dialect::ClientDialect;

use crate::error::ApiError;
use route::{Access, Route};
use routes::ROUTES;
use schemas::Schemas;

/// `GET /openapi.json`.
///
/// # Errors
/// Never: the document is made of texts.
pub async fn document() -> Result<Response, ApiError> {
    static TEXT: LazyLock<Option<Bytes>> = LazyLock::new(|| text().ok().map(Bytes::from));
    let text = TEXT.clone().ok_or(ApiError::Internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], text).into_response())
}

/// The document as it is committed in `docs/api.openapi.json`: indented, with a line's end.
///
/// # Errors
/// Never: the document is made of texts.
pub fn text() -> Result<String, serde_json::Error> {
    Ok(serde_json::to_string_pretty(&build())? + "\n")
}

fn build() -> Value {
    let mut schemas = Schemas::default();
    let mut paths = Map::new();
    for route in ROUTES {
        let item = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.method.into(), operation(route, &mut schemas));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollway",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "MIT OR Apache-2.0"},
            "description": "A gateway for language models with prepaid credits. Amounts are decimal strings in credits, times RFC 3339 in UTC.",
        },
        "tags": [
            {"name": "clients", "description": "For those who have an API key: OpenAI's API, and what is left."},
            {"name": "operator", "description": "For the one who has the admin key: accounts, keys, credits and the books."},
            {"name": "running", "description": "Whether the program runs."},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas.into_value(),
            "securitySchemes": {
                "ApiKey": {"type": "http", "scheme": "bearer", "description": "A client's key, sk-tw-…"},
                "XApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A client's key, as Anthropic's SDKs send it."},
                "AzureApiKey": {"type": "apiKey", "in": "header", "name": "api-key", "description": "A client's key, as Azure's SDKs send it."},
                "AdminKey": {"type": "http", "scheme": "bearer", "description": "The operator's key."},
            },
        },
    })
}

fn operation(route: &Route, schemas: &mut Schemas) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "tags": [route.access.tag()],
        "security": route.access.security(),
        "responses": responses(route, schemas),
    });
    let parameters = parameters(route);
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = route.body {
        let kind = if route.form {
            "multipart/form-data"
        } else {
            "application/json"
        };
        operation["requestBody"] = json!({
            "required": true,
            "content": {kind: {"schema": body(schemas)}},
        });
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let path = route.path.contains("{id}").then(
        || json!({"name": "id", "in": "path", "required": true, "schema": {"type": "string"}}),
    );
    let query = route.query.iter().map(|(name, description)| {
        let schema = match *name {
            "limit" => json!({"type": "integer", "minimum": 1, "maximum": 1000}),
            _ => json!({"type": "string"}),
        };
        json!({
            "name": name,
            "in": "query",
            // The one parameter without which there is no answer: /v1/generation?id=…
            "required": *name == "id",
            "description": description,
            "schema": schema,
        })
    });
    let header = route.repeatable.then(|| {
        json!({
            "name": "Idempotency-Key",
            "in": "header",
            "required": false,
            "description": "Your own name of this call: with it a repeated call has no second effect.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        })
    });
    path.into_iter().chain(query).chain(header).collect()
}

fn responses(route: &Route, schemas: &mut Schemas) -> Value {
    let request_id = json!({"x-request-id": {
        "description": "Names the request; GET /v1/generation takes it.",
        "schema": {"type": "string"},
    }});
    let mut all = Map::new();
    for (status, description, answer) in route.answers {
        let mut content = Map::new();
        for (kind, schema) in *answer {
            content.insert((*kind).into(), json!({"schema": schema(schemas)}));
        }
        all.insert(
            (*status).into(),
            json!({"description": description, "headers": request_id, "content": content}),
        );
    }
    for status in route.access.refusals().iter().chain(route.refusals) {
        let (description, schema) = schemas.refusal(status, ClientDialect::of_path(route.path));
        all.insert(
            (*status).into(),
            json!({
                "description": description,
                "headers": request_id,
                "content": {"application/json": {"schema": schema}},
            }),
        );
    }
    all.into()
}

impl Access {
    const fn tag(self) -> &'static str {
        match self {
            Self::Client => "clients",
            Self::Operator => "operator",
            Self::Anybody => "running",
        }
    }

    fn security(self) -> Value {
        match self {
            Self::Client => json!([{"ApiKey": []}, {"XApiKey": []}, {"AzureApiKey": []}]),
            Self::Operator => json!([{"AdminKey": []}]),
            Self::Anybody => json!([]),
        }
    }

    /// Refusals that every route of this kind has.
    const fn refusals(self) -> &'static [&'static str] {
        match self {
            Self::Client => &["401", "403", "503"],
            Self::Operator => &["400", "401", "503"],
            Self::Anybody => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, env, fs};

    use utoipa::openapi::{PathItem, Schema};

    use super::*;

    const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/api.openapi.json");

    /// `TOLLWAY_WRITE_DOCS=1 cargo test -p gateway openapi` writes it.
    #[test]
    fn the_committed_document_is_fresh() {
        let text = text().unwrap();
        if env::var_os("TOLLWAY_WRITE_DOCS").is_some() {
            fs::write(COMMITTED, &text).unwrap();
        }
        let committed = fs::read_to_string(COMMITTED).unwrap_or_default();
        assert!(
            committed == text,
            "docs/api.openapi.json is not fresh; run `TOLLWAY_WRITE_DOCS=1 cargo test -p gateway openapi`"
        );
    }

    #[test]
    fn the_document_is_openapi_and_every_reference_leads_somewhere() {
        let document = build();
        for (path, item) in document["paths"].as_object().unwrap() {
            let read = serde_json::from_value::<PathItem>(item.clone());
            assert!(read.is_ok(), "{path}: {:?}", read.err());
        }
        for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
            let read = serde_json::from_value::<Schema>(schema.clone());
            assert!(read.is_ok(), "{name}: {:?}", read.err());
        }
        let text = text().unwrap();
        let read: utoipa::openapi::OpenApi = serde_json::from_str(&text).unwrap();
        assert_eq!(
            read.paths.paths.len(),
            document["paths"].as_object().unwrap().len()
        );
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let used: BTreeSet<&str> = text
            .split("\"$ref\": \"#/components/schemas/")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        for name in &used {
            assert!(schemas.contains_key(*name), "{name} is not described");
        }
        for name in schemas.keys() {
            assert!(used.contains(name.as_str()), "{name} is not used");
        }
    }

    #[test]
    fn operations_have_names_of_their_own() {
        let ids: BTreeSet<_> = ROUTES.iter().map(|route| route.id).collect();
        assert_eq!(ids.len(), ROUTES.len());
    }
}
