//! The price book of a model: its versions, and the hours and the service tiers that have prices of their own.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Deserializer, de};

use super::{Hours, Price, PriceError};
use crate::{Credits, PriceId};

/// How soon a provider serves, where it sells that: by the words of OpenAI's `service_tier`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ServiceTier {
    /// At once, at the plain price.
    Standard,
    /// Within a day.
    Batch,
    /// When there is room.
    Flex,
    /// Before others.
    Priority,
}

impl ServiceTier {
    /// Every tier.
    pub const ALL: [Self; 4] = [Self::Standard, Self::Batch, Self::Flex, Self::Priority];

    /// The name in a provider file.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Standard => "standard",
            Self::Batch => "batch",
            Self::Flex => "flex",
            Self::Priority => "priority",
        }
    }

    /// The tier that a request asks for or an answer names; `None` where the word names none of
    /// its own: `auto`, and what nobody here knows.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        match word {
            // What is paid for in advance (`scale`, `provisioned`) has the plain price here.
            "standard" | "default" | "standard_only" | "on_demand" | "scale" => {
                Some(Self::Standard)
            }
            "batch" => Some(Self::Batch),
            "flex" => Some(Self::Flex),
            "priority" => Some(Self::Priority),
            _ => None,
        }
    }
}

/// A number that prices are multiplied by, such as `1.25`: at most nine digits after the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Multiplier(i64);

impl Multiplier {
    /// Leaves prices as they are.
    pub const ONE: Self = Self(1_000_000_000);

    /// The amount multiplied, rounded up to a nano-credit; `None` where it does not fit.
    #[must_use]
    pub fn of(self, amount: Credits) -> Option<Credits> {
        let one = i128::from(Self::ONE.0);
        let exact = i128::from(amount.nanos()) * i128::from(self.0);
        let nanos = exact / one + i128::from(exact % one > 0);
        i64::try_from(nanos).ok().map(Credits::from_nanos)
    }
}

impl FromStr for Multiplier {
    type Err = PriceError;

    fn from_str(text: &str) -> Result<Self, PriceError> {
        let wrong = || PriceError::Malformed(format!("{text:?} is no factor such as \"1.25\""));
        let amount: Credits = text.parse().map_err(|_| wrong())?;
        if amount.is_negative() {
            return Err(wrong());
        }
        Ok(Self(amount.nanos()))
    }
}

impl fmt::Display for Multiplier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Credits::from_nanos(self.0).fmt(f)
    }
}

impl<'de> Deserialize<'de> for Multiplier {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A price and the version that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Priced {
    /// The price.
    pub price: Arc<Price>,
    /// Its id.
    pub id: PriceId,
}

impl Priced {
    /// With its id.
    ///
    /// # Errors
    /// As [`Price::id`].
    pub fn new(price: Price) -> Result<Self, PriceError> {
        Ok(Self {
            id: price.id()?,
            price: Arc::new(price),
        })
    }
}

/// What a request may be charged by: pinned when it is admitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    standard: Priced,
    tiers: Vec<(ServiceTier, Priced)>,
}

impl Offer {
    /// The plain price, and those of service tiers that have one of their own.
    #[must_use]
    pub const fn new(standard: Priced, tiers: Vec<(ServiceTier, Priced)>) -> Self {
        Self { standard, tiers }
    }

    /// The plain price.
    #[must_use]
    pub const fn standard(&self) -> &Priced {
        &self.standard
    }

    /// The price of a service tier; `None` where nobody wrote one.
    #[must_use]
    pub fn of(&self, tier: ServiceTier) -> Option<&Priced> {
        match tier {
            ServiceTier::Standard => Some(&self.standard),
            ServiceTier::Batch | ServiceTier::Flex | ServiceTier::Priority => self
                .tiers
                .iter()
                .find(|(known, _)| *known == tier)
                .map(|(_, priced)| priced),
        }
    }

    /// Every price in it, by its tier.
    pub fn all(&self) -> impl Iterator<Item = (ServiceTier, &Priced)> {
        let tiers = self.tiers.iter().map(|(tier, priced)| (*tier, priced));
        std::iter::once((ServiceTier::Standard, &self.standard)).chain(tiers)
    }

    /// The same for customers who pay so many times as much as the operator does.
    ///
    /// # Errors
    /// [`PriceError::Overflow`].
    pub fn marked_up(&self, by: Multiplier) -> Result<Self, PriceError> {
        let mark = |priced: &Priced| {
            let own = Price::clone(&priced.price);
            Priced::new(own.times(by)?.with_provider(own))
        };
        let tiers = self.tiers.iter().map(|(tier, p)| Ok((*tier, mark(p)?)));
        Ok(Self {
            standard: mark(&self.standard)?,
            tiers: tiers.collect::<Result<_, PriceError>>()?,
        })
    }
}

/// What holds from a moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriceVersion {
    /// In seconds since 1970; `i64::MIN` for ever before.
    pub valid_from: i64,
    /// Parts of the week that have an offer of their own; the first that fits counts.
    pub hours: Vec<(Hours, Arc<Offer>)>,
    /// The rest of the week.
    pub offer: Arc<Offer>,
}

/// The versions of a model's price.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PriceBook(Vec<PriceVersion>);

impl PriceBook {
    /// Of these versions, in any order; of two that begin at once the later one counts.
    #[must_use]
    pub fn new(mut versions: Vec<PriceVersion>) -> Self {
        versions.sort_by_key(|version| version.valid_from);
        Self(versions)
    }

    /// What holds at a moment, in seconds since 1970; `None` before the first version.
    #[must_use]
    pub fn at(&self, unix_seconds: i64) -> Option<&Arc<Offer>> {
        let begun = |version: &&PriceVersion| version.valid_from <= unix_seconds;
        let version = self.0.iter().rev().find(begun)?;
        let hours = version
            .hours
            .iter()
            .find(|(hours, _)| hours.has(unix_seconds));
        Some(hours.map_or(&version.offer, |(_, offer)| offer))
    }

    /// Every offer in it.
    pub fn offers(&self) -> impl Iterator<Item = &Arc<Offer>> {
        self.0.iter().flat_map(|version| {
            let hours = version.hours.iter().map(|(_, offer)| offer);
            hours.chain([&version.offer])
        })
    }

    /// The versions, oldest first.
    #[must_use]
    pub fn versions(&self) -> &[PriceVersion] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(prompt: &str) -> Arc<Offer> {
        let json = format!(r#"{{"base":{{"prompt":"{prompt}","completion":"2"}}}}"#);
        let priced = Priced::new(Price::from_json(&json).unwrap()).unwrap();
        Arc::new(Offer::new(priced, Vec::new()))
    }

    #[test]
    fn a_moment_has_the_version_and_the_hours_that_it_lies_in() {
        let night = Hours::daily("16:30", "00:30").unwrap();
        let book = PriceBook::new(vec![
            PriceVersion {
                valid_from: 86_400,
                hours: vec![(night, offer("1"))],
                offer: offer("3"),
            },
            PriceVersion {
                valid_from: 0,
                hours: Vec::new(),
                offer: offer("5"),
            },
        ]);
        let prompt = |at: i64| {
            book.at(at)
                .map(|o| o.standard().price.base().prompt.to_string())
        };
        for (at, expected) in [
            (-1, None),
            (0, Some("5")),
            (86_399, Some("5")),
            // The day begins in the night's hours.
            (86_400, Some("1")),
            (86_400 + 30 * 60, Some("3")),
            (86_400 + 16 * 3600 + 30 * 60 - 1, Some("3")),
            (86_400 + 16 * 3600 + 30 * 60, Some("1")),
            (2 * 86_400 + 29 * 60, Some("1")),
        ] {
            assert_eq!(prompt(at).as_deref(), expected, "{at}");
        }
        assert_eq!(book.offers().count(), 3);
    }

    #[test]
    fn a_markup_keeps_what_the_operator_pays() {
        let marked = offer("0.1").marked_up("1.25".parse().unwrap()).unwrap();
        let price = &marked.standard().price;
        let usage = tokens::Usage {
            prompt: 1_000_000,
            completion: 1_000_000,
            ..tokens::Usage::default()
        };
        assert_eq!(price.cost(&usage).unwrap().to_string(), "2.625");
        assert_eq!(price.provider_cost(&usage).unwrap().to_string(), "2.1");
        let kept = Price::from_json(&price.to_json().unwrap()).unwrap();
        assert_eq!(&kept, &**price);
        assert_ne!(marked.standard().id, offer("0.1").standard().id);
        // Nothing on top is the same price, under the same id.
        assert_eq!(*offer("1"), offer("1").marked_up(Multiplier::ONE).unwrap());
        for wrong in ["", "-1", "x", "1e3"] {
            assert!(wrong.parse::<Multiplier>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_tier_has_a_price_or_none() {
        let flex = offer("9").standard().clone();
        let of = Offer::new(
            offer("1").standard().clone(),
            vec![(ServiceTier::Flex, flex)],
        );
        assert!(of.of(ServiceTier::Flex).is_some());
        assert!(of.of(ServiceTier::Priority).is_none());
        assert_eq!(of.of(ServiceTier::Standard), Some(of.standard()));
        assert_eq!(ServiceTier::parse("auto"), None);
        for tier in ServiceTier::ALL {
            assert_eq!(ServiceTier::parse(tier.as_str()), Some(tier));
        }
    }
}
