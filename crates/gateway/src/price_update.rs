//! What a published price table changes in the prices that hold: found, before anything is written.

mod falling;
mod own_file;

use std::collections::{BTreeMap, BTreeSet};

use billing::{Credits, Offer, Price, PriceBook, PriceVersion, Rates, ServiceTier};
use price_tables::{Model, Picked, Plan, Provider, Table, TableError, TableName, pick};
use serde::Serialize;

pub use self::{
    falling::Fall,
    own_file::{Entry, OwnFile, replace},
};
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
    /// In this part of the week, such as `18:00-00:00 mon,tue Asia/Shanghai`; none: at other times.
    pub hours: Option<String>,
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
    /// Prices of the table by which a long prompt is cheaper than a shorter one.
    pub falls: Vec<Fall>,
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
            let outcome = outcome.map(|(falls, changed)| {
                let model = full(&model.id);
                self.falls.extend(falls.into_iter().map(|mut fall| {
                    fall.model.clone_from(&model);
                    fall
                }));
                changed
            });
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

type Changed = (Vec<Fall>, Option<(VersionFile, Vec<Change>)>);

/// The version that a row of the table makes of a model's price and what is other in it, after
/// what is odd about the row.
fn changed(
    served: &ModelFile,
    row: &Model,
    planned: &Provider,
    wish: &Wish,
) -> Result<Changed, String> {
    let wrong = |error: &dyn ToString| error.to_string();
    let book = served.book().map_err(|error| wrong(&error))?;
    let old = version_at(&book, wish.moment);
    if !served.image_prices.is_empty() {
        return Err("has prices by the size of images, which no table here says".to_owned());
    }
    let mut version: VersionFile =
        toml::from_str(&row.price_text()).map_err(|error| wrong(&error))?;
    if let Some(old) = old {
        if !old.hours.is_empty() && version.price_hours.is_empty() {
            return Err("has prices by the hour, and the table has none".to_owned());
        }
        if offers(old).any(|(_, offer)| has_part_above(offer)) {
            return Err("has tiers for the part above alone, which no table here says".to_owned());
        }
        keep_pieces(&mut version, &old.offer);
    }
    let new = price_file::book(std::slice::from_ref(&version)).map_err(|error| wrong(&error))?;
    let Some(new) = version_at(&new, wish.moment) else {
        return Err("has no price in the table".to_owned());
    };
    let would_be_free = |old: &PriceVersion| {
        let base = |version: &PriceVersion| version.offer.standard().price.base().clone();
        let (old, new) = (base(old), base(new));
        old.prompt > new.prompt && new.prompt.is_zero()
            || old.completion > new.completion && new.completion.is_zero()
    };
    if old.is_some_and(would_be_free) && !planned.is_free(&row.id) {
        return Err("would cost nothing where it costs something now".to_owned());
    }
    let falls = falling::falls(&new.offer);
    let changes = differences(old, new);
    Ok((falls, (!changes.is_empty()).then_some((version, changes))))
}

/// Every offer of a version, by the hours that it is for.
fn offers(version: &PriceVersion) -> impl Iterator<Item = (Option<String>, &Offer)> {
    let hours = version.hours.iter();
    let hours = hours.map(|(hours, offer)| (Some(hours.to_string()), &**offer));
    std::iter::once((None, &*version.offer)).chain(hours)
}

fn has_part_above(offer: &Offer) -> bool {
    let mut priced = offer.all();
    priced.any(|(_, priced)| priced.price.tiers().iter().any(|tier| !tier.whole_request))
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
        price_hours,
        valid_from: _,
    } = version;
    keep(price, price_tiers, &old.standard().price);
    for part in price_hours {
        if let Some(own) = &mut part.price {
            keep(own, &mut part.price_tiers, &old.standard().price);
        }
    }
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

/// An amount's place in a price, by hours, tier and length of the prompt, and its bucket.
type Place = (Option<String>, ServiceTier, Option<u64>, &'static str);

fn differences(old: Option<&PriceVersion>, new: &PriceVersion) -> Vec<Change> {
    let was = old.map(all_amounts).unwrap_or_default();
    let will = all_amounts(new);
    let places: BTreeSet<_> = was.keys().chain(will.keys()).cloned().collect();
    let mut changes = Vec::new();
    for place in places {
        let (old, new) = (was.get(&place).copied(), will.get(&place).copied());
        if old != new {
            let (hours, tier, above_prompt_tokens, bucket) = place;
            changes.push(Change {
                model: String::new(),
                service_tier: tier.as_str(),
                hours,
                above_prompt_tokens,
                bucket,
                old,
                new,
            });
        }
    }
    changes
}

fn all_amounts(version: &PriceVersion) -> BTreeMap<Place, Credits> {
    let mut all = BTreeMap::new();
    for (hours, offer) in offers(version) {
        for (tier, priced) in offer.all() {
            let amounts = amounts(&priced.price).into_iter();
            all.extend(
                amounts.map(|((above, bucket), amount)| {
                    ((hours.clone(), tier, above, bucket), amount)
                }),
            );
        }
    }
    all
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
        files_of("moonshot", models)
    }

    fn files_of(provider: &str, models: &str) -> Vec<(String, ProviderFile)> {
        let text = format!(
            "name = \"{provider}\"\ndialect = \"openai\"\nbase_url = \"http://127.0.0.1:9\"\n{models}"
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
    fn hours_change_amount_by_amount_and_are_never_lost() {
        let hours = r#","off_peak_pricing":{"input_cost_per_token":5e-07,"windows":[{"hours_utc":"10:00-00:00","weekdays":[1]},{"hours_utc":"00:00-00:00","weekdays":[6,7]}]}"#;
        let row = format!("{PLAIN}{hours}");
        let table = table(&[("a", &row), ("b", &row), ("same", &row), ("lost", PLAIN)]);
        let price = r#"prompt = "1", completion = "2""#;
        let at = |monday: &str| {
            let own =
                |prompt: &str| format!("price = {{ prompt = \"{prompt}\", completion = \"2\" }}");
            format!(
                "price_hours = [{{ from = \"10:00\", to = \"00:00\", days = [\"mon\"], {} }}, {{ days = [\"sat\", \"sun\"], {} }}]\n",
                own(monday),
                own("0.5")
            )
        };
        let files = files(
            &[
                model("a", &format!("{price}, search = \"0.01\"")),
                model("b", price) + &at("0.75"),
                model("same", price) + &at("0.5"),
                model("lost", price) + &at("0.5"),
            ]
            .concat(),
        );
        let update = compare(&table, &files, &OwnFile::default(), &wish()).unwrap();
        let shown: Vec<String> = update
            .changes
            .iter()
            .map(|change| {
                let text = |amount: Option<Credits>| amount.map_or("-".into(), |a| a.to_string());
                let hours = change.hours.as_deref().unwrap();
                let (old, new) = (text(change.old), text(change.new));
                format!("{} {hours} {} {old} {new}", change.model, change.bucket)
            })
            .collect();
        assert_eq!(
            shown,
            [
                "moonshot/a 10:00-00:00 mon completion - 2",
                "moonshot/a 10:00-00:00 mon prompt - 0.5",
                "moonshot/a 10:00-00:00 mon search - 0.01",
                "moonshot/a sat,sun completion - 2",
                "moonshot/a sat,sun prompt - 0.5",
                "moonshot/a sat,sun search - 0.01",
                "moonshot/b 10:00-00:00 mon prompt 0.75 0.5",
            ]
        );
        assert_eq!((update.same, update.left.len()), (1, 1));
        let why = "has prices by the hour, and the table has none";
        assert_eq!(update.left[0].why, why);
        // What is written says the same when it is read again.
        let text = OwnFile::default().with(update.entries.clone());
        let own = OwnFile::parse(&text).unwrap();
        assert_eq!(own.with(Vec::new()), text);
        let path = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(path.path(), text).unwrap();
        let (mut files, mut findings) = (files, Vec::new());
        crate::own_prices::apply(path.path(), &mut files, &mut findings);
        assert!(findings.is_empty(), "{findings:?}");
        let again = compare(&table, &files, &OwnFile::default(), &wish()).unwrap();
        assert_eq!((again.changes, again.same), (Vec::new(), 3));
    }

    #[test]
    fn a_price_that_falls_for_long_prompts_is_told() {
        let row = format!(
            r#"{PLAIN},"input_cost_per_token_above_200k_tokens":5e-07,"output_cost_per_token_above_200k_tokens":2e-06"#
        );
        let files = files(&model("a", r#"prompt = "1", completion = "2""#));
        let update = compare(&table(&[("a", &row)]), &files, &OwnFile::default(), &wish()).unwrap();
        let credits = |text: &str| text.parse::<Credits>().unwrap();
        let fall = Fall {
            model: "moonshot/a".to_owned(),
            service_tier: "standard",
            above_prompt_tokens: 200_000,
            bucket: "prompt",
            below: credits("1"),
            above: credits("0.5"),
        };
        assert_eq!(update.falls, [fall]);
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
    fn what_no_table_can_say_stays() {
        let table = table(&[("a", PLAIN), ("b", PLAIN)]);
        let above = "price_tiers = [{ above_prompt_tokens = 9, whole_request = false, price = { prompt = \"5\", completion = \"5\" } }]\n";
        let sizes = "endpoints = [\"image_generations\"]\nimage_prices = [{ size = \"1x1\", quality = \"standard\", default = true, price = { image = \"1\" } }]\n";
        let priced = r#"prompt = "9", completion = "9""#;
        let files = files(&[model("a", priced) + above, model("b", priced) + sizes].concat());
        let update = compare(&table, &files, &OwnFile::default(), &wish()).unwrap();
        assert!(update.entries.is_empty(), "{update:?}");
        let left: Vec<&str> = update.left.iter().map(|one| one.why.as_str()).collect();
        assert_eq!(
            left,
            [
                "has tiers for the part above alone, which no table here says",
                "has prices by the size of images, which no table here says",
            ]
        );
    }

    #[test]
    fn what_costs_something_never_becomes_free() {
        // By the table it makes vectors, whose output costs nothing; here it writes.
        let row = r#"{"text-embedding-9":{"litellm_provider":"openai","mode":"embedding","max_input_tokens":9,"input_cost_per_token":1e-06,"output_cost_per_token":0}}"#;
        let table = Table::recognize(row, DAY).unwrap();
        let files = |price: &str| files_of("openai", &model("text-embedding-9", price));
        let compare = |price| compare(&table, &files(price), &OwnFile::default(), &wish()).unwrap();
        let update = compare(r#"prompt = "2", completion = "8""#);
        assert!(update.entries.is_empty(), "{update:?}");
        let why = "would cost nothing where it costs something now";
        assert_eq!(update.left[0].why, why);
        // Where it costs nothing already, it does not become so.
        let update = compare(r#"prompt = "2", completion = "0""#);
        assert_eq!((update.changes.len(), update.left.len()), (1, 0));
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
