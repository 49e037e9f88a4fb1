//! Reads the price table that PyPI's `genai-prices` ships: a generated Python file of constructor calls.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    TableError,
    decimal::{Decimal, DecimalError},
    facts::{Facts, Kind, Price, When},
    python_literal::{self, Call, Value},
};

/// Where the list of providers begins.
const START: &str = "\nproviders: list[Provider] = ";
/// Members that hold dollars per million tokens, and what they are for.
const PER_MILLION: [(&str, Kind); 9] = [
    ("input_mtok", Kind::Prompt),
    ("output_mtok", Kind::Completion),
    ("cache_read_mtok", Kind::CachedPrompt),
    ("cache_write_mtok", Kind::CacheWrite5m),
    ("cache_write_1h_mtok", Kind::CacheWrite1h),
    ("input_audio_mtok", Kind::AudioPrompt),
    ("output_audio_mtok", Kind::AudioCompletion),
    ("output_reasoning_mtok", Kind::Reasoning),
    ("input_image_mtok", Kind::ImagePrompt),
];

/// The table: providers by id.
pub struct GenaiPrices {
    providers: BTreeMap<String, Vec<Value>>,
    /// The day whose prices are wanted, `YYYY-MM-DD`.
    day: String,
}

impl GenaiPrices {
    /// Reads the table; prices are those of `day`.
    pub(crate) fn parse(text: &str, day: &str) -> Result<Self, TableError> {
        let wrong = |why: String| TableError::at("the genai-prices table", why);
        let (_, list) = text
            .split_once(START)
            .ok_or_else(|| wrong("no list of providers".to_owned()))?;
        let list = python_literal::parse(list).map_err(wrong)?;
        let mut providers = BTreeMap::new();
        for provider in list.items().unwrap_or_default() {
            let provider = provider
                .call("Provider")
                .ok_or_else(|| wrong("an entry that is no Provider".to_owned()))?;
            let id = named_text(provider, "id")
                .ok_or_else(|| wrong("a Provider without an id".to_owned()))?;
            let models = provider
                .named
                .get("models")
                .and_then(Value::items)
                .unwrap_or_default();
            providers.insert(id.to_owned(), models.to_vec());
        }
        Ok(Self {
            providers,
            day: day.to_owned(),
        })
    }

    /// How many rows there are of each provider.
    pub(crate) fn providers(&self) -> BTreeMap<String, usize> {
        let counts = self.providers.iter();
        counts
            .map(|(name, rows)| (name.clone(), rows.len()))
            .collect()
    }

    /// The models of `provider` that have a price for text in and out and whose id starts with `prefix`, which is cut off.
    pub(crate) fn chat_models(
        &self,
        provider: &str,
        prefix: &str,
    ) -> Result<Vec<Facts>, TableError> {
        let models = self
            .providers
            .get(provider)
            .map(Vec::as_slice)
            .unwrap_or_default();
        let mut found = Vec::new();
        for model in models.iter().filter_map(|model| model.call("ModelInfo")) {
            let Some(id) = named_text(model, "id").and_then(|id| id.strip_prefix(prefix)) else {
                continue;
            };
            let facts = facts(id, model, &self.day)
                .map_err(|why| TableError::at(format!("genai-prices {provider} {id}"), why))?;
            if facts.price.contains_key(&Kind::Prompt)
                && facts.price.contains_key(&Kind::Completion)
            {
                found.push(facts);
            }
        }
        Ok(found)
    }
}

fn facts(id: &str, model: &Call, day: &str) -> Result<Facts, String> {
    let context_window = model.named.get("context_window").and_then(Value::whole);
    let mut facts = Facts {
        id: id.to_owned(),
        context_window,
        deprecated: model.named.get("deprecated").is_some_and(Value::is_true),
        ..Facts::default()
    };
    let Some(price) = model.named.get("prices") else {
        return Ok(facts);
    };
    let Some((price, hours)) = prices_of_day(price, day)? else {
        return Ok(facts);
    };
    let starts = tier_starts(price);
    facts.price = price_above(price, 0)?;
    for start in starts {
        facts.tiers.insert(start, price_above(price, start)?);
    }
    for (when, price) in hours {
        let amounts = price_above(price, 0)?;
        let alike = amounts.keys().eq(facts.price.keys());
        if !alike || !facts.tiers.is_empty() || !tier_starts(price).is_empty() {
            facts.hours.clear();
            facts.unknown_units.push("TimeOfDateConstraint".to_owned());
            break;
        }
        facts.hours.push((when, amounts));
    }
    Ok(facts)
}

/// A price and those of parts of the day, the first that fits before the others.
type PricesOfDay<'a> = (&'a Call, Vec<(When, &'a Call)>);

/// The prices that hold on `day`: of what fits the last entry counts, and what begins after it
/// does not.
fn prices_of_day<'a>(prices: &'a Value, day: &str) -> Result<Option<PricesOfDay<'a>>, String> {
    if let Some(price) = prices.call("ModelPrice") {
        return Ok(Some((price, Vec::new())));
    }
    let (mut chosen, mut hours) = (None, Vec::new());
    for entry in prices.items().ok_or("prices of an unknown form")? {
        let entry = entry
            .call("ConditionalPrice")
            .ok_or("a price of an unknown form")?;
        let price = entry
            .named
            .get("prices")
            .and_then(|price| price.call("ModelPrice"))
            .ok_or("a condition without a price")?;
        match entry.named.get("constraint") {
            None | Some(Value::Name(_)) => chosen = chosen.or(Some(price)),
            Some(constraint) if constraint.call("TimeOfDateConstraint").is_some() => {
                let when = time_of_day(constraint).ok_or("hours of an unknown form")?;
                hours.insert(0, (when, price));
            }
            Some(constraint) => {
                let constraint = constraint
                    .call("StartDateConstraint")
                    .ok_or("a condition of an unknown form")?;
                let start = constraint
                    .named
                    .get("start_date")
                    .and_then(date)
                    .ok_or("a start that is no date")?;
                if start.as_str() <= day {
                    chosen = Some(price);
                    hours.clear();
                }
            }
        }
    }
    Ok(chosen.map(|price| (price, hours)))
}

/// Two times of day, UTC.
fn time_of_day(constraint: &Value) -> Option<When> {
    let named = &constraint.call("TimeOfDateConstraint")?.named;
    let time = |name: &str| {
        let call = named.get(name)?.call("datetime.time")?;
        let utc =
            matches!(call.named.get("tzinfo"), Some(Value::Name(zone)) if zone.ends_with("UTC"));
        let parts: Vec<u64> = call.arguments.iter().filter_map(Value::whole).collect();
        match parts.as_slice() {
            [hour] if utc => Some(format!("{hour:02}:00")),
            [hour, minute] if utc => Some(format!("{hour:02}:{minute:02}")),
            _ => None,
        }
    };
    let (from, to) = (time("start_time")?, time("end_time")?);
    (from != to).then(|| When {
        hours: Some((from, to)),
        days: Vec::new(),
        zone: None,
    })
}

fn date(value: &Value) -> Option<String> {
    let parts: Vec<u64> = value
        .call("datetime.date")?
        .arguments
        .iter()
        .filter_map(Value::whole)
        .collect();
    match parts.as_slice() {
        [year, month, day] => Some(format!("{year:04}-{month:02}-{day:02}")),
        _ => None,
    }
}

fn tier_starts(price: &Call) -> BTreeSet<u64> {
    price
        .named
        .values()
        .filter_map(|amount| amount.call("TieredPrices"))
        .flat_map(tiers)
        .filter_map(|tier| tier.named.get("start")?.whole())
        .collect()
}

fn tiers(tiered: &Call) -> impl Iterator<Item = &Call> {
    let tiers = tiered
        .named
        .get("tiers")
        .and_then(Value::items)
        .unwrap_or_default();
    tiers.iter().filter_map(|tier| tier.call("Tier"))
}

/// Every price of a request whose prompt is just longer than `start`.
fn price_above(price: &Call, start: u64) -> Result<Price, String> {
    let mut amounts = Price::new();
    for (member, kind) in PER_MILLION {
        if let Some(amount) = price.named.get(member) {
            amounts.insert(
                kind,
                amount_above(amount, start).map_err(|why| format!("{member}: {why}"))?,
            );
        }
    }
    if let Some(amount) = price.named.get("requests_kcount") {
        amounts.insert(Kind::Request, amount_above(amount, start)?.shifted(-3));
    }
    Ok(amounts)
}

fn amount_above(amount: &Value, start: u64) -> Result<Decimal, String> {
    let Some(tiered) = amount.call("TieredPrices") else {
        return decimal(amount);
    };
    let mut chosen = decimal(tiered.named.get("base").ok_or("tiers without a base")?)?;
    for tier in tiers(tiered) {
        let from = tier
            .named
            .get("start")
            .and_then(Value::whole)
            .ok_or("a tier without a start")?;
        if from <= start && start > 0 {
            chosen = decimal(tier.named.get("price").ok_or("a tier without a price")?)?;
        }
    }
    Ok(chosen)
}

fn decimal(value: &Value) -> Result<Decimal, String> {
    let call = value
        .call("Decimal")
        .ok_or("an amount that is no Decimal")?;
    let text = call
        .arguments
        .first()
        .and_then(Value::text)
        .ok_or("a Decimal without digits")?;
    let number: Decimal = text
        .parse()
        .map_err(|error: DecimalError| error.to_string())?;
    Ok(number.without_float_noise())
}

fn named_text<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.named.get(name).and_then(Value::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(models: &str) -> GenaiPrices {
        let text =
            format!("x = 1\nproviders: list[Provider] = [Provider(id='acme', models=[{models}])]");
        GenaiPrices::parse(&text, "2026-11-22").unwrap()
    }

    fn shown(price: &Price) -> String {
        let parts: Vec<String> = price
            .iter()
            .map(|(kind, amount)| format!("{} {amount}", kind.member()))
            .collect();
        parts.join(", ")
    }

    #[test]
    fn reads_limits_prices_and_tiers() {
        let table = table(
            "ModelInfo(id='acme/a', context_window=1000, deprecated=True, prices=ModelPrice(\
             input_mtok=TieredPrices(base=Decimal('1.25'), tiers=[Tier(start=200000, price=Decimal('2.50'))]),\
             output_mtok=Decimal('10'), requests_kcount=Decimal('5')))",
        );
        let found = table.chat_models("acme", "acme/").unwrap();
        assert_eq!(found[0].id, "a");
        assert_eq!(found[0].context_window, Some(1000));
        assert!(found[0].deprecated);
        assert_eq!(
            shown(&found[0].price),
            "prompt 1.25, completion 10, request 0.005"
        );
        assert_eq!(
            shown(&found[0].tiers[&200_000]),
            "prompt 2.5, completion 10, request 0.005"
        );
    }

    #[test]
    fn takes_the_price_of_the_day() {
        let conditional = |start: &str, price: &str| {
            format!(
                "ConditionalPrice(constraint=StartDateConstraint(start_date=datetime.date({start})), \
                 prices=ModelPrice(input_mtok=Decimal('{price}'), output_mtok=Decimal('1')))"
            )
        };
        let table = table(&format!(
            "ModelInfo(id='a', prices=[ConditionalPrice(prices=ModelPrice(input_mtok=Decimal('9'), \
             output_mtok=Decimal('9'))), {}, {}])",
            conditional("2026, 11, 22", "2"),
            conditional("2026, 11, 23", "3"),
        ));
        let found = table.chat_models("acme", "").unwrap();
        assert_eq!(shown(&found[0].price), "prompt 2, completion 1");
    }

    #[test]
    fn takes_the_prices_of_the_hours() {
        let conditional = |constraint: &str, price: &str| {
            format!(
                "ConditionalPrice({constraint}prices=ModelPrice(input_mtok=Decimal('{price}'), output_mtok=Decimal('1')))"
            )
        };
        let hours = |from: &str, to: &str| {
            format!(
                "constraint=TimeOfDateConstraint(start_time=datetime.time({from}, tzinfo=datetime.UTC), \
                 end_time=datetime.time({to}, tzinfo=datetime.UTC)), "
            )
        };
        let model = |entries: &[String]| {
            let found = table(&format!(
                "ModelInfo(id='a', prices=[{}])",
                entries.join(", ")
            ));
            found.chat_models("acme", "").unwrap().remove(0)
        };
        let all = [
            conditional("", "9"),
            conditional(&hours("1, 0", "4, 30"), "8"),
            conditional(&hours("6", "10, 0"), "7"),
        ];
        let facts = model(&all);
        assert_eq!(shown(&facts.price), "prompt 9, completion 1");
        let found: Vec<_> = facts
            .hours
            .iter()
            .map(|(when, price)| format!("{}: {}", when.text(), shown(price)))
            .collect();
        // Of what fits the table means the last, and a provider file the first.
        assert_eq!(
            found,
            [
                r#"from = "06:00", to = "10:00": prompt 7, completion 1"#,
                r#"from = "01:00", to = "04:30": prompt 8, completion 1"#
            ]
        );
        // A price that begins later is of all hours.
        let start = "constraint=StartDateConstraint(start_date=datetime.date(2026, 11, 22)), ";
        let later = [all.as_slice(), &[conditional(start, "5")]].concat();
        let facts = model(&later);
        assert_eq!(
            (shown(&facts.price), facts.hours.len()),
            ("prompt 5, completion 1".to_owned(), 0)
        );
        let odd =
            conditional(&hours("1, 0", "4, 30"), "8").replace("output_mtok", "cache_read_mtok");
        let facts = model(&[all[0].clone(), odd]);
        assert_eq!(facts.unknown_units, ["TimeOfDateConstraint"]);
    }

    #[test]
    fn leaves_out_what_has_no_price_for_text() {
        let table = table("ModelInfo(id='a', prices=ModelPrice(input_mtok=Decimal('1')))");
        assert!(table.chat_models("acme", "").unwrap().is_empty());
        assert!(table.chat_models("other", "").unwrap().is_empty());
    }

    #[test]
    fn an_amount_of_an_unknown_form_is_an_error() {
        let table =
            table("ModelInfo(id='a', prices=ModelPrice(input_mtok=1, output_mtok=Decimal('1')))");
        assert!(table.chat_models("acme", "").is_err());
        assert!(GenaiPrices::parse("nothing", "2026-11-22").is_err());
    }
}
