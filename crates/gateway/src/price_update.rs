//! What a published price table changes in the prices that hold: found, before anything is written.

mod own_file;

use std::collections::{BTreeMap, BTreeSet};

use billing::{Credits, Offer, Price, PriceBook, PriceVersion, Rates, ServiceTier};
use price_tables::{Model, Picked, Plan, Provider, Table, TableError, TableName, pick};
use serde::Serialize;

pub use self::own_file::{Entry, OwnFile, replace};
use crate::{
    price_file::{self, TierFile, VersionFile},
    provider_file::{ModelFile, ProviderFile},
};

/// What is asked of an update.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Providers by name; none: all that the table has.
    pub providers: Vec<String>,
    /// The day from which the prices shall hold, `YYYY-MM-DD`.
    pub valid_from: String,
    /// The same in seconds since 1970.
    pub moment: i64,
}

/// One amount that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// `provider/id`.
    pub model: String,
    /// `standard`, `batch`, `flex` or `priority`.
    pub service_tier: &'static str,
    /// For prompts of more tokens than this.
    pub above_prompt_tokens: Option<u64>,
    /// The bucket, by its name in `price`.
    pub bucket: &'static str,
    /// What it costs now; none: it has no price of its own.
    pub old: Option<Credits>,
    /// What it will cost.
    pub new: Option<Credits>,
}

/// A model that is not changed, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// `provider/id`.
    pub model: String,
    /// Why.
    pub why: String,
}

/// What a table changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Update {
    /// Amount by amount.
    pub changes: Vec<Change>,
    /// The same as entries of the file of own prices.
    #[serde(skip)]
    pub entries: Vec<Entry>,
    /// Models whose prices are what the table says.
    pub same: usize,
    /// Models whose prices stay although the table says otherwise, or says nothing.
    pub left: Vec<Left>,
    /// Models of the table that no provider file has, so that nothing here serves them.
    pub not_served: Vec<String>,
}

/// Compares a table with the prices that hold at the wished moment; `files` are the provider files
/// with the operator's own prices in them, `own` is the file that these are from.
///
/// # Errors
/// A row of the table that cannot be read.
pub fn compare(
    (name, table): &(TableName, Table),
    files: &[(String, ProviderFile)],
    own: &OwnFile,
    wish: &Wish,
) -> Result<Update, TableError> {
    let plan = Plan::built_in()?;
    let mut update = Update::default();
    for planned in plan.providers.iter().filter(|one| one.table == *name) {
        let wished = wish.providers.is_empty() || wish.providers.contains(&planned.file);
        let file = files.iter().find(|(_, file)| file.name == planned.file);
        if let Some((_, file)) = file.filter(|_| wished) {
            let picked = pick(table, planned, &wish.valid_from)?;
            update.provider(planned, file, &picked, own, wish);
        }
    }
    Ok(update)
}

impl Update {
    fn provider(
        &mut self,
        planned: &Provider,
        file: &ProviderFile,
        picked: &Picked,
        own: &OwnFile,
        wish: &Wish,
    ) {
        let full = |id: &str| format!("{}/{id}", file.name);
        let served: BTreeMap<&str, &ModelFile> = file
            .models
            .iter()
            .map(|one| (one.id.as_str(), one))
            .collect();
        let mut told = BTreeSet::new();
        for model in &picked.models {
            told.insert(model.id.as_str());
            let Some(one) = served.get(model.id.as_str()) else {
                self.not_served.push(full(&model.id));
                continue;
            };
            let outcome = if own.has_by_hand(&full(&model.id)) {
                Err("has a price that you wrote yourself".to_owned())
            } else {
                changed(one, model, planned, wish)
            };
            match outcome {
                Ok(None) => self.same += 1,
                Ok(Some((version, changes))) => {
                    let model = full(&model.id);
                    self.changes.extend(changes.into_iter().map(|mut change| {
                        change.model.clone_from(&model);
                        change
                    }));
                    let valid_from = wish.valid_from.clone();
                    self.entries.push(Entry {
                        model,
                        valid_from,
                        version,
                    });
                }
                Err(why) => self.leave(full(&model.id), why),
            }
        }
        for (id, _) in served
            .iter()
            .filter(|(id, one)| !told.contains(*id) && one.price.is_some())
        {
            let reason = picked.left_out.iter().find_map(|(reason, ids)| {
                let units = ids.iter().filter_map(|named| named.strip_prefix(id));
                let mut same = units.filter(|units| units.is_empty() || units.starts_with(" ("));
                same.next()
                    .map(|units| format!("{}{units}", reason.words()))
            });
            let why = reason.unwrap_or_else(|| "the table has no such row".to_owned());
            self.leave(full(id), why);
        }
    }

    fn leave(&mut self, model: String, why: String) {
        self.left.push(Left { model, why });
    }
}

type Changed = Option<(VersionFile, Vec<Change>)>;

/// The version that a row of the table makes of a model's price, and what is other in it.
fn changed(
    served: &ModelFile,
    row: &Model,
    planned: &Provider,
    wish: &Wish,
) -> Result<Changed, String> {
    let wrong = |error: &dyn ToString| error.to_string();
    let book = served.book().map_err(|error| wrong(&error))?;
    let old = version_at(&book, wish.moment);
    if old.is_some_and(|version| !version.hours.is_empty()) {
        return Err("has prices by the hour, which no table here says".to_owned());
    }
    if !served.image_prices.is_empty() {
        return Err("has prices by the size of images, which no table here says".to_owned());
    }
    let mut version: VersionFile =
        toml::from_str(&row.price_text()).map_err(|error| wrong(&error))?;
    let old = old.map(|version| &*version.offer);
    if let Some(old) = old {
        if old
            .all()
            .any(|(_, priced)| priced.price.tiers().iter().any(|tier| !tier.whole_request))
        {
            return Err("has tiers for the part above alone, which no table here says".to_owned());
        }
        keep_pieces(&mut version, old);
    }
    let new = price_file::book(std::slice::from_ref(&version)).map_err(|error| wrong(&error))?;
    let Some(new) = version_at(&new, wish.moment).map(|version| &*version.offer) else {
        return Err("has no price in the table".to_owned());
    };
    let would_be_free = |old: &Offer| {
        let (old, new) = (old.standard().price.base(), new.standard().price.base());
        old.prompt > new.prompt && new.prompt.is_zero()
            || old.completion > new.completion && new.completion.is_zero()
    };
    if old.is_some_and(would_be_free) && !planned.is_free(&row.id) {
        return Err("would cost nothing where it costs something now".to_owned());
    }
    let changes = differences(old, new);
    Ok((!changes.is_empty()).then_some((version, changes)))
}

fn version_at(book: &PriceBook, moment: i64) -> Option<&PriceVersion> {
    let mut begun = book.versions().iter().rev();
    begun.find(|version| version.valid_from <= moment)
}

/// What is sold by the piece costs nothing where its rate is absent: a table that is silent about
/// one takes nothing away.
fn keep_pieces(version: &mut VersionFile, old: &Offer) {
    let keep = |own: &mut Rates, tiers: &mut [TierFile], old: &Price| {
        keep_rates(own, old.base());
        for tier in tiers {
            let above = tier.above_prompt_tokens.saturating_add(1);
            keep_rates(&mut tier.price, old.rates(above));
        }
    };
    let VersionFile {
        price,
        price_tiers,
        service_tiers,
        ..
    } = version;
    keep(price, price_tiers, &old.standard().price);
    for (tier, written) in service_tiers {
        let known = old.of(*tier).unwrap_or_else(|| old.standard());
        if let Some(own) = &mut written.price {
            keep(own, &mut written.price_tiers, &known.price);
        }
    }
}

fn keep_rates(new: &mut Rates, old: &Rates) {
    new.image = new.image.or(old.image);
    new.second = new.second.or(old.second);
    new.character = new.character.or(old.character);
    new.search = new.search.or(old.search);
    new.page = new.page.or(old.page);
    new.request = new.request.or(old.request);
    new.minimum = new.minimum.or(old.minimum);
}

fn differences(old: Option<&Offer>, new: &Offer) -> Vec<Change> {
    let mut changes = Vec::new();
    for tier in ServiceTier::ALL {
        let amounts = |offer: Option<&Offer>| {
            let priced = offer.and_then(|offer| offer.of(tier));
            priced
                .map(|priced| amounts(&priced.price))
                .unwrap_or_default()
        };
        let (was, will) = (amounts(old), amounts(Some(new)));
        let places: BTreeSet<_> = was.keys().chain(will.keys()).copied().collect();
        for place in places {
            let (old, new) = (was.get(&place).copied(), will.get(&place).copied());
            if old != new {
                changes.push(Change {
                    model: String::new(),
                    service_tier: tier.as_str(),
                    above_prompt_tokens: place.0,
                    bucket: place.1,
                    old,
                    new,
                });
            }
        }
    }
    changes
}

fn amounts(price: &Price) -> BTreeMap<(Option<u64>, &'static str), Credits> {
    let base = price.base().all().into_iter();
    let mut amounts: BTreeMap<_, _> = base.map(|(name, rate)| ((None, name), rate)).collect();
    for tier in price.tiers() {
        let above = Some(tier.above_prompt_tokens);
        let rates = tier.price.all().into_iter();
        amounts.extend(rates.map(|(name, rate)| ((above, name), rate)));
    }
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: &str = "2026-12-01";

    /// A table with rows of Moonshot.
    fn table(rows: &[(&str, &str)]) -> (TableName, Table) {
        let rows: Vec<String> = rows
            .iter()
            .map(|(id, prices)| {
                format!(
                    r#""moonshot/{id}":{{"litellm_provider":"moonshot","mode":"chat","max_input_tokens":9,{prices}}}"#
                )
            })
            .collect();
        Table::recognize(&format!("{{{}}}", rows.join(",")), DAY).unwrap()
    }

    fn files(models: &str) -> Vec<(String, ProviderFile)> {
        let text = format!(
            "name = \"moonshot\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n{models}"
        );
        vec![("m".to_owned(), ProviderFile::parse("m", &text).unwrap())]
    }

    fn wish() -> Wish {
        Wish {
            providers: Vec::new(),
            valid_from: DAY.to_owned(),
            moment: 1_796_083_200,
        }
    }

    fn model(id: &str, price: &str) -> String {
        format!("[[models]]\nid = \"{id}\"\ncontext_window = 9\nprice = {{ {price} }}\n")
    }

    const PLAIN: &str = r#""input_cost_per_token":1e-06,"output_cost_per_token":2e-06"#;

    #[test]
    fn what_changes_is_told_bucket_by_bucket() {
        let table = table(&[
            (
                "a",
                r#""input_cost_per_token":3e-06,"output_cost_per_token":2e-06,"cache_read_input_token_cost":3e-07"#,
            ),
            ("same", PLAIN),
            ("new", PLAIN),
            (
                "odd",
                r#""input_cost_per_token":1e-06,"output_cost_per_token":2e-06,"input_cost_per_sigh":1"#,
            ),
        ]);
        let files = files(
            &[
                model("a", r#"prompt = "1", completion = "2", search = "0.01""#),
                model("same", r#"prompt = "1", completion = "2""#),
                model("odd", r#"prompt = "1", completion = "2""#),
                model("gone", r#"prompt = "1", completion = "2""#),
            ]
            .concat(),
        );
        let update = compare(&table, &files, &OwnFile::default(), &wish()).unwrap();
        let shown: Vec<String> = update
            .changes
            .iter()
            .map(|change| {
                let text = |amount: Option<Credits>| amount.map(|a| a.to_string());
                format!(
                    "{} {} {:?} {:?}",
                    change.model,
                    change.bucket,
                    text(change.old),
                    text(change.new)
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                r#"moonshot/a cached_prompt None Some("0.3")"#,
                r#"moonshot/a prompt Some("1") Some("3")"#,
            ]
        );
        // The table is silent about searches: they do not become free.
        let kept = update.entries[0].version.price.search.unwrap();
        assert_eq!(kept.to_string(), "0.01");
        assert_eq!(
            (update.same, update.not_served.as_slice()),
            (1, ["moonshot/new".to_owned()].as_slice())
        );
        let left: Vec<String> = update
            .left
            .iter()
            .map(|one| format!("{}: {}", one.model, one.why))
            .collect();
        assert_eq!(
            left,
            [
                "moonshot/gone: the table has no such row",
                "moonshot/odd: unknown unit (input_cost_per_sigh)",
            ]
        );
    }

    #[test]
    fn what_was_written_by_hand_stays_and_nothing_becomes_free() {
        let table = table(&[
            (
                "a",
                r#""input_cost_per_token":3e-06,"output_cost_per_token":0"#,
            ),
            ("mine", PLAIN),
        ]);
        let priced = r#"prompt = "9", completion = "9""#;
        let files = files(&[model("a", priced), model("mine", priced)].concat());
        let own = OwnFile::parse("[[prices]]\nmodel = \"*/mine\"\nprice = { request = \"1\" }\n")
            .unwrap();
        let update = compare(&table, &files, &own, &wish()).unwrap();
        assert!(
            update.changes.is_empty() && update.entries.is_empty(),
            "{update:?}"
        );
        let left: Vec<&str> = update.left.iter().map(|one| one.why.as_str()).collect();
        assert_eq!(left, ["has a price that you wrote yourself", "no price"]);
    }

    #[test]
    fn only_the_wished_providers_are_looked_at() {
        let files = files(&model("a", r#"prompt = "9", completion = "9""#));
        let other = Wish {
            providers: vec!["openai".to_owned()],
            ..wish()
        };
        let update = compare(&table(&[("a", PLAIN)]), &files, &OwnFile::default(), &other).unwrap();
        assert_eq!(update, Update::default());
    }
}
