//! What is known of a request at its end: one log line and the figures for Prometheus.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use billing::{AccountId, End, KeyId, RequestId, Settled};
use dialect::UsageFault;
use http::StatusCode;
use tokens::{Bucket, Usage};

use crate::{
    app::Shared, catalogue::Model, counting::Wanted, error::ApiError, places::Place,
    upstream::Failure,
};

/// The model's label where the client named none that is served.
const OTHER: &str = "other";

/// Follows one request. When the last handle is dropped the request is over, and told of once.
#[derive(Clone, Debug)]
pub struct Watched(Arc<Request>);

#[derive(Debug)]
struct Request {
    app: Shared,
    endpoint: &'static str,
    id: RequestId,
    arrived: Instant,
    seen: Mutex<Seen>,
}

/// What was seen of it so far.
#[derive(Debug)]
struct Seen {
    payer: Option<(AccountId, KeyId)>,
    target: Option<Arc<Model>>,
    open: bool,
    status: StatusCode,
    code: &'static str,
    end: Option<End>,
    settled: Option<Settled>,
    output: bool,
    /// Given back with the last handle.
    place: Option<Place>,
    wanted: Option<Wanted>,
}

impl Watched {
    /// A request that has arrived. Until something else is said, its client is gone.
    #[must_use]
    pub fn new(app: Shared, endpoint: &'static str, id: RequestId, arrived: Instant) -> Self {
        Self(Arc::new(Request {
            app,
            endpoint,
            id,
            arrived,
            seen: Mutex::new(Seen {
                payer: None,
                target: None,
                open: false,
                // Nginx's number for "client closed request": it never goes out.
                status: StatusCode::from_u16(499).unwrap_or(StatusCode::BAD_REQUEST),
                code: "",
                end: None,
                settled: None,
                output: false,
                place: None,
                wanted: None,
            }),
        }))
    }

    /// The request's id.
    #[must_use]
    pub fn request_id(&self) -> RequestId {
        self.0.id
    }

    /// When it arrived.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.0.arrived
    }

    /// Who asks.
    pub fn payer(&self, account: AccountId, key: KeyId) {
        self.seen().payer = Some((account, key));
    }

    /// Its place among the key's requests, for as long as it lasts.
    pub fn keep(&self, place: Place) {
        self.seen().place = Some(place);
    }

    /// Whether it is counted when its answer has come.
    pub fn want(&self, wanted: Option<Wanted>) {
        self.seen().wanted = wanted;
    }

    /// The request to be counted, if it is one; once.
    pub fn take_wanted(&self) -> Option<Wanted> {
        self.seen().wanted.take()
    }

    /// What serves it.
    pub fn target(&self, model: &Arc<Model>) {
        self.seen().target = Some(model.clone());
    }

    /// The request goes upstream: what came before was the gateway's own doing.
    pub fn goes_upstream(&self) {
        let seconds = self.0.arrived.elapsed().as_secs_f64();
        self.0.app.metrics.overhead_seconds.observe(seconds);
    }

    /// A stream was opened to the client.
    pub fn opened(&self) {
        let mut seen = self.seen();
        seen.open = true;
        seen.status = StatusCode::OK;
        self.0.app.metrics.streams_open.inc();
    }

    /// Output began, or went on.
    pub fn output(&self, now: Instant) {
        if !std::mem::replace(&mut self.seen().output, true) {
            let age = now.saturating_duration_since(self.0.arrived);
            self.0
                .app
                .metrics
                .time_to_first_token_seconds
                .observe(age.as_secs_f64());
        }
    }

    /// It was answered in full.
    pub fn succeeded(&self) {
        self.seen().status = StatusCode::OK;
    }

    /// It failed, before or in the middle of a stream.
    pub fn failed(&self, error: &ApiError) {
        let mut seen = self.seen();
        if !seen.open {
            seen.status = error.status();
        }
        seen.code = error.code();
        if let ApiError::PaymentRequired(payment) = error {
            let stage = if seen.open { "midstream" } else { "admission" };
            self.0
                .app
                .metrics
                .payment_required_total
                .with_label_values(&[stage, payment.reason.as_str()])
                .inc();
        }
    }

    /// A provider failed, whether or not another one helps.
    pub fn upstream_failed(&self, failure: &Failure) {
        let seen = self.seen();
        let provider = seen.target.as_ref().map_or(OTHER, |m| &m.provider.name);
        self.0
            .app
            .metrics
            .upstream_errors_total
            .with_label_values(&[provider, failure.kind()])
            .inc();
        tracing::warn!(request_id = %self.0.id, provider, %failure, "a provider failed");
    }

    /// A provider's usage report could not be billed.
    pub fn usage_fault(&self, fault: UsageFault) {
        let seen = self.seen();
        let provider = seen.target.as_ref().map_or(OTHER, |m| &m.provider.name);
        self.0
            .app
            .metrics
            .usage_faults_total
            .with_label_values(&[provider])
            .inc();
        tracing::warn!(
            request_id = %self.0.id, provider, %fault,
            "a usage report cannot be billed; our own count is"
        );
    }

    /// Its charge ended.
    pub fn settled(&self, end: End, settled: Option<Settled>) {
        let mut seen = self.seen();
        seen.end = Some(end);
        seen.settled = settled;
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Request {
    fn count(&self, seen: &Seen, model: &str, provider: &str) {
        let metrics = &self.app.metrics;
        if seen.open {
            metrics.streams_open.dec();
        }
        metrics
            .requests_total
            .with_label_values(&[self.endpoint, model, provider, seen.status.as_str()])
            .inc();
        metrics
            .request_duration_seconds
            .observe(self.arrived.elapsed().as_secs_f64());
        let Some(settled) = &seen.settled else {
            return;
        };
        for (kind, tokens) in kinds(&settled.usage) {
            if tokens > 0 {
                metrics
                    .tokens_total
                    .with_label_values(&[model, provider, kind])
                    .inc_by(tokens);
            }
        }
        #[expect(
            clippy::cast_precision_loss,
            reason = "Prometheus counts in floats; the books do not"
        )]
        let credits = settled.charged.nanos() as f64 / 1e9;
        metrics
            .credits_charged_total
            .with_label_values(&[model, provider])
            .inc_by(credits);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let (model, provider) = seen
            .target
            .as_ref()
            .map_or((OTHER, OTHER), |m| (&m.id, &m.provider.name));
        self.count(&seen, model, provider);
        let usage = seen.settled.map(|s| s.usage).unwrap_or_default();
        tracing::info!(
            request_id = %self.id,
            endpoint = self.endpoint,
            account = seen.payer.map(|(account, _)| tracing::field::display(account)),
            key = seen.payer.map(|(_, key)| tracing::field::display(key)),
            model,
            provider,
            stream = seen.open,
            status = seen.status.as_u16(),
            code = seen.code,
            end = seen.end.map_or("", End::as_str),
            prompt_tokens = usage.prompt_total(),
            completion_tokens = usage.completion_total(),
            charged = seen.settled.map(|s| tracing::field::display(s.charged)),
            ms = u64::try_from(self.arrived.elapsed().as_millis()).unwrap_or(u64::MAX),
            "request"
        );
    }
}

/// The buckets by the names of the `kind` label.
fn kinds(usage: &Usage) -> [(&'static str, u64); Bucket::ALL.len()] {
    Bucket::ALL.map(|bucket| (bucket.as_str(), usage.get(bucket)))
}
