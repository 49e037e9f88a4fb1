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
    /// Images in the output, in tokens; like all below, nothing where a request had none.
    pub image_completion: Option<i64>,
    /// Images made.
    pub images: Option<i64>,
    /// Heard or made.
    pub milliseconds: Option<i64>,
    /// Read aloud.
    pub characters: Option<i64>,
    /// Searches.
    pub searches: Option<i64>,
    /// Pages.
    pub pages: Option<i64>,
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
        i128::from(self.completion)
            + i128::from(self.reasoning)
            + i128::from(self.audio_completion)
            + i128::from(self.image_completion.unwrap_or(0))
    }
}

/// The stored text of a price.
#[derive(Debug, Deserialize)]
struct Stored {
    base: BTreeMap<String, String>,
    #[serde(default)]
    tiers: Vec<StoredTier>,
    provider: Option<Box<Stored>>,
}

#[derive(Debug, Deserialize)]
struct StoredTier {
    above_prompt_tokens: i128,
    /// Not written where it is true.
    whole_request: Option<bool>,
    price: BTreeMap<String, String>,
}

/// A price as it is stored, taken apart anew.
#[derive(Clone, Debug)]
pub struct PriceBook {
    base: BTreeMap<String, Nanos>,
    /// Rising by their threshold.
    tiers: Vec<(i128, BTreeMap<String, Nanos>)>,
    /// Whether a tier prices only the tokens beyond its threshold.
    graduated: bool,
    /// What the operator pays, where that is something else.
    provider: Option<Box<PriceBook>>,
}

impl PriceBook {
    /// Out of its stored text; `None` where that is no price.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::of(serde_json::from_str(text).ok()?)
    }

    fn of(stored: Stored) -> Option<Self> {
        let rates = |texts: BTreeMap<String, String>| {
            texts
                .into_iter()
                .map(|(kind, text)| Some((kind, nanos(&text).filter(|rate| *rate >= 0)?)))
                .collect::<Option<BTreeMap<_, _>>>()
                .filter(|rates| rates.contains_key("prompt") && rates.contains_key("completion"))
        };
        let graduated = stored
            .tiers
            .iter()
            .any(|tier| tier.whole_request == Some(false));
        let mut tiers = stored
            .tiers
            .into_iter()
            .map(|tier| Some((tier.above_prompt_tokens, rates(tier.price)?)))
            .collect::<Option<Vec<_>>>()?;
        tiers.sort_by_key(|(above, _)| *above);
        Some(Self {
            base: rates(stored.base)?,
            tiers,
            graduated,
            provider: match stored.provider {
                Some(provider) => Some(Box::new(Self::of(*provider)?)),
                None => None,
            },
        })
    }

    /// What the operator owes the provider.
    #[must_use]
    pub fn provider_cost(&self, tokens: &Tokens) -> Option<Nanos> {
        self.provider.as_deref().unwrap_or(self).cost(tokens)
    }

    /// What tokens cost: summed exactly, rounded up once. `None` where it does not fit.
    #[must_use]
    pub fn cost(&self, tokens: &Tokens) -> Option<Nanos> {
        let long = self
            .tiers
            .iter()
            .rev()
            .find(|(above, _)| !self.graduated && tokens.prompt_total() > *above);
        let rates = long.map_or(&self.base, |(_, rates)| rates);
        let own = |kind: &str| rates.get(kind).copied().unwrap_or(0);
        let like = |kind: &str, other: &str| rates.get(kind).copied().unwrap_or(own(other));
        let some = |count: Option<i64>| Nanos::from(count.unwrap_or(0));
        // In millionths of a nano-credit.
        let piece = TOKENS_PER_PRICE;
        let parts = [
            (Nanos::from(tokens.completion), own("completion")),
            (tokens.reasoning.into(), like("reasoning", "completion")),
            (
                tokens.audio_completion.into(),
                like("audio_completion", "completion"),
            ),
            (
                some(tokens.image_completion),
                like("image_completion", "completion"),
            ),
            (some(tokens.images) * piece, own("image")),
            (some(tokens.milliseconds) * (piece / 1_000), own("second")),
            (some(tokens.characters), own("character")),
            (some(tokens.searches) * piece, own("search")),
            (some(tokens.pages) * piece, own("page")),
            (piece, own("request")),
        ];
        let mut millionths = self.prompt_cost(tokens, rates)?;
        for (count, rate) in parts {
            millionths = millionths.checked_add(count.checked_mul(rate)?)?;
        }
        let up = millionths.checked_add(TOKENS_PER_PRICE - 1)?;
        Some(up.div_euclid(TOKENS_PER_PRICE).max(own("minimum")))
    }

    /// The prompt in millionths. Where tiers are graduated its tokens are priced one after the
    /// other, in the order that they have in a prompt: what a cache holds is how it begins.
    fn prompt_cost(&self, tokens: &Tokens, rates: &BTreeMap<String, Nanos>) -> Option<Nanos> {
        let kinds = [
            (tokens.cached_prompt, "cached_prompt"),
            (tokens.cache_write_1h, "cache_write_1h"),
            (tokens.cache_write_5m, "cache_write_5m"),
            (tokens.image_prompt, "image_prompt"),
            (tokens.audio_prompt, "audio_prompt"),
            (tokens.prompt, "prompt"),
        ];
        let mut at: Nanos = 0;
        let mut sum: Nanos = 0;
        for (count, kind) in kinds {
            let mut left = Nanos::from(count);
            while left > 0 {
                let passed = |above: &Nanos| self.graduated && at >= *above;
                let reached = self.tiers.iter().rev().find(|(above, _)| passed(above));
                let ahead = self.tiers.iter().find(|(above, _)| !passed(above));
                let room = ahead
                    .filter(|_| self.graduated)
                    .map_or(left, |(above, _)| above - at);
                let rates = reached.map_or(rates, |(_, rates)| rates);
                let rate = rates.get(kind).or_else(|| rates.get("prompt")).copied();
                let step = left.min(room);
                sum = sum.checked_add(step.checked_mul(rate.unwrap_or(0))?)?;
                (at, left) = (at + step, left - step);
            }
        }
        Some(sum)
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
    fn a_graduated_tier_prices_what_lies_beyond_it() {
        let price = r#"{"base":{"prompt":"1","completion":"2","cached_prompt":"0.5"},"tiers":[
            {"above_prompt_tokens":10,"whole_request":false,
             "price":{"prompt":"3","completion":"5","cached_prompt":"0.25"}}]}"#;
        let price = PriceBook::parse(price).unwrap();
        // 10 * 1,000 + 5 * 3,000 nanos, and the output at 2,000.
        assert_eq!(price.cost(&Tokens::text(15, 1)), Some(27_000));
        let cached = Tokens {
            cached_prompt: 12,
            prompt: 3,
            ..Tokens::default()
        };
        // 10 * 500 + 2 * 250 + 3 * 3,000.
        assert_eq!(price.cost(&cached), Some(14_500));
    }

    #[test]
    fn pieces_and_the_price_of_the_provider() {
        let price = r#"{"base":{"prompt":"0","completion":"0","image":"0.05","second":"0.0002","minimum":"0.01"},
            "provider":{"base":{"prompt":"0","completion":"0","image":"0.04"}}}"#;
        let price = PriceBook::parse(price).unwrap();
        let made = Tokens {
            images: Some(2),
            milliseconds: Some(1_500),
            ..Tokens::default()
        };
        assert_eq!(price.cost(&made), Some(100_300_000));
        assert_eq!(price.provider_cost(&made), Some(80_000_000));
        assert_eq!(price.cost(&Tokens::default()), Some(10_000_000));
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
