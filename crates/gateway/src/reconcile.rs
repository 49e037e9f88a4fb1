//! A provider's own figures beside ours: per day and model, what each says was consumed and what it cost.

mod export;

use std::collections::{BTreeMap, BTreeSet};

use billing::Credits;
use serde::Serialize;
use serde_json::Value;

pub use self::export::{Export, ExportError};

/// What is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Measure {
    /// Prompt tokens that were neither read from a cache nor, where they are told apart, written to one.
    Prompt,
    /// Prompt tokens read from a cache.
    CachedPrompt,
    /// Tokens written to a cache of about five minutes.
    #[serde(rename = "cache_write_5m")]
    CacheWrite5m,
    /// Tokens written to a cache of about an hour.
    #[serde(rename = "cache_write_1h")]
    CacheWrite1h,
    /// All output tokens.
    Completion,
    /// Searches.
    Searches,
    /// What the provider takes, in nano-credits.
    Cost,
}

/// A day, UTC, and a model by the name of its family; the name is empty where all are one.
pub type Place = (String, String);

/// Figures by where they belong.
pub type Figures = BTreeMap<Place, BTreeMap<Measure, i128>>;

/// One figure that is not the same on both sides.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// The day, UTC.
    pub day: String,
    /// The model by the name of its family; empty where all are one.
    pub model: String,
    /// What is compared.
    pub measure: Measure,
    /// What the provider says.
    pub provider: String,
    /// What was charged for here.
    pub here: String,
}

/// A model's name without what makes two spellings of it: capitals, points and spaces, the date of a
/// snapshot, `latest`. Exports name snapshots where clients asked for the family.
#[must_use]
pub fn family(name: &str) -> String {
    let mut plain: String = name
        .trim()
        .chars()
        .map(|c| match c {
            '.' | ' ' | '_' => '-',
            other => other.to_ascii_lowercase(),
        })
        .collect();
    let is_date = |parts: &[&str], lengths: &[usize]| {
        parts.len() == lengths.len()
            && parts.iter().zip(lengths).all(|(part, length)| {
                part.len() == *length && part.bytes().all(|b| b.is_ascii_digit())
            })
    };
    let parts: Vec<&str> = plain.split('-').collect();
    let cut = [3, 1].into_iter().find(|count| {
        let Some(tail) = parts
            .len()
            .checked_sub(*count)
            .and_then(|at| parts.get(at..))
        else {
            return false;
        };
        is_date(tail, &[4, 2, 2]) || is_date(tail, &[8]) || tail == ["latest"]
    });
    if let Some(count) = cut.filter(|count| *count < parts.len()) {
        let kept = parts.len() - count;
        plain = parts.into_iter().take(kept).collect::<Vec<_>>().join("-");
    }
    plain
}

/// Our figures out of rows of `GET /admin/v1/usage` by day, model and provider, those of one
/// provider; `by_model` as in the export.
#[must_use]
pub fn ours(rows: &[Value], provider: &str, by_model: bool, writes_apart: bool) -> Figures {
    let mut figures = Figures::new();
    for row in rows.iter().filter(|row| row["provider"] == provider) {
        let count = |name: &str| i128::from(row["usage"][name].as_u64().unwrap_or(0));
        let text = |name: &str| row[name].as_str().unwrap_or_default();
        let model = if by_model {
            family(text("model"))
        } else {
            String::new()
        };
        let cost: Credits = text("provider_cost").parse().unwrap_or(Credits::ZERO);
        let mut fresh = count("prompt_tokens") - count("cached_prompt");
        if writes_apart {
            fresh -= count("cache_write_5m") + count("cache_write_1h");
        }
        let sums = figures.entry((text("day").to_owned(), model)).or_default();
        for (measure, amount) in [
            (Measure::Prompt, fresh),
            (Measure::CachedPrompt, count("cached_prompt")),
            (Measure::CacheWrite5m, count("cache_write_5m")),
            (Measure::CacheWrite1h, count("cache_write_1h")),
            (Measure::Completion, count("completion_tokens")),
            (Measure::Searches, count("searches")),
            (Measure::Cost, i128::from(cost.nanos())),
        ] {
            *sums.entry(measure).or_default() += amount;
        }
    }
    figures
}

/// Every figure of the export's measures that differs by more than `tolerance` billionths of a
/// percent of the larger one, and how many were compared.
#[must_use]
pub fn differences(export: &Export, ours: &Figures, tolerance: i64) -> (Vec<Difference>, usize) {
    let places: BTreeSet<&Place> = export.figures.keys().chain(ours.keys()).collect();
    let mut found = Vec::new();
    let mut compared = 0;
    let amount = |figures: &Figures, place: &Place, measure: Measure| {
        let sums = figures.get(place);
        sums.and_then(|sums| sums.get(&measure))
            .copied()
            .unwrap_or(0)
    };
    for place in places {
        for measure in &export.measures {
            let theirs = amount(&export.figures, place, *measure);
            let here = amount(ours, place, *measure);
            compared += 1;
            let off = theirs.abs_diff(here).saturating_mul(100_000_000_000);
            let allowed = theirs
                .unsigned_abs()
                .max(here.unsigned_abs())
                .saturating_mul(u128::from(tolerance.unsigned_abs()));
            if off > allowed {
                found.push(Difference {
                    day: place.0.clone(),
                    model: place.1.clone(),
                    measure: *measure,
                    provider: shown(*measure, theirs),
                    here: shown(*measure, here),
                });
            }
        }
    }
    (found, compared)
}

fn shown(measure: Measure, amount: i128) -> String {
    match measure {
        Measure::Cost => match i64::try_from(amount) {
            Ok(nanos) => Credits::from_nanos(nanos).to_string(),
            Err(_) => format!("{amount} nano-credits"),
        },
        Measure::Prompt
        | Measure::CachedPrompt
        | Measure::CacheWrite5m
        | Measure::CacheWrite1h
        | Measure::Completion
        | Measure::Searches => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn families() {
        for (name, expected) in [
            ("gpt-4o-2024-08-06", "gpt-4o"),
            ("gpt-4.1-mini", "gpt-4-1-mini"),
            ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
            ("Claude Haiku 4.5", "claude-haiku-4-5"),
            ("claude-3-5-haiku-latest", "claude-3-5-haiku"),
            ("o1", "o1"),
            ("20251001", "20251001"),
            ("gpt-4-0613", "gpt-4-0613"),
        ] {
            assert_eq!(family(name), expected);
        }
    }

    fn usage(model: &str, provider: &str, prompt: u64, cost: &str) -> Value {
        json!({"day": "2026-11-01", "model": model, "provider": provider, "provider_cost": cost,
            "usage": {"prompt_tokens": prompt + 7, "cached_prompt": 7, "completion_tokens": 5}})
    }

    const EXPORT: &str = "start_time_iso,model,input_tokens,output_tokens,input_cached_tokens\n\
        2026-11-01T00:00:00+00:00,gpt-4o-2024-08-06,107,5,7\n";

    #[test]
    fn sides_that_agree_have_no_difference() {
        let export = Export::read(EXPORT.as_bytes(), None, None).unwrap();
        let rows = [
            usage("gpt-4o", "openai", 60, "1"),
            usage("gpt-4o-2024-08-06", "openai", 33, "1"),
            usage("gpt-4o", "azure-openai", 9, "1"),
        ];
        let figures = ours(&rows, "openai", true, false);
        let (found, compared) = differences(&export, &figures, 0);
        // Two rows of ours are one family: 60 + 33 + 7 of a cache more than theirs.
        assert_eq!(compared, 3);
        let measures: Vec<Measure> = found.iter().map(|one| one.measure).collect();
        assert_eq!(
            measures,
            [Measure::Prompt, Measure::CachedPrompt, Measure::Completion]
        );
        let figures = ours(
            &[usage("gpt-4o", "openai", 100, "1")],
            "openai",
            true,
            false,
        );
        assert!(differences(&export, &figures, 0).0.is_empty());
    }

    #[test]
    fn a_tolerance_is_a_share_of_the_larger_figure() {
        let export = Export::read(EXPORT.as_bytes(), None, None).unwrap();
        let figures = ours(
            &[usage("gpt-4o", "openai", 101, "1")],
            "openai",
            true,
            false,
        );
        let percent = |text: &str| text.parse::<Credits>().unwrap().nanos();
        for (tolerance, count) in [("0", 1), ("0.99", 1), ("1", 0)] {
            let (found, _) = differences(&export, &figures, percent(tolerance));
            assert_eq!(found.len(), count, "{tolerance}: {found:?}");
        }
        // What only one side has is a difference whatever the tolerance.
        let (found, _) = differences(&export, &Figures::new(), percent("99"));
        assert_eq!(found.len(), 3);
        assert_eq!(
            (found[0].provider.as_str(), found[0].here.as_str()),
            ("100", "0")
        );
    }

    #[test]
    fn costs_without_models_are_compared_by_the_day() {
        let text = "start_time_iso,amount_value,amount_currency,line_item\n\
            2026-11-01T00:00:00+00:00,2.5,usd,\n2026-11-02T00:00:00+00:00,,,\n";
        let export = Export::read(text.as_bytes(), None, None).unwrap();
        assert!(!export.by_model);
        let rows = [usage("a", "openai", 1, "1.5"), usage("b", "openai", 1, "1")];
        let figures = ours(&rows, "openai", export.by_model, false);
        assert!(differences(&export, &figures, 0).0.is_empty());
    }
}
