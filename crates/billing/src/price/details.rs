//! What makes up a cost: a part for each bucket, and the parts add up to it to the nano-credit.

use tokens::{Bucket, Usage};

use super::{Price, PriceError, round_up};
use crate::Credits;

/// The parts of a cost. A cost is rounded up once, so a part is what the sum up to it adds to the
/// sum before it, both rounded up: less than a nano-credit from its exact value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CostDetails {
    /// In the order of [`Bucket::ALL`].
    buckets: [Credits; Bucket::ALL.len()],
    /// The fee per request.
    request: Credits,
    /// What lifts it to the least that a request costs.
    minimum: Credits,
    /// What of it is not the customer's to pay.
    not_charged: Credits,
}

impl CostDetails {
    /// The parts that are not zero, by their names; what is not charged is negative.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, Credits)> {
        let buckets = Bucket::ALL.iter().map(|bucket| bucket.as_str());
        buckets
            .zip(self.buckets)
            .chain([
                ("request", self.request),
                ("minimum", self.minimum),
                (
                    "not_charged",
                    Credits::ZERO.saturating_sub(self.not_charged),
                ),
            ])
            .filter(|(_, part)| !part.is_zero())
    }

    /// The same where less of it is charged.
    #[must_use]
    pub fn charging(mut self, charged: Credits) -> Self {
        let cost = self
            .parts()
            .fold(Credits::ZERO, |sum, (_, part)| sum.saturating_add(part));
        self.not_charged = self
            .not_charged
            .saturating_add(cost.saturating_sub(charged));
        self
    }
}

impl Price {
    /// The parts of what `usage` costs.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn details(&self, usage: &Usage) -> Result<CostDetails, PriceError> {
        let rates = self.rates(usage.prompt_total());
        let mut details = CostDetails {
            request: rates.request.unwrap_or(Credits::ZERO),
            ..CostDetails::default()
        };
        let mut exact = rates.fee();
        let mut sum = details.request;
        for (bucket, part) in Bucket::ALL.into_iter().zip(&mut details.buckets) {
            // Most requests fill two or three buckets, and each part takes a wide division.
            if usage.get(bucket) == 0 {
                continue;
            }
            exact = self
                .exact_of(rates, usage, bucket)
                .and_then(|more| exact.checked_add(more))
                .ok_or(PriceError::Overflow)?;
            let so_far = round_up(exact)?;
            *part = so_far.saturating_sub(sum);
            sum = so_far;
        }
        let least = rates.minimum.unwrap_or(Credits::ZERO);
        details.minimum = least.saturating_sub(sum).at_least_zero();
        Ok(details)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_parts_are_the_cost(
            counts in proptest::array::uniform15(0_u64..3_000_000),
            rates in proptest::array::uniform16(0_i64..3_000_000_000),
            minimum in 0_i64..1_000_000, charged in 0_i64..2_000_000_000,
        ) {
            let mut usage = Usage::default();
            for (bucket, count) in Bucket::ALL.into_iter().zip(counts) {
                *usage.get_mut(bucket) = count;
            }
            let names = [
                "prompt", "completion", "cached_prompt", "cache_write_5m", "cache_write_1h",
                "audio_prompt", "image_prompt", "reasoning", "audio_completion",
                "image_completion", "image", "second", "character", "search", "page", "request",
            ];
            let mut json: Vec<String> = names
                .iter()
                .zip(rates)
                .map(|(name, rate)| format!(r#""{name}":"{}""#, Credits::from_nanos(rate)))
                .collect();
            json.push(format!(r#""minimum":"{}""#, Credits::from_nanos(minimum)));
            let price = Price::from_json(&format!(r#"{{"base":{{{}}}}}"#, json.join(","))).unwrap();
            let cost = price.cost(&usage).unwrap();
            let details = price.details(&usage).unwrap();
            let sum = |details: &CostDetails| {
                details.parts().map(|(_, part)| part.nanos()).sum::<i64>()
            };
            prop_assert_eq!(sum(&details), cost.nanos());
            prop_assert!(details.parts().all(|(_, part)| !part.is_negative()));
            let less = Credits::from_nanos(charged.min(cost.nanos()));
            prop_assert_eq!(sum(&details.charging(less)), less.nanos());
        }
    }
}
