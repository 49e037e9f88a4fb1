//! The gateway's own work for a request, without a network or a database: parsed, held, encoded, decoded, metered, settled.
//!
//! Nothing in it depends on the time of day, on chance or on what ran before, so that the same code
//! takes the same instructions.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{
    AccountId, BudgetId, Charge, Credits, End, Escrow, Hold, KeyId, Meter, Output, Path, Permit,
    Price, PriceError, PriceId, Prompt, Rates, ReplicaId, RequestFacts, RequestId, Reserved,
    Settled, Settlement, Slot, Text, Verdict,
};
use bytes::{Bytes, BytesMut};
use dialect::{
    Bill, ChatRequest, ClientDialect, DecodeError, Delta, Dialect, EVENT_BYTES_MAX, Edit, Features,
    FrameError, Framing, Keep, Origin, Pair, Quirks, RequestError, RequestLimits, StreamNames,
    TextRef,
};
use tokens::{Encoding, Factor, Tokenizer, Usage};
use tokio::sync::mpsc;
use uuid::Uuid;

/// Chunks of text in [`Work::streamed`].
pub const CHUNKS: usize = 64;
/// How much of a stream arrives at once: what the HTTP client reads.
const READ_BYTES: usize = 8 * 1024;
/// What the account has: more than any run spends.
const LEASED_NANOS: i64 = 1 << 60;

/// For how long there is credit: longer than any run.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// A request as clients send it, about 700 bytes of JSON.
pub const REQUEST: &str = include_str!("request.json");
/// A plain answer as providers send it, about 1 KB of JSON.
pub const ANSWER: &str = include_str!("answer.json");

/// Why the work could not be done: a mistake in it, or in what it measures.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// The request cannot be read or written.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The provider's bytes are no events.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The provider's answer cannot be read.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A cost cannot be told.
    #[error(transparent)]
    Price(#[from] PriceError),
    /// Something did not come out as it must.
    #[error("{0}")]
    Wrong(&'static str),
}

/// An account with credit, a priced model, and a provider that speaks OpenAI's dialect.
#[derive(Debug)]
pub struct Work {
    path: Path,
    price: Arc<Price>,
    quirks: Arc<Quirks>,
    features: Features,
    pair: Pair,
    tokenizer: Tokenizer,
    sender: mpsc::Sender<Settlement>,
    settlements: mpsc::Receiver<Settlement>,
    _escrow: Escrow,
    now: Instant,
    request: Bytes,
    streamed: Bytes,
    answer: Bytes,
    events: Vec<Bytes>,
    out: BytesMut,
}

impl Work {
    /// Everything that is there before a request comes.
    ///
    /// # Errors
    /// Never, unless prices have changed what they refuse.
    pub fn new() -> Result<Self, WorkError> {
        let now = Instant::now();
        let replica = ReplicaId::from_uuid(Uuid::from_u128(9));
        let escrow = Escrow::new(replica, now);
        escrow.extend_fence(now + YEAR);
        let budget = escrow.budget(BudgetId::Account(AccountId::from_uuid(Uuid::from_u128(1))));
        budget.add_lease(replica, Credits::from_nanos(LEASED_NANOS), None);
        let rate = |credits: i64| Credits::from_nanos(credits * 1_000_000_000);
        let (sender, settlements) = mpsc::channel(4);
        let quirks = Arc::new(Quirks::default());
        let events = events();
        Ok(Self {
            path: Path::new([budget]),
            price: Arc::new(Price::new(Rates::plain(rate(1), rate(2)), vec![])?),
            pair: Pair::new(ClientDialect::Chat, Dialect::OpenAi, &quirks),
            quirks,
            features: Features::default(),
            tokenizer: Tokenizer::new(Encoding::O200kBase, Factor::EXACT),
            sender,
            settlements,
            _escrow: escrow,
            now,
            request: Bytes::from_static(REQUEST.as_bytes()),
            streamed: Bytes::from(REQUEST.replacen('{', r#"{"stream":true,"#, 1)),
            answer: Bytes::from_static(ANSWER.as_bytes()),
            events: events
                .chunks(READ_BYTES)
                .map(Bytes::copy_from_slice)
                .collect(),
            out: BytesMut::new(),
        })
    }

    /// A request with a plain answer, from the client's bytes to the client's bytes. Gives the bytes
    /// of the answer.
    ///
    /// # Errors
    /// [`WorkError`].
    pub fn plain(&mut self) -> Result<usize, WorkError> {
        let body = self.request.clone();
        let request = ChatRequest::parse(&body, &RequestLimits::default())?;
        let mut charge = self.sent(&request, body.len())?;
        let names = names();
        let origin = names.origin.clone();
        let answer = self
            .pair
            .decode(self.answer.clone(), &self.quirks, origin)?;
        let Some(Ok(usage)) = answer.usage() else {
            return Err(WorkError::Wrong("an answer without usage"));
        };
        charge.report(usage, answer.usage_text().map(Into::into));
        if charge.lacking()?.is_positive() {
            return Err(WorkError::Wrong("a hold that does not cover"));
        }
        let settled = self.settle(charge)?;
        let written = with_bill(&settled, |bill| self.pair.answer(&answer, bill, &names));
        Ok(written.len())
    }

    /// A request whose answer is a stream of [`CHUNKS`] chunks that comes in a burst. Gives the bytes
    /// that the client gets.
    ///
    /// # Errors
    /// [`WorkError`].
    pub fn streamed(&mut self) -> Result<usize, WorkError> {
        let body = self.streamed.clone();
        let request = ChatRequest::parse(&body, &RequestLimits::default())?;
        let mut charge = self.sent(&request, body.len())?;
        let names = names();
        let origin = names.origin.clone();
        let mut decoder = self.pair.decoder(self.quirks.clone(), origin);
        let mut writer = self.pair.writer(names, request.include_usage());
        let mut framer = Framing::Sse.framer(EVENT_BYTES_MAX);
        let mut deltas = Vec::new();
        for read in &self.events {
            framer.push(read.clone());
            while let Some(event) = framer.next() {
                decoder.push(event?, &mut deltas)?;
            }
            for delta in deltas.drain(..) {
                let Delta::Chunk(chunk) = delta else { continue };
                if let Some(Ok(usage)) = chunk.usage() {
                    charge.report(usage, chunk.usage_text().map(Into::into));
                }
                let texts: Vec<Text<'_>> = chunk.texts().map(piece).collect();
                if charge.observe(&texts, self.now)? != Verdict::Continue {
                    return Err(WorkError::Wrong("a chunk that is not covered"));
                }
                writer.chunk(&chunk, None, &mut self.out);
            }
        }
        let settled = self.settle(charge)?;
        let (template, out) = (decoder.template(), &mut self.out);
        with_bill(&settled, |bill| writer.complete(Some(bill), template, out));
        Ok(self.out.split().len())
    }

    /// A hold and its settlement, with nothing in between.
    ///
    /// # Errors
    /// [`WorkError`].
    pub fn hold_and_settle(&mut self) -> Result<Credits, WorkError> {
        let mut charge = self.charge(REQUEST.len(), true)?;
        let usage = Usage {
            prompt: 100,
            completion: 100,
            ..Usage::default()
        };
        charge.report(usage, None);
        Ok(self.settle(charge)?.charged)
    }

    /// Holds for a request and writes it for the provider.
    fn sent(&self, request: &ChatRequest<'_>, bytes: usize) -> Result<Charge, WorkError> {
        let edit = Edit {
            upstream_model: "mock-gpt",
            output_limit: None,
            output_tokens_max: 4096,
            features: &self.features,
            ask_stream_usage: request.stream(),
        };
        let charge = self.charge(bytes, request.stream())?;
        let wire = Dialect::OpenAi.encode(request, &edit, &self.quirks)?;
        if wire.body.len() < bytes {
            return Err(WorkError::Wrong("a request that has lost something"));
        }
        Ok(charge)
    }

    fn charge(&self, bytes: usize, stream: bool) -> Result<Charge, WorkError> {
        let bound = Usage {
            prompt: self.tokenizer.upper_bound(bytes),
            ..Usage::default()
        };
        let worst = self.price.worst_cost(&bound, 4096)?;
        let reserved = Reserved::take(&self.path, worst, self.now);
        let reserved = reserved.map_err(|_| WorkError::Wrong("no credit"))?;
        let place = self.sender.clone().try_reserve_owned();
        let place = place.map_err(|_| WorkError::Wrong("no place in the journal's queue"))?;
        let hold = Hold::new(reserved, Permit::new(place, None));
        let prompt = Prompt::AtMost(bound, Box::new(move || bound));
        let meter = Meter::new(self.price.clone(), self.tokenizer, prompt);
        let facts = RequestFacts {
            request_id: RequestId::from_uuid(Uuid::from_u128(3)),
            account_id: AccountId::from_uuid(Uuid::from_u128(1)),
            key_id: KeyId::from_uuid(Uuid::from_u128(2)),
            key_has_limit: false,
            endpoint: "chat.completions",
            model: "mock-gpt".into(),
            provider: "rig".into(),
            price_id: PriceId::from_uuid(Uuid::nil()),
            stream,
        };
        hold.start(Arc::new(facts), meter, self.now)
            .map_err(|_| WorkError::Wrong("a journal that is not there"))
    }

    fn settle(&mut self, charge: Charge) -> Result<Settled, WorkError> {
        let settled = charge.finish(End::Completed);
        let sent = self.settlements.try_recv();
        match (settled, sent) {
            (Some(settled), Ok(_)) if settled.charged.is_positive() => Ok(settled),
            _ => Err(WorkError::Wrong("a charge that was not settled")),
        }
    }
}

/// The events of a stream, as the provider sends them.
#[must_use]
pub fn events() -> Vec<u8> {
    let chunk = |delta: &str, finish: &str| {
        format!(
            "data: {{\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
             \"model\":\"mock-gpt\",\"system_fingerprint\":\"fp_0123\",\"choices\":[{{\"index\":0,\"delta\":{delta},\
             \"logprobs\":null,\"finish_reason\":{finish}}}]}}\n\n"
        )
    };
    let mut events = chunk(r#"{"role":"assistant","content":""}"#, "null");
    for place in 0..CHUNKS {
        events += &chunk(&format!(r#"{{"content":" word{}"}}"#, place % 10), "null");
    }
    events += &chunk("{}", r#""stop""#);
    events += "data: {\"id\":\"chatcmpl-0123456789\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
               \"model\":\"mock-gpt\",\"choices\":[],\"usage\":{\"prompt_tokens\":100,\"completion_tokens\":64,\
               \"total_tokens\":164}}\n\ndata: [DONE]\n\n";
    events.into_bytes()
}

fn names() -> StreamNames {
    StreamNames {
        origin: Origin {
            created: 1_700_000_000,
            id: "req_1".into(),
            model: "mock-gpt".into(),
        },
        repeated: String::new(),
        tier: String::new(),
        keep: Keep::Nobody,
        clock: || 1_700_000_000,
    }
}

fn piece(text: TextRef<'_>) -> Text<'_> {
    Text {
        slot: Slot {
            choice: text.choice,
            part: 0,
            output: Output::Completion,
        },
        text: text.text,
    }
}

fn with_bill<T>(settled: &Settled, write: impl FnOnce(&Bill<'_>) -> T) -> T {
    let cost = settled.charged.to_string();
    write(&Bill {
        usage: &settled.usage,
        source: settled.source,
        cost: &cost,
        cost_details: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_work_is_done_again_and_again_alike() {
        let mut work = Work::new().unwrap();
        let (plain, streamed) = (work.plain().unwrap(), work.streamed().unwrap());
        assert!(plain > ANSWER.len(), "{plain}");
        assert!(streamed > CHUNKS * 100, "{streamed}");
        for _ in 0..3 {
            assert_eq!(work.plain().unwrap(), plain);
            assert_eq!(work.streamed().unwrap(), streamed);
            let charged = work.hold_and_settle().unwrap();
            assert_eq!(charged, Credits::from_nanos(300_000));
        }
    }
}
