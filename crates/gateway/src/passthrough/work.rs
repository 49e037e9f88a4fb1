//! A request that is passed through, at the one provider that it means: held for, sent, answered and charged.

use std::{
    sync::{Arc, LazyLock},
    time::Instant,
};

use axum::response::Response;
use billing::{Charge, Prompt};
use bytes::Bytes;
use dialect::{DecodeError, Endpoint, Forwarded, ForwardedAnswer, RequestLimits};
use http::{HeaderValue, StatusCode, header};
use serde_json::Value;
use store::{NewObject, ObjectKind};
use tokens::{OFF_THREAD_BYTES_MIN, Usage};

use super::{ENDPOINT, Passage, PlainPath, RulePrice, said::Said};
use crate::{
    admit::{self, Ask},
    answer,
    arrival::Asked,
    bill::{off_thread_if, with_bill},
    catalogue::Model,
    error::ApiError,
    forwarded::{
        Kind, X_COST, opaque,
        relay::{self, Relay, Sold},
    },
    owned::owner,
    recording::Recording,
    targets::{Attempt, Missed},
    upstream::{Failure, Passed, Reply},
    words::Words,
};

/// Tokens that a model may put around what it reads.
const FRAME_TOKENS: u64 = 16;
/// What gives a model more to read than its letters say; JSON may escape a slash.
static POINTS_ELSEWHERE: LazyLock<Words> =
    LazyLock::new(|| Words::new(&["://", r":\/", r":/\", "data:", "file"]));

/// A request whose provider is known.
pub(super) struct Job<'a> {
    pub(super) asked: &'a Asked,
    pub(super) passage: &'a Passage,
    pub(super) path: &'a PlainPath<'a>,
    pub(super) said: &'a Said,
    /// What the provider calls the model in the body.
    pub(super) upstream_model: Option<&'a str>,
}

impl Attempt for Job<'_> {
    async fn run(
        &self,
        model: &Arc<Model>,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        let by_usage = self.passage.rule.price == RulePrice::Usage;
        let charge = self.start(model).await?;
        if let Some(recording) = recording {
            recording.may_owe();
        }
        self.asked.watched.goes_upstream();
        let Asked { app, parts, .. } = self.asked;
        let sent = self.said.sent(self.asked, self.upstream_model);
        let passed = Passed {
            method: parts.method.clone(),
            path: self.path.below(),
            query: parts.uri.query().map(str::to_owned),
            headers: sent.headers,
            body: sent.body,
            coming: None,
        };
        let response = match app.upstream.pass(&self.passage.provider, passed).await {
            Ok(response) => response,
            Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
        };
        let status = response.status();
        let answered = match Kind::of(&response) {
            Kind::Json => self.document(model, charge, response, recording).await,
            Kind::Events if by_usage => self.events(model, charge, response).await,
            _ if status == StatusCode::NO_CONTENT => {
                let settled = self.settle(charge).await?;
                Ok(opaque(axum::body::Body::empty(), None, &settled))
            }
            Kind::Events | Kind::Other if by_usage => {
                let failure = Failure::Garbage("nothing that says what it took".into());
                Err(Missed::failed(self.asked, failure, Some(charge)))
            }
            Kind::Events | Kind::Other => self.bytes(charge, response).await,
        };
        answered.map(|mut answer| {
            *answer.status_mut() = status;
            answer
        })
    }
}

impl Job<'_> {
    /// Sets the worst case aside.
    async fn start(&self, model: &Arc<Model>) -> Result<Charge, ApiError> {
        let Asked {
            app, watched, key, ..
        } = self.asked;
        let tier = self.service_tier();
        let tier = tier.as_deref();
        let quoted = app.prices.quote(&app.store, key, model, tier).await?;
        let ask = self.ask(model)?;
        let price = &quoted.priced.price;
        let admitted = admit::hold(&app.ledger, &key.path, price, model, ask).await?;
        let stream = self.said.stream();
        let facts = self.asked.facts(ENDPOINT, model, quoted.priced.id, stream);
        let arrived = watched.arrived();
        Ok(admitted
            .hold
            .start(Arc::new(facts), admitted.meter, arrived)?)
    }

    /// The service tier that the body asks for, as JSON.
    fn service_tier(&self) -> Option<String> {
        match (self.passage.rule.price, self.said) {
            (RulePrice::Usage, Said::Json { value, .. }) => {
                value.get("service_tier").map(ToString::to_string)
            }
            (RulePrice::Usage, Said::Nothing | Said::Form(_))
            | (RulePrice::Free | RulePrice::Request(_), _) => None,
        }
    }

    /// What it may take at most: of a shape that nobody here knows every letter may be read, and
    /// what it points to may be as much as the model can read.
    fn ask(&self, model: &Model) -> Result<Ask, ApiError> {
        let body = &self.asked.body;
        match self.passage.rule.price {
            RulePrice::Free | RulePrice::Request(_) => {
                Ok(Ask::whole(Prompt::Exact(Usage::default()), 0, body.len()))
            }
            RulePrice::Usage => {
                let request = Forwarded::parse_unknown(body, &RequestLimits::default())?;
                let window = u64::from(model.context_window);
                let letters = request.tokens(|text| model.tokenizer.upper_bound(text.len()));
                let elsewhere = POINTS_ELSEWHERE.may_be_in(body);
                let prompt = if elsewhere {
                    window
                } else {
                    letters.saturating_add(FRAME_TOKENS).min(window)
                };
                let output = request
                    .output_limit()
                    .unwrap_or_else(|| u64::from(model.output_tokens_max))
                    .min(window)
                    .saturating_mul(request.inputs());
                let usage = Usage {
                    prompt,
                    ..Usage::default()
                };
                Ok(Ask::whole(
                    self.prompt(model, usage, elsewhere),
                    output,
                    body.len(),
                ))
            }
        }
    }

    /// The prompt: counted as text where that may decide.
    fn prompt(&self, model: &Model, bound: Usage, elsewhere: bool) -> Prompt {
        if elsewhere {
            return Prompt::Exact(bound);
        }
        let (body, tokenizer) = (self.asked.body.clone(), model.tokenizer);
        let count = move || Usage {
            prompt: tokenizer
                .count(&String::from_utf8_lossy(&body))
                .saturating_add(FRAME_TOKENS),
            ..Usage::default()
        };
        Prompt::AtMost(bound, Box::new(count))
    }

    /// An answer that is JSON.
    async fn document(
        &self,
        model: &Model,
        mut charge: Charge,
        response: Reply,
        recording: &mut Option<Recording>,
    ) -> Result<Response, Missed> {
        let read = answer::read(response, &self.asked.app.settings).await;
        let body = match read {
            Ok(body) => body,
            Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
        };
        self.write_down(&body).await?;
        let answer = if self.passage.rule.price == RulePrice::Usage {
            match self.take_in(model, &mut charge, &body) {
                Ok(answer) => Some(answer),
                Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
            }
        } else {
            None
        };
        let settled = self.settle(charge).await?;
        let body = match answer {
            Some(answer) => with_bill(&settled, |bill| answer.with_bill(bill)),
            None => body,
        };
        if let Some(recording) = recording.take() {
            recording.answered(&body);
        }
        let mut response = answer::json(body);
        if let Ok(cost) = HeaderValue::from_str(&settled.charged.to_string()) {
            response.headers_mut().insert(X_COST, cost);
        }
        Ok(response)
    }

    /// Charges by what the answer reports, else by all the text that went and came.
    fn take_in(
        &self,
        model: &Model,
        charge: &mut Charge,
        body: &Bytes,
    ) -> Result<ForwardedAnswer, Failure> {
        let decoded = ForwardedAnswer::decode(Endpoint::Chat, body.clone());
        let answer = decoded.map_err(|error| match error {
            DecodeError::Upstream(error) => Failure::Inside(error),
            DecodeError::Shape { .. } | DecodeError::Utf8 | DecodeError::TooLarge => {
                Failure::Garbage(error.to_string())
            }
        })?;
        match answer.usage() {
            Some(Ok(usage)) => charge.report(usage, answer.usage_text().map(Into::into)),
            other => {
                if let Some(Err(fault)) = other {
                    self.asked.watched.usage_fault(fault);
                }
                let tokenizer = model.output_tokenizer();
                let count = |bytes: &Bytes| tokenizer.count(&String::from_utf8_lossy(bytes));
                let large = self.asked.body.len().max(body.len()) >= OFF_THREAD_BYTES_MIN;
                charge.know_prompt(off_thread_if(large, || Usage {
                    prompt: count(&self.asked.body),
                    completion: count(body),
                    ..Usage::default()
                }));
            }
        }
        Ok(answer)
    }

    async fn events(
        &self,
        model: &Model,
        charge: Charge,
        response: Reply,
    ) -> Result<Response, Missed> {
        let sold = Sold {
            pieces: Usage::default(),
            by_tokens: true,
            unknown: true,
        };
        let relay = Relay::new(Endpoint::Chat, self.asked, charge, sold, response);
        match relay.open(model, false).await {
            Ok(response) => Ok(response),
            Err((failure, charge)) => Err(Missed::failed(self.asked, failure, charge)),
        }
    }

    /// What is no JSON, and costs what was known before: as it comes.
    async fn bytes(&self, charge: Charge, response: Reply) -> Result<Response, Missed> {
        let headers = response.headers().clone();
        let body = match relay::first(response, &self.asked.app.settings).await {
            Ok(body) => body,
            Err(failure) => return Err(Missed::failed(self.asked, failure, Some(charge))),
        };
        let settled = self.settle(charge).await?;
        let kind = headers.get(header::CONTENT_TYPE).cloned();
        let watched = self.asked.watched.clone();
        let mut answer = opaque(body.passed_on(watched), kind, &settled);
        if let Some(value) = headers.get(header::CONTENT_DISPOSITION) {
            answer
                .headers_mut()
                .insert(header::CONTENT_DISPOSITION, value.clone());
        }
        Ok(answer)
    }

    /// Writes down whose it is what was made, before anybody is told its name.
    async fn write_down(&self, body: &Bytes) -> Result<(), ApiError> {
        let makes = &self.passage.rule.makes;
        if makes.is_empty() {
            return Ok(());
        }
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        let ids = makes.iter().filter_map(|at| value.pointer(at)?.as_str());
        for id in ids {
            let new = NewObject {
                owner: owner(&self.asked.key),
                provider: &self.passage.provider.name,
                id,
                kind: ObjectKind::Other,
                about: None,
                made_by: None,
                batch: None,
            };
            if !self.asked.app.store.own(&new).await? {
                return Err(crate::owned::nothing());
            }
        }
        Ok(())
    }

    async fn settle(&self, mut charge: Charge) -> Result<billing::Settled, ApiError> {
        let Asked { app, watched, .. } = self.asked;
        let now = Instant::now();
        charge.mark_first_output(now);
        watched.output(now);
        let settled = answer::finish(app, charge, watched).await?;
        watched.succeeded();
        Ok(settled)
    }
}
