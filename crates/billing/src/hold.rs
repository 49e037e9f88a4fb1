//! The life of a hold: set aside, started, and settled exactly once however the request ends.

use std::{sync::Arc, time::Instant};

use tokens::{Usage, UsageSource};
use tokio::sync::mpsc::OwnedPermit;

use crate::{
    Capture, Checkpoint, Credits, End, Meter, Path, PriceError, RequestFacts, Reserved, Settlement,
    Text, Timings, Verdict,
};

/// Tokens that a growing hold takes in one step.
const SLICE_TOKENS: u64 = 512;
/// Output is tokenized when this much of it waits and its byte bound is no longer covered:
/// below, taking another slice in memory is cheaper than counting.
const TOKENIZE_AT_BYTES: usize = 2048;

/// Credits set aside for a request that has not gone upstream. Dropping it releases them.
#[derive(Debug)]
pub struct Hold {
    reserved: Reserved,
    permit: OwnedPermit<Settlement>,
}

impl Hold {
    /// A hold of what is reserved. The permit is its place in the journal's queue, taken before
    /// anything is promised, so that a settlement can be sent from `drop`.
    #[must_use]
    pub const fn new(reserved: Reserved, permit: OwnedPermit<Settlement>) -> Self {
        Self { reserved, permit }
    }

    /// What is set aside.
    #[must_use]
    pub const fn amount(&self) -> Credits {
        self.reserved.amount()
    }

    /// The reservation, to grow or shrink it before another attempt upstream.
    pub const fn reserved_mut(&mut self) -> &mut Reserved {
        &mut self.reserved
    }

    /// The request goes upstream: from here on it is charged.
    #[must_use]
    pub fn start(self, facts: Arc<RequestFacts>, meter: Meter, admitted: Instant) -> Charge {
        Charge(Some(Open {
            reserved: self.reserved,
            permit: self.permit,
            facts,
            meter,
            admitted,
            first_output: None,
            observed: 0,
            checkpointed: false,
        }))
    }
}

/// A hold whose request has gone upstream. Dropping it settles as "client gone", so no way out
/// of a request forgets to pay.
#[derive(Debug)]
pub struct Charge(Option<Open>);

#[derive(Debug)]
struct Open {
    reserved: Reserved,
    permit: OwnedPermit<Settlement>,
    facts: Arc<RequestFacts>,
    meter: Meter,
    admitted: Instant,
    first_output: Option<Instant>,
    /// Pieces of the current chunk that are already taken in.
    observed: usize,
    checkpointed: bool,
}

/// How a charge came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What is charged for.
    pub usage: Usage,
    /// Who counted it.
    pub source: UsageSource,
    /// What the customer pays.
    pub charged: Credits,
}

/// What becomes of a cost above the hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overrun {
    /// More credit was asked for and not there: the operator bears it.
    HouseLoss,
    /// Nobody could wait for credit: the journal takes it from the balance where it is there.
    Owed,
}

impl Charge {
    /// The request.
    #[must_use]
    pub fn facts(&self) -> Option<&Arc<RequestFacts>> {
        self.0.as_ref().map(|open| &open.facts)
    }

    /// The budgets it is paid from.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.as_ref().map(|open| open.reserved.path())
    }

    /// What is set aside now.
    #[must_use]
    pub fn held(&self) -> Credits {
        self.0
            .as_ref()
            .map_or(Credits::ZERO, |open| open.reserved.amount())
    }

    /// True when output was delivered.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.0.as_ref().is_some_and(|open| open.meter.has_output())
    }

    /// Judges a chunk's pieces of output. After [`Verdict::NeedsCredit`] call again with the
    /// same pieces when the hold may have grown, or [`Charge::cut`].
    ///
    /// Tokenizes at most what waits plus the pieces: for large pieces call it where blocking
    /// is allowed.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn observe(&mut self, texts: &[Text<'_>], now: Instant) -> Result<Verdict, PriceError> {
        let Some(open) = &mut self.0 else {
            return Ok(Verdict::Continue);
        };
        open.observe(texts, now)
    }

    /// No more credit is to be had: takes in what still fits of the pieces, and tells how many
    /// leading bytes of each that is.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn cut(&mut self, texts: &[Text<'_>]) -> Result<Vec<usize>, PriceError> {
        let Some(open) = &mut self.0 else {
            return Ok(vec![0; texts.len()]);
        };
        let mut keep: Vec<usize> = texts.iter().take(open.observed).map(|t| t.text.len()).collect();
        if let Some(text) = texts.get(open.observed) {
            let bytes = open.meter.fit(*text, open.reserved.amount())?;
            let kept = text.text.get(..bytes).unwrap_or_default();
            open.meter.push(Text { text: kept, ..*text });
            keep.push(kept.len());
        }
        keep.resize(texts.len(), 0);
        open.observed = 0;
        Ok(keep)
    }

    /// Output that the end of the charge may have to tokenize, in bytes.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.0.as_ref().map_or(0, |open| open.meter.pending_bytes())
    }

    /// Keeps what the provider reported.
    pub fn report(&mut self, usage: Usage, raw: Option<Box<str>>) {
        if let Some(open) = &mut self.0 {
            open.meter.report(usage, raw);
        }
    }

    /// Notes the first output, for the time to the first token.
    pub fn mark_first_output(&mut self, now: Instant) {
        if let Some(open) = &mut self.0 {
            open.first_output.get_or_insert(now);
        }
    }

    /// What the reported usage costs above the hold: grow by this before finishing.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn lacking(&self) -> Result<Credits, PriceError> {
        let Some(open) = &self.0 else {
            return Ok(Credits::ZERO);
        };
        let Some(usage) = open.meter.reported() else {
            return Ok(Credits::ZERO);
        };
        let cost = open.meter.cost(usage)?;
        Ok(cost.saturating_sub(open.reserved.amount()).at_least_zero())
    }

    /// Grows the hold, all of `more` or nothing; false when it is not to be had in memory.
    pub fn grow(&mut self, more: Credits, now: Instant) -> bool {
        self.0
            .as_mut()
            .is_some_and(|open| open.reserved.grow(more, now).is_ok())
    }

    /// Grows the hold by as much of `more` as there is in memory.
    pub fn grow_up_to(&mut self, more: Credits, now: Instant) -> Credits {
        self.0.as_mut().map_or(Credits::ZERO, |open| {
            open.reserved.grow_up_to(more, now)
        })
    }

    /// What was consumed so far by our own count and what of it the hold covers.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn checkpoint(&mut self) -> Result<Option<Checkpoint>, PriceError> {
        let Some(open) = &mut self.0 else {
            return Ok(None);
        };
        let usage = open.meter.counted();
        let cost = open.meter.cost(&usage)?.min(open.reserved.amount());
        open.checkpointed = true;
        Ok(Some(Checkpoint {
            facts: open.facts.clone(),
            lease: open.reserved.replica(),
            usage,
            cost,
        }))
    }

    /// What the customer would pay if the request ended now: shown beside reported usage.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn quote(&mut self, end: End) -> Result<Settled, PriceError> {
        let Some(open) = &mut self.0 else {
            return Ok(Settled {
                usage: Usage::default(),
                source: UsageSource::Counted,
                charged: Credits::ZERO,
            });
        };
        let (usage, source) = open.consumed(end);
        let charged = open.meter.cost(&usage)?.min(open.reserved.amount());
        Ok(Settled {
            usage,
            source,
            charged,
        })
    }

    /// The attempt failed before any output, so nothing is owed for it: back to a hold, for
    /// another attempt.
    #[must_use]
    pub fn retract(mut self) -> Option<Hold> {
        self.0
            .take()
            .map(|open| Hold::new(open.reserved, open.permit))
    }

    /// The client is gone: what dropping does, and tells what came of it.
    pub fn abandon(mut self) -> Option<Settled> {
        self.0
            .take()
            .map(|open| open.settle(End::ClientGone, Overrun::Owed))
    }

    /// Ends the charge and sends its settlement. A cost above the hold is a house loss: ask for
    /// what is [`Charge::lacking`] before.
    pub fn finish(mut self, end: End) -> Option<Settled> {
        self.0
            .take()
            .map(|open| open.settle(end, Overrun::HouseLoss))
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(open) = self.0.take() {
            open.settle(End::ClientGone, Overrun::Owed);
        }
    }
}

impl Open {
    fn observe(&mut self, texts: &[Text<'_>], now: Instant) -> Result<Verdict, PriceError> {
        if self.observed == 0 {
            let bound = self.meter.cost(&self.meter.bound_with(texts))?;
            let covered = bound <= self.reserved.amount()
                || (self.meter.pending_bytes() < TOKENIZE_AT_BYTES
                    && self.grow_by_slices(bound, now)?);
            if covered {
                for text in texts {
                    self.meter.push(*text);
                }
                return Ok(Verdict::Continue);
            }
        }
        while let Some(text) = texts.get(self.observed) {
            let fits = self.meter.fit(*text, self.reserved.amount())? == text.text.len();
            if !fits {
                let usage = self.meter.counted();
                let with = self.meter.cost(&with_text(usage, &self.meter, text))?;
                let least = with.saturating_sub(self.reserved.amount());
                let slice = self.slice(&usage)?;
                if self.reserved.grow(least.max(slice), now).is_err()
                    && self.reserved.grow(least, now).is_err()
                {
                    return Ok(Verdict::NeedsCredit { least, slice });
                }
            }
            self.meter.push(*text);
            self.observed += 1;
        }
        self.observed = 0;
        Ok(Verdict::Continue)
    }

    /// Grows to cover `bound` and a slice more, where memory has it.
    fn grow_by_slices(&mut self, bound: Credits, now: Instant) -> Result<bool, PriceError> {
        let lacking = bound.saturating_sub(self.reserved.amount());
        let slice = self.slice(&self.meter.bound_with(&[]))?;
        Ok(self.reserved.grow(lacking.max(slice), now).is_ok())
    }

    /// What a slice of output costs after `usage`.
    fn slice(&self, usage: &Usage) -> Result<Credits, PriceError> {
        let mut more = *usage;
        more.completion = more.completion.saturating_add(SLICE_TOKENS);
        let with = self.meter.cost(&more)?;
        Ok(with.saturating_sub(self.meter.cost(usage)?))
    }

    /// What is charged for, by how it ended: the one table of DESIGN 3.
    fn consumed(&mut self, end: End) -> (Usage, UsageSource) {
        match end {
            // The provider's last word may have arrived before the client hung up.
            End::Completed | End::ClientGone => self.meter.verdict_usage(true),
            End::UpstreamFailed if !self.meter.has_output() => {
                (Usage::default(), UsageSource::Counted)
            }
            End::UpstreamFailed | End::CreditsExhausted | End::GatewayLost => {
                self.meter.verdict_usage(false)
            }
        }
    }

    fn settle(mut self, end: End, overrun: Overrun) -> Settled {
        let (usage, source) = self.consumed(end);
        let held = self.reserved.amount();
        let nothing = end == End::UpstreamFailed && usage == Usage::default();
        let cost = if nothing {
            // Not even a fee per request: nothing was delivered.
            Ok(Credits::ZERO)
        } else {
            self.meter.cost(&usage)
        };
        // A cost that does not fit is a provider's absurd report; what was held is all that
        // can be justified.
        let cost = cost.unwrap_or(held);
        let charged = cost.min(held);
        let rest = cost.saturating_sub(charged);
        let (owed, house_loss) = match overrun {
            Overrun::Owed => (rest, Credits::ZERO),
            Overrun::HouseLoss => (Credits::ZERO, rest),
        };
        let us = |from: Instant, to: Instant| {
            u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
        };
        let settlement = Settlement {
            lease: self.reserved.replica(),
            checkpointed: self.checkpointed,
            facts: self.facts,
            end,
            usage,
            source,
            raw_usage: self.meter.take_raw_report(),
            capture: Capture {
                cost,
                charged,
                owed,
                house_loss,
            },
            timings: Timings {
                duration_us: us(self.admitted, Instant::now()),
                first_token_us: self.first_output.map(|at| us(self.admitted, at)),
            },
        };
        self.reserved.spend(charged);
        self.permit.send(settlement);
        Settled {
            usage,
            source,
            charged,
        }
    }
}

/// `usage` and at most what `text` adds.
fn with_text(mut usage: Usage, meter: &Meter, text: &Text<'_>) -> Usage {
    let more = meter.text_bound(text);
    match text.slot.output {
        crate::Output::Completion => usage.completion = usage.completion.saturating_add(more),
        crate::Output::Reasoning => usage.reasoning = usage.reasoning.saturating_add(more),
    }
    usage
}
