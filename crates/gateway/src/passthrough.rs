//! Paths that the gateway does not know: passed on where a provider's file lets them, held for, charged and owned all the same.

mod rules;
mod said;
mod work;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use http::{HeaderName, Method, StatusCode};

pub use self::rules::{PlainPath, Rule, RulePrice, Rules};
use self::{said::Said, work::Job};
use crate::{
    admit,
    app::Shared,
    arrival::{self, Asked},
    body,
    catalogue::{self, Model, Provider},
    chat,
    error::ApiError,
    owned::{self, Known, Names},
    provider_file::ProviderFile,
    recording::Recording,
    targets,
    upstream::Failure,
};

/// Names the provider that a request is passed on to.
pub const X_PROVIDER: HeaderName = HeaderName::from_static("x-tollway-provider");

/// The name in the books and in metrics.
const ENDPOINT: &str = "passthrough";

/// A rule of a provider that is served.
#[derive(Clone, Debug)]
pub struct Passage {
    /// What is let through.
    pub rule: Rule,
    /// To whom.
    pub provider: Arc<Provider>,
    /// What it is charged by; `None` where a model of the catalogue is.
    pub model: Option<Arc<Model>>,
}

impl Passage {
    /// Every rule of a file.
    ///
    /// # Errors
    /// A price that is none.
    pub fn of(provider: &Arc<Provider>, file: &ProviderFile) -> Result<Vec<Self>, String> {
        let passage = |rule: &Rule| {
            let model = rule.model_file();
            let model = model.map(|file| catalogue::served(provider, &file));
            Ok(Self {
                rule: rule.clone(),
                provider: Arc::clone(provider),
                model: model.transpose()?.map(Arc::new),
            })
        };
        file.passthrough.iter().map(passage).collect()
    }
}

/// Answers a path that is no route.
///
/// # Errors
/// 404 where no provider lets it through; every row of CONTRACT 3.
pub async fn unknown_path(
    State(app): State<Shared>,
    request: Request,
) -> Result<Response, ApiError> {
    let nowhere = ApiError::NotFound(
        "There is nothing at this path; /openapi.json lists what there is.".into(),
    );
    pass(app, request, nowhere).await
}

/// Answers a method that a route does not have.
///
/// # Errors
/// 405 where no provider lets it through; every row of CONTRACT 3.
pub async fn unknown_method(
    State(app): State<Shared>,
    request: Request,
) -> Result<Response, ApiError> {
    pass(app, request, ApiError::MethodNotAllowed).await
}

async fn pass(app: Shared, request: Request, nowhere: ApiError) -> Result<Response, ApiError> {
    let path = PlainPath::read(request.uri().path());
    let fits = path.is_some_and(|path| !fitting(&app, request.method(), &path).is_empty());
    if !fits {
        return Err(body::refuse(request.into_body(), nowhere).await);
    }
    arrival::serve(app, ENDPOINT, request, |_| Ok(()), run).await
}

/// What lets a request through: one rule of each provider at most.
fn fitting<'a>(app: &'a Shared, method: &Method, path: &PlainPath<'_>) -> Vec<&'a Passage> {
    let mut fitting: Vec<&Passage> = Vec::new();
    for passage in app.catalogue.passages() {
        let name = &passage.provider.name;
        if fitting.iter().any(|other| other.provider.name == *name) {
            continue;
        }
        let of_provider = app.catalogue.passages().iter();
        let of_provider = of_provider.filter(|other| other.provider.name == *name);
        let rules = of_provider.map(|passage| &passage.rule);
        if let Some(rule) = Rule::meant(rules, method, path) {
            let meant =
                |other: &&Passage| other.provider.name == *name && other.rule.name == rule.name;
            fitting.extend(app.catalogue.passages().iter().find(meant));
        }
    }
    fitting
}

async fn run(asked: Asked, mut recording: Option<Recording>) -> Result<Response, ApiError> {
    let said = Said::read(&asked).await?;
    let path = PlainPath::read(asked.parts.uri.path()).ok_or(ApiError::Internal)?;
    let mut names = Names::default();
    said.names(&mut names);
    names.add_query(asked.parts.uri.query().unwrap_or_default());
    let passages = fitting(&asked.app, &asked.parts.method, &path);
    for passage in &passages {
        passage
            .rule
            .ids(&path)
            .into_iter()
            .for_each(|id| names.add(id));
    }
    let known = names.look_up(&asked.app.store, &asked.key).await?;
    let choice = Choice {
        asked: &asked,
        said: &said,
        path: &path,
        known: &known,
    };
    let passage = choice.passage(passages)?;
    known.allow(&passage.provider.name)?;
    if said.stream() && !passage.rule.makes.is_empty() {
        return Err(ApiError::Invalid {
            param: Some("stream".into()),
            message: "What is made here must be written down as yours, which a stream does not wait for. Leave stream out.".into(),
        });
    }
    if passage.rule.price == RulePrice::Usage {
        said.supported(&passage.provider.quirks.unsupported)?;
    }
    let asked_for = choice.model(passage)?;
    let target = match (&passage.model, asked_for) {
        (Some(rule), _) => rule,
        (None, Some(model)) => model,
        (None, None) => return Err(no_model()),
    };
    if passage.rule.price == RulePrice::Free && asked.parts.method != Method::DELETE {
        admit::solvent(&asked.app.ledger, &asked.key.path).await?;
    }
    let job = Job {
        asked: &asked,
        passage,
        path: &path,
        said: &said,
        upstream_model: asked_for.map(|model| model.upstream_id.as_str()),
    };
    let answered = targets::ask(&asked, &[target], &mut recording, &job).await;
    let answer = answered.map_err(theirs)?;
    if passage.rule.removes()
        && let Some(object) = path_object(passage, &path, &known)
    {
        asked.app.store.disown(object).await?;
    }
    Ok(answer)
}

/// The object of the key's own that a path names first.
fn path_object<'a>(
    passage: &Passage,
    path: &PlainPath<'_>,
    known: &'a Known,
) -> Option<&'a store::OwnedObject> {
    let id = *passage.rule.ids(path).first()?;
    known
        .mine()
        .find(|object| object.id == id && object.provider == *passage.provider.name)
}

/// Finds the one provider that a request means.
struct Choice<'a> {
    asked: &'a Asked,
    said: &'a Said,
    path: &'a PlainPath<'a>,
    known: &'a Known,
}

impl Choice<'_> {
    /// By the header, by whose the named objects are, by the model, by the setting; or there is but
    /// one.
    fn passage<'p>(&self, mut passages: Vec<&'p Passage>) -> Result<&'p Passage, ApiError> {
        if let Some(value) = self.asked.parts.headers.get(X_PROVIDER) {
            passages.retain(|passage| value.as_bytes() == passage.provider.name.as_bytes());
            if passages.is_empty() {
                return Err(which(&fitting(
                    &self.asked.app,
                    &self.asked.parts.method,
                    self.path,
                )));
            }
        }
        passages.retain(|passage| {
            let names_one = !passage.rule.ids(self.path).is_empty();
            passage.rule.shared
                || !names_one
                || path_object(passage, self.path, self.known).is_some()
        });
        if passages.is_empty() {
            return Err(owned::nothing());
        }
        let mine: Vec<&str> = self.known.mine().map(|object| &*object.provider).collect();
        narrow(&mut passages, |passage| {
            mine.contains(&&*passage.provider.name)
        });
        let serving = match self.said.model() {
            Some(name) => self.asked.app.catalogue.resolve(name),
            None => &[],
        };
        narrow(&mut passages, |passage| {
            serving
                .iter()
                .any(|model| model.provider.name == passage.provider.name)
        });
        let default = self.asked.app.settings.passthrough_provider.as_deref();
        narrow(&mut passages, |passage| {
            Some(&*passage.provider.name) == default
        });
        match passages.as_slice() {
            [passage] => Ok(passage),
            several => Err(which(several)),
        }
    }

    /// The model that the body names, at this provider.
    fn model(&self, passage: &Passage) -> Result<Option<&Arc<Model>>, ApiError> {
        let Some(name) = self.said.model() else {
            return Ok(None);
        };
        let Asked { app, key, .. } = self.asked;
        let by_usage = passage.rule.price == RulePrice::Usage;
        // A name that is not served may be the provider's own, as that of a tuned model is; but
        // then nobody says that this key may use it, or what it costs.
        if app.catalogue.resolve(name).is_empty() && key.models.is_none() && !by_usage {
            return Ok(None);
        }
        let targets = chat::permitted(app, key, name)?;
        let here = |model: &&Arc<Model>| model.provider.name == passage.provider.name;
        let Some(model) = targets.into_iter().find(here) else {
            let message = format!(
                "This model is not served by {}, which this path is passed on to.",
                passage.provider.name
            );
            return Err(ApiError::Invalid {
                param: Some("model".into()),
                message: message.into(),
            });
        };
        Ok(Some(model))
    }
}

/// Keeps those that fit, where there are any.
fn narrow(passages: &mut Vec<&Passage>, fits: impl Fn(&Passage) -> bool) {
    if passages.iter().any(|passage| fits(passage)) {
        passages.retain(|passage| fits(passage));
    }
}

fn which(passages: &[&Passage]) -> ApiError {
    let names: Vec<&str> = passages.iter().map(|one| &*one.provider.name).collect();
    ApiError::Invalid {
        param: Some(X_PROVIDER.to_string().into()),
        message: format!(
            "Name the provider in the header {}; this path is passed on to: {}.",
            X_PROVIDER,
            names.join(", ")
        )
        .into(),
    }
}

fn no_model() -> ApiError {
    ApiError::Invalid {
        param: Some("model".into()),
        message: "`model` is missing: this path is charged by its price.".into(),
    }
}

/// What a provider says of things that nobody here knows is told: that there is no such thing, or
/// that it is not in a state for this.
pub fn theirs(error: ApiError) -> ApiError {
    let ApiError::Upstream(Failure::Refused { status, .. }) = &error else {
        return error;
    };
    match *status {
        StatusCode::NOT_FOUND | StatusCode::GONE | StatusCode::METHOD_NOT_ALLOWED => {
            ApiError::NotFound("The provider has nothing of this name.".into())
        }
        StatusCode::CONFLICT => ApiError::Conflict(
            "The provider does not do this now: what it is about is not in a state for it.".into(),
        ),
        _ => error,
    }
}
