//! Prices: nano-credits per million tokens of each kind, and the one place where a cost is rounded.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokens::Usage;
use uuid::Uuid;

use crate::{Credits, PriceId};

/// Rates are quoted per this many tokens.
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
    /// Tiers out of order, or too many.
    #[error("price tiers rise by above_prompt_tokens, at most {TIERS_MAX} of them")]
    Tiers,
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

/// A price as written in a provider file: credits per million tokens, decimal text.
///
/// A kind without a rate of its own is priced as the kind that it is part of: cached, cache
/// writes, audio and images in the prompt as `prompt`; reasoning and audio in the output as
/// `completion`. Zero must be written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rates {
    /// Fresh prompt tokens.
    pub prompt: Credits,
    /// Visible output tokens.
    pub completion: Credits,
    /// Prompt tokens read from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cached_prompt: Option<Credits>,
    /// Tokens written to a cache of about five minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_5m: Option<Credits>,
    /// Tokens written to a cache of about an hour.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache_write_1h: Option<Credits>,
    /// Audio in the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_prompt: Option<Credits>,
    /// Images in the prompt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_prompt: Option<Credits>,
    /// Reasoning tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<Credits>,
    /// Audio in the output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub audio_completion: Option<Credits>,
    /// Credits per request, whatever it consumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Credits>,
}

/// Other rates for a request whose prompt is long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// The tier applies when the whole prompt has more tokens than this.
    pub above_prompt_tokens: u64,
    /// The rates of the whole request then.
    pub price: Rates,
}

/// A model's price, checked: no rate is negative and tiers rise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Unchecked", into = "Unchecked")]
pub struct Price {
    base: Rates,
    tiers: Vec<Tier>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Unchecked {
    base: Rates,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    tiers: Vec<Tier>,
}

impl TryFrom<Unchecked> for Price {
    type Error = PriceError;

    fn try_from(unchecked: Unchecked) -> Result<Self, PriceError> {
        Self::new(unchecked.base, unchecked.tiers)
    }
}

impl From<Price> for Unchecked {
    fn from(price: Price) -> Self {
        Self {
            base: price.base,
            tiers: price.tiers,
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
        if !rising || tiers.len() > TIERS_MAX {
            return Err(PriceError::Tiers);
        }
        for rates in std::iter::once(&base).chain(tiers.iter().map(|tier| &tier.price)) {
            rates.refuse_negative()?;
        }
        Ok(Self { base, tiers })
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

    /// The rates for a prompt of this many tokens in all.
    #[must_use]
    pub fn rates(&self, prompt_tokens: u64) -> &Rates {
        self.tiers
            .iter()
            .rev()
            .find(|tier| prompt_tokens > tier.above_prompt_tokens)
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
        std::iter::once(&self.base)
            .chain(self.tiers.iter().map(|tier| &tier.price))
            .all(|rates| rates.all().iter().all(|(_, rate)| rate.is_zero()))
    }

    /// What `usage` costs: one sum over all kinds, rounded up once to a nano-credit.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn cost(&self, usage: &Usage) -> Result<Credits, PriceError> {
        round_up(self.exact(usage)?)
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
    /// Audio is of its own kind only where it was asked for: `prompt.audio_prompt` says so.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn worst_cost(&self, prompt: &Usage, output: u64) -> Result<Credits, PriceError> {
        let exact = self
            .worst_rates(prompt)
            .and_then(|(fixed, rate)| fixed.checked_add(rate.checked_mul(i128::from(output))?))
            .ok_or(PriceError::Overflow)?;
        round_up(exact)
    }

    /// How much output of the dearest kind fits into `credits` beside this prompt.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn affordable_output(&self, prompt: &Usage, credits: Credits) -> Result<u64, PriceError> {
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
        let mut worst = (0, 0);
        for rates in applicable {
            let text = [
                rates.cached_prompt,
                rates.cache_write_5m,
                rates.cache_write_1h,
            ]
            .into_iter()
            .chain([rates.image_prompt])
            .flatten()
            .fold(rates.prompt, Credits::max);
            let audio = rates.audio_prompt.unwrap_or(rates.prompt).max(text);
            let texts = prompt.prompt_total().saturating_sub(prompt.audio_prompt);
            let fee = i128::from(rates.request.unwrap_or(Credits::ZERO).nanos());
            let fixed = i128::from(texts)
                .checked_mul(i128::from(text.nanos()))?
                .checked_add(
                    i128::from(prompt.audio_prompt).checked_mul(i128::from(audio.nanos()))?,
                )?
                .checked_add(fee * TOKENS_PER_RATE)?;
            let output = [rates.reasoning, rates.audio_completion]
                .into_iter()
                .flatten()
                .fold(rates.completion, Credits::max);
            worst = (
                i128::max(worst.0, fixed),
                i128::max(worst.1, i128::from(output.nanos())),
            );
        }
        Some(worst)
    }

    /// The cost in millionths of a nano-credit.
    fn exact(&self, usage: &Usage) -> Result<i128, PriceError> {
        let rates = self.rates(usage.prompt_total());
        let prompt = rates.prompt;
        let completion = rates.completion;
        let terms = [
            (usage.prompt, prompt),
            (usage.cached_prompt, rates.cached_prompt.unwrap_or(prompt)),
            (usage.cache_write_5m, rates.cache_write_5m.unwrap_or(prompt)),
            (usage.cache_write_1h, rates.cache_write_1h.unwrap_or(prompt)),
            (usage.audio_prompt, rates.audio_prompt.unwrap_or(prompt)),
            (usage.image_prompt, rates.image_prompt.unwrap_or(prompt)),
            (usage.completion, completion),
            (usage.reasoning, rates.reasoning.unwrap_or(completion)),
            (
                usage.audio_completion,
                rates.audio_completion.unwrap_or(completion),
            ),
        ];
        let fee = i128::from(rates.request.unwrap_or(Credits::ZERO).nanos()) * TOKENS_PER_RATE;
        terms
            .into_iter()
            .try_fold(fee, |sum, (tokens, rate)| {
                i128::from(tokens)
                    .checked_mul(i128::from(rate.nanos()))
                    .and_then(|term| sum.checked_add(term))
            })
            .ok_or(PriceError::Overflow)
    }
}

/// Millionths of a nano-credit as credits: the one place where a cost is rounded.
fn round_up(exact: i128) -> Result<Credits, PriceError> {
    let nanos = exact / TOKENS_PER_RATE + i128::from(exact % TOKENS_PER_RATE > 0);
    i64::try_from(nanos)
        .map(Credits::from_nanos)
        .map_err(|_| PriceError::Overflow)
}

impl Rates {
    /// Rates that charge the two plain kinds alone.
    #[must_use]
    pub const fn plain(prompt: Credits, completion: Credits) -> Self {
        Self {
            prompt,
            completion,
            cached_prompt: None,
            cache_write_5m: None,
            cache_write_1h: None,
            audio_prompt: None,
            image_prompt: None,
            reasoning: None,
            audio_completion: None,
            request: None,
        }
    }

    /// Every rate that is written, with its name.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, Credits)> {
        let optional = [
            ("cached_prompt", self.cached_prompt),
            ("cache_write_5m", self.cache_write_5m),
            ("cache_write_1h", self.cache_write_1h),
            ("audio_prompt", self.audio_prompt),
            ("image_prompt", self.image_prompt),
            ("reasoning", self.reasoning),
            ("audio_completion", self.audio_completion),
            ("request", self.request),
        ];
        [("prompt", self.prompt), ("completion", self.completion)]
            .into_iter()
            .chain(
                optional
                    .into_iter()
                    .filter_map(|(name, rate)| rate.map(|rate| (name, rate))),
            )
            .collect()
    }

    fn refuse_negative(&self) -> Result<(), PriceError> {
        match self.all().into_iter().find(|(_, rate)| rate.is_negative()) {
            Some((name, _)) => Err(PriceError::Negative(name)),
            None => Ok(()),
        }
    }
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
            let tier = Tier { above_prompt_tokens: 500_000, price: Rates::plain(c(long[0]), c(long[1])) };
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
