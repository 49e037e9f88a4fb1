//! The meter: counts what a request consumes and says what that costs, without knowing who pays.

use std::{fmt, sync::Arc};

use smallvec::SmallVec;
use tokens::{StreamCounter, Tokenizer, Usage, UsageSource};

use crate::{Credits, Offer, Output, Price, PriceError, PriceId, ServiceTier};

/// Different texts that one answer may consist of (choices times parts); what comes beyond is
/// counted as part of the last one.
const SLOTS_MAX: usize = 1024;

/// Which of an answer's texts a piece belongs to. Pieces of one slot are one text to the tokenizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The choice's index.
    pub choice: u32,
    /// The part within the choice: content, refusal, one tool call's arguments, …
    pub part: u32,
    /// What the text is priced as.
    pub output: Output,
}

/// A piece of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Where it belongs.
    pub slot: Slot,
    /// The characters.
    pub text: &'a str,
}

/// Whether a piece of output is covered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Deliver it.
    Continue,
    /// The hold must grow first, by at least `least`; `slice` more would serve a while.
    NeedsCredit {
        /// Without this the piece cannot be delivered whole.
        least: Credits,
        /// A comfortable step.
        slice: Credits,
    },
}

/// Counts a prompt when it is asked to; made where the request's body is known.
pub type CountPrompt = Box<dyn FnOnce() -> Usage + Send>;

/// What is known of the prompt's tokens.
pub enum Prompt {
    /// Counted.
    Exact(Usage),
    /// Not counted yet: a bound that is never below the truth, and how to count.
    AtMost(Usage, CountPrompt),
}

impl Prompt {
    /// The count, or the bound.
    #[must_use]
    pub const fn at_most(&self) -> &Usage {
        match self {
            Self::Exact(usage) | Self::AtMost(usage, _) => usage,
        }
    }
}

impl fmt::Debug for Prompt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(usage) => f.debug_tuple("Exact").field(usage).finish(),
            Self::AtMost(usage, _) => f.debug_tuple("AtMost").field(usage).finish(),
        }
    }
}

/// Counts one request.
#[derive(Debug)]
pub struct Meter {
    price: Arc<Price>,
    offer: Option<Arc<Offer>>,
    tokenizer: Tokenizer,
    prompt: Prompt,
    slots: SmallVec<[(Slot, StreamCounter); 1]>,
    reported: Option<(Usage, Option<Box<str>>)>,
}

impl Meter {
    /// A meter for a request with this prompt at this price.
    #[must_use]
    pub fn new(price: Arc<Price>, tokenizer: Tokenizer, prompt: Prompt) -> Self {
        Self {
            price,
            offer: None,
            tokenizer,
            prompt,
            slots: SmallVec::new(),
            reported: None,
        }
    }

    /// Pins the prices of the service tiers too: the provider may say that it served by another
    /// one than was asked for.
    #[must_use]
    pub fn with_offer(mut self, offer: Arc<Offer>) -> Self {
        self.offer = Some(offer);
        self
    }

    /// The provider served by this tier, and its price holds from now on; its version, where it is
    /// another one.
    pub(crate) fn served_by(&mut self, tier: ServiceTier) -> Option<PriceId> {
        let priced = self.offer.as_ref()?.of(tier)?;
        if *priced.price == *self.price {
            return None;
        }
        self.price = priced.price.clone();
        Some(priced.id)
    }

    /// The pinned price.
    #[must_use]
    pub const fn price(&self) -> &Arc<Price> {
        &self.price
    }

    /// Keeps what the provider reported. Reports are totals: the last one counts.
    pub fn report(&mut self, usage: Usage, raw: Option<Box<str>>) {
        self.reported = Some((usage, raw));
    }

    /// The provider says what the prompt consumed before it says anything else: its word takes the
    /// place of our count, also where the output is counted.
    pub fn know_prompt(&mut self, prompt: Usage) {
        self.prompt = Prompt::Exact(prompt);
    }

    /// What the provider reported, if it did.
    #[must_use]
    pub fn reported(&self) -> Option<&Usage> {
        self.reported.as_ref().map(|(usage, _)| usage)
    }

    /// True when any output was counted.
    #[must_use]
    pub fn has_output(&self) -> bool {
        !self.slots.is_empty()
    }

    /// Bytes of output not tokenized yet.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.slots.iter().map(|(_, c)| c.pending_bytes()).sum()
    }

    /// Bytes of prompt and output that [`Meter::counted`] would tokenize; a prompt that is not
    /// counted yet has at most as many as its bound has tokens.
    #[must_use]
    pub fn uncounted_bytes(&self) -> usize {
        let prompt = match &self.prompt {
            Prompt::Exact(_) => 0,
            Prompt::AtMost(bound, _) => usize::try_from(bound.total()).unwrap_or(usize::MAX),
        };
        prompt.saturating_add(self.pending_bytes())
    }

    /// Takes in a piece of output.
    pub fn push(&mut self, text: Text<'_>) {
        if !text.text.is_empty() {
            self.counter(text.slot).push(text.text);
        }
    }

    /// What was consumed at most, with `texts` delivered too. Cheap: no tokenizer.
    #[must_use]
    pub fn bound_with(&self, texts: &[Text<'_>]) -> Usage {
        let mut usage = *self.prompt.at_most();
        for (slot, counter) in &self.slots {
            add(&mut usage, slot.output, counter.upper_bound());
        }
        for text in texts {
            add(
                &mut usage,
                text.slot.output,
                self.tokenizer.upper_bound(text.text.len()),
            );
        }
        usage
    }

    /// Tokens in a piece at most. Cheap: no tokenizer.
    #[must_use]
    pub const fn text_bound(&self, text: &Text<'_>) -> u64 {
        self.tokenizer.upper_bound(text.text.len())
    }

    /// What was consumed, counted exactly.
    pub fn counted(&mut self) -> Usage {
        let mut usage = self.prompt_exact();
        for (slot, counter) in &mut self.slots {
            add(&mut usage, slot.output, counter.exact());
        }
        usage
    }

    /// The encoding's own count of each text of the output, before the tokenizer's factor.
    pub fn plain_output(&mut self) -> Vec<(Slot, u64)> {
        let slots = self.slots.iter_mut();
        slots
            .map(|(slot, counter)| (*slot, counter.plain()))
            .collect()
    }

    /// How many leading bytes of `text` can be delivered within `credits`.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn fit(&mut self, text: Text<'_>, credits: Credits) -> Result<usize, PriceError> {
        let usage = self.counted();
        let more = self.price.affordable(&usage, text.slot.output, credits)?;
        let counter = self.counter(text.slot);
        let most = counter.exact().saturating_add(more);
        Ok(counter.fit(text.text, most))
    }

    /// What usage costs at the pinned price.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn cost(&self, usage: &Usage) -> Result<Credits, PriceError> {
        self.price.cost(usage)
    }

    /// What the operator owes the provider for it, where that is not the cost.
    #[must_use]
    pub fn provider_cost(&self, usage: &Usage) -> Option<Credits> {
        self.price.provider()?.cost(usage).ok()
    }

    /// What the request is charged by: the provider's report where there is one and `trust` it,
    /// else our own count.
    pub fn verdict_usage(&mut self, trust: bool) -> (Usage, UsageSource) {
        match &self.reported {
            Some((usage, _)) if trust => (*usage, UsageSource::Reported),
            Some(_) | None => (self.counted(), UsageSource::Counted),
        }
    }

    /// The provider's report, verbatim.
    pub fn take_raw_report(&mut self) -> Option<Box<str>> {
        self.reported.as_mut().and_then(|(_, raw)| raw.take())
    }

    fn prompt_exact(&mut self) -> Usage {
        if let Prompt::AtMost(bound, _) = &self.prompt {
            let bound = *bound;
            let counted = std::mem::replace(&mut self.prompt, Prompt::Exact(bound));
            if let Prompt::AtMost(_, count) = counted {
                self.prompt = Prompt::Exact(count());
            }
        }
        *self.prompt.at_most()
    }

    fn counter(&mut self, slot: Slot) -> &mut StreamCounter {
        let index = match self.slots.iter().position(|(known, _)| *known == slot) {
            Some(index) => index,
            None if self.slots.len() < SLOTS_MAX => {
                self.slots.push((slot, StreamCounter::new(self.tokenizer)));
                self.slots.len() - 1
            }
            None => SLOTS_MAX - 1,
        };
        &mut self.slots[index].1
    }
}

fn add(usage: &mut Usage, output: Output, tokens: u64) {
    let bucket = match output {
        Output::Completion => &mut usage.completion,
        Output::Reasoning => &mut usage.reasoning,
    };
    *bucket = bucket.saturating_add(tokens);
}
