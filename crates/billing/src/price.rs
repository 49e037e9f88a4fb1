//! Prices: nano-credits for each kind of usage, and the one place where a cost is rounded.

mod book;
mod details;
mod hours;
mod rates;

pub use self::{
    book::{Multiplier, Offer, PriceBook, PriceVersion, Priced, ServiceTier},
    details::CostDetails,
    hours::{Days, Hours},
    rates::Rates,
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokens::{Bucket, Usage};
use uuid::Uuid;

use crate::{Credits, PriceId};

/// Rates are quoted per this many tokens or characters; costs are summed in parts as small.
const TOKENS_PER_RATE: i128 = 1_000_000;
/// The most tiers a price may have.
const TIERS_MAX: usize = 8;

/// Why a price was refused or a cost could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PriceError {
    /// A rate or fee below zero.
    #[error("a price is never negative: {0}")]
    Negative(&'static str),
    /// The stored text is not a price.
    #[error("not a price: {0}")]
    Malformed(String),
    /// Tiers out of order, too many, or of both kinds.
    #[error(
        "price tiers rise by above_prompt_tokens, at most {TIERS_MAX} of them, and all price the \
         whole request or all only the part above"
    )]
    Tiers,
    /// Something is sold by a unit that its price does not name.
    #[error("the price has no rate for {0}")]
    NoRate(&'static str),
    /// The cost does not fit.
    #[error("the cost does not fit into 9.2 billion credits")]
    Overflow,
}

/// A kind of token that output is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Output {
    /// Visible output.
    Completion,
    /// Reasoning.
    Reasoning,
}

/// Other rates for a request whose prompt is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The tier applies when the whole prompt has more tokens than this.
    pub above_prompt_tokens: u64,
    /// Whether its rates are those of the whole request. Else they are those of the prompt's
    /// tokens beyond the threshold alone; what is in a cache comes first in a prompt, and the
    /// output keeps the rates below every tier.
    #[serde(default = "yes", skip_serializing_if = "is_true")]
    pub whole_request: bool,
    /// The rates.
    pub price: Rates,
}

const fn yes() -> bool {
    true
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference"
)]
const fn is_true(flag: &bool) -> bool {
    *flag
}

/// The buckets of a prompt in the order of its tokens: a cache holds how it begins.
const PROMPT_ORDER: [Bucket; 6] = [
    Bucket::CachedPrompt,
    Bucket::CacheWrite1h,
    Bucket::CacheWrite5m,
    Bucket::ImagePrompt,
    Bucket::AudioPrompt,
    Bucket::Prompt,
];

/// A model's price, checked: no rate is negative and tiers rise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Price {
    base: Rates,
    tiers: Vec<Tier>,
    provider: Option<Box<Price>>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    base: Rates,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tiers: Vec<Tier>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider: Option<Box<Unchecked>>,
}

impl TryFrom<Unchecked> for Price {
    type Error = PriceError;

    fn try_from(unchecked: Unchecked) -> Result<Self, PriceError> {
        let price = Self::new(unchecked.base, unchecked.tiers)?;
        match unchecked.provider {
            Some(provider) => Ok(price.with_provider((*provider).try_into()?)),
            None => Ok(price),
        }
    }
}

impl From<Price> for Unchecked {
    fn from(price: Price) -> Self {
        Self {
            base: price.base,
            tiers: price.tiers,
            provider: price.provider.map(|price| Box::new((*price).into())),
        }
    }
}

impl Price {
    /// A price of these rates.
    ///
    /// # Errors
    /// [`PriceError::Negative`] or [`PriceError::Tiers`].
    pub fn new(base: Rates, tiers: Vec<Tier>) -> Result<Self, PriceError> {
        let rising = tiers
            .windows(2)
            .all(|pair| pair[0].above_prompt_tokens < pair[1].above_prompt_tokens);
        let alike = tiers
            .windows(2)
            .all(|pair| pair[0].whole_request == pair[1].whole_request);
        if !rising || !alike || tiers.len() > TIERS_MAX {
            return Err(PriceError::Tiers);
        }
        for rates in std::iter::once(&base).chain(tiers.iter().map(|tier| &tier.price)) {
            rates.refuse_negative()?;
        }
        Ok(Self {
            base,
            tiers,
            provider: None,
        })
    }

    /// The same for customers, where the operator pays the provider this price.
    #[must_use]
    pub fn with_provider(mut self, provider: Self) -> Self {
        let provider = Self {
            provider: None,
            ..provider
        };
        let same = provider.base == self.base && provider.tiers == self.tiers;
        self.provider = Some(Box::new(provider)).filter(|_| !same);
        self
    }

    /// Every rate so many times as high, rounded up; what the operator pays is not taken over.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn times(&self, by: Multiplier) -> Result<Self, PriceError> {
        let times = |rates: &Rates| rates.map(|rate| by.of(rate)).ok_or(PriceError::Overflow);
        let tiers = self.tiers.iter().map(|tier| {
            Ok(Tier {
                price: times(&tier.price)?,
                ..tier.clone()
            })
        });
        Self::new(times(&self.base)?, tiers.collect::<Result<_, _>>()?)
    }

    /// What the operator pays the provider, where that is another price.
    #[must_use]
    pub fn provider(&self) -> Option<&Self> {
        self.provider.as_deref()
    }

    /// What the operator owes the provider for `usage`.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn provider_cost(&self, usage: &Usage) -> Result<Credits, PriceError> {
        self.provider().unwrap_or(self).cost(usage)
    }

    /// The price stored under a [`PriceId`].
    ///
    /// # Errors
    /// [`PriceError::Malformed`] when the text is not one of [`Price::to_json`].
    pub fn from_json(text: &str) -> Result<Self, PriceError> {
        serde_json::from_str(text).map_err(|error| PriceError::Malformed(error.to_string()))
    }

    /// Its canonical text.
    ///
    /// # Errors
    /// Never in practice; serde_json's signature has one.
    pub fn to_json(&self) -> Result<String, PriceError> {
        serde_json::to_string(self).map_err(|error| PriceError::Malformed(error.to_string()))
    }

    /// The id of this version: equal prices have equal ids everywhere.
    ///
    /// # Errors
    /// As [`Price::to_json`].
    pub fn id(&self) -> Result<PriceId, PriceError> {
        let digest = Sha256::digest(self.to_json()?.as_bytes());
        let mut bits = [0; 16];
        bits.copy_from_slice(&digest[..16]);
        Ok(PriceId::from_uuid(Uuid::from_bytes(bits)))
    }

    /// The rates for a prompt of this many tokens in all; where tiers are for the part above
    /// alone, those of everything else.
    #[must_use]
    pub fn rates(&self, prompt_tokens: u64) -> &Rates {
        self.tiers
            .iter()
            .rev()
            .find(|tier| tier.whole_request && prompt_tokens > tier.above_prompt_tokens)
            .map_or(&self.base, |tier| &tier.price)
    }

    /// The base rates.
    #[must_use]
    pub const fn base(&self) -> &Rates {
        &self.base
    }

    /// The tiers for long prompts, rising.
    #[must_use]
    pub fn tiers(&self) -> &[Tier] {
        &self.tiers
    }

    /// True when nothing costs anything.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.all_rates()
            .all(|rates| rates.all().iter().all(|(_, rate)| rate.is_zero()))
    }

    /// What `usage` costs: one sum over all kinds, rounded up once to a nano-credit.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn cost(&self, usage: &Usage) -> Result<Credits, PriceError> {
        let least = self.rates(usage.prompt_total()).minimum;
        round_up(self.exact(usage)?).map(|cost| cost.max(least.unwrap_or(Credits::ZERO)))
    }

    /// How many more tokens of `output` fit into `credits` after `usage`; `u64::MAX` where they
    /// cost nothing.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn affordable(
        &self,
        usage: &Usage,
        output: Output,
        credits: Credits,
    ) -> Result<u64, PriceError> {
        let rates = self.rates(usage.prompt_total());
        let rate = i128::from(
            match output {
                Output::Completion => rates.completion,
                Output::Reasoning => rates.reasoning.unwrap_or(rates.completion),
            }
            .nanos(),
        );
        if credits < rates.minimum.unwrap_or(Credits::ZERO) {
            return Ok(0);
        }
        // ceil(x / 1e6) <= c  <=>  x <= c * 1e6, so this is exact although costs round up.
        let left = i128::from(credits.nanos()) * TOKENS_PER_RATE - self.exact(usage)?;
        if left < 0 {
            return Ok(0);
        }
        if rate == 0 {
            return Ok(u64::MAX);
        }
        Ok(u64::try_from(left / rate).unwrap_or(u64::MAX))
    }

    /// The most that a request can cost whose prompt has at most these tokens and whose output
    /// at most `output`, of whichever kinds the provider will say they were.
    ///
    /// Audio is of its own kind only where it was asked for: `prompt.audio_prompt` says so. What
    /// is sold by the piece is what `prompt` says: pass what was asked for at most.
    ///
    /// # Errors
    /// [`PriceError::Overflow`]; [`PriceError::NoRate`] when something is asked for that this
    /// model is not sold by, and nothing else that it asks for has a price.
    pub fn worst_cost(&self, prompt: &Usage, output: u64) -> Result<Credits, PriceError> {
        self.refuse_unpriced(prompt)?;
        let exact = self
            .worst_rates(prompt)
            .and_then(|(fixed, rate)| fixed.checked_add(rate.checked_mul(i128::from(output))?))
            .ok_or(PriceError::Overflow)?;
        round_up(exact).map(|cost| cost.max(self.worst_minimum()))
    }

    /// How much output of the dearest kind fits into `credits` beside this prompt.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn affordable_output(&self, prompt: &Usage, credits: Credits) -> Result<u64, PriceError> {
        if credits < self.worst_minimum() {
            return Ok(0);
        }
        let (fixed, rate) = self.worst_rates(prompt).ok_or(PriceError::Overflow)?;
        let left = i128::from(credits.nanos()) * TOKENS_PER_RATE - fixed;
        if left < 0 {
            return Ok(0);
        }
        if rate == 0 {
            return Ok(u64::MAX);
        }
        Ok(u64::try_from(left / rate).unwrap_or(u64::MAX))
    }

    /// Refuses what would cost nothing only because nobody wrote what it costs.
    fn refuse_unpriced(&self, asked: &Usage) -> Result<(), PriceError> {
        if self.is_free() || !(self.base.prompt.is_zero() && self.base.completion.is_zero()) {
            return Ok(());
        }
        let pieces = || {
            Bucket::ALL
                .into_iter()
                .filter(|bucket| !bucket.is_prompt() && !bucket.is_completion())
                .filter(|bucket| asked.get(*bucket) > 0)
        };
        let unpriced = pieces().next().filter(|_| {
            self.base.request.is_none() && !pieces().any(|bucket| self.base.has_rate(bucket))
        });
        match unpriced {
            Some(bucket) => Err(PriceError::NoRate(bucket.as_str())),
            None => Ok(()),
        }
    }

    /// The highest minimum that may come to apply.
    fn worst_minimum(&self) -> Credits {
        self.all_rates()
            .filter_map(|rates| rates.minimum)
            .fold(Credits::ZERO, Credits::max)
    }

    fn all_rates(&self) -> impl Iterator<Item = &Rates> {
        std::iter::once(&self.base).chain(self.tiers.iter().map(|tier| &tier.price))
    }

    /// The prompt at its dearest in millionths of a nano-credit, and the dearest rate of output.
    fn worst_rates(&self, prompt: &Usage) -> Option<(i128, i128)> {
        // A bound may lie above a tier's threshold and the truth below, and a tier may be
        // cheaper than the base: look at every tier that may apply.
        let applicable = self
            .tiers
            .iter()
            .filter(|tier| prompt.prompt_total() > tier.above_prompt_tokens)
            .map(|tier| &tier.price)
            .chain([&self.base]);
        if self.is_graduated() {
            // Tokens lie in several tiers, all else is priced below them.
            let dearest = applicable.map(Rates::dearest_prompt).reduce(|a, b| {
                let (text, audio) = (a.0.max(b.0), a.1.max(b.1));
                (text, audio)
            })?;
            let fixed = fixed_worst(&self.base, prompt, dearest)?;
            return Some((fixed, i128::from(self.base.dearest_output().nanos())));
        }
        let mut worst = (0, 0);
        for rates in applicable {
            let fixed = fixed_worst(rates, prompt, rates.dearest_prompt())?;
            let output = i128::from(rates.dearest_output().nanos());
            worst = (i128::max(worst.0, fixed), i128::max(worst.1, output));
        }
        Some(worst)
    }

    fn is_graduated(&self) -> bool {
        self.tiers.first().is_some_and(|tier| !tier.whole_request)
    }

    /// The cost in millionths of a nano-credit, before any minimum.
    fn exact(&self, usage: &Usage) -> Result<i128, PriceError> {
        let rates = self.rates(usage.prompt_total());
        Bucket::ALL
            .into_iter()
            .try_fold(rates.fee(), |sum, bucket| {
                sum.checked_add(self.exact_of(rates, usage, bucket)?)
            })
            .ok_or(PriceError::Overflow)
    }

    /// What one bucket costs, in millionths of a nano-credit.
    fn exact_of(&self, rates: &Rates, usage: &Usage, bucket: Bucket) -> Option<i128> {
        let count = usage.get(bucket);
        if !self.is_graduated() || !bucket.is_prompt() || count == 0 {
            return rates.exact(bucket, count);
        }
        let start = PROMPT_ORDER
            .into_iter()
            .take_while(|before| *before != bucket)
            .fold(0, |sum: u64, before| sum.saturating_add(usage.get(before)));
        let end = start.checked_add(count)?;
        let mut sum: i128 = 0;
        let mut from = 0;
        let mut rates = rates;
        for tier in &self.tiers {
            let within = overlap((start, end), (from, tier.above_prompt_tokens));
            sum = sum.checked_add(rates.exact(bucket, within)?)?;
            (from, rates) = (tier.above_prompt_tokens, &tier.price);
        }
        sum.checked_add(rates.exact(bucket, overlap((start, end), (from, u64::MAX)))?)
    }
}

/// What is known of a request before its output, where its prompt's text and audio have these
/// rates, in millionths of a nano-credit.
fn fixed_worst(rates: &Rates, prompt: &Usage, (text, audio): (Credits, Credits)) -> Option<i128> {
    let texts = prompt.prompt_total().saturating_sub(prompt.audio_prompt);
    let pieces = Bucket::ALL
        .into_iter()
        .filter(|bucket| !bucket.is_prompt() && !bucket.is_completion())
        .try_fold(rates.fee(), |sum, bucket| {
            sum.checked_add(rates.exact(bucket, prompt.get(bucket))?)
        })?;
    i128::from(texts)
        .checked_mul(i128::from(text.nanos()))?
        .checked_add(i128::from(prompt.audio_prompt).checked_mul(i128::from(audio.nanos()))?)?
        .checked_add(pieces)
}

/// How much of two ranges is in both.
fn overlap(a: (u64, u64), b: (u64, u64)) -> u64 {
    a.1.min(b.1).saturating_sub(a.0.max(b.0))
}

/// Millionths of a nano-credit as credits: the one place where a cost is rounded.
fn round_up(exact: i128) -> Result<Credits, PriceError> {
    let nanos = exact / TOKENS_PER_RATE + i128::from(exact % TOKENS_PER_RATE > 0);
    i64::try_from(nanos)
        .map(Credits::from_nanos)
        .map_err(|_| PriceError::Overflow)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn credits(text: &str) -> Credits {
        text.parse().unwrap()
    }

    fn price(prompt: &str, completion: &str) -> Price {
        Price::new(Rates::plain(credits(prompt), credits(completion)), vec![]).unwrap()
    }

    fn text(prompt: u64, completion: u64) -> Usage {
        Usage {
            prompt,
            completion,
            ..Usage::default()
        }
    }

    #[test]
    fn costs() {
        for (prompt, completion, usage, cost) in [
            ("2.50", "10.00", text(0, 0), "0"),
            ("2.50", "10.00", text(1_000_000, 0), "2.5"),
            ("2.50", "10.00", text(1000, 1000), "0.0125"),
            // 0.00013 credits per million is 1.3e-10 per token; one token rounds up to a nano.
            ("0.00013", "0", text(1, 0), "0.000000001"),
            ("0.00013", "0", text(1_000_000, 0), "0.00013"),
            ("0.00013", "0.00013", text(3, 4), "0.000000001"),
            ("0", "0", text(1_000_000, 1_000_000), "0"),
        ] {
            assert_eq!(
                price(prompt, completion).cost(&usage),
                Ok(credits(cost)),
                "{prompt} {completion} {usage:?}"
            );
        }
    }

    #[test]
    fn kinds_without_a_rate_cost_what_their_parent_costs() {
        let mut rates = Rates::plain(credits("2"), credits("8"));
        let usage = Usage {
            cached_prompt: 500_000,
            reasoning: 500_000,
            ..Usage::default()
        };
        assert_eq!(
            Price::new(rates.clone(), vec![]).unwrap().cost(&usage),
            Ok(credits("5"))
        );
        rates.cached_prompt = Some(credits("0.5"));
        rates.reasoning = Some(credits("0"));
        rates.request = Some(credits("0.01"));
        assert_eq!(
            Price::new(rates, vec![]).unwrap().cost(&usage),
            Ok(credits("0.26"))
        );
    }

    #[test]
    fn a_long_prompt_changes_the_whole_request() {
        let price = Price::new(
            Rates::plain(credits("1"), credits("2")),
            vec![Tier {
                above_prompt_tokens: 200_000,
                whole_request: true,
                price: Rates::plain(credits("2"), credits("3")),
            }],
        )
        .unwrap();
        assert_eq!(price.cost(&text(200_000, 0)), Ok(credits("0.2")));
        assert_eq!(price.cost(&text(200_001, 0)), Ok(credits("0.400002")));
        assert_eq!(
            price.cost(&text(200_001, 1_000_000)),
            Ok(credits("3.400002"))
        );
    }

    #[test]
    fn a_graduated_tier_prices_only_the_part_above() {
        let mut above = Rates::plain(credits("2"), credits("50"));
        above.cached_prompt = Some(credits("0.2"));
        let mut base = Rates::plain(credits("1"), credits("3"));
        base.cached_prompt = Some(credits("0.1"));
        let tier = Tier {
            above_prompt_tokens: 200_000,
            whole_request: false,
            price: above,
        };
        let price = Price::new(base, vec![tier.clone()]).unwrap();
        assert_eq!(price.cost(&text(200_000, 0)), Ok(credits("0.2")));
        assert_eq!(price.cost(&text(300_000, 1_000_000)), Ok(credits("3.4")));
        // The cached tokens are the first ones of the prompt.
        let cached = Usage {
            cached_prompt: 250_000,
            prompt: 50_000,
            ..Usage::default()
        };
        assert_eq!(price.cost(&cached), Ok(credits("0.13")));
        let stored = Price::from_json(&price.to_json().unwrap());
        assert_eq!(stored, Ok(price));
        let whole = Tier {
            above_prompt_tokens: 300_000,
            whole_request: true,
            ..tier.clone()
        };
        let plain = Rates::plain(credits("1"), credits("1"));
        assert_eq!(Price::new(plain, vec![tier, whole]), Err(PriceError::Tiers));
    }

    #[test]
    fn what_is_sold_by_the_piece() {
        let price = |json: &str| Price::from_json(&format!("{{\"base\":{json}}}")).unwrap();
        let of = |bucket: Bucket, count: u64| {
            let mut usage = Usage::default();
            *usage.get_mut(bucket) = count;
            usage
        };
        for (rates, usage, cost) in [
            (r#"{"image":"0.04"}"#, of(Bucket::Images, 3), "0.12"),
            (
                r#"{"second":"0.0001"}"#,
                of(Bucket::Milliseconds, 1_500),
                "0.00015",
            ),
            (
                r#"{"second":"0.000000001"}"#,
                of(Bucket::Milliseconds, 1),
                "0.000000001",
            ),
            (
                r#"{"character":"15"}"#,
                of(Bucket::Characters, 1_000),
                "0.015",
            ),
            (r#"{"search":"0.002"}"#, of(Bucket::Searches, 2), "0.004"),
            (r#"{"page":"0.001"}"#, of(Bucket::Pages, 7), "0.007"),
            (r#"{"request":"0.01"}"#, Usage::default(), "0.01"),
            (
                r#"{"prompt":"1","completion":"1","minimum":"0.5"}"#,
                text(10, 10),
                "0.5",
            ),
            (
                r#"{"prompt":"1","completion":"1","minimum":"0.5"}"#,
                text(600_000, 0),
                "0.6",
            ),
            (
                r#"{"prompt":"5","completion":"10","image_completion":"40"}"#,
                of(Bucket::ImageCompletion, 4_160),
                "0.1664",
            ),
        ] {
            let price = price(rates);
            assert_eq!(price.cost(&usage), Ok(credits(cost)), "{rates}");
            let output = usage.completion_total();
            assert!(price.worst_cost(&usage, output).unwrap() >= credits(cost));
            assert_eq!(Price::from_json(&price.to_json().unwrap()), Ok(price));
        }
    }

    #[test]
    fn what_nobody_priced_is_refused() {
        let price = |json: &str| Price::from_json(&format!("{{\"base\":{json}}}"));
        for missing in ["{}", r#"{"prompt":"1"}"#, r#"{"minimum":"1"}"#] {
            assert!(price(missing).is_err(), "{missing}");
        }
        let images = price(r#"{"image":"0.04"}"#).unwrap();
        let pages = Usage {
            pages: 1,
            ..Usage::default()
        };
        assert_eq!(
            images.worst_cost(&pages, 0),
            Err(PriceError::NoRate("pages"))
        );
        // A model that is sold by tokens is not sold by pages too.
        let tokens = price(r#"{"prompt":"1","completion":"1"}"#).unwrap();
        assert_eq!(tokens.worst_cost(&pages, 0), Ok(Credits::ZERO));
        let free = price(r#"{"prompt":"0","completion":"0"}"#).unwrap();
        assert_eq!(free.worst_cost(&pages, 0), Ok(Credits::ZERO));
    }

    #[test]
    fn p7_negative_prices_are_refused() {
        let rates = Rates::plain(credits("-1"), credits("1"));
        assert_eq!(
            Price::new(rates, vec![]),
            Err(PriceError::Negative("prompt"))
        );
    }

    #[test]
    fn l6_large_values_are_an_error_and_never_wrap() {
        let dear = price("9223372036", "9223372036");
        assert_eq!(
            dear.cost(&text(u64::MAX, u64::MAX)),
            Err(PriceError::Overflow)
        );
    }

    #[test]
    fn the_id_is_that_of_the_rates() {
        assert_eq!(price("1", "2").id(), price("1.0", "2.000").id());
        assert_ne!(price("1", "2").id(), price("1", "2.000001").id());
        let stored = price("1", "2").to_json().unwrap();
        assert_eq!(Price::from_json(&stored), Ok(price("1", "2")));
    }

    proptest! {
        #[test]
        fn affordable_is_exactly_the_most_that_fits(
            prompt_rate in 0_i64..20_000_000_000, rate in 0_i64..100_000_000_000,
            prompt in 0_u64..5_000_000, credit in 0_i64..1_000_000_000_000,
        ) {
            let price = Price::new(
                Rates::plain(Credits::from_nanos(prompt_rate), Credits::from_nanos(rate)), vec![],
            ).unwrap();
            let credit = Credits::from_nanos(credit);
            let n = price.affordable(&text(prompt, 0), Output::Completion, credit).unwrap();
            if n == u64::MAX {
                prop_assert_eq!(rate, 0);
            } else {
                if n > 0 {
                    prop_assert!(price.cost(&text(prompt, n)).unwrap() <= credit);
                }
                prop_assert!(price.cost(&text(prompt, n + 1)).unwrap() > credit);
            }
        }

        #[test]
        fn the_worst_cost_is_never_below_the_truth(
            rates in proptest::array::uniform8(0_i64..50_000_000_000), long in proptest::array::uniform2(0_i64..50_000_000_000),
            parts in proptest::array::uniform6(0_u64..400_000), limit in 0_u64..2_000_000,
        ) {
            let c = Credits::from_nanos;
            let mut base = Rates::plain(c(rates[0]), c(rates[1]));
            base.cached_prompt = Some(c(rates[2]));
            base.cache_write_5m = Some(c(rates[3]));
            base.reasoning = Some(c(rates[4]));
            base.image_prompt = Some(c(rates[5]));
            base.audio_completion = Some(c(rates[6]));
            base.request = Some(c(rates[7]));
            let tier = Tier { above_prompt_tokens: 500_000, whole_request: limit % 2 == 0, price: Rates::plain(c(long[0]), c(long[1])) };
            let price = Price::new(base, vec![tier]).unwrap();
            let truth = Usage {
                prompt: parts[0], cached_prompt: parts[1], cache_write_5m: parts[2], image_prompt: parts[3],
                completion: parts[4], reasoning: parts[5], ..Usage::default()
            };
            let prompt = Usage { prompt: truth.prompt_total() + limit % 7, ..Usage::default() };
            let worst = price.worst_cost(&prompt, truth.completion_total()).unwrap();
            prop_assert!(price.cost(&truth).unwrap() <= worst);
            let fits = price.affordable_output(&prompt, worst).unwrap();
            prop_assert!(fits >= truth.completion_total());
        }

        #[test]
        fn cost_is_monotone(a in 0_u64..1_000_000_000, b in 0_u64..1_000_000_000, rate in 0_i64..100_000_000_000) {
            let price = Price::new(
                Rates::plain(Credits::from_nanos(rate), Credits::from_nanos(rate / 3)), vec![],
            ).unwrap();
            prop_assert!(price.cost(&text(a, b)).unwrap() <= price.cost(&text(a + 1, b)).unwrap());
            prop_assert!(price.cost(&text(a, b)).unwrap() <= price.cost(&text(a, b + 1)).unwrap());
        }
    }
}
