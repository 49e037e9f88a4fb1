//! Rules over rows alone: what must add up, at the end and at every moment before.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{Case, request_of, sums_by};
use crate::{Nanos, Record, books::LeaseRow, nanos};

/// Entries that the program books by itself.
const OWN_KINDS: [&str; 3] = ["expiry", "closing", "late_charge"];

pub(super) fn check(case: &mut Case<'_>, records: &[Record]) {
    balances(case);
    leases(case);
    grants(case);
    spent(case);
    if !case.options.any_order {
        floors(case);
    }
    credits(case, records);
    left_over(case);
}

/// An account's credit is its entries less its charges.
pub(super) fn balances(case: &mut Case<'_>) {
    let books = case.books;
    let entries = sums_by(&books.entries, |row| &row.account_id, |row| row.amount);
    let charges = sums_by(&books.charges, |row| &row.account_id, |row| row.charged);
    let mut known = HashSet::new();
    for budget in books.budgets.iter().filter(|row| row.kind == "account") {
        let of = |sums: &BTreeMap<&str, Nanos>| sums.get(budget.id.as_str()).copied().unwrap_or(0);
        let has = Nanos::from(budget.available) + Nanos::from(budget.leased);
        case.same("balance", &budget.id, has, of(&entries) - of(&charges));
        known.insert(budget.id.as_str());
    }
    for account in entries.keys().chain(charges.keys()) {
        if !known.contains(account) {
            case.find("balance", account, "rows of an account that is not there");
        }
    }
}

/// What is leased of a budget is the sum of its leases.
fn leases(case: &mut Case<'_>) {
    let books = case.books;
    let leases = sums_by(&books.leases, |row| &row.budget_id, |row| row.amount);
    for budget in &books.budgets {
        let should = leases.get(budget.id.as_str()).copied().unwrap_or(0);
        case.same("leases", &budget.id, budget.leased.into(), should);
    }
    let alive: HashSet<&str> = books
        .replicas
        .iter()
        .filter(|replica| replica.state == "alive")
        .map(|replica| replica.id.as_str())
        .collect();
    let standing: HashSet<&str> = books
        .standing_holds
        .iter()
        .map(|hold| hold.id.as_str())
        .collect();
    let of_replicas = |lease: &&LeaseRow| !standing.contains(lease.replica_id.as_str());
    for lease in books.leases.iter().filter(of_replicas) {
        let dead = !alive.contains(lease.replica_id.as_str());
        if lease.amount != 0 && (dead || case.options.closed) {
            let what = format!("{} are left of {}", lease.amount, lease.budget_id);
            case.find("lease_left", &lease.replica_id, what);
        }
    }
}

/// What remains of the grants, less debt, is the balance.
pub(super) fn grants(case: &mut Case<'_>) {
    let books = case.books;
    let remaining = sums_by(&books.grants, |row| &row.account_id, |row| row.remaining);
    for budget in books.budgets.iter().filter(|row| row.kind == "account") {
        let should = remaining.get(budget.id.as_str()).copied().unwrap_or(0);
        let has = Nanos::from(budget.available) + Nanos::from(budget.leased);
        case.same("grants", &budget.id, has, should - Nanos::from(budget.debt));
    }
    let entries: HashMap<&str, i64> = books
        .entries
        .iter()
        .map(|entry| (entry.id.as_str(), entry.amount))
        .collect();
    for grant in &books.grants {
        if entries.get(grant.id.as_str()) != Some(&grant.amount) {
            case.find("grant_entry", &grant.id, "no entry of its amount made it");
        }
        if !(0..=grant.amount).contains(&grant.remaining) {
            let what = format!("{} remain of {}", grant.remaining, grant.amount);
            case.find("grant_entry", &grant.id, what);
        }
    }
}

/// What a budget has spent is what its charges took; a key has no more than its limit.
fn spent(case: &mut Case<'_>) {
    let books = case.books;
    let by_account = sums_by(&books.charges, |row| &row.account_id, |row| row.charged);
    let by_key = sums_by(&books.charges, |row| &row.key_id, |row| row.charged);
    let limits: HashMap<&str, i64> = books
        .keys
        .iter()
        .map(|key| (key.id.as_str(), key.limit_credits.unwrap_or(0)))
        .collect();
    for budget in &books.budgets {
        let sums = if budget.kind == "account" {
            &by_account
        } else {
            &by_key
        };
        let should = sums.get(budget.id.as_str()).copied().unwrap_or(0);
        case.same("spent", &budget.id, budget.spent.into(), should);
        if budget.kind == "key" {
            let has = [budget.available, budget.leased, budget.spent]
                .into_iter()
                .map(Nanos::from)
                .sum();
            let limit = limits.get(budget.id.as_str()).copied().unwrap_or(0);
            case.same("key_limit", &budget.id, has, limit.into());
        }
    }
}

/// No account was below its overdraft at any time: entries and charges in the order of their times.
fn floors(case: &mut Case<'_>) {
    let books = case.books;
    let entries = books
        .entries
        .iter()
        .map(|row| (row.account_id.as_str(), row.created_at, -row.amount));
    let charges = books
        .charges
        .iter()
        .map(|row| (row.account_id.as_str(), row.settled_at, row.charged));
    // What came in is before what went out of the same microsecond.
    let mut moves: Vec<(&str, i64, i64)> = entries.chain(charges).collect();
    moves.sort_unstable();
    let floors: HashMap<&str, Nanos> = books
        .accounts
        .iter()
        .map(|account| (account.id.as_str(), -Nanos::from(account.overdraft)))
        .collect();
    let mut balances: HashMap<&str, Nanos> = HashMap::new();
    let mut below: HashSet<&str> = HashSet::new();
    for (account, at, taken) in moves {
        let balance = balances.entry(account).or_default();
        *balance -= Nanos::from(taken);
        let floor = floors.get(account).copied().unwrap_or(0);
        if *balance < floor && below.insert(account) {
            let what = format!("{balance} at {at}, {floor} is its floor");
            case.find("floor", account, what);
        }
    }
}

/// Every entry is the operator's or one that the program books by itself, and every one that the
/// operator was told of is there once, with its amount.
fn credits(case: &mut Case<'_>, records: &[Record]) {
    let books = case.books;
    let mut wanted: HashMap<&str, (&str, Nanos, bool)> = HashMap::new();
    for record in records {
        if let Record::Credit(credit) = record {
            let amount = nanos(&credit.amount).unwrap_or(0);
            wanted.insert(
                &credit.reference,
                (&credit.account_id, amount, credit.acknowledged),
            );
        }
    }
    let mut seen: HashSet<&str> = HashSet::new();
    for entry in &books.entries {
        let own =
            OWN_KINDS.contains(&entry.kind.as_str()) || request_of(entry, &case.charges).is_some();
        let reference = entry.reference.as_deref().unwrap_or_default();
        let found = wanted
            .get_key_value(reference)
            .or_else(|| wanted.get_key_value(entry.id.as_str()));
        match found {
            Some((reference, (account, amount, _))) => {
                if *account != entry.account_id || *amount != Nanos::from(entry.amount) {
                    let what = format!("{} of {}", entry.amount, entry.account_id);
                    case.find("credit", &entry.id, what);
                }
                if !seen.insert(reference) {
                    case.find("credit", &entry.id, "booked twice");
                }
            }
            None if own => {}
            None => case.find("credit", &entry.id, "nobody booked it"),
        }
    }
    for (reference, (account, amount, acknowledged)) in wanted {
        if acknowledged && !seen.contains(reference) {
            let what = format!("{amount} were booked under {reference} and are not there");
            case.find("credit", account, what);
        }
    }
}

/// Nothing waits for a person, and after the end nothing waits at all.
fn left_over(case: &mut Case<'_>) {
    let books = case.books;
    for dead in &books.dead_settlements {
        case.find("dead_settlement", &dead.request_id, &dead.problem);
    }
    if case.options.closed {
        for checkpoint in &books.checkpoints {
            let what = format!("of {}", checkpoint.replica_id);
            case.find("checkpoint_left", &checkpoint.request_id, what);
        }
    }
}
