//! Every metric, with its unit and meaning: CONTRACT 5.

use prometheus::{
    Counter, CounterVec, Encoder as _, Gauge, GaugeVec, Histogram, HistogramOpts, IntCounterVec,
    IntGauge, Opts, Registry, TextEncoder,
};
use tokens::Side;

use crate::learning::Learning;

/// Seconds; from a quick refusal to a long answer.
const DURATION_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0,
];
/// Seconds; the gateway's own share.
const OVERHEAD_BUCKETS: &[f64] = &[
    0.000_05, 0.000_1, 0.000_2, 0.000_3, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5,
];

macro_rules! metrics {
    ($($(#[doc = $doc:literal])+ $field:ident: $kind:ident = $make:expr;)+) => {
        /// The program's metrics. Labels are bounded: never a key, an account or a client's text.
        #[derive(Clone, Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $doc])+ pub $field: $kind,)+
        }

        impl Metrics {
            /// All metrics at zero, registered.
            ///
            /// # Errors
            /// Two metrics of one name: a mistake in this file that its test finds.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(
                    let $field = {
                        let help = concat!($($doc),+).trim();
                        let name = concat!("tollway_", stringify!($field));
                        let metric = ($make)(name, help)?;
                        registry.register(Box::new(metric.clone()))?;
                        metric
                    };
                )+
                Ok(Self { registry, $($field,)+ })
            }
        }
    };
}

type Made<T> = prometheus::Result<T>;

fn counters(name: &str, help: &str, labels: &[&str]) -> Made<IntCounterVec> {
    IntCounterVec::new(Opts::new(name, help), labels)
}

fn sums(name: &str, help: &str, labels: &[&str]) -> Made<CounterVec> {
    CounterVec::new(Opts::new(name, help), labels)
}

fn gauges(name: &str, help: &str, labels: &[&str]) -> Made<GaugeVec> {
    GaugeVec::new(Opts::new(name, help), labels)
}

fn histogram(name: &str, help: &str, buckets: &[f64]) -> Made<Histogram> {
    Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))
}

metrics! {
    /// Requests answered, by endpoint, model (`other` where it is unknown), provider and HTTP status.
    requests_total: IntCounterVec = |n, h| counters(n, h, &["endpoint", "model", "provider", "status"]);
    /// Seconds from the arrival of a request to the end of its answer.
    request_duration_seconds: Histogram = |n, h| histogram(n, h, DURATION_BUCKETS);
    /// Seconds from the arrival of a request to the first output.
    time_to_first_token_seconds: Histogram = |n, h| histogram(n, h, DURATION_BUCKETS);
    /// Seconds that the gateway itself added before the request went upstream.
    overhead_seconds: Histogram = |n, h| histogram(n, h, OVERHEAD_BUCKETS);
    /// Tokens charged for, by model, provider and kind.
    tokens_total: IntCounterVec = |n, h| counters(n, h, &["model", "provider", "kind"]);
    /// Credits charged, by model and provider.
    credits_charged_total: CounterVec = |n, h| sums(n, h, &["model", "provider"]);
    /// Answers of 402, by stage (admission or midstream) and reason.
    payment_required_total: IntCounterVec = |n, h| counters(n, h, &["stage", "code"]);
    /// Streams open to clients now.
    streams_open: IntGauge = |n: &str, h: &str| IntGauge::new(n, h);
    /// Requests that hold credits now, on this replica.
    holds_open: IntGauge = |n: &str, h: &str| IntGauge::new(n, h);
    /// Credits set aside for running requests, on this replica.
    held_credits: Gauge = |n: &str, h: &str| Gauge::new(n, h);
    /// Credits leased to this replica and not set aside.
    leased_credits: Gauge = |n: &str, h: &str| Gauge::new(n, h);
    /// Settlements waiting to be written.
    journal_queue: IntGauge = |n: &str, h: &str| IntGauge::new(n, h);
    /// Seconds that the oldest settlement of the last batch waited.
    journal_lag_seconds: Gauge = |n: &str, h: &str| Gauge::new(n, h);
    /// 1 while the local journal cannot be written and no request is admitted; 0 also where none is kept.
    local_journal_failing: IntGauge = |n: &str, h: &str| IntGauge::new(n, h);
    /// Credits that the operator bore, by cause.
    house_loss_credits_total: CounterVec = |n, h| sums(n, h, &["cause"]);
    /// What the last audit found off, in credits; zero is what it should be.
    ledger_imbalance_credits: Gauge = |n: &str, h: &str| Gauge::new(n, h);
    /// Failures of providers, by provider and kind.
    upstream_errors_total: IntCounterVec = |n, h| counters(n, h, &["provider", "kind"]);
    /// Usage reports that could not be billed, so that our own count was, by provider.
    usage_faults_total: IntCounterVec = |n, h| counters(n, h, &["provider"]);
    /// How many tokens a model makes of one token of the encoding that it is counted with, by model,
    /// provider and side (prompt or completion): as configured, corrected by its answers.
    token_factor: GaugeVec = |n, h| gauges(n, h, &["model", "provider", "side"]);
    /// How much more was counted here than providers reported, as a share of what they reported, by
    /// model, provider and side (prompt or completion): of the requests of today and yesterday (UTC)
    /// that were counted although their usage was reported.
    drift_ratio: GaugeVec = |n, h| gauges(n, h, &["model", "provider", "side"]);
    /// Panics caught at the boundary; each is a mistake of ours.
    panics_total: Counter = |n: &str, h: &str| Counter::new(n, h);
}

impl Metrics {
    /// Shows what is known of a model's tokenizer.
    pub fn show_factors(&self, learning: &Learning) {
        for side in Side::ALL {
            let labels = [learning.model(), learning.provider(), side.as_str()];
            let factor = f64::from(learning.factor(side).thousandths()) / 1000.0;
            self.token_factor.with_label_values(&labels).set(factor);
        }
    }

    /// The text that Prometheus scrapes.
    ///
    /// # Errors
    /// Never for metrics that were registered.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        String::from_utf8(text).map_err(|error| prometheus::Error::Msg(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_of_the_contract_is_there_with_a_help_text() {
        let metrics = Metrics::new().unwrap();
        metrics
            .requests_total
            .with_label_values(&["chat.completions", "m", "p", "200"])
            .inc();
        metrics
            .house_loss_credits_total
            .with_label_values(&["x"])
            .inc_by(0.5);
        let text = metrics.render().unwrap();
        for name in [
            "tollway_requests_total{endpoint=\"chat.completions\",model=\"m\",provider=\"p\",status=\"200\"} 1",
            "# HELP tollway_overhead_seconds Seconds that the gateway",
            "tollway_streams_open 0",
            "tollway_local_journal_failing 0",
            "tollway_ledger_imbalance_credits 0",
            "tollway_house_loss_credits_total{cause=\"x\"} 0.5",
        ] {
            assert!(text.contains(name), "{name}\n{text}");
        }
    }
}
