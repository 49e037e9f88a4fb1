//! The life of a hold: set aside, started, and settled exactly once however the request ends.

use std::{sync::Arc, time::Instant};

use tokens::{Usage, UsageSource};

use crate::{
    Capture, Checkpoint, CostDetails, Credits, End, Meter, NotRecorded, Path, Permit, PriceError,
    RequestFacts, Reserved, Sample, ServiceTier, Settlement, Text, Timings, Verdict,
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
    permit: Permit,
}

impl Hold {
    /// A hold of what is reserved. The permit is its place in the journal's queue, taken before
    /// anything is promised, so that a settlement can be sent from `drop`.
    #[must_use]
    pub fn new(reserved: Reserved, permit: impl Into<Permit>) -> Self {
        Self {
            reserved,
            permit: permit.into(),
        }
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
    ///
    /// # Errors
    /// [`NotRecorded`] where there is a local journal that cannot be written: the hold is released.
    pub fn start(
        self,
        facts: Arc<RequestFacts>,
        meter: Meter,
        admitted: Instant,
    ) -> Result<Charge, NotRecorded> {
        if let Some(local) = self.permit.local() {
            local.started(&facts, self.reserved.replica())?;
        }
        Ok(Charge(Some(Open {
            reserved: self.reserved,
            permit: self.permit,
            facts,
            meter,
            admitted,
            first_output: None,
            observed: 0,
            before_observed: None,
            checkpointed: false,
        })))
    }
}

/// A hold whose request has gone upstream. Dropping it settles as "client gone", so no way out
/// of a request forgets to pay.
#[derive(Debug)]
pub struct Charge(Option<Open>);

#[derive(Debug)]
struct Open {
    reserved: Reserved,
    permit: Permit,
    facts: Arc<RequestFacts>,
    meter: Meter,
    admitted: Instant,
    first_output: Option<Instant>,
    /// Pieces of the current chunk that are already taken in.
    observed: usize,
    /// What was consumed before those pieces, where a local journal wants to know: they are not
    /// delivered yet.
    before_observed: Option<Usage>,
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
    /// What that is made up of.
    pub details: CostDetails,
}

/// A charge whose money is settled and whose settlement is not sent.
struct Ended {
    settlement: Settlement,
    permit: Permit,
    meter: Meter,
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
        let mut keep: Vec<usize> = texts
            .iter()
            .take(open.observed)
            .map(|t| t.text.len())
            .collect();
        if let Some(text) = texts.get(open.observed) {
            let bytes = open.meter.fit(*text, open.reserved.amount())?;
            let kept = text.text.get(..bytes).unwrap_or_default();
            open.meter.push(Text {
                text: kept,
                ..*text
            });
            keep.push(kept.len());
        }
        keep.resize(texts.len(), 0);
        open.observed = 0;
        open.before_observed = None;
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

    /// Takes the provider's word for what the prompt consumed; the output is still counted.
    pub fn know_prompt(&mut self, prompt: Usage) {
        if let Some(open) = &mut self.0 {
            open.meter.know_prompt(prompt);
        }
    }

    /// The provider says by which service tier it served: its price of the pinned offer holds.
    /// Without one, what was asked for stays.
    pub fn served_by(&mut self, tier: ServiceTier) {
        if let Some(open) = &mut self.0
            && let Some(price_id) = open.meter.served_by(tier)
        {
            let facts = RequestFacts::clone(&open.facts);
            open.facts = Arc::new(RequestFacts { price_id, ..facts });
        }
    }

    /// Notes the first output, for the time to the first token.
    pub fn mark_first_output(&mut self, now: Instant) {
        if let Some(open) = &mut self.0 {
            open.first_output.get_or_insert(now);
        }
    }

    /// True where the provider has reported what was consumed.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        let open = self.0.as_ref();
        open.is_some_and(|open| open.meter.reported().is_some())
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
        self.0
            .as_mut()
            .map_or(Credits::ZERO, |open| open.reserved.grow_up_to(more, now))
    }

    /// True when the lease behind the hold was taken back, so that it can never grow again:
    /// there is nothing to ask for then, though other requests may find credit.
    #[must_use]
    pub fn is_stranded(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|open| open.reserved.is_stranded())
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
            provider_cost: open.meter.provider_cost(&usage),
        }))
    }

    /// Bytes that [`Charge::progress`] may have to tokenize; zero where nothing is written down.
    #[must_use]
    pub fn progress_bytes(&self) -> usize {
        match &self.0 {
            Some(open) if open.permit.local().is_some() => open.meter.uncounted_bytes(),
            Some(_) | None => 0,
        }
    }

    /// Everything taken in so far is about to be delivered: where there is a local journal, it
    /// gets to know what that costs before the client gets the bytes. Nothing is owed before the
    /// first output.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn progress(&mut self, now: Instant) -> Result<(), PriceError> {
        match &mut self.0 {
            Some(open) if open.permit.local().is_some() => open.progress(now),
            Some(_) | None => Ok(()),
        }
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
                details: CostDetails::default(),
            });
        };
        let (usage, source) = open.consumed(end);
        let charged = open.meter.cost(&usage)?.min(open.reserved.amount());
        Ok(Settled {
            usage,
            source,
            charged,
            details: open.meter.price().details(&usage)?.charging(charged),
        })
    }

    /// The attempt failed before any output, so nothing is owed for it: back to a hold, for
    /// another attempt.
    #[must_use]
    pub fn retract(mut self) -> Option<Hold> {
        self.0.take().map(|open| {
            if let Some(local) = open.permit.local() {
                local.retracted(open.facts.request_id);
            }
            Hold::new(open.reserved, open.permit)
        })
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

    /// As [`Charge::finish`], for a request that is to be counted although its usage is reported:
    /// its settlement goes with the [`Sample`], which sends it when it has been counted or dropped.
    pub fn finish_sampled(mut self, end: End) -> Option<(Settled, Sample)> {
        let (settled, ended) = self.0.take()?.end(end, Overrun::HouseLoss);
        let place = ended.permit.write_down(&ended.settlement);
        Some((settled, Sample::new(ended.meter, place, ended.settlement)))
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
        if self.observed == 0 && texts.len() > 1 && self.permit.local().is_some() {
            self.before_observed = Some(self.meter.counted());
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
        self.before_observed = None;
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

    /// Writes down what is owed for everything taken in.
    fn progress(&mut self, now: Instant) -> Result<(), PriceError> {
        let Some(first_output) = self.first_output.filter(|_| self.meter.has_output()) else {
            return Ok(());
        };
        let usage = match self.before_observed {
            Some(usage) => usage,
            None => self.meter.counted(),
        };
        let cost = self.meter.cost(&usage)?;
        let charged = cost.min(self.reserved.amount());
        let so_far = Settlement {
            facts: Arc::clone(&self.facts),
            lease: self.reserved.replica(),
            checkpointed: self.checkpointed,
            end: End::GatewayLost,
            usage,
            source: UsageSource::Counted,
            raw_usage: None,
            counted: None,
            provider_cost: self.meter.provider_cost(&usage),
            capture: Capture {
                cost,
                charged,
                owed: cost.saturating_sub(charged),
                house_loss: Credits::ZERO,
            },
            timings: Timings {
                duration_us: us(self.admitted, now),
                first_token_us: Some(us(self.admitted, first_output)),
            },
        };
        if let Some(local) = self.permit.local() {
            local.progressed(&so_far);
        }
        Ok(())
    }

    fn settle(self, end: End, overrun: Overrun) -> Settled {
        let (settled, ended) = self.end(end, overrun);
        ended.permit.send(ended.settlement);
        settled
    }

    /// Takes what is owed from the hold; what is left to do is to send the settlement.
    fn end(mut self, end: End, overrun: Overrun) -> (Settled, Ended) {
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
        let details = match self.meter.price().details(&usage) {
            Ok(details) if !nothing => details,
            Ok(_) | Err(_) => CostDetails::default(),
        };
        let settlement = Settlement {
            lease: self.reserved.replica(),
            checkpointed: self.checkpointed,
            facts: self.facts,
            end,
            usage,
            source,
            raw_usage: self.meter.take_raw_report(),
            counted: None,
            provider_cost: self.meter.provider_cost(&usage).filter(|_| !nothing),
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
        let settled = Settled {
            usage,
            source,
            charged,
            details: details.charging(charged),
        };
        let ended = Ended {
            settlement,
            permit: self.permit,
            meter: self.meter,
        };
        (settled, ended)
    }
}

/// Microseconds from one moment to a later one.
fn us(from: Instant, to: Instant) -> u64 {
    u64::try_from(to.saturating_duration_since(from).as_micros()).unwrap_or(u64::MAX)
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

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, time::Duration};

    use tokens::{Encoding, Factor, Tokenizer};
    use tokio::sync::mpsc;
    use uuid::Uuid;

    use super::*;
    use crate::{
        AccountId, BudgetId, Counted, Escrow, KeyId, LocalJournal, Output, Price, PriceId, Prompt,
        Rates, ReplicaId, RequestId, Slot,
    };

    /// 1,000 nano-credits per token of prompt or output.
    const PER_TOKEN: i64 = 1000;
    const PROMPT: u64 = 10;

    struct Bench {
        escrow: Escrow,
        path: Path,
        sender: mpsc::Sender<Settlement>,
        settlements: mpsc::Receiver<Settlement>,
        price: Arc<Price>,
        local: Option<Arc<Notes>>,
    }

    /// A local journal that remembers what it was told.
    #[derive(Debug, Default)]
    struct Notes {
        full: bool,
        told: Mutex<Vec<(&'static str, u64)>>,
    }

    impl Notes {
        fn note(&self, what: &'static str, completion: u64) {
            self.told.lock().unwrap().push((what, completion));
        }

        fn told(&self) -> Vec<(&'static str, u64)> {
            std::mem::take(&mut self.told.lock().unwrap())
        }
    }

    impl LocalJournal for Notes {
        fn started(&self, _: &RequestFacts, _: ReplicaId) -> Result<(), NotRecorded> {
            self.note("started", 0);
            if self.full { Err(NotRecorded) } else { Ok(()) }
        }

        fn progressed(&self, so_far: &Settlement) {
            assert_eq!(so_far.end, End::GatewayLost);
            let tokens = i64::try_from(so_far.usage.total()).unwrap();
            assert_eq!(so_far.capture.cost, credits(tokens));
            assert_eq!(so_far.capture.charged, so_far.capture.cost);
            self.note("progressed", so_far.usage.completion);
        }

        fn settled(&self, settlement: &Settlement) {
            self.note("settled", settlement.usage.completion);
        }

        fn retracted(&self, _: RequestId) {
            self.note("retracted", 0);
        }
    }

    fn credits(tokens: i64) -> Credits {
        Credits::from_nanos(tokens * PER_TOKEN)
    }

    impl Bench {
        /// An account with credit for this many tokens, all of it leased.
        fn new(tokens: i64) -> Self {
            let replica = ReplicaId::from_uuid(Uuid::from_u128(7));
            let escrow = Escrow::new(replica, Instant::now());
            escrow.extend_fence(Instant::now() + Duration::from_secs(3600));
            let account = AccountId::from_uuid(Uuid::from_u128(1));
            let budget = escrow.budget(BudgetId::Account(account));
            budget.add_lease(replica, credits(tokens), None);
            let (sender, settlements) = mpsc::channel(4);
            let rate = Credits::from_nanos(PER_TOKEN * 1_000_000);
            Self {
                path: Path::new([budget]),
                escrow,
                sender,
                settlements,
                price: Arc::new(Price::new(Rates::plain(rate, rate), vec![]).unwrap()),
                local: None,
            }
        }

        fn hold(&self, tokens: i64) -> Hold {
            let reserved = Reserved::take(&self.path, credits(tokens), Instant::now()).unwrap();
            let place = self.sender.clone().try_reserve_owned().unwrap();
            let local = self.local.clone().map(|notes| notes as _);
            Hold::new(reserved, Permit::new(place, local))
        }

        fn charge(&self, tokens: i64) -> Charge {
            self.try_charge(tokens).unwrap()
        }

        fn try_charge(&self, tokens: i64) -> Result<Charge, NotRecorded> {
            let facts = RequestFacts {
                request_id: RequestId::from_uuid(Uuid::from_u128(3)),
                account_id: AccountId::from_uuid(Uuid::from_u128(1)),
                key_id: KeyId::from_uuid(Uuid::from_u128(2)),
                key_has_limit: false,
                endpoint: "chat.completions",
                model: "m".into(),
                provider: "p".into(),
                price_id: PriceId::from_uuid(Uuid::nil()),
                stream: true,
            };
            let tokenizer = Tokenizer::new(Encoding::O200kBase, Factor::EXACT);
            let prompt = Usage {
                prompt: PROMPT,
                ..Usage::default()
            };
            let meter = Meter::new(self.price.clone(), tokenizer, Prompt::Exact(prompt));
            self.hold(tokens)
                .start(Arc::new(facts), meter, Instant::now())
        }

        /// The one settlement there is, with the balance back in order.
        fn settled(mut self) -> Settlement {
            let settlement = self.settlements.try_recv().expect("a settlement");
            assert!(self.settlements.try_recv().is_err(), "settled twice");
            assert_eq!(self.escrow.totals().held, Credits::ZERO);
            assert_eq!(self.escrow.totals().holds_open, 0);
            settlement
        }

        fn free(&self) -> i64 {
            self.escrow.totals().free.nanos() / PER_TOKEN
        }
    }

    fn text(text: &str) -> Text<'_> {
        Text {
            slot: Slot {
                choice: 0,
                part: 0,
                output: Output::Completion,
            },
            text,
        }
    }

    fn usage(prompt: u64, completion: u64) -> Usage {
        Usage {
            prompt,
            completion,
            ..Usage::default()
        }
    }

    #[test]
    fn what_is_delivered_is_written_down_before() {
        let notes = Arc::new(Notes::default());
        let mut bench = Bench::new(100);
        bench.local = Some(Arc::clone(&notes));
        let mut charge = bench.charge(60);
        assert_eq!(notes.told(), [("started", 0)]);
        // A chunk without text owes nothing yet.
        let now = Instant::now();
        charge.observe(&[], now).unwrap();
        charge.progress(now).unwrap();
        assert_eq!(notes.told(), []);
        charge.observe(&[text(" one two")], now).unwrap();
        charge.mark_first_output(now);
        charge.observe(&[text(" three")], now).unwrap();
        charge.progress(now).unwrap();
        assert_eq!(notes.told(), [("progressed", 3)]);
        charge.report(usage(10, 50), None);
        charge.progress(now).unwrap();
        assert_eq!(notes.told(), [("progressed", 3)], "what the client got");
        charge.finish(End::Completed);
        assert_eq!(notes.told(), [("settled", 50)]);
        bench.settled();
    }

    #[test]
    fn a_chunk_that_waits_for_credit_is_not_written_down_as_delivered() {
        let notes = Arc::new(Notes::default());
        let mut bench = Bench::new(13);
        bench.local = Some(Arc::clone(&notes));
        let mut charge = bench.charge(13);
        let now = Instant::now();
        charge.observe(&[text(" one")], now).unwrap();
        charge.mark_first_output(now);
        let second = Text {
            slot: Slot {
                choice: 1,
                ..text("").slot
            },
            text: " three four five",
        };
        let both = [text(" two"), second];
        let verdict = charge.observe(&both, now).unwrap();
        assert!(matches!(verdict, Verdict::NeedsCredit { .. }));
        charge.progress(now).unwrap();
        assert_eq!(notes.told(), [("started", 0), ("progressed", 1)]);
        charge.cut(&both).unwrap();
        charge.progress(now).unwrap();
        assert_eq!(notes.told(), [("progressed", 3)]);
        charge.finish(End::CreditsExhausted);
        assert_eq!(notes.told(), [("settled", 3)]);
        bench.settled();
    }

    #[test]
    fn what_cannot_be_written_down_does_not_go_upstream() {
        let mut bench = Bench::new(100);
        bench.local = Some(Arc::new(Notes {
            full: true,
            ..Notes::default()
        }));
        assert_eq!(bench.try_charge(60).unwrap_err(), NotRecorded);
        assert_eq!(bench.free(), 100);
        assert!(bench.settlements.try_recv().is_err());
    }

    #[test]
    fn a_retracted_attempt_is_told_and_its_hold_goes_on() {
        let notes = Arc::new(Notes::default());
        let mut bench = Bench::new(100);
        bench.local = Some(Arc::clone(&notes));
        let hold = bench.charge(60).retract().unwrap();
        assert_eq!(notes.told(), [("started", 0), ("retracted", 0)]);
        drop(hold);
        assert_eq!(bench.free(), 100);
    }

    #[test]
    fn a_hold_that_never_went_upstream_releases() {
        let mut bench = Bench::new(100);
        drop(bench.hold(60));
        assert_eq!(bench.free(), 100);
        assert!(bench.settlements.try_recv().is_err());
    }

    #[test]
    fn completed_with_a_report_charges_the_report() {
        let bench = Bench::new(100);
        let mut charge = bench.charge(60);
        assert_eq!(
            charge.observe(&[text(" one two")], Instant::now()),
            Ok(Verdict::Continue)
        );
        charge.report(usage(12, 30), None);
        let settled = charge.finish(End::Completed).unwrap();
        assert_eq!(settled.charged, credits(42));
        assert_eq!(bench.free(), 58);
        let settlement = bench.settled();
        assert_eq!(settlement.source, UsageSource::Reported);
        assert_eq!(settlement.capture.cost, credits(42));
    }

    #[test]
    fn d3_completed_without_a_report_charges_our_count() {
        let bench = Bench::new(100);
        let mut charge = bench.charge(60);
        charge.observe(&[text(" one two")], Instant::now()).unwrap();
        charge.observe(&[text(" three")], Instant::now()).unwrap();
        charge.finish(End::Completed);
        let settlement = bench.settled();
        assert_eq!(settlement.source, UsageSource::Counted);
        assert_eq!(settlement.usage, usage(PROMPT, 3));
    }

    #[test]
    fn d1_d2_a_dropped_charge_pays_prompt_and_delivered() {
        let bench = Bench::new(100);
        let mut charge = bench.charge(60);
        charge.observe(&[text(" one two")], Instant::now()).unwrap();
        drop(charge);
        let settlement = bench.settled();
        assert_eq!(settlement.end, End::ClientGone);
        assert_eq!(settlement.capture.charged, credits(12));
    }

    #[test]
    fn l4_upstream_failed_before_output_charges_nothing_and_after_it_what_was_delivered() {
        let bench = Bench::new(100);
        bench.charge(60).finish(End::UpstreamFailed);
        assert_eq!(bench.settled().capture, Capture::default());

        let bench = Bench::new(100);
        let mut charge = bench.charge(60);
        charge.observe(&[text(" one")], Instant::now()).unwrap();
        charge.report(usage(99, 99), None);
        charge.finish(End::UpstreamFailed);
        let settlement = bench.settled();
        assert_eq!(settlement.usage, usage(PROMPT, 1));
        assert_eq!(settlement.source, UsageSource::Counted);
    }

    #[test]
    fn the_hold_grows_and_is_cut_at_exactly_the_last_token() {
        // Credit for the prompt and five tokens; the hold begins with the prompt alone.
        let bench = Bench::new(15);
        let mut charge = bench.charge(10);
        let words = " one two three four five six seven";
        let verdict = charge.observe(&[text(words)], Instant::now()).unwrap();
        assert!(matches!(verdict, Verdict::NeedsCredit { .. }));
        assert_eq!(charge.grow_up_to(credits(100), Instant::now()), credits(5));
        let verdict = charge.observe(&[text(words)], Instant::now()).unwrap();
        assert!(matches!(verdict, Verdict::NeedsCredit { .. }));
        let keep = charge.cut(&[text(words)]).unwrap();
        assert_eq!(&words[..keep[0]], " one two three four five");
        charge.finish(End::CreditsExhausted);
        assert_eq!(bench.free(), 0);
        assert_eq!(bench.settled().capture.charged, credits(15));
    }

    #[test]
    fn a_chunk_of_several_texts_goes_on_where_it_stopped() {
        let bench = Bench::new(14);
        let mut charge = bench.charge(10);
        let second = Text {
            slot: Slot {
                choice: 1,
                part: 0,
                output: Output::Completion,
            },
            text: " uno dos tres cuatro cinco seis siete ocho nueve diez",
        };
        let texts = [text(" one two"), second];
        let now = Instant::now();
        assert!(matches!(
            charge.observe(&texts, now),
            Ok(Verdict::NeedsCredit { .. })
        ));
        charge.grow_up_to(credits(100), now);
        assert!(matches!(
            charge.observe(&texts, now),
            Ok(Verdict::NeedsCredit { .. })
        ));
        let keep = charge.cut(&texts).unwrap();
        assert_eq!(keep[0], texts[0].text.len(), "counted once, not twice");
        assert!(keep[1] > 0 && keep[1] < second.text.len());
        charge.finish(End::CreditsExhausted);
        assert_eq!(bench.settled().usage, usage(PROMPT, 4));
    }

    #[test]
    fn d6_usage_above_the_hold_is_owed_by_nobody_who_was_not_asked() {
        // Someone could have waited for credit and there was none: a house loss.
        let bench = Bench::new(20);
        let mut charge = bench.charge(20);
        charge.report(usage(10, 30), None);
        assert_eq!(charge.lacking(), Ok(credits(20)));
        assert!(!charge.grow(credits(20), Instant::now()));
        charge.finish(End::Completed);
        let capture = bench.settled().capture;
        assert_eq!(capture.charged, credits(20));
        assert_eq!(capture.house_loss, credits(20));
        assert_eq!(capture.owed, Credits::ZERO);

        // The client hung up: the journal looks at the balance.
        let bench = Bench::new(20);
        let mut charge = bench.charge(20);
        charge.report(usage(10, 30), None);
        drop(charge);
        let capture = bench.settled().capture;
        assert_eq!(capture.owed, credits(20));
        assert_eq!(capture.house_loss, Credits::ZERO);
    }

    #[test]
    fn d10_a_retracted_attempt_owes_nothing() {
        let mut bench = Bench::new(100);
        let hold = bench.charge(60).retract().unwrap();
        assert_eq!(hold.amount(), credits(60));
        drop(hold);
        assert_eq!(bench.free(), 100);
        assert!(bench.settlements.try_recv().is_err());
    }

    #[test]
    fn a_checkpoint_never_says_more_than_the_hold_covers() {
        let bench = Bench::new(100);
        let mut charge = bench.charge(11);
        charge.observe(&[text(" one")], Instant::now()).unwrap();
        let checkpoint = charge.checkpoint().unwrap().unwrap();
        assert_eq!(checkpoint.cost, credits(11));
        drop(charge);
        assert!(bench.settled().checkpointed);
    }

    #[test]
    fn the_last_report_counts_and_never_the_sum() {
        let bench = Bench::new(100);
        let mut charge = bench.charge(60);
        for completion in [1, 2, 3] {
            charge.report(usage(10, completion), None);
        }
        charge.finish(End::Completed);
        assert_eq!(bench.settled().usage, usage(10, 3));
    }

    #[test]
    fn a_sample_settles_the_money_at_once_and_is_sent_once_with_our_count_or_without() {
        for counted in [true, false] {
            let notes = Arc::new(Notes::default());
            let mut bench = Bench::new(100);
            bench.local = Some(Arc::clone(&notes));
            let mut charge = bench.charge(60);
            charge.observe(&[text(" one two")], Instant::now()).unwrap();
            charge.report(usage(12, 30), Some("{}".into()));
            let (settled, mut sample) = charge.finish_sampled(End::Completed).unwrap();
            assert_eq!(settled.charged, credits(42));
            assert_eq!(bench.free(), 58);
            assert_eq!(notes.told(), [("started", 0), ("settled", 30)]);
            assert!(
                bench.settlements.try_recv().is_err(),
                "sent before it is counted"
            );
            assert_eq!(sample.reported(), Some(&usage(12, 30)));
            sample.push(text(" three"));
            assert_eq!(sample.plain_output(), [(text("").slot, 3)]);
            let ours = Counted {
                prompt: PROMPT,
                completion: 3,
            };
            if counted {
                sample.send(Some(ours));
            } else {
                drop(sample);
            }
            let settlement = bench.settled();
            assert_eq!(settlement.counted, counted.then_some(ours));
            assert_eq!(settlement.capture.charged, credits(42));
            assert_eq!(settlement.raw_usage.as_deref(), Some("{}"));
            assert_eq!(notes.told(), [], "written down twice");
        }
    }
}
