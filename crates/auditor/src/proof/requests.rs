//! Rules over each request: what was charged for it, and what its client received.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::Case;
use crate::{Answer, Nanos, Outcome, Record, Tokens, books::ChargeRow, nanos};

pub(super) fn check(case: &mut Case<'_>, records: &[Record]) {
    for charge in &case.books.charges {
        alone(case, charge);
    }
    let answers: Vec<&Answer> = records
        .iter()
        .filter_map(|record| match record {
            Record::Answer(answer) => Some(&**answer),
            Record::Credit(_) => None,
        })
        .collect();
    let mut explained: HashSet<&str> = HashSet::new();
    let mut nameless: HashMap<&str, Vec<&Answer>> = HashMap::new();
    let mut lost: BTreeMap<&str, Nanos> = BTreeMap::new();
    for answer in answers {
        case.totals.answers += 1;
        let Some(id) = answer.request_id.as_deref() else {
            nameless.entry(&answer.account_id).or_default().push(answer);
            continue;
        };
        let charges = case.charges.get(id).cloned().unwrap_or_default();
        if !explained.insert(id) || charges.len() > 1 {
            case.find("one_charge", id, "more than one");
        }
        *lost.entry(&answer.replica).or_default() += judge(case, answer, charges.first().copied());
    }
    case.totals.lost = lost.values().sum();
    case.totals.lost_max = lost.values().copied().max().unwrap_or(0);
    let mut without: Vec<&ChargeRow> = case.books.charges.iter().collect();
    without.retain(|charge| !explained.contains(charge.id.as_str()));
    // The largest first: a request that it can be of explains every smaller one as well.
    without.sort_by_key(|charge| std::cmp::Reverse(charge.tokens.completion_total()));
    for charge in without {
        without_record(case, charge, &mut nameless);
    }
}

/// What holds for a charge whoever received what.
fn alone(case: &mut Case<'_>, charge: &ChargeRow) {
    case.totals.charges += 1;
    case.totals.charged += case.collected(charge);
    case.totals.house_loss += case.borne(charge);
    let id = &charge.id;
    let parts = Nanos::from(charge.charged) + Nanos::from(charge.house_loss);
    case.same("split", id, parts, charge.cost.into());
    let owes_nothing = charge.ended == "upstream_failed" && charge.tokens == Tokens::default();
    let should = if owes_nothing {
        Some(0)
    } else {
        case.cost(&charge.price_id, &charge.tokens)
    };
    match should {
        // The reaper charges what the lease of the dead covered of a checkpoint.
        Some(should) if charge.ended == "gateway_lost" && Nanos::from(charge.cost) <= should => {}
        Some(should) => case.same("cost", id, charge.cost.into(), should),
        None => case.find("cost", id, "its price is not kept, or is none"),
    }
    let owed = case.provider_cost(&charge.price_id, &charge.tokens);
    let said = Nanos::from(charge.provider_cost.unwrap_or(charge.cost));
    if let Some(owed) = owed.filter(|_| !owes_nothing && charge.ended != "gateway_lost") {
        case.same("provider_cost", id, said, owed);
    }
    let known_loss = charge.late
        || charge.source == "reported"
        || charge.ended == "gateway_lost"
        || charge.ended == "client_gone";
    if charge.house_loss > 0 && !known_loss {
        let what = format!("{} borne for no reason", charge.house_loss);
        case.find("house_loss", id, what);
    }
}

/// Judges one request by its charge; what is lost of it.
fn judge(case: &mut Case<'_>, answer: &Answer, charge: Option<&ChargeRow>) -> Nanos {
    let id = answer.request_id.as_deref().unwrap_or_default();
    let owes = answer.output_tokens > 0;
    if owes {
        case.totals.delivered += 1;
    }
    if answer.acknowledged {
        case.totals.acknowledged += 1;
        if charge.is_none() {
            case.totals.acknowledged_lost += 1;
            case.find("acknowledged", id, "was booked and is not there");
        }
    }
    let Some(charge) = charge else {
        return no_charge(case, answer, id, owes);
    };
    if charge.account_id != answer.account_id || charge.key_id != answer.key_id {
        case.find("payer", id, format!("{} paid", charge.account_id));
    }
    if charge.model != answer.model {
        case.find("payer", id, format!("for {}", charge.model));
    }
    let collected = case.collected(charge);
    match answer.outcome {
        Outcome::Refused => free(case, id, charge),
        Outcome::Failed if !owes => free(case, id, charge),
        Outcome::Finished
        | Outcome::Failed
        | Outcome::Exhausted
        | Outcome::Stopped
        | Outcome::HungUp => {
            if charge.ended == "gateway_lost" && answer.outcome != Outcome::Stopped {
                return taken_over(case, answer, charge, collected);
            }
            whole(case, answer, charge);
            let price = case.borne(charge) + collected;
            case.totals.cost += price;
        }
        Outcome::Lost => return taken_over(case, answer, charge, collected),
    }
    0
}

/// A request without a charge: right where nothing was delivered, or where the process was killed.
fn no_charge(case: &mut Case<'_>, answer: &Answer, id: &str, owes: bool) -> Nanos {
    let hung_up = answer.outcome == Outcome::HungUp && answer.status == 200;
    if !owes && !hung_up {
        return 0;
    }
    if answer.outcome != Outcome::Lost && !answer.at_risk {
        let what = format!("{} tokens delivered for nothing", answer.output_tokens);
        case.find("no_charge", id, what);
        return 0;
    }
    let delivered = delivered_cost(case, answer);
    at_risk(case, answer, id, 0, delivered)
}

/// What a client received and what it was charged, where everybody ended in order.
fn whole(case: &mut Case<'_>, answer: &Answer, charge: &ChargeRow) {
    let id = &charge.id;
    let ended: &[&str] = match answer.outcome {
        Outcome::Finished => &["completed"],
        Outcome::Failed => &["upstream_failed"],
        Outcome::Exhausted => &["credits_exhausted"],
        Outcome::Stopped => &["gateway_lost"],
        // What it had not read yet may have been the end.
        Outcome::HungUp => &[
            "client_gone",
            "completed",
            "upstream_failed",
            "credits_exhausted",
        ],
        Outcome::Refused | Outcome::Lost => &[],
    };
    if !ended.contains(&charge.ended.as_str()) {
        let what = format!("{} for the gateway, {:?}", charge.ended, answer.outcome);
        case.find("end", id, what);
    }
    let (prompt, completion) = (
        charge.tokens.prompt_total(),
        charge.tokens.completion_total(),
    );
    match (charge.source.as_str(), answer.reported, answer.outcome) {
        ("reported", Some(said), Outcome::Finished | Outcome::HungUp) => {
            case.same("usage", id, prompt, said.prompt.into());
            case.same("usage", id, completion, said.completion.into());
        }
        // The provider broke off before any output while the client left: nothing is owed.
        ("counted", _, Outcome::HungUp)
            if charge.ended == "upstream_failed"
                && answer.output_tokens == 0
                && completion == 0 =>
        {
            case.same("usage", id, prompt, 0);
        }
        ("counted", _, Outcome::HungUp) => {
            case.same("usage", id, prompt, answer.prompt_tokens.into());
            let sent = i128::from(answer.output_tokens)..=i128::from(answer.output_tokens_max);
            if !sent.contains(&completion) {
                let what = format!("{completion} of {sent:?} tokens");
                case.find("usage", id, what);
            }
        }
        ("counted", None, Outcome::Finished)
        | ("counted", _, Outcome::Failed | Outcome::Exhausted | Outcome::Stopped) => {
            case.same("usage", id, prompt, answer.prompt_tokens.into());
            case.same("usage", id, completion, answer.output_tokens.into());
        }
        (source, said, outcome) => {
            let what = format!("{source}, where {said:?} was said and it {outcome:?}");
            case.find("usage", id, what);
        }
    }
    if let (Some(shown), false) = (&answer.shown, answer.outcome == Outcome::HungUp) {
        case.same("shown", id, shown.prompt.into(), prompt);
        case.same("shown", id, shown.completion.into(), completion);
        // What was corrected later had been shown as it was then.
        if !charge.late {
            let cost = nanos(&shown.cost).unwrap_or(-1);
            case.same("shown", id, cost, charge.charged.into());
        }
    }
}

/// Its process was killed, or taken for dead: never more than was delivered, and what is missing
/// is lost.
fn taken_over(case: &mut Case<'_>, answer: &Answer, charge: &ChargeRow, collected: Nanos) -> Nanos {
    let delivered = delivered_cost(case, answer);
    let id = &charge.id;
    let ahead = case.options.ahead_tokens;
    let sent = match answer.outcome {
        // A client that hung up may have been sent more than it read.
        Outcome::HungUp => Some(answer.output_tokens_max),
        Outcome::Lost if ahead > 0 => Some(answer.output_tokens + ahead),
        Outcome::Lost
        | Outcome::Finished
        | Outcome::Failed
        | Outcome::Exhausted
        | Outcome::Stopped
        | Outcome::Refused => None,
    };
    let most = match sent {
        Some(sent) => {
            let tokens = Tokens::text(prompt_most(answer), sent);
            model_cost(case, answer, &tokens)
        }
        None if answer.output_tokens > 0 => {
            let tokens = Tokens::text(prompt_most(answer), answer.output_tokens);
            model_cost(case, answer, &tokens).max(delivered)
        }
        None => delivered,
    };
    if collected > most {
        let what = format!("{collected} for {most}");
        case.find("overcharged", id, what);
    }
    let explained = collected + case.borne(charge);
    if answer.outcome == Outcome::HungUp && !answer.at_risk {
        // It stopped in order, or came back: what the client read is the least.
        let read = Tokens::text(prompt_least(answer), answer.output_tokens);
        let least = model_cost(case, answer, &read);
        if answer.output_tokens > 0 && explained < least {
            case.find("late", id, format!("{explained}, at least {least}"));
        }
        case.totals.cost += explained;
        return 0;
    }
    if answer.outcome != Outcome::Lost && !answer.at_risk {
        case.same("late", id, explained, delivered);
        case.totals.cost += delivered;
        return 0;
    }
    let delivered = match answer.reported {
        // The provider's last word had come before the end: its figure of the prompt counts.
        Some(said) if charge.source == "reported" && answer.output_tokens > 0 => {
            let tokens = Tokens::text(said.prompt, answer.output_tokens);
            model_cost(case, answer, &tokens)
        }
        Some(_) | None => delivered,
    };
    at_risk(case, answer, id, explained, delivered)
}

fn at_risk(
    case: &mut Case<'_>,
    answer: &Answer,
    id: &str,
    explained: Nanos,
    delivered: Nanos,
) -> Nanos {
    case.totals.requests_at_risk += 1;
    case.totals.at_risk += delivered;
    case.totals.cost += delivered.max(explained);
    if answer.outcome == Outcome::Lost {
        case.totals.ahead += (explained - delivered).max(0);
    }
    if answer.output_tokens_certain > 0 {
        let prompt = prompt_least(answer);
        let certain = Tokens::text(prompt, answer.output_tokens_certain);
        let least = model_cost(case, answer, &certain);
        if explained < least {
            let what = format!("{explained}, the checkpoint had {least}");
            case.find("loss_bound", id, what);
        }
    }
    (delivered - explained).max(0)
}

/// The price of what a client received.
fn delivered_cost(case: &mut Case<'_>, answer: &Answer) -> Nanos {
    if answer.output_tokens == 0 {
        return 0;
    }
    let tokens = match (answer.reported, answer.outcome) {
        (Some(said), Outcome::Finished) => Tokens::text(said.prompt, said.completion),
        _ => Tokens::text(answer.prompt_tokens, answer.output_tokens),
    };
    model_cost(case, answer, &tokens)
}

fn model_cost(case: &mut Case<'_>, answer: &Answer, tokens: &Tokens) -> Nanos {
    let price = case.by_model.get(answer.model.as_str()).copied().flatten();
    let cost = price.and_then(|price| case.cost(price, tokens));
    if cost.is_none() {
        case.find("cost", &answer.model, "the model has not one price");
    }
    cost.unwrap_or(0)
}

/// A prompt may be counted by us or reported; the lower of both.
fn prompt_least(answer: &Answer) -> u64 {
    let said = answer.reported.map(|said| said.prompt);
    said.map_or(answer.prompt_tokens, |said| said.min(answer.prompt_tokens))
}

/// A prompt may be counted by us or reported; the higher of both.
fn prompt_most(answer: &Answer) -> u64 {
    let said = answer.reported.map(|said| said.prompt);
    said.map_or(answer.prompt_tokens, |said| said.max(answer.prompt_tokens))
}

/// Nothing was delivered.
fn free(case: &mut Case<'_>, id: &str, charge: &ChargeRow) {
    if charge.cost != 0 || charge.charged != 0 {
        let what = format!("{} for nothing", charge.cost);
        case.find("charged_for_nothing", id, what);
    }
}

/// A charge that no record names: one of the account's requests whose head never arrived.
fn without_record(
    case: &mut Case<'_>,
    charge: &ChargeRow,
    nameless: &mut HashMap<&str, Vec<&Answer>>,
) {
    let completion = charge.tokens.completion_total();
    let candidates = nameless.get_mut(charge.account_id.as_str());
    let place = candidates.as_ref().and_then(|answers| {
        answers.iter().position(|answer| {
            let same = answer.key_id == charge.key_id && answer.model == charge.model;
            let few = match answer.outcome {
                // Booked as a whole, and killed before it was sent.
                Outcome::HungUp | Outcome::Lost => {
                    // A provider may have reported more than it sent.
                    let reported = answer.reported.map_or(0, |said| said.completion);
                    completion <= i128::from(answer.output_tokens_max.max(reported))
                }
                Outcome::Finished
                | Outcome::Failed
                | Outcome::Exhausted
                | Outcome::Stopped
                | Outcome::Refused => charge.cost == 0,
            };
            same && few
        })
    });
    match (candidates, place) {
        (Some(answers), Some(place)) => {
            let answer = answers.swap_remove(place);
            let explained = case.collected(charge) + case.borne(charge);
            case.totals.cost += explained;
            if answer.outcome == Outcome::Lost {
                case.totals.ahead += explained;
            }
        }
        (Some(_), None) | (None, _) => {
            let what = format!("{} for a request that nobody made", charge.cost);
            case.find("unexplained", &charge.id, what);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{Books, Options, judge};

    fn charge(id: &str, completion: u64) -> ChargeRow {
        serde_json::from_value(json!({
            "id": id, "account_id": "a", "key_id": "k", "model": "m", "price_id": "p", "ended": "finished",
            "source": "reported", "cost": 1, "charged": 1, "house_loss": 0, "late": false, "settled_at": 0,
            "prompt": 0, "cached_prompt": 0, "cache_write_5m": 0, "cache_write_1h": 0, "audio_prompt": 0,
            "image_prompt": 0, "completion": completion, "reasoning": 0, "audio_completion": 0}))
        .unwrap()
    }

    /// A request that was lost before it had a name, of which a provider may have sent so much and
    /// reported more.
    fn lost(sent: u64, reported: Option<u64>) -> Record {
        let reported = reported.map(|completion| json!({"prompt": 5, "completion": completion}));
        let answer = json!({
            "record": "answer", "account_id": "a", "key_id": "k", "replica": "r", "model": "m", "status": 0,
            "code": "", "outcome": "lost", "prompt_tokens": 5, "output_tokens": 0,
            "output_tokens_max": sent, "output_tokens_certain": 0, "reported": reported,
            "acknowledged": false, "at_risk": true});
        serde_json::from_value(answer).unwrap()
    }

    fn unexplained(charges: &[u64], answers: &[Record]) -> usize {
        let charges = charges.iter().enumerate();
        let books = Books {
            charges: charges
                .map(|(n, most)| charge(&n.to_string(), *most))
                .collect(),
            ..Books::default()
        };
        let report = judge(&books, answers, Options::default());
        let found = report.findings.iter();
        found.filter(|one| one.rule == "unexplained").count()
    }

    #[test]
    fn each_charge_without_a_name_is_of_a_request_without_one() {
        let answers = [lost(100, None), lost(5, None)];
        assert_eq!(unexplained(&[3, 90], &answers), 0);
        assert_eq!(unexplained(&[90, 3], &answers), 0);
        assert_eq!(unexplained(&[90, 6], &answers), 1);
        assert_eq!(unexplained(&[3, 3, 3], &answers), 1);
    }

    #[test]
    fn what_a_provider_reported_may_be_charged() {
        assert_eq!(unexplained(&[1086], &[lost(86, Some(1086))]), 0);
        assert_eq!(unexplained(&[1087], &[lost(86, Some(1086))]), 1);
        assert_eq!(unexplained(&[1086], &[lost(86, None)]), 1);
    }
}
