//! Prices by which a long prompt is cheaper than a shorter one: mostly a gap in the table they are from.

use billing::{Credits, Offer};
use serde::Serialize;
use tokens::Bucket;

/// A bucket that is cheaper in a tier than below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fall {
    /// `provider/id`.
    pub model: String,
    /// `standard`, `batch`, `flex` or `priority`.
    pub service_tier: &'static str,
    /// Where the tier begins.
    pub above_prompt_tokens: u64,
    /// The bucket, by its name in `price`.
    pub bucket: &'static str,
    /// What it costs below.
    pub below: Credits,
    /// What it costs above.
    pub above: Credits,
}

/// What falls in an offer, of the kinds of token that it names on either side.
pub(super) fn falls(offer: &Offer) -> Vec<Fall> {
    let mut falls = Vec::new();
    for (service_tier, priced) in offer.all() {
        let mut below = priced.price.base();
        for tier in priced.price.tiers() {
            let above = &tier.price;
            let named = [below.all(), above.all()].concat();
            let written = |bucket: &Bucket| named.iter().any(|(name, _)| *name == bucket.as_str());
            for bucket in Bucket::ALL.into_iter().filter(written) {
                let (low, high) = (below.rate(bucket), above.rate(bucket));
                if high < low {
                    falls.push(Fall {
                        model: String::new(),
                        service_tier: service_tier.as_str(),
                        above_prompt_tokens: tier.above_prompt_tokens,
                        bucket: bucket.as_str(),
                        below: low,
                        above: high,
                    });
                }
            }
            below = above;
        }
    }
    falls
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider_file::{BUILTIN_PROVIDERS, ProviderFile};

    /// What falls in the built-in files, and whose doing that is. OpenAI serves no long prompt with
    /// priority (its page "Priority processing"), so the table has no such price, and what is sent
    /// all the same has the plain one. Of Gemini 3.1 the table has a price of cache writes for long
    /// prompts alone, and a wrong one: it is a sixteenth of a fresh token's; Google reports none.
    const KNOWN: [&str; 9] = [
        "openai/gpt-5.4 priority 272000: completion",
        "openai/gpt-5.4-2026-03-05 priority 272000: completion",
        "openai/gpt-5.5 priority 272000: prompt cached_prompt completion",
        "openai/gpt-5.5-2026-04-23 priority 272000: prompt cached_prompt completion",
        "vertex/gemini-3.1-pro-preview standard 200000: cache_write_5m",
        "vertex/gemini-3.1-pro-preview batch 200000: cache_write_5m",
        "vertex/gemini-3.1-pro-preview flex 200000: cache_write_5m",
        "vertex/gemini-3.1-pro-preview-customtools standard 200000: cache_write_5m",
        "vertex/gemini-3.1-pro-preview-customtools batch 200000: cache_write_5m",
    ];

    #[test]
    fn long_prompts_are_dearer_but_for_nine_gaps_of_the_table() {
        let mut found: Vec<String> = Vec::new();
        for (name, text) in BUILTIN_PROVIDERS {
            let file = ProviderFile::parse(name, text).unwrap();
            for model in &file.models {
                let book = model.book().unwrap();
                for fall in book.offers().flat_map(|offer| falls(offer)) {
                    let (tier, above) = (fall.service_tier, fall.above_prompt_tokens);
                    let place = format!("{}/{} {tier} {above}:", file.name, model.id);
                    match found.last_mut().filter(|last| last.starts_with(&place)) {
                        Some(last) => *last = format!("{last} {}", fall.bucket),
                        None => found.push(format!("{place} {}", fall.bucket)),
                    }
                }
            }
        }
        assert_eq!(found, KNOWN);
    }
}
