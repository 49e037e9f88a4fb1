//! The endpoints whose requests are forwarded but for the model's name: held at their worst case, charged by what the answer reports.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
    routing::{MethodRouter, post},
};
use billing::{Charge, Prompt, RequestFacts, Settled};
use bytes::Bytes;
use dialect::{DecodeError, Endpoint, Forwarded, ForwardedAnswer, RequestLimits, WireRequest};
use tokens::Usage;

use crate::{
    admit::{self, Ask},
    answer,
    app::Shared,
    arrival::{self, Asked},
    bill::with_bill,
    catalogue::Model,
    error::ApiError,
    recording::Recording,
    targets::{self, Attempt, Missed},
    upstream::Failure,
};

/// Tokens that a model may put around each input: what begins and ends a text.
const FRAME_TOKENS: u64 = 8;

/// The handler of an endpoint.
pub fn handler(endpoint: Endpoint) -> MethodRouter<Shared> {
    post(move |State(app): State<Shared>, request: Request| create(endpoint, app, request))
}

async fn create(endpoint: Endpoint, app: Shared, request: Request) -> Result<Response, ApiError> {
    let check = |asked: &Asked| {
        let request = Forwarded::parse(endpoint, &asked.body, &RequestLimits::default())?;
        targets::serving(&asked.app, &asked.key, request.model(), endpoint).map(|_| ())
    };
    let run = move |asked, recording| run(endpoint, asked, recording);
    arrival::serve(app, endpoint.as_str(), request, check, run).await
}

async fn run(
    endpoint: Endpoint,
    asked: Asked,
    mut recording: Option<Recording>,
) -> Result<Response, ApiError> {
    let request = Forwarded::parse(endpoint, &asked.body, &RequestLimits::default())?;
    let targets = targets::serving(&asked.app, &asked.key, request.model(), endpoint)?;
    let job = Job {
        endpoint,
        asked: &asked,
        request: &request,
    };
    targets::ask(&asked, &targets, &mut recording, &job).await
}

/// A request whose targets are asked.
struct Job<'a> {
    endpoint: Endpoint,
    asked: &'a Asked,
    request: &'a Forwarded<'a>,
}

impl Attempt for Job<'_> {
    async fn run(
        &self,
        model: &Arc<Model>,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        let app = &self.asked.app;
        let charge = self.start(model).await?;
        if let Some(recording) = recording {
            recording.may_owe();
        }
        self.asked.watched.goes_upstream();
        let sent = app.upstream.send(&model.provider, self.wire(model)).await;
        let read = match sent {
            Ok(response) => answer::read(response, &app.settings).await,
            Err(failure) => Err(failure),
        };
        match read.and_then(|bytes| decode(self.endpoint, bytes)) {
            Ok(answer) => {
                let settled = self.settle(charge, &answer).await?;
                self.asked.watched.succeeded();
                let body = with_bill(&settled, |bill| answer.with_bill(bill));
                if let Some(recording) = recording.take() {
                    recording.answered(&body);
                }
                Ok(answer::json(body))
            }
            Err(failure) => {
                self.asked.watched.upstream_failed(&failure);
                Err(Missed::Failed(failure, Some(Box::new(charge))))
            }
        }
    }
}

impl Job<'_> {
    /// Sets the worst case aside.
    async fn start(&self, model: &Arc<Model>) -> Result<Charge, ApiError> {
        let Asked {
            app, watched, key, ..
        } = self.asked;
        let (price, price_id) = model.price.as_ref().ok_or(ApiError::NoPrice)?;
        let ask = Ask::whole(self.prompt(model), 0, self.asked.body.len());
        let admitted = admit::hold(&app.ledger, &key.path, price, model, ask).await?;
        let facts = RequestFacts {
            request_id: watched.request_id(),
            account_id: key.account_id,
            key_id: key.key_id,
            key_has_limit: key.has_limit(),
            endpoint: self.endpoint.as_str(),
            model: model.id.clone(),
            provider: model.provider.name.clone(),
            price_id: *price_id,
            stream: false,
        };
        let arrived = watched.arrived();
        Ok(admitted
            .hold
            .start(Arc::new(facts), admitted.meter, arrived)?)
    }

    /// What is asked for: bounded by bytes, and counted where that may decide.
    fn prompt(&self, model: &Model) -> Prompt {
        let tokenizer = model.tokenizer;
        let inputs = self.request.inputs();
        let tokens = self
            .request
            .tokens(|text| tokenizer.upper_bound(text.len()));
        let framed = tokens.saturating_add(inputs.saturating_mul(FRAME_TOKENS));
        let window = u64::from(model.context_window).saturating_mul(inputs);
        let pieces = *self.request.pieces();
        let bound = Usage {
            prompt: if self.endpoint == Endpoint::Rerank {
                framed
            } else {
                framed.min(window)
            },
            searches: pieces.searches_max,
            ..Usage::default()
        };
        let (endpoint, body) = (self.endpoint, self.asked.body.clone());
        let count = move || {
            match Forwarded::parse(endpoint, &body, &RequestLimits::default()) {
                Ok(request) => Usage {
                    prompt: request.tokens(|text| tokenizer.count(text)),
                    searches: pieces.searches,
                    ..bound
                },
                // Cannot be: it parsed when it came in.
                Err(_) => bound,
            }
        };
        Prompt::AtMost(bound, Box::new(count))
    }

    fn wire(&self, model: &Model) -> WireRequest {
        let provider = &model.provider;
        let headers = provider.quirks.headers.iter();
        WireRequest {
            path: provider.path(self.endpoint).to_owned(),
            headers: headers
                .map(|(name, value)| (name.clone(), value.clone()))
                .collect(),
            body: self.request.encode(&model.upstream_id),
        }
    }

    /// Settles by the provider's report, and what it does not report by what was asked for.
    async fn settle(
        &self,
        mut charge: Charge,
        answer: &ForwardedAnswer,
    ) -> Result<Settled, ApiError> {
        let Asked { app, watched, .. } = self.asked;
        let now = std::time::Instant::now();
        charge.mark_first_output(now);
        watched.output(now);
        match answer.usage() {
            Some(Ok(usage)) => {
                let pieces = self.request.pieces();
                let usage = Usage {
                    searches: if usage.searches == 0 {
                        pieces.searches
                    } else {
                        usage.searches
                    },
                    ..usage
                };
                charge.report(usage, answer.usage_text().map(Into::into));
            }
            Some(Err(fault)) => watched.usage_fault(fault),
            None => {}
        }
        answer::finish(app, charge, watched).await
    }
}

fn decode(endpoint: Endpoint, body: Bytes) -> Result<ForwardedAnswer, Failure> {
    ForwardedAnswer::decode(endpoint, body).map_err(|error| match error {
        DecodeError::Upstream(error) => Failure::Inside(error),
        DecodeError::Shape { .. } | DecodeError::Utf8 | DecodeError::TooLarge => {
            Failure::Garbage(error.to_string())
        }
    })
}
