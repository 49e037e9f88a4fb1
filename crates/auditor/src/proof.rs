//! The proof: every rule over the rows and the records, and the sums that come of it.

mod requests;
mod sums;

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use crate::{
    Books, Nanos, PriceBook, Record, Tokens,
    books::{ChargeRow, EntryRow},
};

/// What is asked of the books beside the rules.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Every process has ended in order: nothing is leased and no checkpoint is left.
    pub closed: bool,
    /// The database's clock jumped: times in the rows say nothing about their order.
    pub any_order: bool,
    /// Processes write down what they are about to send: of a killed one's requests, so many tokens
    /// may be charged that its client did not get to see.
    pub ahead_tokens: u64,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The rule.
    pub rule: String,
    /// Whose or which row.
    pub id: String,
    /// What is there and what should be.
    pub what: String,
}

/// Sums, in nano-credits where nothing else is said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Requests that clients recorded.
    pub answers: u64,
    /// Of them, those that delivered output.
    pub delivered: u64,
    /// Rows.
    pub charges: u64,
    /// The price of what was delivered.
    pub cost: Nanos,
    /// Taken from customers.
    pub charged: Nanos,
    /// Booked as the operator's.
    pub house_loss: Nanos,
    /// Delivered, and neither charged nor booked as a loss: what killed processes took with them.
    pub lost: Nanos,
    /// The most of it that one process took with it.
    pub lost_max: Nanos,
    /// Charged for what killed processes had written down and not got out any more.
    pub ahead: Nanos,
    /// The price of all that lost requests and those at risk delivered: no more can be lost.
    pub at_risk: Nanos,
    /// Requests that ended with the process, or right before.
    pub requests_at_risk: u64,
    /// Requests of which the client had been told that they are booked.
    pub acknowledged: u64,
    /// Of those, the ones that are not.
    pub acknowledged_lost: u64,
}

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// True when nothing is wrong.
    pub balanced: bool,
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Sums.
    pub totals: Totals,
}

/// Judges books by what clients recorded.
#[must_use]
pub fn judge(books: &Books, records: &[Record], options: Options) -> Report {
    let mut case = Case::new(books, options);
    sums::check(&mut case, records);
    requests::check(&mut case, records);
    Report {
        balanced: case.findings.is_empty(),
        findings: case.findings,
        totals: case.totals,
    }
}

pub(crate) fn grants_are_the_balance(books: &Books) -> bool {
    let mut case = Case::new(books, Options::default());
    sums::grants(&mut case);
    sums::balances(&mut case);
    case.findings.is_empty()
}

/// Rows that belong together, and what was found so far.
struct Case<'a> {
    books: &'a Books,
    options: Options,
    prices: HashMap<&'a str, Option<PriceBook>>,
    /// A model's price, where it has one only.
    by_model: HashMap<&'a str, Option<&'a str>>,
    charges: HashMap<&'a str, Vec<&'a ChargeRow>>,
    /// What was taken for a request beside its charge (negative: given back).
    corrected: HashMap<String, Nanos>,
    late_losses: HashMap<&'a str, Nanos>,
    findings: Vec<Finding>,
    totals: Totals,
}

impl<'a> Case<'a> {
    fn new(books: &'a Books, options: Options) -> Self {
        let mut charges: HashMap<&str, Vec<&ChargeRow>> = HashMap::new();
        for charge in &books.charges {
            charges.entry(&charge.id).or_default().push(charge);
        }
        // Models of the same price share its row, which names one of them.
        let priced = books
            .charges
            .iter()
            .map(|charge| (charge.model.as_str(), charge.price_id.as_str()))
            .chain(
                books
                    .prices
                    .iter()
                    .map(|p| (p.model.as_str(), p.id.as_str())),
            );
        let mut by_model: HashMap<&str, Option<&str>> = HashMap::new();
        for (model, price) in priced {
            by_model
                .entry(model)
                .and_modify(|known| *known = known.filter(|id| *id == price))
                .or_insert(Some(price));
        }
        let mut corrected: HashMap<String, Nanos> = HashMap::new();
        for entry in &books.entries {
            if let Some(request) = request_of(entry, &charges) {
                *corrected.entry(request).or_default() -= Nanos::from(entry.amount);
            }
        }
        let mut late_losses: HashMap<&str, Nanos> = HashMap::new();
        for loss in &books.house_losses {
            *late_losses.entry(&loss.id).or_default() += Nanos::from(loss.amount);
        }
        Self {
            books,
            options,
            prices: books
                .prices
                .iter()
                .map(|row| (row.id.as_str(), PriceBook::parse(&row.price)))
                .collect(),
            by_model,
            charges,
            corrected,
            late_losses,
            findings: Vec::new(),
            totals: Totals::default(),
        }
    }

    fn find(&mut self, rule: &str, id: &str, what: impl Into<String>) {
        self.findings.push(Finding {
            rule: rule.to_owned(),
            id: id.to_owned(),
            what: what.into(),
        });
    }

    /// Finds two figures that should be one.
    fn same(&mut self, rule: &str, id: &str, has: Nanos, should: Nanos) {
        if has != should {
            self.find(rule, id, format!("{has}, should be {should}"));
        }
    }

    /// What tokens cost at a stored price.
    fn cost(&self, price: &str, tokens: &Tokens) -> Option<Nanos> {
        self.prices.get(price)?.as_ref()?.cost(tokens)
    }

    /// What the operator owes the provider for them.
    fn provider_cost(&self, price: &str, tokens: &Tokens) -> Option<Nanos> {
        self.prices.get(price)?.as_ref()?.provider_cost(tokens)
    }

    /// What was taken from the customer for a request, all in all.
    fn collected(&self, charge: &ChargeRow) -> Nanos {
        Nanos::from(charge.charged) + self.corrected.get(&charge.id).copied().unwrap_or(0)
    }

    /// What the operator bears of a request, all in all.
    fn borne(&self, charge: &ChargeRow) -> Nanos {
        let late = self.late_losses.get(charge.id.as_str());
        Nanos::from(charge.house_loss) + late.copied().unwrap_or(0)
    }
}

/// The request that an entry corrects: it has the request's id, or names it.
fn request_of(entry: &EntryRow, charges: &HashMap<&str, Vec<&ChargeRow>>) -> Option<String> {
    if charges.contains_key(entry.id.as_str()) {
        return Some(entry.id.clone());
    }
    let (_, named) = entry.reference.as_deref()?.split_once("req_")?;
    let named = named.get(..32)?;
    charges.contains_key(named).then(|| named.to_owned())
}

/// Sums by a key, of rows in any order.
fn sums_by<'r, R: 'r>(
    rows: impl IntoIterator<Item = &'r R>,
    key: impl Fn(&'r R) -> &'r str,
    amount: impl Fn(&'r R) -> i64,
) -> BTreeMap<&'r str, Nanos> {
    let mut sums: BTreeMap<&str, Nanos> = BTreeMap::new();
    for row in rows {
        *sums.entry(key(row)).or_default() += Nanos::from(amount(row));
    }
    sums
}
