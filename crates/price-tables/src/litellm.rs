//! Reads the price table that PyPI's `litellm` ships: one JSON object, a member per model.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use crate::{
    TableError,
    decimal::Decimal,
    facts::{Facts, Kind, Price, When},
    off_peak::OffPeak,
};

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
/// The same of what is sold by the piece, each with how far the point moves to the unit of provider
/// files: a million characters, else one.
const PER_PIECE: [(&str, Kind, i32); 4] = [
    ("input_cost_per_image", Kind::Image, 0),
    ("input_cost_per_second", Kind::Second, 0),
    ("input_cost_per_character", Kind::Character, 6),
    ("input_cost_per_query", Kind::Search, 0),
];
/// What the members of a service tier end in, and the tier's name in a provider file.
const SERVICE_TIERS: [(&str, &str); 3] = [
    ("_batches", "batch"),
    ("_flex", "flex"),
    ("_priority", "priority"),
];
/// Endings of the members of service tiers that no request here can ask for.
const OTHER_TIERS: [&str; 3] = ["_ultrafast", "_decisions", "_balanced"];
/// Members with a price that nothing here is charged by, each because of what is said.
const WITHOUT_EFFECT: [&str; 13] = [
    // Searches of the provider's own are refused, or have their price by the plan.
    "search_context_cost_per_query",
    "google_maps_grounding_cost_per_query",
    "code_interpreter_cost_per_session",
    // The same in another currency, or under another name.
    "input_dbu_cost_per_token",
    "output_dbu_cost_per_token",
    "input_cost_per_token_cache_hit",
    "explicit_cache_read_input_token_cost",
    "output_cost_per_second",
    // Cached tokens have one price, which is that of text.
    "cache_read_input_audio_token_cost",
    "cache_read_input_image_token_cost",
    "cache_creation_input_audio_token_cost",
    // Images of chat models are counted in tokens.
    "output_cost_per_image",
    "output_cost_per_image_token",
];
/// Cheaper hours, on some days.
const OFF_PEAK: &str = "off_peak_pricing";
/// The endpoint that a chat model must be served on, where the table names any.
const ENDPOINT: &str = "/v1/chat/completions";
/// What fits into a model whose table row does not say so, because nothing is counted by it.
const NO_WINDOW: u64 = 32_000;

/// A row: its members in their own bytes, so that no number passes through a float.
type Row = BTreeMap<String, Box<RawValue>>;

/// The table, by model.
pub struct Litellm {
    rows: BTreeMap<String, Row>,
    /// The day whose prices are wanted, `YYYY-MM-DD`.
    day: String,
}

impl Litellm {
    /// Reads the table; prices are those of `day`.
    pub(crate) fn parse(text: &str, day: &str) -> Result<Self, TableError> {
        let rows = serde_json::from_str(text)
            .map_err(|error| TableError::at("the litellm table", error))?;
        Ok(Self {
            rows,
            day: day.to_owned(),
        })
    }

    /// How many rows there are of each provider.
    pub(crate) fn providers(&self) -> BTreeMap<String, usize> {
        let mut counts = BTreeMap::new();
        for name in self
            .rows
            .values()
            .filter_map(|row| text(row, "litellm_provider"))
        {
            *counts.entry(name).or_default() += 1;
        }
        counts
    }

    /// The models of `provider` that do what the gateway offers and whose id starts with `prefix`,
    /// which is cut off.
    pub(crate) fn models(&self, provider: &str, prefix: &str) -> Result<Vec<Facts>, TableError> {
        self.rows
            .iter()
            .filter(|(_, row)| text(row, "litellm_provider").is_some_and(|name| name == provider))
            .filter_map(|(id, row)| Some((id.strip_prefix(prefix)?, row, endpoints(row)?)))
            .map(|(id, row, endpoints)| {
                facts(id, row, endpoints, &self.day)
                    .map_err(|why| TableError::at(format!("litellm {id}"), why))
            })
            .collect()
    }
}

/// What a row's model does, by the words of provider files: nothing for a chat model, and none where
/// it does what the gateway does not offer.
fn endpoints(row: &Row) -> Option<Vec<&'static str>> {
    let named: Option<Vec<String>> = parsed(row, "supported_endpoints");
    let names = |path: &str| {
        named
            .as_ref()
            .is_some_and(|all| all.iter().any(|one| one == path))
    };
    match text(row, "mode")?.as_str() {
        "chat" => (named.is_none() || names(ENDPOINT)).then(Vec::new),
        "completion" => Some(vec!["completions"]),
        "embedding" => Some(vec!["embeddings"]),
        "moderation" => Some(vec!["moderations"]),
        "rerank" => Some(vec!["rerank"]),
        "image_generation" if names("/v1/images/edits") => {
            Some(vec!["image_generations", "image_edits"])
        }
        "image_generation" => Some(vec!["image_generations"]),
        "audio_speech" => Some(vec!["speech"]),
        "audio_transcription" => Some(vec!["transcriptions"]),
        _ => None,
    }
}

fn facts(id: &str, row: &Row, endpoints: Vec<&'static str>, day: &str) -> Result<Facts, String> {
    let mut base = price(row, "")?;
    let mut window = whole(row, "max_input_tokens").or_else(|| whole(row, "max_tokens"));
    if !endpoints.is_empty() {
        pieces(row, &endpoints, &mut base)?;
        let by_tokens = endpoints
            .iter()
            .any(|one| matches!(*one, "embeddings" | "completions"));
        window = window.or((!by_tokens).then_some(NO_WINDOW));
    }
    // Vectors and scores are no tokens of output.
    let writes = !endpoints
        .iter()
        .any(|one| matches!(*one, "embeddings" | "rerank" | "speech"));
    let mut facts = Facts {
        id: id.to_owned(),
        sourced: row.contains_key("source"),
        context_window: window,
        max_output_tokens: whole(row, "max_output_tokens")
            .or_else(|| whole(row, "max_tokens"))
            .filter(|_| writes),
        endpoints,
        reasons: parsed(row, "supports_reasoning").unwrap_or(false),
        deprecated: false,
        ends: text(row, "deprecation_date"),
        price: base,
        unknown_units: unknown_units(row),
        tiers: BTreeMap::new(),
        service: BTreeMap::new(),
        hours: Vec::new(),
        search_fee: search_fee(row)?,
    };
    for above in thresholds(row) {
        let suffix = format!("_above_{above}k_tokens");
        facts
            .tiers
            .insert(above.saturating_mul(1_000), price(row, &suffix)?);
    }
    for (ending, tier) in SERVICE_TIERS {
        let mut long = BTreeMap::new();
        for above in thresholds(row) {
            let suffix = format!("_above_{above}k_tokens{ending}");
            long.insert(above.saturating_mul(1_000), price(row, &suffix)?);
        }
        facts.service.insert(tier, (price(row, ending)?, long));
    }
    ranges(row, &mut facts)?;
    if row.get(OFF_PEAK).is_some_and(|raw| raw.get() != "null") {
        match off_peak(row, &facts, day) {
            Some(hours) => facts.hours = hours,
            None => facts.unknown_units.push(OFF_PEAK.to_owned()),
        }
    }
    Ok(facts)
}

/// The cheaper hours of a row; none where they cannot be written in a provider file: there is a
/// part that nobody here knows, or there are tiers, of which the table does not say what becomes.
fn off_peak(row: &Row, facts: &Facts, day: &str) -> Option<Vec<(When, Price)>> {
    let mut block: Row = parsed(row, OFF_PEAK)?;
    let prices = price(&block, "").ok()?;
    let served = |(own, long): &(Price, BTreeMap<u64, Price>)| own.is_empty() && long.is_empty();
    if prices.is_empty() || !facts.tiers.is_empty() || !facts.service.values().all(served) {
        return None;
    }
    block.retain(|member, _| PER_TOKEN.iter().all(|(known, _)| known != member));
    let when: OffPeak = serde_json::from_str(&serde_json::to_string(&block).ok()?).ok()?;
    let parts = when.parts(day)?.into_iter();
    Some(parts.map(|part| (part, prices.clone())).collect())
}

/// The members with a price by a unit that nobody here knows.
fn unknown_units(row: &Row) -> Vec<String> {
    let known = |member: &str| {
        let tiers = SERVICE_TIERS.iter().map(|(ending, _)| ending);
        let plain = tiers
            .chain(&OTHER_TIERS)
            .find_map(|ending| member.strip_suffix(ending))
            .unwrap_or(member);
        let long = plain.strip_suffix("k_tokens").and_then(|cut| {
            let (name, thousands) = cut.rsplit_once("_above_")?;
            thousands.parse::<u64>().ok().map(|_| name)
        });
        let name = long.unwrap_or(plain);
        PER_TOKEN.iter().any(|(one, _)| *one == name)
            || PER_PIECE.iter().any(|(one, _, _)| *one == name)
            || WITHOUT_EFFECT.contains(&name)
            || ["tiered_pricing", OFF_PEAK].contains(&name)
    };
    let priced = |raw: &RawValue| {
        let amount: Option<Decimal> = raw.get().parse().ok();
        raw.get() != "null" && amount.is_none_or(|amount| !amount.is_zero())
    };
    row.iter()
        .filter(|(member, _)| member.contains("cost") || member.contains("pricing"))
        .filter(|(member, raw)| priced(raw) && !known(member))
        .map(|(member, _)| member.clone())
        .collect()
}

/// What a model that does not chat is sold by: tokens where the row prices those, else pieces.
fn pieces(row: &Row, endpoints: &[&str], price: &mut Price) -> Result<(), String> {
    if let Some(amount) = decimal(row, "output_cost_per_image_token")? {
        price.insert(Kind::ImageCompletion, amount.shifted(6));
    }
    let zero = |kind: Kind, price: &Price| price.get(&kind).is_none_or(|amount| amount.is_zero());
    let made = [
        Kind::Completion,
        Kind::AudioCompletion,
        Kind::ImageCompletion,
    ];
    let makes = !endpoints.contains(&"embeddings") && !endpoints.contains(&"rerank");
    let by_tokens =
        !zero(Kind::Prompt, price) && (!makes || made.iter().any(|kind| !zero(*kind, price)));
    if by_tokens {
        // It writes no text that costs something.
        price
            .entry(Kind::Completion)
            .or_insert("0".parse().map_err(|_| "zero")?);
        return Ok(());
    }
    for (member, kind, shift) in PER_PIECE {
        let amount = decimal(row, member)?.filter(|amount| !amount.is_zero());
        if let Some(amount) = amount {
            price.retain(|_, amount| !amount.is_zero());
            price.insert(kind, amount.shifted(shift));
        }
    }
    Ok(())
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
        Litellm::parse(json, "2026-11-22")
            .unwrap()
            .models("acme", "acme/")
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
                "input_cost_per_token_flex":1e-10,"output_cost_per_token_flex":1e-06,
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
        assert_eq!(
            shown(&facts.service["flex"].0),
            "prompt 0.0001, completion 1"
        );
        assert_eq!(
            shown(&facts.service["priority"].1[&200_000]),
            "prompt 9000000"
        );
        assert!(facts.reasons);
        assert_eq!(facts.ends.as_deref(), Some("2027-01-01"));
    }

    #[test]
    fn reads_cheaper_hours() {
        let row = |more: &str| {
            rows(&format!(
                r#"{{"acme/a":{{"litellm_provider":"acme","mode":"chat","input_cost_per_token":2e-06,"output_cost_per_token":4e-06,{more}}}}}"#
            ))
            .remove(0)
        };
        let block = r#""off_peak_pricing":{"input_cost_per_token":1e-06,"cache_read_input_token_cost":1e-07,"hours_utc":"01:00-02:00"}"#;
        let facts = row(block);
        assert_eq!(facts.unknown_units, Vec::<String>::new());
        assert_eq!(facts.hours[0].0.text(), r#"from = "01:00", to = "02:00""#);
        assert_eq!(shown(&facts.hours[0].1), "prompt 1, cached_prompt 0.1");
        assert!(row(r#""off_peak_pricing":null"#).unknown_units.is_empty());
        // What nobody knows how to charge is left out by its name.
        for odd in [
            block.replace("01:00-", "noon-"),
            block.replace("cache_read_input_token_cost", "a_holiday_cost"),
            format!("{block},\"input_cost_per_token_above_200k_tokens\":3e-06"),
            format!("{block},\"input_cost_per_token_flex\":3e-06"),
            format!(
                "{block},\"tiered_pricing\":[{{\"range\":[9,99],\"input_cost_per_token\":3e-06}}]"
            ),
            r#""off_peak_pricing":{"hours_utc":"01:00-02:00"}"#.to_owned(),
        ] {
            let facts = row(&odd);
            assert_eq!(facts.unknown_units, ["off_peak_pricing"], "{odd}");
            assert!(facts.hours.is_empty());
        }
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
    fn what_does_not_chat_is_sold_by_tokens_or_by_the_piece() {
        let found = rows(
            r#"{"acme/a":{"litellm_provider":"acme","mode":"embedding","max_input_tokens":512,
                    "input_cost_per_token":1e-07,"output_cost_per_token":0.0},
                "acme/b":{"litellm_provider":"acme","mode":"rerank","input_cost_per_query":0.002,
                    "input_cost_per_token":0.0,"output_cost_per_token":0.0},
                "acme/c":{"litellm_provider":"acme","mode":"audio_speech","input_cost_per_character":1.5e-05},
                "acme/d":{"litellm_provider":"acme","mode":"audio_transcription",
                    "input_cost_per_second":0.0001,"output_cost_per_second":0.0001},
                "acme/e":{"litellm_provider":"acme","mode":"audio_transcription","input_cost_per_second":0.0001,
                    "input_cost_per_token":2.5e-06,"output_cost_per_token":1e-05},
                "acme/f":{"litellm_provider":"acme","mode":"image_generation","input_cost_per_token":5e-06,
                    "output_cost_per_image_token":4e-05,"supported_endpoints":["/v1/images/edits"]}}"#,
        );
        let all: Vec<_> = found
            .iter()
            .map(|one| format!("{} {}", one.endpoints.join(" "), shown(&one.price)))
            .collect();
        assert_eq!(
            all,
            [
                "embeddings prompt 0.1, completion 0",
                "rerank search 0.002",
                "speech character 15",
                "transcriptions second 0.0001",
                "transcriptions prompt 2.5, completion 10",
                "image_generations image_edits prompt 5, completion 0, image_completion 40",
            ]
        );
    }

    #[test]
    fn takes_only_models_of_the_provider_that_do_what_is_offered() {
        let found = rows(
            r#"{"acme/a":{"litellm_provider":"acme","mode":"video_generation"},
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
            "2026-11-22",
        )
        .unwrap();
        assert!(table.models("acme", "").is_err());
        assert!(Litellm::parse("[]", "2026-11-22").is_err());
    }
}
