//! Prices as they are written: in a model of a provider file, in one of its versions, in the file of own prices.

use std::{collections::BTreeMap, sync::Arc};

use billing::{
    Hours, Multiplier, Offer, Price, PriceBook, PriceError, PriceVersion, Priced, Rates,
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

/// Prices for a part of the day, as written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HoursFile {
    /// UTC, such as `16:30`.
    pub from: String,
    /// Until before this time; before `from`: of the next day.
    pub to: String,
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
    /// Prices of parts of the day; the first that fits counts.
    #[serde(default)]
    pub price_hours: Vec<HoursFile>,
}

impl VersionFile {
    fn version(&self) -> Result<PriceVersion, PriceError> {
        let plain = price(&self.price, &self.price_tiers)?;
        let mut hours = Vec::with_capacity(self.price_hours.len());
        for part in &self.price_hours {
            let when = Hours::new(&part.from, &part.to).ok_or_else(|| {
                let (from, to) = (&part.from, &part.to);
                malformed(format!("price_hours from {from:?} to {to:?}: write two times of day such as \"16:30\", UTC"))
            })?;
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
            ("valid_from = \"soon\"", "2026-01-31"),
            ("service_tiers = { flex = { factor = \"-1\" } }", "1.25"),
        ] {
            let error = parse(&format!("{plain}{more}")).unwrap_err();
            assert!(error.contains(part), "{more}: {error}");
        }
    }
}
