//! The settlement: the one message that ends a charge and that the journal makes durable.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokens::{Usage, UsageSource};

use crate::{AccountId, Credits, KeyId, PriceId, ReplicaId, RequestId};

/// How a request that went upstream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum End {
    /// The provider finished its answer.
    Completed,
    /// The client hung up before the end.
    ClientGone,
    /// The provider failed, before or after output began.
    UpstreamFailed,
    /// The credits were used up in the middle of the stream.
    CreditsExhausted,
    /// The gateway could not go on: it died and the reaper charged its last checkpoint, it was
    /// stopped, or it lost its books in the middle of a stream.
    GatewayLost,
}

impl End {
    /// Every end, for tables and documentation.
    pub const ALL: [Self; 5] = [
        Self::Completed,
        Self::ClientGone,
        Self::UpstreamFailed,
        Self::CreditsExhausted,
        Self::GatewayLost,
    ];

    /// The name in JSON, in the database and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Completed => "completed",
            Self::ClientGone => "client_gone",
            Self::UpstreamFailed => "upstream_failed",
            Self::CreditsExhausted => "credits_exhausted",
            Self::GatewayLost => "gateway_lost",
        }
    }
}

/// What is known of a request when it is admitted, and stays with its charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestFacts {
    /// The request; also the idempotency key of its settlement.
    pub request_id: RequestId,
    /// Who pays.
    pub account_id: AccountId,
    /// The key that asked.
    pub key_id: KeyId,
    /// Whether the key has a limit of its own, so that its budget is drawn too.
    pub key_has_limit: bool,
    /// The endpoint, such as `chat.completions`.
    pub endpoint: &'static str,
    /// The model's id as configured.
    pub model: Arc<str>,
    /// The provider that serves it.
    pub provider: Arc<str>,
    /// The price version the request was admitted at.
    pub price_id: PriceId,
    /// Whether the client asked for a stream.
    pub stream: bool,
}

/// What a request costs and who bears it: `cost = charged + owed + house_loss`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capture {
    /// The price of the usage.
    pub cost: Credits,
    /// Taken from the hold, so covered by the replica's leases.
    pub charged: Credits,
    /// Not covered by the hold: the journal takes it from the account where credit is there,
    /// and books the rest as a house loss.
    pub owed: Credits,
    /// Already known that the operator bears it.
    pub house_loss: Credits,
}

/// Tokens by our own count, beside what the provider reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// All of the prompt.
    pub prompt: u64,
    /// All of the output.
    pub completion: u64,
}

/// Durations of a request, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// From admission to the end.
    pub duration_us: u64,
    /// From admission to the first byte of output, where there was one.
    pub first_token_us: Option<u64>,
}

/// The end of a charge. Sent exactly once for every request that went upstream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settlement {
    /// The request.
    pub facts: Arc<RequestFacts>,
    /// The replica whose leases covered it: where that was reaped meanwhile, the settlement is late.
    pub lease: ReplicaId,
    /// Whether a checkpoint was written, which the settlement replaces.
    pub checkpointed: bool,
    /// How it ended.
    pub end: End,
    /// What it consumed.
    pub usage: Usage,
    /// Who counted.
    pub source: UsageSource,
    /// What the provider reported, verbatim, where it did (bounded by the decoder).
    pub raw_usage: Option<Box<str>>,
    /// What was counted here, where the usage is what the provider reported and a count was made.
    pub counted: Option<Counted>,
    /// Money.
    pub capture: Capture,
    /// What the operator owes the provider; `None` where that is the cost.
    pub provider_cost: Option<Credits>,
    /// Durations.
    pub timings: Timings,
}

/// What a running request has consumed so far, written every few seconds so that a crash of the
/// gateway costs the operator no more than what was delivered since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The request.
    pub facts: Arc<RequestFacts>,
    /// The replica whose leases cover it.
    pub lease: ReplicaId,
    /// What it has consumed, by our own count.
    pub usage: Usage,
    /// What that costs; never more than the hold.
    pub cost: Credits,
    /// What the operator owes the provider; `None` where that is the cost.
    pub provider_cost: Option<Credits>,
}
