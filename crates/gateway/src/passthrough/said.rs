//! What a request that is passed through says: its body, and everything in it that could name an object.

use bytes::Bytes;
use dialect::{Forwarded, RequestLimits};
use http::{HeaderMap, HeaderName, Method, header};
use serde_json::Value;

use crate::{arrival::Asked, error::ApiError, form::Form, owned::Names};

/// What of a client's headers travels.
const TRAVEL: [HeaderName; 2] = [header::ACCEPT, HeaderName::from_static("openai-beta")];

/// A body that was read.
pub(super) enum Said {
    /// There is none.
    Nothing,
    /// A document; the model that it names, where it does.
    Json {
        value: Value,
        model: Option<String>,
        stream: bool,
    },
    /// A form.
    Form(Form),
}

/// A body as it goes upstream.
pub(super) struct Sent {
    pub(super) headers: HeaderMap,
    pub(super) body: Option<Bytes>,
}

impl Said {
    /// Reads a body.
    ///
    /// # Errors
    /// 400: neither JSON nor a form, or a model that could mean two.
    pub(super) async fn read(asked: &Asked) -> Result<Self, ApiError> {
        let body = &asked.body;
        if body.is_empty() {
            return Ok(Self::Nothing);
        }
        if is_form(&asked.parts.headers) {
            return Ok(Self::Form(
                Form::read_any(&asked.parts.headers, body).await?,
            ));
        }
        let value: Value = serde_json::from_slice(body).map_err(|_| ApiError::Invalid {
            param: None,
            message: "Send the body of this request as JSON, or as multipart/form-data.".into(),
        })?;
        let names_model = value.as_object().is_some_and(|members| {
            members
                .keys()
                .any(|name| name.eq_ignore_ascii_case("model"))
        });
        let model = if names_model {
            // What is there twice could mean another model to its provider.
            let request = Forwarded::parse_unknown(body, &RequestLimits::default())?;
            Some(request.model().to_owned())
        } else {
            None
        };
        let stream = value["stream"].as_bool().unwrap_or(false);
        Ok(Self::Json {
            value,
            model,
            stream,
        })
    }

    /// The model that it names.
    pub(super) fn model(&self) -> Option<&str> {
        match self {
            Self::Nothing => None,
            Self::Json { model, .. } => model.as_deref(),
            Self::Form(form) => form.text("model"),
        }
    }

    /// Whether events are asked for.
    pub(super) fn stream(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Json { stream, .. } => *stream,
            Self::Form(form) => form.text("stream").is_some_and(|text| text != "false"),
        }
    }

    /// Refuses members that change the price in a way that the model's cannot say.
    ///
    /// # Errors
    /// 400 that names one.
    pub(super) fn supported(&self, unsupported: &[String]) -> Result<(), ApiError> {
        let Self::Json { value, .. } = self else {
            return Ok(());
        };
        let has = |name: &&String| !value[name.as_str()].is_null();
        match unsupported.iter().find(has) {
            None => Ok(()),
            Some(name) => Err(ApiError::Invalid {
                message: format!("{name} is not supported by this provider: leave it out.").into(),
                param: Some(name.clone().into()),
            }),
        }
    }

    /// Adds what could name an object.
    pub(super) fn names(&self, names: &mut Names) {
        match self {
            Self::Nothing => {}
            Self::Json { value, .. } => names.add_json(value),
            Self::Form(form) => form.texts().for_each(|text| {
                names.add(text);
                // Some fields are documents.
                if let Ok(value) = serde_json::from_str(text) {
                    names.add_json(&value);
                }
            }),
        }
    }

    /// The body as it goes upstream, with the provider's name of the model where that is another.
    pub(super) fn sent(&self, asked: &Asked, upstream_model: Option<&str>) -> Sent {
        let theirs = &asked.parts.headers;
        let mut headers = HeaderMap::new();
        for name in TRAVEL {
            if let Some(value) = theirs.get(&name) {
                headers.insert(name, value.clone());
            }
        }
        let renamed = upstream_model.filter(|name| Some(*name) != self.model());
        let kind = |headers: &mut HeaderMap, text: &str| {
            if let Ok(value) = text.parse() {
                headers.insert(header::CONTENT_TYPE, value);
            }
        };
        let body = match (self, renamed) {
            (Self::Nothing, _) => {
                if asked.parts.method != Method::GET {
                    kind(&mut headers, "application/json");
                }
                None
            }
            (Self::Form(form), Some(name)) => {
                let written = form.write(name);
                kind(&mut headers, &written.content_type);
                Some(written.body)
            }
            (Self::Form(_), None) => {
                if let Some(value) = theirs.get(header::CONTENT_TYPE) {
                    headers.insert(header::CONTENT_TYPE, value.clone());
                }
                Some(asked.body.clone())
            }
            (Self::Json { .. }, renamed) => {
                kind(&mut headers, "application/json");
                let limits = RequestLimits::default();
                let parsed = renamed.and_then(|name| {
                    let request = Forwarded::parse_unknown(&asked.body, &limits).ok()?;
                    Some(request.encode(name))
                });
                Some(parsed.unwrap_or_else(|| asked.body.clone()))
            }
        };
        Sent { headers, body }
    }
}

fn is_form(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value
                .to_ascii_lowercase()
                .starts_with("multipart/form-data")
        })
}
