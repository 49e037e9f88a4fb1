//! Reads the price table that PyPI's `litellm` ships: one JSON object, a member per model.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::{
    decimal::Decimal,
    facts::{Facts, Kind, Price},
};
use crate::report::Failure;

/// Members that hold dollars per token, and what they are for.
const PER_TOKEN: [(&str, Kind); 9] = [
    ("input_cost_per_token", Kind::Prompt),
    ("output_cost_per_token", Kind::Completion),
    ("cache_read_input_token_cost", Kind::CachedPrompt),
    ("cache_creation_input_token_cost", Kind::CacheWrite5m),
    (
        "cache_creation_input_token_cost_above_1hr",
        Kind::CacheWrite1h,
    ),
    ("input_cost_per_audio_token", Kind::AudioPrompt),
    ("output_cost_per_audio_token", Kind::AudioCompletion),
    ("output_cost_per_reasoning_token", Kind::Reasoning),
    ("input_cost_per_image_token", Kind::ImagePrompt),
];
/// The endpoint that a model must be served on, where the table names any.
const ENDPOINT: &str = "/v1/chat/completions";

/// A row: its members in their own bytes, so that no number passes through a float.
type Row = BTreeMap<String, Box<RawValue>>;

/// The table, by model.
pub(crate) struct Litellm {
    rows: BTreeMap<String, Row>,
}

impl Litellm {
    /// Reads the table.
    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let rows = serde_json::from_str(text)
            .map_err(|error| Failure::content("the litellm table", error))?;
        Ok(Self { rows })
    }

    /// The chat models of `provider` whose id starts with `prefix`, which is cut off.
    pub(crate) fn chat_models(&self, provider: &str, prefix: &str) -> Result<Vec<Facts>, Failure> {
        self.rows
            .iter()
            .filter(|(_, row)| text(row, "litellm_provider").is_some_and(|name| name == provider))
            .filter(|(_, row)| serves_chat(row))
            .filter_map(|(id, row)| Some((id.strip_prefix(prefix)?, row)))
            .map(|(id, row)| {
                facts(id, row).map_err(|why| Failure::content(format!("litellm {id}"), why))
            })
            .collect()
    }
}

fn serves_chat(row: &Row) -> bool {
    let endpoints: Option<Vec<String>> = parsed(row, "supported_endpoints");
    text(row, "mode").is_some_and(|mode| mode == "chat")
        && endpoints.is_none_or(|names| names.iter().any(|name| name == ENDPOINT))
}

fn facts(id: &str, row: &Row) -> Result<Facts, String> {
    let mut facts = Facts {
        id: id.to_owned(),
        sourced: row.contains_key("source"),
        context_window: whole(row, "max_input_tokens").or_else(|| whole(row, "max_tokens")),
        max_output_tokens: whole(row, "max_output_tokens").or_else(|| whole(row, "max_tokens")),
        reasons: parsed(row, "supports_reasoning").unwrap_or(false),
        deprecated: false,
        ends: text(row, "deprecation_date"),
        price: price(row, "")?,
        tiers: BTreeMap::new(),
        search_fee: search_fee(row)?,
    };
    for above in thresholds(row) {
        let suffix = format!("_above_{above}k_tokens");
        facts
            .tiers
            .insert(above.saturating_mul(1_000), price(row, &suffix)?);
    }
    ranges(row, &mut facts)?;
    Ok(facts)
}

/// Every price whose member is named as in [`PER_TOKEN`] and then `suffix`.
fn price(row: &Row, suffix: &str) -> Result<Price, String> {
    let mut price = Price::new();
    for (member, kind) in PER_TOKEN {
        if let Some(amount) = decimal(row, &format!("{member}{suffix}"))? {
            price.insert(kind, amount.shifted(6));
        }
    }
    Ok(price)
}

/// The thousands of tokens above which other prices hold.
fn thresholds(row: &Row) -> Vec<u64> {
    row.keys()
        .filter_map(|member| {
            member
                .strip_prefix("input_cost_per_token_above_")?
                .strip_suffix("k_tokens")?
                .parse()
                .ok()
        })
        .collect()
}

/// Prices given as a list of ranges of prompt tokens: the first is the price, the others are tiers.
fn ranges(row: &Row, facts: &mut Facts) -> Result<(), String> {
    if !row.contains_key("tiered_pricing") {
        return Ok(());
    }
    let ranges: Vec<Row> = parsed(row, "tiered_pricing").ok_or("tiers that are no list")?;
    for range in &ranges {
        let bounds: Vec<Box<RawValue>> = parsed(range, "range").ok_or("a range without bounds")?;
        let start = bounds.first().ok_or("a range without a start")?.get();
        let start = start
            .parse::<Decimal>()
            .map_err(|error| error.to_string())?;
        let start: u64 = start
            .to_string()
            .parse()
            .map_err(|_| "a range that starts inside a token")?;
        let price = price(range, "")?;
        if start == 0 {
            facts.price.extend(price);
        } else {
            facts.tiers.insert(start, price);
        }
    }
    Ok(())
}

fn search_fee(row: &Row) -> Result<Option<Decimal>, String> {
    match parsed::<Row>(row, "search_context_cost_per_query") {
        Some(fees) => decimal(&fees, "search_context_size_low"),
        None => Ok(None),
    }
}

fn decimal(row: &Row, member: &str) -> Result<Option<Decimal>, String> {
    let Some(raw) = row
        .get(member)
        .map(|raw| raw.get())
        .filter(|raw| *raw != "null")
    else {
        return Ok(None);
    };
    let number: Decimal = raw.parse().map_err(|error| format!("{member}: {error}"))?;
    Ok(Some(number.without_float_noise()))
}

/// A count of tokens; the table writes some as `1e6` or `8192.0`.
fn whole(row: &Row, member: &str) -> Option<u64> {
    let number = decimal(row, member).ok()??;
    number.to_string().parse().ok().filter(|count| *count > 0)
}

fn text(row: &Row, member: &str) -> Option<String> {
    parsed(row, member)
}

fn parsed<T: serde::de::DeserializeOwned>(row: &Row, member: &str) -> Option<T> {
    serde_json::from_str(row.get(member)?.get()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(json: &str) -> Vec<Facts> {
        Litellm::parse(json)
            .unwrap()
            .chat_models("acme", "acme/")
            .unwrap()
    }

    fn shown(price: &Price) -> String {
        let parts: Vec<String> = price
            .iter()
            .map(|(kind, amount)| format!("{} {amount}", kind.member()))
            .collect();
        parts.join(", ")
    }

    #[test]
    fn reads_limits_prices_and_tiers_exactly() {
        let found = rows(
            r#"{"acme/large":{"litellm_provider":"acme","mode":"chat","max_input_tokens":8192.0,
                "max_output_tokens":1024,"input_cost_per_token":1.3e-10,"output_cost_per_token":2.5e-06,
                "cache_read_input_token_cost":null,"input_cost_per_token_batches":1,
                "input_cost_per_token_above_200k_tokens":2.6e-10,"output_cost_per_token_above_200k_tokens":5e-06,
                "input_cost_per_token_above_200k_tokens_priority":9,
                "supports_reasoning":true,"deprecation_date":"2027-01-01"}}"#,
        );
        assert_eq!(found.len(), 1);
        let facts = &found[0];
        assert_eq!(facts.id, "large");
        assert_eq!(
            (facts.context_window, facts.max_output_tokens),
            (Some(8192), Some(1024))
        );
        assert_eq!(shown(&facts.price), "prompt 0.00013, completion 2.5");
        assert_eq!(facts.tiers.keys().collect::<Vec<_>>(), [&200_000]);
        assert_eq!(
            shown(&facts.tiers[&200_000]),
            "prompt 0.00026, completion 5"
        );
        assert!(facts.reasons);
        assert_eq!(facts.ends.as_deref(), Some("2027-01-01"));
    }

    #[test]
    fn reads_ranges_as_tiers() {
        let found = rows(
            r#"{"acme/a":{"litellm_provider":"acme","mode":"chat","tiered_pricing":[
                {"range":[0,32000.0],"input_cost_per_token":1e-06,"output_cost_per_token":2e-06},
                {"range":[32000.0,1e6],"input_cost_per_token":3e-06,"output_cost_per_token":4e-06}]}}"#,
        );
        assert_eq!(shown(&found[0].price), "prompt 1, completion 2");
        assert_eq!(shown(&found[0].tiers[&32_000]), "prompt 3, completion 4");
    }

    #[test]
    fn takes_only_chat_models_of_the_provider() {
        let found = rows(
            r#"{"acme/a":{"litellm_provider":"acme","mode":"embedding"},
                "acme/b":{"litellm_provider":"other","mode":"chat"},
                "c":{"litellm_provider":"acme","mode":"chat"},
                "acme/d":{"litellm_provider":"acme","mode":"chat","supported_endpoints":["/v1/responses"]},
                "acme/e":{"litellm_provider":"acme","mode":"chat"}}"#,
        );
        assert_eq!(
            found
                .iter()
                .map(|facts| facts.id.as_str())
                .collect::<Vec<_>>(),
            ["e"]
        );
    }

    #[test]
    fn a_price_that_is_no_number_is_an_error() {
        let table = Litellm::parse(
            r#"{"a":{"litellm_provider":"acme","mode":"chat","input_cost_per_token":"cheap"}}"#,
        )
        .unwrap();
        assert!(table.chat_models("acme", "").is_err());
        assert!(Litellm::parse("[]").is_err());
    }
}
