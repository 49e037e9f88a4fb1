//! What holds of every price: more of anything is never cheaper, and no way of splitting a request gains more than rounding.
//!
//! Tiers are where either may end, so each property says for which it holds. A price *rises* where no
//! rate of a higher tier is below that of a lower one, and *falls* where none is above.

#![expect(clippy::unwrap_used, reason = "a test says what failed by panicking")]

use billing::{Credits, Price, Rates, Tier};
use proptest::prelude::*;
use tokens::{Bucket, Usage};

/// A price's rates in their order in [`Rates`], without the minimum.
const RATES: usize = 16;
/// Where the fee for the request is among them.
const FEE: usize = 15;

fn rates(of: &[Option<i64>; RATES], minimum: Option<i64>) -> Rates {
    let nanos = |at: usize| of[at].map(Credits::from_nanos);
    let plain = |at: usize| nanos(at).unwrap_or(Credits::ZERO);
    let mut rates = Rates::plain(plain(0), plain(1));
    rates.cached_prompt = nanos(2);
    rates.cache_write_5m = nanos(3);
    rates.cache_write_1h = nanos(4);
    rates.audio_prompt = nanos(5);
    rates.image_prompt = nanos(6);
    rates.reasoning = nanos(7);
    rates.audio_completion = nanos(8);
    rates.image_completion = nanos(9);
    rates.image = nanos(10);
    rates.second = nanos(11);
    rates.character = nanos(12);
    rates.search = nanos(13);
    rates.page = nanos(14);
    rates.request = nanos(FEE);
    rates.minimum = minimum.map(Credits::from_nanos);
    rates
}

/// How the rates of the tiers stand to each other.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Slope {
    Rising,
    Falling,
    Any,
}

impl Slope {
    fn next(self, rate: i64, by: i64) -> i64 {
        match self {
            Self::Rising => rate + by,
            Self::Falling => (rate - by).max(0),
            Self::Any => by,
        }
    }
}

/// Rates that are no whole millionths of what is counted, so that there is something to round.
fn some_rates() -> impl Strategy<Value = [Option<i64>; RATES]> {
    prop::array::uniform16(prop::option::weighted(0.7, 0_i64..3_000_000_000))
}

/// Up to three tiers at thresholds that the usages here come across.
fn prices(slope: Slope, whole_request: bool) -> impl Strategy<Value = Price> {
    let step = (
        prop::array::uniform16(0_i64..2_000_000_000),
        1_u64..400,
        0_i64..2_000,
    );
    let steps = prop::collection::vec(step, 0..=3);
    (some_rates(), 0_i64..2_000, steps).prop_map(move |(base, minimum, steps)| {
        let mut level = base;
        // The two plain rates are always written, so what falls back to them rises or falls too.
        for plain in &mut level[..2] {
            *plain = Some(plain.unwrap_or(0));
        }
        let (mut above, mut least) = (0, minimum);
        let tiers = steps.iter().map(|(by, further, other)| {
            above += further;
            for (rate, by) in level.iter_mut().zip(by) {
                *rate = rate.map(|rate| slope.next(rate, *by));
            }
            least = slope.next(least, *other);
            Tier {
                above_prompt_tokens: above,
                whole_request,
                price: rates(&level, Some(least)),
            }
        });
        let tiers: Vec<Tier> = tiers.collect();
        Price::new(rates(&base, Some(minimum)), tiers).unwrap()
    })
}

fn usages() -> impl Strategy<Value = Usage> {
    prop::array::uniform15(prop_oneof![2 => 0_u64..1, 3 => 0_u64..300]).prop_map(|counts| {
        let mut usage = Usage::default();
        for (bucket, count) in Bucket::ALL.into_iter().zip(counts) {
            *usage.get_mut(bucket) = count;
        }
        usage
    })
}

/// Where to cut, in thousandths of what is left of each bucket.
fn cuts() -> impl Strategy<Value = Vec<[u64; 15]>> {
    prop::collection::vec(prop::array::uniform15(0_u64..=1000), 1..4)
}

/// A usage in one part more than there are cuts.
fn split(usage: &Usage, cuts: &[[u64; 15]]) -> Vec<Usage> {
    let mut left = *usage;
    let mut parts = Vec::new();
    for cut in cuts {
        let mut part = Usage::default();
        for (bucket, thousandths) in Bucket::ALL.into_iter().zip(cut) {
            let count = left.get(bucket) * thousandths / 1000;
            *part.get_mut(bucket) = count;
            *left.get_mut(bucket) -= count;
        }
        parts.push(part);
    }
    parts.push(left);
    parts
}

fn cost(price: &Price, usage: &Usage) -> i64 {
    price.cost(usage).unwrap().nanos()
}

fn sum(price: &Price, parts: &[Usage]) -> i64 {
    parts.iter().map(|part| cost(price, part)).sum()
}

/// One more, and more, of each bucket that `which` lets through.
fn more(usage: &Usage, by: u64, which: impl Fn(Bucket) -> bool) -> Vec<Usage> {
    let all = Bucket::ALL.into_iter().filter(|bucket| which(*bucket));
    let grown = all.flat_map(|bucket| {
        [1, by].map(|by| {
            let mut grown = *usage;
            *grown.get_mut(bucket) += by;
            grown
        })
    });
    grown.collect()
}

proptest! {
    /// With tiers of either kind that rise, minimums that do, fees, and whatever is left out.
    #[test]
    fn more_of_anything_is_never_cheaper_where_tiers_rise(
        price in prop_oneof![prices(Slope::Rising, true), prices(Slope::Rising, false)],
        usage in usages(), by in 1_u64..500,
    ) {
        let before = cost(&price, &usage);
        for grown in more(&usage, by, |_| true) {
            prop_assert!(before <= cost(&price, &grown), "{:?}", grown);
        }
    }

    /// Whatever the tiers do: they are chosen by the prompt, and what is not in the prompt leaves
    /// them where they are. Nor is a longer prompt cheaper on the same side of each threshold.
    #[test]
    fn more_is_cheaper_only_where_a_prompt_crosses_into_a_cheaper_tier(
        whole in prices(Slope::Any, true), graduated in prices(Slope::Any, false),
        usage in usages(), by in 1_u64..500,
    ) {
        for price in [&whole, &graduated] {
            for grown in more(&usage, by, |bucket| !bucket.is_prompt()) {
                prop_assert!(cost(price, &usage) <= cost(price, &grown), "{:?}", grown);
            }
        }
        let above = |usage: &Usage| {
            let tiers = whole.tiers().iter();
            tiers.filter(|tier| usage.prompt_total() > tier.above_prompt_tokens).count()
        };
        for grown in more(&usage, by, Bucket::is_prompt) {
            if above(&grown) == above(&usage) {
                prop_assert!(cost(&whole, &usage) <= cost(&whole, &grown), "{:?}", grown);
            }
        }
    }

    /// Without tiers the parts cost what the whole costs, the fee once more for each further part,
    /// and each further part's rounding of less than a nano-credit. A minimum only adds to that.
    #[test]
    fn splitting_gains_nothing_and_costs_fees_and_rounding(
        base in some_rates(), minimum in 0_i64..2_000_000, usage in usages(), cuts in cuts(),
    ) {
        let parts = split(&usage, &cuts);
        let further = i64::try_from(parts.len()).unwrap() - 1;
        let plain = Price::new(rates(&base, None), Vec::new()).unwrap();
        let fees = further * base[FEE].unwrap_or(0);
        let (whole, together) = (cost(&plain, &usage), sum(&plain, &parts));
        prop_assert!(whole + fees <= together);
        prop_assert!(together <= whole + fees + further);
        let least = Price::new(rates(&base, Some(minimum)), Vec::new()).unwrap();
        prop_assert!(cost(&least, &usage) <= sum(&least, &parts));
    }

    /// Where long prompts are cheaper, parts are never cheaper than the whole. Where they are
    /// dearer, splitting is worth what the tier adds and nothing beyond: at the rates of the whole
    /// the parts would cost no less than it does.
    #[test]
    fn splitting_gains_at_most_what_a_dearer_tier_adds(
        rising in prices(Slope::Rising, true), falling in prices(Slope::Falling, true),
        graduated in prices(Slope::Falling, false), usage in usages(), cuts in cuts(),
    ) {
        let parts = split(&usage, &cuts);
        for price in [&falling, &graduated] {
            prop_assert!(cost(price, &usage) <= sum(price, &parts), "{:?}", price);
        }
        let of_the_whole = rising.rates(usage.prompt_total()).clone();
        let flat = Price::new(of_the_whole, Vec::new()).unwrap();
        prop_assert_eq!(cost(&flat, &usage), cost(&rising, &usage));
        prop_assert!(cost(&flat, &usage) <= sum(&flat, &parts));
        prop_assert!(sum(&rising, &parts) <= sum(&flat, &parts));
    }

    /// Output that is asked for in several requests, each with the whole prompt before it, costs
    /// no less than in one, whatever the tiers do.
    #[test]
    fn splitting_the_output_gains_nothing(
        price in prop_oneof![prices(Slope::Any, true), prices(Slope::Any, false)],
        usage in usages(), cuts in cuts(),
    ) {
        let mut parts = split(&usage, &cuts);
        for part in &mut parts {
            for bucket in Bucket::ALL.into_iter().filter(|bucket| bucket.is_prompt()) {
                *part.get_mut(bucket) = usage.get(bucket);
            }
        }
        prop_assert!(cost(&price, &usage) <= sum(&price, &parts));
    }
}
