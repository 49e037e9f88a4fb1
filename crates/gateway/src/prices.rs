//! What a request may be charged by: the model's prices of this moment, with the customer's markup, kept before they are used.

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use billing::{AccountId, Multiplier, Offer, PriceId, Priced, ServiceTier};
use dialect::Dialect;
use jiff::Timestamp;
use store::{KeyRecord, Store};

use crate::{catalogue::Model, error::ApiError};

/// The member of a request that names a service tier.
const SERVICE_TIER: &str = "service_tier";
/// Offers with a markup that are kept in memory; beyond that they are worked out anew.
const OFFERS_MAX: usize = 65_536;

/// How many times the provider's price customers pay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Markup {
    /// The multiplier.
    pub factor: Multiplier,
    /// Only this account.
    pub account: Option<AccountId>,
    /// Only accounts whose metadata has this `price_group`.
    pub group: Option<String>,
    /// Only models whose `provider/id` is this, where `*` stands for any text.
    pub model: Option<String>,
}

/// An offer by the versions in it, and what it is multiplied by.
type Marking = (Vec<PriceId>, Multiplier);

/// An offer with a markup.
#[derive(Debug)]
struct Marked {
    offer: Arc<Offer>,
    /// Whether the books are known to have its prices.
    recorded: AtomicBool,
}

/// The markups, and the offers that they make.
#[derive(Debug, Default)]
pub struct Prices {
    markups: Vec<Markup>,
    offers: RwLock<HashMap<Marking, Arc<Marked>>>,
}

/// What a request says that its price may depend on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asking<'a> {
    /// Its `service_tier`, as JSON.
    pub tier: Option<&'a str>,
    /// The size of images.
    pub size: Option<&'a str>,
    /// The quality of images.
    pub quality: Option<&'a str>,
}

/// The price of a request, pinned.
#[derive(Clone, Debug)]
pub struct Quoted {
    /// The prices of all service tiers.
    pub offer: Arc<Offer>,
    /// The one that was asked for.
    pub priced: Priced,
}

impl Prices {
    /// With these markups; the narrowest that fits counts: of an account, of a group, of a model,
    /// and of two as narrow the first. The books already have every price of the catalogue, so a
    /// request without a markup takes no lock and asks nobody.
    #[must_use]
    pub fn new(mut markups: Vec<Markup>) -> Self {
        markups.sort_by_key(|markup| {
            (
                markup.account.is_none(),
                markup.group.is_none(),
                markup.model.is_none(),
            )
        });
        Self {
            markups,
            ..Self::default()
        }
    }

    /// What a key's request to a model may be charged by, now, and the price of the service tier
    /// that it asks for. The books have every price of it.
    ///
    /// # Errors
    /// The model or the tier has no price; the books cannot be written.
    pub async fn quote(
        &self,
        store: &Store,
        key: &KeyRecord,
        model: &Model,
        tier: Option<&str>,
    ) -> Result<Quoted, ApiError> {
        let own = of_now(model)?;
        self.pin(store, key, model, own, tier).await
    }

    /// The price of a model's requests in batches: the plain one where they have none of their own.
    ///
    /// # Errors
    /// As [`Prices::quote`].
    pub async fn quote_batch(
        &self,
        store: &Store,
        key: &KeyRecord,
        model: &Model,
    ) -> Result<Quoted, ApiError> {
        let Quoted { offer, priced } = self.quote(store, key, model, None).await?;
        let of_batches = offer.of(ServiceTier::Batch).cloned();
        Ok(Quoted {
            priced: of_batches.unwrap_or(priced),
            offer,
        })
    }

    /// The same for a model whose prices differ by the size and the quality of images.
    ///
    /// # Errors
    /// As [`Prices::quote`].
    pub async fn quote_images(
        &self,
        store: &Store,
        key: &KeyRecord,
        model: &Model,
        asked: Asking<'_>,
    ) -> Result<Quoted, ApiError> {
        let Some((price, id)) = model.image_price(asked.size, asked.quality) else {
            return self.quote(store, key, model, asked.tier).await;
        };
        let priced = Priced {
            price: Arc::clone(price),
            id: *id,
        };
        let own = Arc::new(Offer::new(priced, Vec::new()));
        self.pin(store, key, model, &own, asked.tier).await
    }

    async fn pin(
        &self,
        store: &Store,
        key: &KeyRecord,
        model: &Model,
        own: &Arc<Offer>,
        tier: Option<&str>,
    ) -> Result<Quoted, ApiError> {
        let marked = self.marked_up(key, model, own)?;
        let offer = marked.as_ref().map_or(own, |marked| &marked.offer);
        let priced = match asked_tier(tier, model)? {
            None => offer.standard(),
            Some(tier) => match offer.of(tier) {
                Some(priced) => priced,
                // Without a price of its own what is slower has the plain one; what is dearer
                // for the operator may not.
                None if tier != ServiceTier::Priority => offer.standard(),
                None => return Err(no_price_of(tier)),
            },
        };
        let quoted = Quoted {
            priced: priced.clone(),
            offer: Arc::clone(offer),
        };
        if let Some(marked) = marked {
            Box::pin(record(store, model, &marked)).await?;
        }
        Ok(quoted)
    }

    /// What a key's requests to a model are charged by now.
    ///
    /// # Errors
    /// The model has no price.
    pub fn offer(&self, key: &KeyRecord, model: &Model) -> Result<Arc<Offer>, ApiError> {
        let own = of_now(model)?;
        let marked = self.marked_up(key, model, own)?;
        Ok(Arc::clone(marked.as_ref().map_or(own, |one| &one.offer)))
    }

    /// An offer as this key's account pays it; `None` where that is as it is.
    fn marked_up(
        &self,
        key: &KeyRecord,
        model: &Model,
        own: &Offer,
    ) -> Result<Option<Arc<Marked>>, ApiError> {
        let factor = self.markup(key.account_id, key.price_group.as_deref(), &model.full_name);
        if factor == Multiplier::ONE {
            return Ok(None);
        }
        let ids = own.all().map(|(_, priced)| priced.id).collect();
        let marking: Marking = (ids, factor);
        let offers = self.offers.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = offers.get(&marking) {
            return Ok(Some(Arc::clone(known)));
        }
        drop(offers);
        let marked = Marked {
            offer: Arc::new(own.marked_up(factor)?),
            recorded: AtomicBool::new(false),
        };
        let mut offers = self.offers.write().unwrap_or_else(PoisonError::into_inner);
        if offers.len() >= OFFERS_MAX {
            offers.clear();
        }
        // Of two that worked it out at once the first one's stays.
        let kept = offers.entry(marking).or_insert_with(|| Arc::new(marked));
        Ok(Some(Arc::clone(kept)))
    }

    fn markup(&self, account: AccountId, group: Option<&str>, model: &str) -> Multiplier {
        let fits = |markup: &&Markup| {
            markup.account.is_none_or(|only| only == account)
                && markup
                    .group
                    .as_deref()
                    .is_none_or(|only| group == Some(only))
                && markup
                    .model
                    .as_deref()
                    .is_none_or(|only| matches(only, model))
        };
        let found = self.markups.iter().find(fits);
        found.map_or(Multiplier::ONE, |markup| markup.factor)
    }
}

/// What a model costs the operator at this moment.
fn of_now(model: &Model) -> Result<&Arc<Offer>, ApiError> {
    let now = Timestamp::now().as_second();
    model.prices.at(now).ok_or_else(|| {
        let file = format!("{}.toml", model.provider.name);
        ApiError::NoPrice(model.full_name.as_ref().into(), file.into())
    })
}

/// Keeps every price of an offer, so that every charge can be computed again.
async fn record(store: &Store, model: &Model, marked: &Marked) -> Result<(), ApiError> {
    if marked.recorded.load(Ordering::Acquire) {
        return Ok(());
    }
    let mut rows = Vec::new();
    for (_, priced) in marked.offer.all() {
        rows.push((priced.id, priced.price.to_json()?));
    }
    let rows: Vec<(PriceId, &str, &str, &str)> = rows
        .iter()
        .map(|(id, json)| (*id, &*model.provider.name, &*model.id, json.as_str()))
        .collect();
    store.record_prices(&rows).await?;
    marked.recorded.store(true, Ordering::Release);
    Ok(())
}

/// The tier that the provider is asked for; `None` where the choice is its own, or where it is not
/// asked: its dialect or its file have no service tiers, so that a request that names one is
/// refused, or sent without it.
///
/// # Errors
/// A word that no price here stands for: the provider might know it, and serve at another price.
fn asked_tier(json: Option<&str>, model: &Model) -> Result<Option<ServiceTier>, ApiError> {
    let quirks = &model.provider.quirks;
    let set = quirks.set.get(SERVICE_TIER).map(ToString::to_string);
    let Some(json) = set.as_deref().or(json).filter(|json| *json != "null") else {
        return Ok(None);
    };
    let mut unasked = quirks.unsupported.iter().chain(&quirks.drop);
    if model.provider.dialect != Dialect::OpenAi
        || set.is_none() && unasked.any(|name| name == SERVICE_TIER)
    {
        return Ok(None);
    }
    let word: Option<String> = serde_json::from_str(json).ok();
    match word.as_deref() {
        Some("auto") => Ok(None),
        Some(word) => match ServiceTier::parse(word) {
            Some(ServiceTier::Batch) | None => Err(no_such_tier()),
            known @ Some(ServiceTier::Standard | ServiceTier::Flex | ServiceTier::Priority) => {
                Ok(known)
            }
        },
        None => Err(no_such_tier()),
    }
}

fn no_such_tier() -> ApiError {
    ApiError::Invalid {
        param: Some(SERVICE_TIER.into()),
        message:
            "service_tier must be auto, default, flex or priority: no other has a price here. \
                  What batch costs is for batches."
                .into(),
    }
}

fn no_price_of(tier: ServiceTier) -> ApiError {
    let name = tier.as_str();
    ApiError::Invalid {
        param: Some(SERVICE_TIER.into()),
        message: format!(
            "This model has no price for service tier {name} here, so it cannot be charged for. \
             Leave service_tier out, or ask the operator to write service_tiers.{name} into the \
             model's provider file or the file of own prices."
        )
        .into(),
    }
}

/// Whether a text is a pattern's, in which `*` stands for any text.
#[must_use]
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        return pattern == text;
    };
    let Some(mut left) = text.strip_prefix(start) else {
        return false;
    };
    let mut pieces: Vec<&str> = rest.split('*').collect();
    let end = pieces.pop().unwrap_or_default();
    for piece in pieces {
        let Some((_, after)) = left.split_once(piece) else {
            return false;
        };
        left = after;
    }
    left.ends_with(end)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn patterns() {
        for (pattern, text, expected) in [
            ("a/b", "a/b", true),
            ("a/b", "a/bc", false),
            ("a/*", "a/bc", true),
            ("*", "", true),
            ("*mini*", "openai/gpt-mini-2", true),
            ("a*ba", "aba", true),
            ("ab*ba", "aba", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn the_narrowest_markup_counts() {
        let account = AccountId::from_uuid(Uuid::from_u128(1));
        let other = AccountId::from_uuid(Uuid::from_u128(2));
        let markup = |factor: &str, account, group: Option<&str>, model: Option<&str>| Markup {
            factor: factor.parse().unwrap(),
            account,
            group: group.map(Into::into),
            model: model.map(Into::into),
        };
        let prices = Prices::new(vec![
            markup("1.1", None, None, None),
            markup("1.2", None, None, Some("openai/*")),
            markup("1.3", None, Some("gold"), None),
            markup("1.4", Some(account), None, None),
            markup("1.5", Some(account), None, Some("openai/gpt-4o")),
        ]);
        for (who, group, model, factor) in [
            (other, None, "x/y", "1.1"),
            (other, None, "openai/gpt-4o", "1.2"),
            (other, Some("gold"), "openai/gpt-4o", "1.3"),
            (other, Some("lead"), "x/y", "1.1"),
            (account, Some("gold"), "x/y", "1.4"),
            (account, None, "openai/gpt-4o", "1.5"),
        ] {
            assert_eq!(
                prices.markup(who, group, model).to_string(),
                factor,
                "{model}"
            );
        }
        let none = Prices::default();
        assert_eq!(none.markup(account, None, "x"), Multiplier::ONE);
    }
}
