//! The endpoints whose requests are forwarded but for the model's name: held at their worst case, charged by what the answer reports.

pub(crate) mod relay;
mod work;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
    routing::{MethodRouter, post},
};
use billing::{Charge, Settled};
use dialect::{Endpoint, Forwarded, ForwardedAnswer, Framing, RequestLimits, WireRequest};
use http::{HeaderName, HeaderValue, header};

use self::{
    relay::Relay,
    work::{Estimate, Work},
};
use crate::{
    admit::{self, Ask},
    answer,
    app::Shared,
    arrival::{self, Asked},
    bill::{tier_of, with_bill},
    catalogue::Model,
    error::ApiError,
    prices::Asking,
    recording::Recording,
    targets::{self, Attempt, Missed},
    upstream::{Failure, Reply},
};

/// What an answer cost that is not JSON, in credits.
pub const X_COST: HeaderName = HeaderName::from_static("x-tollway-cost");

/// The handler of an endpoint.
pub fn handler(endpoint: Endpoint) -> MethodRouter<Shared> {
    post(move |State(app): State<Shared>, request: Request| create(endpoint, app, request))
}

async fn create(endpoint: Endpoint, app: Shared, request: Request) -> Result<Response, ApiError> {
    let check = |asked: &Asked| {
        // A form is read when its turn comes.
        if endpoint.takes_form() {
            return Ok(());
        }
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
    let work = Work::read(endpoint, &asked).await?;
    let request = work.request()?;
    let targets = targets::serving(&asked.app, &asked.key, request.model(), endpoint)?;
    let job = Job {
        endpoint,
        asked: &asked,
        work: &work,
        request: &request,
    };
    targets::ask(&asked, &targets, &mut recording, &job).await
}

/// A request whose targets are asked.
struct Job<'a> {
    endpoint: Endpoint,
    asked: &'a Asked,
    work: &'a Work,
    request: &'a Forwarded<'a>,
}

impl Attempt for Job<'_> {
    async fn run(
        &self,
        model: &Arc<Model>,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        let app = &self.asked.app;
        let estimate = self.work.estimate(self.request, model);
        // The audio of a model that is sold by tokens is asked for as events: only they say how many.
        let spoken = self.endpoint == Endpoint::Speech && estimate.by_tokens;
        let charge = self.start(model, &estimate).await?;
        if let Some(recording) = recording {
            recording.may_owe();
        }
        self.asked.watched.goes_upstream();
        let wire = self.wire(model, spoken && !self.request.stream());
        let response = match app.upstream.send(&model.provider, wire).await {
            Ok(response) => response,
            Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
        };
        match Kind::of(&response) {
            Kind::Events if self.request.stream() || spoken => {
                let plain = !self.request.stream();
                let relay =
                    Relay::new(self.endpoint, self.asked, charge, estimate.sold(), response);
                match relay.open(model, plain).await {
                    Ok(response) => Ok(response),
                    Err((failure, charge)) => Err(Missed::failed(self.asked, failure, charge)),
                }
            }
            Kind::Json => self.document(charge, &estimate, response, recording).await,
            Kind::Other if self.endpoint == Endpoint::Speech && !spoken => {
                self.audio(charge, response).await
            }
            Kind::Other if self.work.is_recording() => self.text(charge, &estimate, response).await,
            Kind::Events | Kind::Other => {
                let failure = Failure::Garbage("not what the endpoint answers".into());
                Err(Missed::failed(self.asked, failure, Some(charge)))
            }
        }
    }
}

impl Job<'_> {
    /// Sets the worst case aside.
    async fn start(&self, model: &Arc<Model>, estimate: &Estimate) -> Result<Charge, ApiError> {
        let Asked {
            app, watched, key, ..
        } = self.asked;
        let (request, work) = (self.request, self.work);
        refuse_tier(request.service_tier(), model)?;
        let asking = Asking {
            tier: request.service_tier(),
            size: request.size(),
            quality: request.quality(),
        };
        let quoted = app
            .prices
            .quote_images(&app.store, key, model, asking)
            .await?;
        let price = &quoted.priced.price;
        let ask = Ask::whole(
            work.prompt(model, estimate),
            estimate.output_max,
            self.asked.body.len(),
        );
        let mut admitted = admit::hold(&app.ledger, &key.path, price, model, ask).await?;
        admitted.meter = admitted.meter.with_offer(quoted.offer);
        let endpoint = self.endpoint.as_str();
        let price_id = quoted.priced.id;
        let facts = self
            .asked
            .facts(endpoint, model, price_id, request.stream());
        let arrived = watched.arrived();
        let mut charge = admitted
            .hold
            .start(Arc::new(facts), admitted.meter, arrived)?;
        if let Some(likely) = work.likely(estimate) {
            // Who leaves now pays for what is likely, not for the worst case.
            charge.know_prompt(likely);
        }
        Ok(charge)
    }

    fn wire(&self, model: &Model, as_events: bool) -> WireRequest {
        let provider = &model.provider;
        let mut headers: Vec<_> = provider
            .quirks
            .headers
            .iter()
            .map(|(name, value)| (name.clone(), value.clone()))
            .collect();
        let body = match self.work.form() {
            Some(form) => {
                let written = form.write(&model.upstream_id);
                headers.push((header::CONTENT_TYPE.to_string(), written.content_type));
                written.body
            }
            None if as_events => self.request.encode_as_events(&model.upstream_id),
            None => self.request.encode(&model.upstream_id),
        };
        let mut wire = WireRequest {
            path: provider.path(self.endpoint).to_owned(),
            headers,
            body,
        };
        if as_events || self.request.stream() {
            wire.accept(Framing::Sse);
        }
        wire
    }

    /// An answer that is JSON, with its bill.
    async fn document(
        &self,
        mut charge: Charge,
        estimate: &Estimate,
        response: Reply,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        let read = answer::read(response, &self.asked.app.settings).await;
        let answer = match read.and_then(|bytes| Ok(ForwardedAnswer::decode(self.endpoint, bytes)?))
        {
            Ok(answer) => answer,
            Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
        };
        let images = answer.data();
        match answer.usage() {
            Some(Ok(usage)) => {
                let usage = estimate.complete(usage, images);
                if let Some(tier) = tier_of(answer.service_tier()) {
                    charge.served_by(tier);
                }
                charge.report(usage, answer.usage_text().map(Into::into));
            }
            other => {
                if let Some(Err(fault)) = other {
                    self.asked.watched.usage_fault(fault);
                }
                if let Some(counted) = self.work.counted(self.request, estimate, images) {
                    charge.know_prompt(counted);
                }
            }
        }
        let settled = self.settle(charge).await?;
        let body = with_bill(&settled, |bill| answer.with_bill(bill));
        if let Some(recording) = recording.take() {
            recording.answered(&body);
        }
        Ok(answer::json(body))
    }

    /// A transcript as text or subtitles, which say nothing of what they took.
    async fn text(
        &self,
        mut charge: Charge,
        estimate: &Estimate,
        response: Reply,
    ) -> Result<Response, Missed> {
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let body = match answer::read(response, &self.asked.app.settings).await {
            Ok(body) => body,
            Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
        };
        if let Some(mut counted) = self.work.counted(self.request, estimate, None) {
            if estimate.by_tokens {
                let text = String::from_utf8_lossy(&body);
                counted.completion = estimate.tokenizer.count(&text);
            }
            charge.know_prompt(counted);
        }
        let settled = self.settle(charge).await?;
        Ok(opaque(body.into(), kind, &settled))
    }

    /// Audio that is sold by what was read: its cost is known before it comes, and it is passed on
    /// as it comes.
    async fn audio(&self, charge: Charge, response: Reply) -> Result<Response, Missed> {
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let body = match relay::first(response, &self.asked.app.settings).await {
            Ok(body) => body,
            Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
        };
        let settled = self.settle(charge).await?;
        Ok(opaque(
            body.passed_on(self.asked.watched.clone()),
            kind,
            &settled,
        ))
    }

    async fn settle(&self, mut charge: Charge) -> Result<Settled, ApiError> {
        let Asked { app, watched, .. } = self.asked;
        let now = std::time::Instant::now();
        charge.mark_first_output(now);
        watched.output(now);
        let settled = answer::finish(app, charge, watched).await?;
        watched.succeeded();
        Ok(settled)
    }
}

/// Refuses a service tier that the provider's file says is not for sale: what is forwarded here is
/// forwarded whole.
fn refuse_tier(asked: Option<&str>, model: &Model) -> Result<(), ApiError> {
    let plain = asked.is_none_or(|json| matches!(json, "null" | r#""auto""# | r#""default""#));
    let quirks = &model.provider.quirks;
    let sold = !quirks.unsupported.iter().any(|name| name == "service_tier");
    if plain || sold {
        return Ok(());
    }
    Err(ApiError::Invalid {
        param: Some("service_tier".into()),
        message: "service_tier is not supported by the provider of this model: leave it out."
            .into(),
    })
}

/// What a provider's answer is, by its head.
pub(crate) enum Kind {
    Json,
    Events,
    Other,
}

impl Kind {
    pub(crate) fn of(response: &Reply) -> Self {
        let kind = response.headers().get(header::CONTENT_TYPE);
        let kind = kind.and_then(|value| value.to_str().ok()).unwrap_or("");
        let is = |name: &str| {
            let head = kind.trim_start().get(..name.len());
            head.is_some_and(|head| head.eq_ignore_ascii_case(name))
        };
        if is("application/json") {
            Self::Json
        } else if is("text/event-stream") {
            Self::Events
        } else {
            Self::Other
        }
    }
}

/// An answer that is not JSON: its cost is in a header.
pub(crate) fn opaque(
    body: axum::body::Body,
    kind: Option<HeaderValue>,
    settled: &Settled,
) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    let plain = || HeaderValue::from_static("application/octet-stream");
    headers.insert(header::CONTENT_TYPE, kind.unwrap_or_else(plain));
    if let Ok(cost) = HeaderValue::from_str(&settled.charged.to_string()) {
        headers.insert(X_COST, cost);
    }
    response
}
