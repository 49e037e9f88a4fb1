//! Every setting that is one value: its name, its meaning, its default, and how its text is taken in.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use super::{ClientGonePolicy, Pooler, Secret, Settings};

/// A setting that is one value: its name, its meaning, and how its text is taken in.
pub struct Setting {
    /// The key in `tollway.toml`; `TOLLWAY_` and its upper case in the environment.
    pub name: &'static str,
    /// One line of documentation.
    pub doc: &'static str,
    /// The default as it would be written, or empty where there is none.
    pub default: &'static str,
    pub(super) apply: fn(&mut Settings, &str) -> Result<(), String>,
}

/// Every setting that is one value.
pub const SETTINGS: &[Setting] = &[
    Setting {
        name: "listen",
        doc: "address and port for clients",
        default: "127.0.0.1:8402",
        apply: |s, v| address(v).map(|a| s.listen = a),
    },
    Setting {
        name: "database_url",
        doc: "where the books are kept: sqlite://PATH or postgres://USER:PASSWORD@HOST/NAME (also DATABASE_URL)",
        default: "sqlite://tollway-data/tollway.db",
        apply: |s, v| {
            s.database_url = v.to_owned();
            Ok(())
        },
    },
    Setting {
        name: "admin_key",
        doc: "the operator's key, at least 16 characters; made and printed at the first start where it is not set",
        default: "",
        apply: |s, v| {
            if v.len() < 16 {
                return Err("an admin key has at least 16 characters".into());
            }
            s.admin_key = Some(Secret::new(v.to_owned()));
            Ok(())
        },
    },
    Setting {
        name: "providers",
        doc: "a directory of provider files, added to the built-in ones; the same name replaces one",
        default: "",
        apply: |s, v| {
            s.providers = Some(PathBuf::from(v));
            Ok(())
        },
    },
    Setting {
        name: "prices",
        doc: "a file of own prices, which override those of the provider files, and of markups",
        default: "",
        apply: |s, v| {
            s.prices = Some(PathBuf::from(v));
            Ok(())
        },
    },
    Setting {
        name: "top_up_url",
        doc: "where customers buy credits; shown in a 402",
        default: "",
        apply: |s, v| {
            s.top_up_url = Some(v.to_owned());
            Ok(())
        },
    },
    Setting {
        name: "metrics_listen",
        doc: "an address of its own for /metrics; it is then not served to clients",
        default: "",
        apply: |s, v| address(v).map(|a| s.metrics_listen = Some(a)),
    },
    Setting {
        name: "demo",
        doc: "serve the demo provider even where others are configured",
        default: "false",
        apply: |s, v| {
            s.demo = v.parse().map_err(|_| "write true or false".to_owned())?;
            Ok(())
        },
    },
    Setting {
        name: "client_gone",
        doc: "when a client hangs up mid-stream: cancel (close upstream, charge our own count) or drain (read on for the provider's figure)",
        default: "cancel",
        apply: |s, v| {
            s.client_gone = match v {
                "cancel" => ClientGonePolicy::Cancel,
                "drain" => ClientGonePolicy::Drain,
                _ => return Err("write cancel or drain".into()),
            };
            Ok(())
        },
    },
    Setting {
        name: "drain_seconds_max",
        doc: "how long a drained stream is read on at most",
        default: "30",
        apply: |s, v| seconds(v).map(|d| s.drain_max = d),
    },
    Setting {
        name: "body_bytes_max",
        doc: "largest request body",
        default: "20971520",
        apply: |s, v| number(v, 1024, 1 << 30).map(|n| s.body_bytes_max = n),
    },
    Setting {
        name: "file_bytes_max",
        doc: "largest form with a file for /v1/files, which is passed on as it comes and never held whole",
        default: "536870912",
        apply: |s, v| number(v, 1024, 1 << 40).map(|n| s.file_bytes_max = n as u64),
    },
    Setting {
        name: "bodies_bytes_max",
        doc: "request bodies over 64 KiB together; one that does not fit is answered 503",
        default: "1073741824",
        apply: |s, v| number(v, 1 << 20, 1 << 40).map(|n| s.bodies_bytes_max = n),
    },
    Setting {
        name: "event_bytes_max",
        doc: "largest event of a provider's stream",
        default: "1048576",
        apply: |s, v| number(v, 4096, 1 << 28).map(|n| s.event_bytes_max = n),
    },
    Setting {
        name: "answer_bytes_max",
        doc: "largest plain answer of a provider",
        default: "67108864",
        apply: |s, v| number(v, 4096, 1 << 30).map(|n| s.answer_bytes_max = n),
    },
    Setting {
        name: "requests_max",
        doc: "requests in flight at most; one more is answered 503",
        default: "16384",
        apply: |s, v| number(v, 1, 1 << 20).map(|n| s.requests_max = n),
    },
    Setting {
        name: "requests_per_key_max",
        doc: "requests of one key in flight at most, on each replica; one more is answered 429",
        default: "4096",
        apply: |s, v| number(v, 1, 1 << 20).map(|n| s.requests_per_key_max = n),
    },
    Setting {
        name: "idempotency_seconds",
        doc: "how long an Idempotency-Key stands for its first request and that one's answer",
        default: "86400",
        apply: |s, v| seconds(v).map(|d| s.idempotency_kept = d),
    },
    Setting {
        name: "idempotency_wait_seconds",
        doc: "how long a repeated request waits for the answer of the first one that still runs; then it is answered 409",
        default: "30",
        apply: |s, v| seconds(v).map(|d| s.idempotency_wait = d),
    },
    Setting {
        name: "idempotency_answer_bytes_max",
        doc: "largest answer that is kept for its Idempotency-Key; a longer one is not served again, nor charged again",
        default: "1048576",
        apply: |s, v| number(v, 0, 1 << 26).map(|n| s.idempotency_answer_bytes_max = n),
    },
    Setting {
        name: "idempotency_account_bytes_max",
        doc: "answers kept for one account; of more, the oldest are dropped",
        default: "67108864",
        apply: |s, v| number(v, 0, 1 << 36).map(|n| s.idempotency_account_bytes_max = n),
    },
    Setting {
        name: "idempotency_keys_max",
        doc: "Idempotency-Keys that one account may have within their time; one more is answered 429",
        default: "10000",
        apply: |s, v| number(v, 1, 1 << 30).map(|n| s.idempotency_keys_max = n),
    },
    Setting {
        name: "responses_days",
        doc: "how long responses (`/v1/responses`) are kept for clients that come back to them; 0: none is kept, here or at a provider, whatever `store` says",
        default: "30",
        apply: |s, v| {
            number(v, 0, 3650).map(|n| s.responses_kept = Duration::from_secs(n as u64 * 24 * 3600))
        },
    },
    Setting {
        name: "response_bytes_max",
        doc: "largest response that is kept, with everything that was said before it; a longer one is answered, and not kept",
        default: "4194304",
        apply: |s, v| number(v, 0, 1 << 26).map(|n| s.response_bytes_max = n),
    },
    Setting {
        name: "responses_account_bytes_max",
        doc: "responses kept for one account, about; of more, the oldest are dropped",
        default: "268435456",
        apply: |s, v| number(v, 4096, 1 << 40).map(|n| s.responses_account_bytes_max = n),
    },
    Setting {
        name: "connections_max",
        doc: "open client connections at most; more wait to be accepted",
        default: "20000",
        apply: |s, v| number(v, 1, 1 << 20).map(|n| s.connections_max = n),
    },
    Setting {
        name: "connect_timeout_seconds",
        doc: "to connect to a provider",
        default: "5",
        apply: |s, v| seconds(v).map(|d| s.connect_timeout = d),
    },
    Setting {
        name: "first_byte_timeout_seconds",
        doc: "to the first byte of a provider's answer",
        default: "300",
        apply: |s, v| seconds(v).map(|d| s.first_byte_timeout = d),
    },
    Setting {
        name: "idle_timeout_seconds",
        doc: "between two reads of a provider's stream",
        default: "120",
        apply: |s, v| seconds(v).map(|d| s.idle_timeout = d),
    },
    Setting {
        name: "output_timeout_seconds",
        doc: "of a provider's stream that goes on sending, but only comments and events without output",
        default: "600",
        apply: |s, v| seconds(v).map(|d| s.output_timeout = d),
    },
    Setting {
        name: "header_timeout_seconds",
        doc: "for a client to send its request's headers",
        default: "10",
        apply: |s, v| seconds(v).map(|d| s.header_timeout = d),
    },
    Setting {
        name: "body_timeout_seconds",
        doc: "for a client to send its request's body",
        default: "60",
        apply: |s, v| seconds(v).map(|d| s.body_timeout = d),
    },
    Setting {
        name: "shutdown_grace_seconds",
        doc: "how long running streams may go on after SIGTERM",
        default: "30",
        apply: |s, v| seconds(v).map(|d| s.shutdown_grace = d),
    },
    Setting {
        name: "attempts_max",
        doc: "attempts upstream per request, over all its targets",
        default: "3",
        apply: |s, v| number(v, 1, 16).map(|n| s.attempts_max = n),
    },
    Setting {
        name: "passthrough_provider",
        doc: "the provider of requests that are passed through and name neither a model nor, in x-tollway-provider, a provider, where several would do",
        default: "",
        apply: |s, v| {
            s.passthrough_provider = Some(v.to_owned());
            Ok(())
        },
    },
    Setting {
        name: "audit_every_seconds",
        doc: "how often the books are proved for the metric tollway_ledger_imbalance_credits, and tollway_drift_ratio is read; the proof reads every charge",
        default: "3600",
        apply: |s, v| seconds(v).map(|d| s.audit_every = d),
    },
    Setting {
        name: "batch_look_every_seconds",
        doc: "how often a provider is asked what became of a batch that credits are set aside for and nobody asks about: what failed, expired or is gone gives them back",
        default: "600",
        apply: |s, v| seconds(v).map(|d| s.batch_look_every = d),
    },
    Setting {
        name: "samples_per_minute",
        doc: "requests of each model that each replica counts although their usage is reported, per minute, after the first fifty: token factors are learned from them; 0: none",
        default: "6",
        apply: |s, v| {
            let n = number(v, 0, 60_000)?;
            s.samples_per_minute = u32::try_from(n).unwrap_or(u32::MAX);
            Ok(())
        },
    },
    Setting {
        name: "local_journal",
        doc: "a directory of this gateway's own on a local disk, in which it writes down what every request owes before the answer goes on: then kill -9 loses nothing",
        default: "",
        apply: |s, v| {
            s.local_journal = (!v.is_empty()).then(|| PathBuf::from(v));
            Ok(())
        },
    },
    Setting {
        name: "database_connections",
        doc: "connections to the database beside the journal's own",
        default: "8",
        apply: |s, v| {
            number(v, 1, 256).and_then(|n| {
                s.database_connections = u32::try_from(n).map_err(|e| e.to_string())?;
                Ok(())
            })
        },
    },
    Setting {
        name: "database_pooler",
        doc: "what stands before Postgres: session (nothing, or a pooler with a session for each connection), transaction (PgBouncer with pool_mode = transaction), or detect (find out at the start)",
        default: "detect",
        apply: |s, v| {
            s.database_pooler = match v {
                "detect" => Pooler::Detect,
                "session" => Pooler::Session,
                "transaction" => Pooler::Transaction,
                _ => return Err("write detect, session or transaction".into()),
            };
            Ok(())
        },
    },
];

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| format!("expected an address and port such as 127.0.0.1:8402, got {text:?}"))
}

fn number(text: &str, least: usize, most: usize) -> Result<usize, String> {
    text.replace('_', "")
        .parse()
        .ok()
        .filter(|n| (least..=most).contains(n))
        .ok_or_else(|| format!("expected a whole number from {least} to {most}, got {text:?}"))
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text
        .parse()
        .map_err(|_| format!("expected seconds such as 30 or 0.5, got {text:?}"))?;
    if !(0.001..=86_400.0).contains(&seconds) {
        return Err(format!("expected 0.001 to 86400 seconds, got {text:?}"));
    }
    Ok(Duration::from_secs_f64(seconds))
}
