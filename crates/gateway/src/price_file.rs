//! Prices as they are written: in a model of a provider file, in one of its versions, in the file of own prices.

use std::{collections::BTreeMap, sync::Arc};

use billing::{
    Days, Hours, Multiplier, Offer, Price, PriceBook, PriceError, PriceVersion, Priced, Rates,
    ServiceTier, Tier,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use crate::shape::Time;

/// One tier, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TierFile {
    /// It applies to prompts with more tokens than this.
    pub above_prompt_tokens: u64,
    /// Whether the whole request is priced by the tier; else only the prompt beyond it.
    #[serde(default = "yes")]
    pub whole_request: bool,
    /// Its rates.
    pub price: Rates,
}

/// A price for a service tier, as written: a factor, or rates of its own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ServiceTierFile {
    /// The plain price so many times.
    pub factor: Option<Multiplier>,
    /// Rates of its own.
    pub price: Option<Rates>,
    /// Other rates for long prompts.
    pub price_tiers: Vec<TierFile>,
}

/// Prices for a part of the week, as written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoursFile {
    /// A time of day such as `16:30`; left out: the whole day.
    #[serde(default)]
    pub from: Option<String>,
    /// Until before this time; before `from`: of the next day. Left out with `from`.
    #[serde(default)]
    pub to: Option<String>,
    /// The days that it begins on, such as `["sat", "sun"]`; left out: every day.
    #[serde(default)]
    pub days: Vec<String>,
    /// Whose clocks and calendar these are, such as `Asia/Shanghai`; left out: UTC.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// The plain price so many times.
    #[serde(default)]
    pub factor: Option<Multiplier>,
    /// Rates of its own.
    #[serde(default)]
    pub price: Option<Rates>,
    /// Other rates for long prompts.
    #[serde(default)]
    pub price_tiers: Vec<TierFile>,
}

/// What holds from a day on, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionFile {
    /// When it begins; absent: ever before.
    #[serde(default, deserialize_with = "moment")]
    pub valid_from: Option<i64>,
    /// The rates.
    pub price: Rates,
    /// Other rates for long prompts.
    #[serde(default)]
    pub price_tiers: Vec<TierFile>,
    /// Prices of service tiers, by their names.
    #[serde(default, deserialize_with = "service_tiers")]
    pub service_tiers: BTreeMap<ServiceTier, ServiceTierFile>,
    /// Prices of parts of the week; the first that fits counts.
    #[serde(default)]
    pub price_hours: Vec<HoursFile>,
}

impl VersionFile {
    fn version(&self) -> Result<PriceVersion, PriceError> {
        let plain = price(&self.price, &self.price_tiers)?;
        let mut hours = Vec::with_capacity(self.price_hours.len());
        for part in &self.price_hours {
            let when = part.hours()?;
            let own = other(
                &plain,
                part.factor,
                part.price.as_ref(),
                &part.price_tiers,
                "price_hours",
            )?;
            hours.push((when, self.offer(own)?));
        }
        Ok(PriceVersion {
            valid_from: self.valid_from.unwrap_or(i64::MIN),
            hours,
            offer: self.offer(plain)?,
        })
    }

    fn offer(&self, plain: Price) -> Result<Arc<Offer>, PriceError> {
        let mut tiers = Vec::with_capacity(self.service_tiers.len());
        for (tier, written) in &self.service_tiers {
            let ServiceTierFile {
                factor,
                price,
                price_tiers,
            } = written;
            let own = other(&plain, *factor, price.as_ref(), price_tiers, tier.as_str())?;
            tiers.push((*tier, Priced::new(own)?));
        }
        Ok(Arc::new(Offer::new(Priced::new(plain)?, tiers)))
    }
}

impl HoursFile {
    /// When it is.
    fn hours(&self) -> Result<Hours, PriceError> {
        let mut hours = match (&self.from, &self.to) {
            (Some(from), Some(to)) => Hours::daily(from, to).ok_or_else(|| {
                malformed(format!(
                    "price_hours from {from:?} to {to:?}: write two times of day such as \"16:30\""
                ))
            })?,
            (None, None) if !self.days.is_empty() => Hours::all_day(),
            (None | Some(_), None) | (None, Some(_)) => {
                return Err(malformed(
                    "price_hours: write from and to, or days, or all of them".into(),
                ));
            }
        };
        if !self.days.is_empty() {
            let days = Days::named(self.days.iter().map(String::as_str)).ok_or_else(|| {
                let (days, known) = (&self.days, Days::NAMES.join(", "));
                malformed(format!(
                    "price_hours days {days:?}: write some of {known}, each once"
                ))
            })?;
            hours = hours.on(days);
        }
        match &self.time_zone {
            None => Ok(hours),
            Some(zone) => hours.by_the_clocks_of(zone).ok_or_else(|| {
                malformed(format!(
                    "price_hours time_zone {zone:?}: write one such as \"Asia/Shanghai\""
                ))
            }),
        }
    }
}

/// The book of these versions.
///
/// # Errors
/// What is wrong with one of them.
pub fn book(versions: &[VersionFile]) -> Result<PriceBook, PriceError> {
    let versions: Result<Vec<_>, _> = versions.iter().map(VersionFile::version).collect();
    Ok(PriceBook::new(versions?))
}

/// The price of these rates.
///
/// # Errors
/// A negative rate, or tiers that do not rise.
pub fn price(base: &Rates, tiers: &[TierFile]) -> Result<Price, PriceError> {
    let tiers = tiers.iter().map(|tier| Tier {
        above_prompt_tokens: tier.above_prompt_tokens,
        whole_request: tier.whole_request,
        price: tier.price.clone(),
    });
    Price::new(base.clone(), tiers.collect())
}

fn other(
    plain: &Price,
    factor: Option<Multiplier>,
    own: Option<&Rates>,
    tiers: &[TierFile],
    of: &str,
) -> Result<Price, PriceError> {
    match (factor, own) {
        (Some(factor), None) if tiers.is_empty() => plain.times(factor),
        (None, Some(rates)) => price(rates, tiers),
        (Some(_), _) | (None, None) => {
            Err(malformed(format!("{of}: write either a factor or a price")))
        }
    }
}

const fn malformed(problem: String) -> PriceError {
    PriceError::Malformed(problem)
}

const fn yes() -> bool {
    true
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    let text = String::deserialize(deserializer)?;
    let time: Time = text.parse().map_err(D::Error::custom)?;
    Ok(Some(time.0.as_second()))
}

/// Service tiers by their names.
///
/// # Errors
/// A name that is none.
pub fn service_tiers<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<ServiceTier, ServiceTierFile>, D::Error> {
    let written = BTreeMap::<String, ServiceTierFile>::deserialize(deserializer)?;
    let known = |name: &str| {
        ServiceTier::ALL
            .into_iter()
            .filter(|tier| *tier != ServiceTier::Standard)
            .find(|tier| tier.as_str() == name)
            .ok_or_else(|| D::Error::custom("service_tiers are batch, flex and priority"))
    };
    let tiers = written
        .into_iter()
        .map(|(name, file)| Ok((known(&name)?, file)));
    tiers.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<PriceBook, String> {
        let version: VersionFile = toml::from_str(text).map_err(|error| error.to_string())?;
        book(&[version]).map_err(|error| error.to_string())
    }

    #[test]
    fn tiers_hours_and_versions() {
        let book = parse(
            r#"valid_from = "1970-01-02"
            price = { prompt = "2", completion = "4" }
            service_tiers = { flex = { factor = "0.5" }, priority = { price = { prompt = "5", completion = "9" } } }
            price_hours = [{ from = "16:30", to = "00:30", factor = "0.25" }]"#,
        )
        .unwrap();
        assert!(book.at(86_399).is_none());
        let prompt = |at, tier| {
            let offer: &Arc<Offer> = book.at(at).unwrap();
            offer.of(tier).unwrap().price.base().prompt.to_string()
        };
        let noon = 86_400 + 12 * 3600;
        let night = 86_400 + 20 * 3600;
        assert_eq!(prompt(noon, ServiceTier::Standard), "2");
        assert_eq!(prompt(noon, ServiceTier::Flex), "1");
        assert_eq!(prompt(noon, ServiceTier::Priority), "5");
        assert_eq!(prompt(night, ServiceTier::Standard), "0.5");
        assert_eq!(prompt(night, ServiceTier::Flex), "0.25");
        assert_eq!(prompt(night, ServiceTier::Priority), "5");
        assert!(book.at(noon).unwrap().of(ServiceTier::Batch).is_none());
    }

    #[test]
    fn hours_are_of_days_and_of_a_place() {
        let book = parse(
            r#"price = { prompt = "4", completion = "4" }
            price_hours = [
                { from = "18:00", to = "00:00", days = ["mon"], time_zone = "Asia/Shanghai", factor = "0.25" },
                { days = ["sat", "sun"], time_zone = "Asia/Shanghai", price = { prompt = "2", completion = "4" } },
            ]"#,
        )
        .unwrap();
        let prompt = |moment: &str| {
            let moment: jiff::Timestamp = moment.parse().unwrap();
            let offer = book.at(moment.as_second()).unwrap();
            offer.standard().price.base().prompt.to_string()
        };
        for (moment, expected) in [
            // Monday evening in Shanghai.
            ("2026-11-23T09:59:59Z", "4"),
            ("2026-11-23T10:00:00Z", "1"),
            ("2026-11-23T15:59:59Z", "1"),
            ("2026-11-23T16:00:00Z", "4"),
            ("2026-11-24T10:00:00Z", "4"),
            // The weekend there.
            ("2026-11-27T15:59:59Z", "4"),
            ("2026-11-27T16:00:00Z", "2"),
            ("2026-11-29T15:59:59Z", "2"),
            ("2026-11-29T16:00:00Z", "4"),
        ] {
            assert_eq!(prompt(moment), expected, "{moment}");
        }
    }

    #[test]
    fn what_is_wrong_is_told() {
        let plain = "price = { prompt = \"2\", completion = \"4\" }\n";
        for (more, part) in [
            (
                "service_tiers = { slow = { factor = \"1\" } }",
                "batch, flex and priority",
            ),
            (
                "service_tiers = { flex = {} }",
                "either a factor or a price",
            ),
            (
                "service_tiers = { flex = { factor = \"1\", price = { request = \"1\" } } }",
                "either a factor or a price",
            ),
            (
                "price_hours = [{ from = \"25:00\", to = \"01:00\", factor = \"1\" }]",
                "16:30",
            ),
            (
                "price_hours = [{ from = \"01:00\", factor = \"1\" }]",
                "from and to, or days",
            ),
            ("price_hours = [{ factor = \"1\" }]", "from and to, or days"),
            (
                "price_hours = [{ days = [\"Saturday\"], factor = \"1\" }]",
                "mon, tue, wed, thu, fri, sat, sun",
            ),
            (
                "price_hours = [{ days = [\"sat\"], time_zone = \"Asia/Bejing\", factor = \"1\" }]",
                "Asia/Shanghai",
            ),
            ("valid_from = \"soon\"", "2026-01-31"),
            ("service_tiers = { flex = { factor = \"-1\" } }", "1.25"),
        ] {
            let error = parse(&format!("{plain}{more}")).unwrap_err();
            assert!(error.contains(part), "{more}: {error}");
        }
    }
}
