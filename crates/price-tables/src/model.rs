//! From the facts of a table and the plan to a model of a provider file: what is taken, and at which price.

use std::collections::BTreeMap;

use crate::{
    decimal::{Decimal, FRACTION_DIGITS_MAX},
    facts::{Facts, Kind, Price, When},
    plan::{Provider, matches_any},
};

/// A model as the provider file will have it.
#[derive(Debug, PartialEq)]
pub struct Model {
    /// What clients ask for.
    pub id: String,
    /// What it does; empty: it answers chats.
    pub endpoints: Vec<String>,
    /// How its text is cut into tokens, by the names of provider files.
    pub tokenizer: Option<String>,
    /// Thousandths of that count.
    pub token_factor: Option<u32>,
    /// Tokens that fit.
    pub context_window: u64,
    /// Tokens of output at most.
    pub max_output_tokens: Option<u64>,
    /// Whether it reasons out of sight.
    pub hidden_output: bool,
    /// How its images are counted.
    pub image_rule: Option<String>,
    /// What it can do, where that differs from its dialect.
    pub features: BTreeMap<String, toml::Value>,
    /// Whether its end is announced, within a year.
    pub deprecated: bool,
    /// The plain price.
    pub price: Price,
    /// Prices for prompts longer than the key.
    pub tiers: BTreeMap<u64, Price>,
    /// Prices of parts of the week; the first that fits counts.
    pub hours: Vec<(When, Price)>,
    /// Prices of service tiers, and those for long prompts.
    pub service: BTreeMap<&'static str, (Price, BTreeMap<u64, Price>)>,
}

/// Why a row of the table is not in the provider file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeftOut {
    /// The plan does not take it.
    ByPlan,
    /// The provider has ended it.
    Ended,
    /// The table has no price for it, or a zero that the plan does not confirm.
    NoPrice,
    /// The table does not say how much fits.
    NoContextWindow,
    /// A price finer than a nano-credit per million tokens.
    TooFine,
    /// The table does not say where it has the price from, and the plan asks for that.
    NoSource,
    /// The table prices it by a unit that nobody here knows.
    UnknownUnit,
}

impl LeftOut {
    /// The reason in words.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::ByPlan => "by plan",
            Self::Ended => "ended",
            Self::NoPrice => "no price",
            Self::NoContextWindow => "no context window",
            Self::TooFine => "price too fine",
            Self::NoSource => "no source",
            Self::UnknownUnit => "unknown unit",
        }
    }
}

/// Makes the model of `facts`; `taken` is the day that the tables were taken.
pub(crate) fn model(facts: Facts, plan: &Provider, taken: &str) -> Result<Model, LeftOut> {
    let offered = |endpoint: &&str| plan.offers.iter().any(|offer| offer == endpoint);
    let chats = facts.endpoints.is_empty();
    if !plan.takes(&facts.id) || !(chats || facts.endpoints.iter().any(offered)) {
        return Err(LeftOut::ByPlan);
    }
    if facts.ends.as_deref().is_some_and(|day| day < taken) {
        return Err(LeftOut::Ended);
    }
    if plan.sourced_only && !facts.sourced {
        return Err(LeftOut::NoSource);
    }
    if !facts.unknown_units.is_empty() {
        return Err(LeftOut::UnknownUnit);
    }
    let context_window = facts.context_window.ok_or(LeftOut::NoContextWindow)?;
    let free = matches_any(&plan.free, &facts.id);
    let mut base = facts.price.clone();
    if plan.search_fee {
        base.insert(Kind::Request, facts.search_fee.ok_or(LeftOut::NoPrice)?);
    }
    if plan.search_price
        && let Some(fee) = facts.search_fee
    {
        base.insert(Kind::Search, fee);
    }
    let price = cleaned(base.clone(), free, chats)?;
    let mut tiers = BTreeMap::new();
    for (above, amounts) in facts.tiers {
        // What a tier does not name costs the same there as below it.
        let mut whole = base.clone();
        whole.extend(amounts);
        let tier = cleaned(whole, free, chats)?;
        if tier != price {
            tiers.insert(above, tier);
        }
    }
    let hours = hours(facts.hours, &base, &price, |all| cleaned(all, free, chats))?;
    let mut service = BTreeMap::new();
    for (name, (own, long)) in facts.service {
        if let Some(priced) = service_tier(name, own, &long, &price, &tiers) {
            service.insert(name, priced);
        }
    }
    let mut model = Model {
        endpoints: facts
            .endpoints
            .iter()
            .map(|one| (*one).to_owned())
            .collect(),
        tokenizer: None,
        token_factor: None,
        context_window,
        max_output_tokens: facts.max_output_tokens,
        hidden_output: facts.reasons && plan.hides_reasoning,
        image_rule: None,
        features: BTreeMap::new(),
        deprecated: facts.deprecated
            || facts
                .ends
                .is_some_and(|day| day.as_str() < year_after(taken).as_str()),
        price,
        tiers,
        hours,
        service,
        id: facts.id,
    };
    apply_rules(&mut model, plan);
    Ok(model)
}

/// The prices of parts of the week; what they do not name costs what it costs at other times. None
/// where all of them are the plain price.
fn hours(
    of: Vec<(When, Price)>,
    base: &Price,
    plain: &Price,
    clean: impl Fn(Price) -> Result<Price, LeftOut>,
) -> Result<Vec<(When, Price)>, LeftOut> {
    let priced = of.into_iter().map(|(when, amounts)| {
        let mut whole = base.clone();
        whole.extend(amounts);
        Ok((when, clean(whole)?))
    });
    let mut hours = priced.collect::<Result<Vec<_>, _>>()?;
    if hours.iter().all(|(_, own)| own == plain) {
        hours.clear();
    }
    Ok(hours)
}

/// The prices of a service tier, where the table has them for prompt and completion. What it leaves
/// out costs as without the tier where that is cheaper (batch, flex), and as the prompt or the
/// completion where it is dearer; a long prompt costs at least what it does without the tier.
fn service_tier(
    name: &str,
    own: Price,
    long: &BTreeMap<u64, Price>,
    plain: &Price,
    tiers: &BTreeMap<u64, Price>,
) -> Option<(Price, BTreeMap<u64, Price>)> {
    let dearer = name == "priority";
    let whole = |mut own: Price, plain: &Price| {
        for (kind, amount) in plain {
            let kept = !dearer || matches!(kind, Kind::Request | Kind::Search);
            if kept && !own.contains_key(kind) {
                own.insert(*kind, *amount);
            }
        }
        cleaned(own, false, true).ok()
    };
    if !(own.contains_key(&Kind::Prompt) && own.contains_key(&Kind::Completion)) {
        return None;
    }
    let price = whole(own, plain)?;
    let mut priced = BTreeMap::new();
    for (above, plain) in tiers {
        let own = long.get(above).cloned().unwrap_or_default();
        let complete = own.contains_key(&Kind::Prompt) && own.contains_key(&Kind::Completion);
        // Without prices of its own a long prompt is served, and priced, without the tier.
        let own = if complete {
            whole(own, plain)?
        } else {
            plain.clone()
        };
        priced.insert(*above, own);
    }
    (price != *plain || priced != *tiers).then_some((price, priced))
}

/// The price without what adds nothing, or why there is none.
fn cleaned(mut price: Price, free: bool, chats: bool) -> Result<Price, LeftOut> {
    if !chats && !free {
        return sold_otherwise(price);
    }
    let prompt = *price.get(&Kind::Prompt).ok_or(LeftOut::NoPrice)?;
    let completion = *price.get(&Kind::Completion).ok_or(LeftOut::NoPrice)?;
    let zero = |amount: &Decimal| amount.is_zero();
    if !free {
        // Tables write zero for "unknown" too, and an unknown price is never zero.
        if zero(&prompt) || zero(&completion) {
            return Err(LeftOut::NoPrice);
        }
        price.retain(|_, amount| !amount.is_zero());
    }
    if price.get(&Kind::Reasoning) == Some(&completion) {
        price.remove(&Kind::Reasoning);
    }
    if price.get(&Kind::ImagePrompt) == Some(&prompt) {
        price.remove(&Kind::ImagePrompt);
    }
    fine_enough(price)
}

/// The price of a model that does not chat: by pieces, or by a prompt that costs something.
fn sold_otherwise(mut price: Price) -> Result<Price, LeftOut> {
    if price.keys().any(|kind| kind.is_piece()) {
        price.retain(|kind, _| kind.is_piece());
        return fine_enough(price);
    }
    let prompt = *price.get(&Kind::Prompt).ok_or(LeftOut::NoPrice)?;
    if prompt.is_zero() || !price.contains_key(&Kind::Completion) {
        return Err(LeftOut::NoPrice);
    }
    price.retain(|kind, amount| !amount.is_zero() || *kind == Kind::Completion);
    if price.get(&Kind::ImagePrompt) == Some(&prompt) {
        price.remove(&Kind::ImagePrompt);
    }
    fine_enough(price)
}

fn fine_enough(mut price: Price) -> Result<Price, LeftOut> {
    for amount in price.values_mut() {
        *amount = amount.fraction_rounded_up(FRACTION_DIGITS_MAX);
    }
    if price
        .values()
        .any(|amount| amount.fraction_digits() > FRACTION_DIGITS_MAX)
    {
        return Err(LeftOut::TooFine);
    }
    Ok(price)
}

fn apply_rules(model: &mut Model, plan: &Provider) {
    for rule in plan
        .rules
        .iter()
        .filter(|rule| matches_any(&rule.models, &model.id))
    {
        model.tokenizer = rule.tokenizer.clone().or(model.tokenizer.take());
        model.token_factor = rule.token_factor.or(model.token_factor);
        model.hidden_output = rule.hidden_output.unwrap_or(model.hidden_output);
        model.max_output_tokens = rule.max_output_tokens.or(model.max_output_tokens);
        if !rule.endpoints.is_empty() {
            model.endpoints.clone_from(&rule.endpoints);
        }
        model.features.extend(rule.features.clone());
        model.image_rule = rule.image_rule.clone().or(model.image_rule.take());
        if rule.window_without_output {
            let output = model.max_output_tokens.unwrap_or(0);
            model.context_window = model.context_window.saturating_add(output);
        }
    }
}

/// The same day a year later, for comparing dates as text.
fn year_after(day: &str) -> String {
    match day
        .split_once('-')
        .and_then(|(year, rest)| Some((year.parse::<u32>().ok()?, rest)))
    {
        Some((year, rest)) => format!("{:04}-{rest}", year.saturating_add(1)),
        None => day.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TAKEN: &str = "2026-11-22";

    fn plan(extra: &str) -> Provider {
        toml::from_str(&format!(
            "file = \"a\"\ntable = \"litellm\"\nfrom = [{{ key = \"a\" }}]\n{extra}"
        ))
        .unwrap()
    }

    fn facts(prompt: &str, completion: &str) -> Facts {
        Facts {
            id: "m".to_owned(),
            context_window: Some(1_000),
            reasons: true,
            price: amounts(&[(Kind::Prompt, prompt), (Kind::Completion, completion)]),
            ..Facts::default()
        }
    }

    fn amounts(of: &[(Kind, &str)]) -> Price {
        of.iter()
            .map(|(kind, text)| (*kind, text.parse().unwrap()))
            .collect()
    }

    #[test]
    fn a_zero_is_no_price_unless_the_plan_says_free() {
        assert_eq!(
            model(facts("0", "0"), &plan(""), TAKEN),
            Err(LeftOut::NoPrice)
        );
        assert_eq!(
            model(facts("1", "0"), &plan(""), TAKEN),
            Err(LeftOut::NoPrice)
        );
        let free = model(facts("0", "0"), &plan("free = [\"m\"]"), TAKEN).unwrap();
        assert_eq!(
            free.price,
            amounts(&[(Kind::Prompt, "0"), (Kind::Completion, "0")])
        );
    }

    #[test]
    fn what_does_not_chat_is_taken_where_the_plan_offers_it() {
        let row = |price: &[(Kind, &str)]| Facts {
            endpoints: vec!["rerank"],
            price: amounts(price),
            ..facts("0", "0")
        };
        let offers = plan("offers = [\"rerank\"]");
        let search = [(Kind::Search, "0.002")];
        assert_eq!(model(row(&search), &plan(""), TAKEN), Err(LeftOut::ByPlan));
        let made = model(row(&search), &offers, TAKEN).unwrap();
        assert_eq!(
            (made.price, made.endpoints),
            (amounts(&search), vec!["rerank".to_owned()])
        );
        let tokens = [(Kind::Prompt, "0.05"), (Kind::Completion, "0")];
        assert_eq!(
            model(row(&tokens), &offers, TAKEN).unwrap().price,
            amounts(&tokens)
        );
        let nothing = [(Kind::Prompt, "0"), (Kind::Completion, "0")];
        assert_eq!(model(row(&nothing), &offers, TAKEN), Err(LeftOut::NoPrice));
    }

    #[test]
    fn a_missing_price_leaves_the_model_out() {
        let mut row = facts("1", "2");
        row.price.remove(&Kind::Completion);
        assert_eq!(model(row, &plan(""), TAKEN), Err(LeftOut::NoPrice));
        assert_eq!(
            model(facts("1", "2"), &plan("search_fee = true"), TAKEN),
            Err(LeftOut::NoPrice)
        );
    }

    #[test]
    fn a_price_that_does_not_fit_a_nano_credit_leaves_the_model_out() {
        assert_eq!(
            model(facts("1.0000000001", "2"), &plan(""), TAKEN),
            Err(LeftOut::TooFine)
        );
        assert!(model(facts("1.000000001", "2"), &plan(""), TAKEN).is_ok());
    }

    #[test]
    fn takes_only_rows_with_a_source_where_the_plan_asks_for_one() {
        assert_eq!(
            model(facts("1", "2"), &plan("sourced_only = true"), TAKEN),
            Err(LeftOut::NoSource)
        );
        let sourced = Facts {
            sourced: true,
            ..facts("1", "2")
        };
        assert!(model(sourced, &plan("sourced_only = true"), TAKEN).is_ok());
    }

    #[test]
    fn a_price_by_an_unknown_unit_leaves_the_model_out() {
        let odd = Facts {
            unknown_units: vec!["input_cost_per_sigh".to_owned()],
            ..facts("1", "2")
        };
        assert_eq!(model(odd, &plan(""), TAKEN), Err(LeftOut::UnknownUnit));
    }

    #[test]
    fn drops_what_adds_nothing() {
        let mut row = facts("1", "2");
        row.price.extend(amounts(&[
            (Kind::CacheWrite5m, "0"),
            (Kind::Reasoning, "2"),
            (Kind::ImagePrompt, "1"),
            (Kind::CachedPrompt, "0.1"),
        ]));
        let made = model(row, &plan(""), TAKEN).unwrap();
        let expected = [
            (Kind::Prompt, "1"),
            (Kind::Completion, "2"),
            (Kind::CachedPrompt, "0.1"),
        ];
        assert_eq!(made.price, amounts(&expected));
    }

    #[test]
    fn a_tier_keeps_the_prices_that_it_does_not_name() {
        let mut row = facts("1", "2");
        row.price.insert(Kind::CachedPrompt, "0.1".parse().unwrap());
        row.tiers.insert(100, amounts(&[(Kind::Prompt, "3")]));
        row.tiers.insert(200, Price::new());
        let made = model(row, &plan(""), TAKEN).unwrap();
        let expected = [
            (Kind::Prompt, "3"),
            (Kind::Completion, "2"),
            (Kind::CachedPrompt, "0.1"),
        ];
        assert_eq!(made.tiers, BTreeMap::from([(100, amounts(&expected))]));
    }

    #[test]
    fn hours_keep_the_prices_that_they_do_not_name() {
        let when = || When {
            hours: None,
            days: vec!["sat"],
            zone: None,
        };
        let mut row = facts("1", "2");
        row.price.insert(Kind::CachedPrompt, "0.1".parse().unwrap());
        row.hours = vec![(when(), amounts(&[(Kind::Prompt, "0.5")]))];
        let made = model(row.clone(), &plan(""), TAKEN).unwrap();
        let expected = [
            (Kind::Prompt, "0.5"),
            (Kind::Completion, "2"),
            (Kind::CachedPrompt, "0.1"),
        ];
        assert_eq!(made.hours, [(when(), amounts(&expected))]);
        let text = made.price_text();
        let line = "price_hours = [\n    { days = [\"sat\"], price = { prompt = \"0.5\", completion = \"2\", cached_prompt = \"0.1\" } },\n]\n";
        assert!(text.ends_with(line), "{text}");
        // Nothing is cheaper, and a zero is no price.
        row.hours = vec![(when(), amounts(&[(Kind::Prompt, "1")]))];
        assert!(
            model(row.clone(), &plan(""), TAKEN)
                .unwrap()
                .hours
                .is_empty()
        );
        row.hours = vec![(when(), amounts(&[(Kind::Prompt, "0")]))];
        assert_eq!(model(row, &plan(""), TAKEN), Err(LeftOut::NoPrice));
    }

    #[test]
    fn a_service_tier_needs_prices_and_is_never_too_cheap() {
        let mut row = facts("2", "8");
        row.price.insert(Kind::CachedPrompt, "0.2".parse().unwrap());
        row.tiers.insert(100, amounts(&[(Kind::Prompt, "4")]));
        let own =
            |prompt, completion| amounts(&[(Kind::Prompt, prompt), (Kind::Completion, completion)]);
        row.service.insert("flex", (own("1", "4"), BTreeMap::new()));
        row.service
            .insert("priority", (own("3", "12"), BTreeMap::new()));
        row.service
            .insert("batch", (amounts(&[(Kind::Prompt, "1")]), BTreeMap::new()));
        let made = model(row, &plan(""), TAKEN).unwrap();
        let (flex, flex_long) = &made.service["flex"];
        assert_eq!(flex[&Kind::CachedPrompt], "0.2".parse().unwrap());
        assert_eq!(flex_long, &made.tiers);
        // Cached tokens cost what fresh ones cost there.
        assert_eq!(made.service["priority"].0, own("3", "12"));
        assert!(!made.service.contains_key("batch"));
    }

    #[test]
    fn knows_what_has_ended_and_what_will() {
        let ends = |day: &str| Facts {
            ends: Some(day.to_owned()),
            ..facts("1", "2")
        };
        assert_eq!(
            model(ends("2026-11-21"), &plan(""), TAKEN),
            Err(LeftOut::Ended)
        );
        assert!(
            model(ends("2026-11-22"), &plan(""), TAKEN)
                .unwrap()
                .deprecated
        );
        assert!(
            !model(ends("2027-11-22"), &plan(""), TAKEN)
                .unwrap()
                .deprecated
        );
    }

    #[test]
    fn rules_add_up() {
        let rules = "hides_reasoning = true\n[[rules]]\nmodels = [\"*\"]\ntoken_factor = 1100\n\
                     [[rules]]\nmodels = [\"m\"]\nhidden_output = false\n";
        let made = model(facts("1", "2"), &plan(rules), TAKEN).unwrap();
        assert_eq!(
            (made.token_factor, made.hidden_output),
            (Some(1_100), false)
        );
        assert!(
            model(facts("1", "2"), &plan("hides_reasoning = true"), TAKEN)
                .unwrap()
                .hidden_output
        );
    }

    #[test]
    fn a_window_without_the_output_is_widened_by_it() {
        let mut row = facts("1", "2");
        row.max_output_tokens = Some(500);
        let rules = "[[rules]]\nmodels = [\"m\"]\nwindow_without_output = true\n";
        assert_eq!(
            model(row.clone(), &plan(rules), TAKEN)
                .unwrap()
                .context_window,
            1_500
        );
        assert_eq!(
            model(row.clone(), &plan(""), TAKEN).unwrap().context_window,
            1_000
        );
        row.context_window = None;
        assert_eq!(model(row, &plan(""), TAKEN), Err(LeftOut::NoContextWindow));
    }
}
