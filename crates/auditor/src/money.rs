//! Money as the auditor reckons it: decimal text to nano-credits, and what tokens cost at a price.

use std::collections::BTreeMap;

use serde::Deserialize;

/// Nano-credits.
pub type Nanos = i128;

/// Nano-credits in a credit.
const NANOS_PER_CREDIT: Nanos = 1_000_000_000;
/// Prices are for so many tokens.
const TOKENS_PER_PRICE: Nanos = 1_000_000;
const DECIMALS: usize = 9;

/// The nano-credits of a decimal text such as `-12.000000001`; `None` where it is none, or finer.
#[must_use]
pub fn nanos(text: &str) -> Option<Nanos> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || part.len() > DECIMALS || !all_digits(whole) || !all_digits(part) {
        return None;
    }
    let whole: Nanos = whole.parse().ok()?;
    let part: Nanos = format!("{part:0<DECIMALS$}").parse().ok()?;
    Some(sign * whole.checked_mul(NANOS_PER_CREDIT)?.checked_add(part)?)
}

/// An amount as decimal text.
pub(crate) fn decimal(amount: Nanos) -> String {
    let sign = if amount < 0 { "-" } else { "" };
    let (whole, part) = (
        amount.abs() / NANOS_PER_CREDIT,
        amount.abs() % NANOS_PER_CREDIT,
    );
    format!("{sign}{whole}.{part:09}")
}

/// Tokens by kind, every token once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Tokens {
    /// Fresh prompt.
    pub prompt: i64,
    /// Prompt from a cache.
    pub cached_prompt: i64,
    /// Written to a short cache.
    pub cache_write_5m: i64,
    /// Written to a long cache.
    pub cache_write_1h: i64,
    /// Audio in the prompt.
    pub audio_prompt: i64,
    /// Images in the prompt.
    pub image_prompt: i64,
    /// Visible output.
    pub completion: i64,
    /// Reasoning.
    pub reasoning: i64,
    /// Audio in the output.
    pub audio_completion: i64,
}

impl Tokens {
    /// Of a prompt and an answer in text.
    #[must_use]
    pub fn text(prompt: u64, completion: u64) -> Self {
        Self {
            prompt: i64::try_from(prompt).unwrap_or(i64::MAX),
            completion: i64::try_from(completion).unwrap_or(i64::MAX),
            ..Self::default()
        }
    }

    /// All of the prompt.
    #[must_use]
    pub fn prompt_total(&self) -> i128 {
        [
            self.prompt,
            self.cached_prompt,
            self.cache_write_5m,
            self.cache_write_1h,
            self.audio_prompt,
            self.image_prompt,
        ]
        .into_iter()
        .map(i128::from)
        .sum()
    }

    /// All of the output.
    #[must_use]
    pub fn completion_total(&self) -> i128 {
        i128::from(self.completion) + i128::from(self.reasoning) + i128::from(self.audio_completion)
    }
}

/// The stored text of a price.
#[derive(Debug, Deserialize)]
struct Stored {
    base: BTreeMap<String, String>,
    #[serde(default)]
    tiers: Vec<StoredTier>,
}

#[derive(Debug, Deserialize)]
struct StoredTier {
    above_prompt_tokens: i128,
    price: BTreeMap<String, String>,
}

/// A price as it is stored, taken apart anew.
#[derive(Clone, Debug)]
pub struct PriceBook {
    base: BTreeMap<String, Nanos>,
    /// Rising by their threshold.
    tiers: Vec<(i128, BTreeMap<String, Nanos>)>,
}

impl PriceBook {
    /// Out of its stored text; `None` where that is no price.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(text).ok()?;
        let rates = |texts: BTreeMap<String, String>| {
            texts
                .into_iter()
                .map(|(kind, text)| Some((kind, nanos(&text).filter(|rate| *rate >= 0)?)))
                .collect::<Option<BTreeMap<_, _>>>()
                .filter(|rates| rates.contains_key("prompt") && rates.contains_key("completion"))
        };
        let mut tiers = stored
            .tiers
            .into_iter()
            .map(|tier| Some((tier.above_prompt_tokens, rates(tier.price)?)))
            .collect::<Option<Vec<_>>>()?;
        tiers.sort_by_key(|(above, _)| *above);
        Some(Self {
            base: rates(stored.base)?,
            tiers,
        })
    }

    /// What tokens cost: summed exactly, rounded up once. `None` where it does not fit.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Option<Nanos> {
        let long = self
            .tiers
            .iter()
            .rev()
            .find(|(above, _)| tokens.prompt_total() > *above);
        let rates = long.map_or(&self.base, |(_, rates)| rates);
        let rate = |kind: &str, like: &str| {
            let rate = rates.get(kind).or_else(|| rates.get(like));
            rate.copied().unwrap_or(0)
        };
        let parts = [
            (tokens.prompt, rate("prompt", "prompt")),
            (tokens.cached_prompt, rate("cached_prompt", "prompt")),
            (tokens.cache_write_5m, rate("cache_write_5m", "prompt")),
            (tokens.cache_write_1h, rate("cache_write_1h", "prompt")),
            (tokens.audio_prompt, rate("audio_prompt", "prompt")),
            (tokens.image_prompt, rate("image_prompt", "prompt")),
            (tokens.completion, rate("completion", "completion")),
            (tokens.reasoning, rate("reasoning", "completion")),
            (
                tokens.audio_completion,
                rate("audio_completion", "completion"),
            ),
        ];
        let fee = rates.get("request").copied().unwrap_or(0);
        let millionths = parts.into_iter().try_fold(
            fee.checked_mul(TOKENS_PER_PRICE)?,
            |sum: Nanos, (count, rate)| sum.checked_add(Nanos::from(count).checked_mul(rate)?),
        )?;
        let up = millionths.checked_add(TOKENS_PER_PRICE - 1)?;
        Some(up.div_euclid(TOKENS_PER_PRICE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_text_is_read_to_the_nano() {
        for (text, expected) in [
            ("0", Some(0)),
            ("12.5", Some(12_500_000_000)),
            ("-0.000000001", Some(-1)),
            ("9223372036.854775807", Some(9_223_372_036_854_775_807)),
            ("0.0000000001", None),
            (".5", None),
            ("1e3", None),
            ("--1", None),
            ("", None),
        ] {
            assert_eq!(nanos(text), expected, "{text}");
            if let Some(amount) = expected {
                assert_eq!(nanos(&decimal(amount)), expected);
            }
        }
    }

    #[test]
    fn a_cost_is_rounded_up_once() {
        let price =
            r#"{"base":{"prompt":"0.000001","completion":"0.333333333","request":"0.001"}}"#;
        let price = PriceBook::parse(price).unwrap();
        // 3 * 1,000 + 7 * 333,333,333 = 2,333,336,331 millionths, and the fee.
        assert_eq!(price.cost(&Tokens::text(3, 7)), Some(2_334 + 1_000_000));
        assert_eq!(price.cost(&Tokens::text(0, 3)), Some(1_000 + 1_000_000));
        assert_eq!(price.cost(&Tokens::default()), Some(1_000_000));
    }

    #[test]
    fn a_long_prompt_has_the_rates_of_its_tier() {
        let price = r#"{"base":{"prompt":"1","completion":"2"},
            "tiers":[{"above_prompt_tokens":10,"price":{"prompt":"3","completion":"5","cached_prompt":"0"}}]}"#;
        let price = PriceBook::parse(price).unwrap();
        assert_eq!(price.cost(&Tokens::text(10, 1)), Some(12_000));
        assert_eq!(price.cost(&Tokens::text(11, 1)), Some(38_000));
        let cached = Tokens {
            cached_prompt: 11,
            ..Tokens::default()
        };
        assert_eq!(price.cost(&cached), Some(0));
    }

    #[test]
    fn what_is_no_price_is_none() {
        for text in [
            "",
            "{}",
            r#"{"base":{"prompt":"1"}}"#,
            r#"{"base":{"prompt":"-1","completion":"1"}}"#,
        ] {
            assert!(PriceBook::parse(text).is_none(), "{text}");
        }
    }
}
