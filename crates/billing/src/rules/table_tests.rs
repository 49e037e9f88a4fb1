//! The rules as tables: one event a line, what came of it behind the arrow.

use std::fmt::Write;

use uuid::Uuid;

use super::*;
use crate::{End, KeyId};

/// Budgets are `a`, `b` (accounts) and `k`, `l` (their keys), replicas `1` to `9`.
fn budget(name: &str) -> BudgetId {
    let account = |id| AccountId::from_uuid(Uuid::from_u128(id));
    let key = |id| KeyId::from_uuid(Uuid::from_u128(id));
    match name {
        "a" => BudgetId::Account(account(1)),
        "b" => BudgetId::Account(account(2)),
        "k" => BudgetId::Key(account(1), key(11)),
        "l" => BudgetId::Key(account(2), key(12)),
        _ => panic!("no budget {name}"),
    }
}

fn account(name: &str) -> AccountId {
    match budget(name) {
        BudgetId::Account(id) => id,
        BudgetId::Key(..) => panic!("{name} is a key"),
    }
}

fn key(name: &str) -> KeyId {
    match budget(name) {
        BudgetId::Key(_, id) => id,
        BudgetId::Account(_) => panic!("{name} is an account"),
    }
}

fn nanos(text: &str) -> Credits {
    Credits::from_nanos(text.parse().unwrap())
}

fn replica(text: &str) -> ReplicaId {
    ReplicaId::from_uuid(Uuid::from_u128(text.parse().unwrap()))
}

struct Table {
    book: Book,
    ids: u128,
}

impl Table {
    fn new() -> Self {
        let mut book = Book::default();
        for name in ["a", "b", "k", "l"] {
            book.open(BudgetRow {
                id: budget(name),
                available: Credits::ZERO,
                floor: Credits::ZERO,
                leased: Credits::ZERO,
                spent: Credits::ZERO,
                debt: Credits::ZERO,
            });
        }
        Self { book, ids: 1000 }
    }

    /// Runs one event and says what came of it.
    fn run(&mut self, event: &str) -> String {
        let words: Vec<&str> = event.split_whitespace().collect();
        let before = self.book.clone();
        let result = self.apply(&words);
        if let Err(refused) = &result {
            let same = format!("{before:?}") == format!("{:?}", self.book);
            assert!(
                same,
                "`{event}` was refused ({refused}) and yet changed something"
            );
        }
        result.unwrap_or_else(|refused| format!("refused: {refused}"))
    }

    fn apply(&mut self, words: &[&str]) -> Result<String, RuleError> {
        let ids = &mut self.ids;
        let mut next = || {
            *ids += 1;
            EntryId::from_uuid(Uuid::from_u128(*ids))
        };
        let book = &mut self.book;
        let entry = |id, name: &str, amount: &str| EntryRow {
            id,
            account: account(name),
            kind: EntryKind::Adjustment,
            amount: nanos(amount),
            grant: None,
            reference: None,
        };
        Ok(match words {
            ["now", at] => {
                book.set_now(Moment(at.parse().unwrap()));
                "ok".into()
            }
            ["credit", name, amount] => {
                book.credit(entry(next(), name, amount), None)?;
                "ok".into()
            }
            ["credit", name, amount, "until", at] => {
                let at = Moment(at.parse().unwrap());
                book.credit(entry(next(), name, amount), Some(at))?;
                "ok".into()
            }
            ["debit", name, amount] => {
                let row = entry(next(), name, amount);
                let amount = row.amount.checked_neg()?;
                book.debit(EntryRow { amount, ..row })?;
                "ok".into()
            }
            ["lease", name, by, rest @ ..] => {
                let (ask, live) = ask(rest);
                granted(book.acquire(budget(name), replica(by), ask, live, &mut next)?)
            }
            ["back", name, by, amount] => {
                let back = book.give_back(budget(name), replica(by), nanos(amount))?;
                back.nanos().to_string()
            }
            ["settle", request, name, by_key, by, parts, rest @ ..] => {
                let due = due([request, name, by_key, by, parts], rest)?;
                booked(book.settle(&due, rest.contains(&"late"))?)
            }
            ["expire", name] => book.expire(account(name), &mut next)?.nanos().to_string(),
            ["reclaim", by] => {
                book.reclaim(replica(by))?;
                "ok".into()
            }
            ["limit", name, amount] => {
                book.set_limit(budget(name).account(), key(name), nanos(amount))?;
                "ok".into()
            }
            ["overdraft", name, amount] => {
                book.set_overdraft(account(name), nanos(amount))?;
                "ok".into()
            }
            ["show", name] => shown(book.budget(budget(name))?),
            ["grants", name] => remaining(book, account(name)),
            _ => panic!("no event {words:?}"),
        })
    }
}

/// `need NEED asked ASKED want WANT of LIVE_REPLICAS`.
fn ask(words: &[&str]) -> (Ask, u32) {
    let ["need", need, "asked", asked, "want", want, "of", live] = words else {
        panic!("need … asked … want … of …")
    };
    let ask = Ask {
        need: nanos(need),
        asked: nanos(asked),
        want: nanos(want),
    };
    (ask, live.parse().unwrap())
}

fn granted(granted: Granted) -> String {
    match granted {
        Granted::Lease {
            amount,
            usable_until,
        } => match usable_until {
            Some(at) => format!("{} until {}", amount.nanos(), at.0),
            None => amount.nanos().to_string(),
        },
        Granted::Short {
            available,
            leased_elsewhere,
        } => format!("short {} {}", available.nanos(), leased_elsewhere.nanos()),
    }
}

/// `settle REQUEST ACCOUNT KEY LEASE CHARGED+OWED+LOSS [cost COST] [lost [proven]] [late]`: of a
/// lost one only a checkpoint is known, unless there is proof of what it delivered.
fn due(words: [&&str; 5], rest: &[&str]) -> Result<Due, RuleError> {
    let [request, name, by_key, by, parts] = words;
    let parts: Vec<Credits> = parts.split('+').map(nanos).collect();
    let &[charged, owed, house_loss] = parts.as_slice() else {
        panic!("charged+owed+loss")
    };
    let cost = match rest.iter().position(|word| *word == "cost") {
        Some(at) => nanos(rest[at + 1]),
        None => charged.checked_add(owed)?.checked_add(house_loss)?,
    };
    let end = if rest.contains(&"lost") {
        End::GatewayLost
    } else {
        End::Completed
    };
    Ok(Due {
        request: RequestId::from_uuid(Uuid::from_u128(request.parse().unwrap())),
        account: account(name),
        key: key(by_key),
        lease: replica(by),
        end,
        checkpoint: rest.contains(&"lost") && !rest.contains(&"proven"),
        cost,
        charged,
        owed,
        house_loss,
    })
}

fn booked(booked: Booked) -> String {
    match booked {
        Booked::Charge {
            charged,
            house_loss,
            ..
        } => format!("charged {} lost {}", charged.nanos(), house_loss.nanos()),
        Booked::Replayed => "replayed".into(),
        Booked::LateCharge {
            charged,
            house_loss,
        } => format!(
            "late charge {} lost {}",
            charged.nanos(),
            house_loss.nanos()
        ),
        Booked::LateRefund(amount) => format!("late refund {}", amount.nanos()),
    }
}

fn remaining(book: &Book, of: AccountId) -> String {
    let grants = book.grants().filter(|(account, _)| *account == of);
    let left: Vec<_> = grants
        .map(|(_, grant)| grant.remaining.nanos().to_string())
        .collect();
    left.join(" ")
}

fn shown(row: &BudgetRow) -> String {
    let mut text = format!("{}+{}", row.available.nanos(), row.leased.nanos());
    write!(text, " spent {}", row.spent.nanos()).unwrap();
    if row.debt.is_positive() {
        write!(text, " debt {}", row.debt.nanos()).unwrap();
    }
    text
}

fn check(table: &str) {
    let mut world = Table::new();
    for line in table.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (event, expected) = line.split_once("->").unwrap();
        assert_eq!(world.run(event), expected.trim(), "{line}");
    }
}

#[test]
fn a_request_on_a_lease() {
    check(
        "credit a 100                                        -> ok
         lease a 1 need 10 asked 10 want 40 of 1             -> 40
         show a                                              -> 60+40 spent 0
         lease k 1 need 10 asked 10 want 40 of 1             -> short 0 0
         limit k 30                                          -> ok
         lease k 1 need 10 asked 10 want 10 of 1             -> 10
         settle 1 a k 1 10+0+0                               -> charged 10 lost 0
         show a                                              -> 60+30 spent 10
         show k                                              -> 20+0 spent 10
         grants a                                            -> 90
         back a 1 30                                         -> 30
         show a                                              -> 90+0 spent 10
         back a 1 1                                          -> 0
         back a 2 1                                          -> 0",
    );
}

#[test]
fn how_much_is_leased() {
    check(
        "lease a 1 need 1 asked 1 want 8 of 1                -> short 0 0
         credit a 100                                        -> ok
         lease a 1 need 101 asked 101 want 101 of 1          -> short 100 0
         lease a 1 need 100 asked 100 want 800 of 1          -> 100
         back a 1 100                                        -> 100
         lease a 1 need 1 asked 1 want 8 of 1                -> 8
         back a 1 8                                          -> 8
         lease a 1 need 10 asked 10 want 80 of 1             -> 50
         lease a 2 need 10 asked 10 want 80 of 2             -> 10
         lease a 2 need 10 asked 30 want 80 of 2             -> 30
         lease a 3 need 5 asked 200 want 200 of 3            -> 10
         lease a 3 need 1 asked 1 want 8 of 3                -> short 0 90
         show a                                              -> 0+100 spent 0",
    );
}

#[test]
fn ahead_of_need_only_while_there_is_plenty() {
    check(
        "credit a 1000                                       -> ok
         lease a 1 need 0 asked 0 want 400 of 1              -> 400
         lease a 1 need 0 asked 0 want 400 of 1              -> 300
         lease a 1 need 0 asked 0 want 400 of 1              -> 150
         lease a 1 need 0 asked 0 want 400 of 1              -> short 150 0
         lease a 1 need 150 asked 150 want 150 of 1          -> 150",
    );
}

#[test]
fn c9_exactly_the_floor_and_not_one_more() {
    check(
        "overdraft a 5                                       -> ok
         credit a 10                                         -> ok
         lease a 1 need 16 asked 16 want 16 of 1             -> short 15 0
         lease a 1 need 15 asked 15 want 15 of 1             -> 15
         show a                                              -> -5+15 spent 0
         settle 1 a k 1 15+0+0                               -> charged 15 lost 0
         show a                                              -> -5+0 spent 15 debt 5
         overdraft a 4                                       -> refused: the overdraft is in use, available is -0.000000005
         credit a 3                                          -> ok
         show a                                              -> -2+0 spent 15 debt 2
         grants a                                            -> 0 0
         credit a 9                                          -> ok
         show a                                              -> 7+0 spent 15
         grants a                                            -> 0 0 7
         debit a 8                                           -> refused: only 0.000000007 to take from
         debit a 7                                           -> ok
         show a                                              -> 0+0 spent 15",
    );
}

#[test]
fn d6_what_the_hold_does_not_cover() {
    check(
        "credit a 100                                        -> ok
         lease a 1 need 90 asked 90 want 90 of 1             -> 90
         settle 1 a k 1 30+4+0                               -> charged 34 lost 0
         show a                                              -> 6+60 spent 34
         settle 2 a k 1 60+20+3                              -> charged 66 lost 17
         show a                                              -> 0+0 spent 100
         settle 3 a k 1 7+0+0                                -> charged 0 lost 7
         show k                                              -> -100+0 spent 100",
    );
}

#[test]
fn what_is_owed_leaves_the_rest_of_a_keys_lease_to_other_requests() {
    check(
        "credit a 100                                        -> ok
         limit k 60                                          -> ok
         lease a 1 need 50 asked 50 want 50 of 1             -> 50
         lease k 1 need 50 asked 50 want 50 of 1             -> 50
         settle 1 a k 1 10+7+0                               -> charged 17 lost 0
         show a                                              -> 43+40 spent 17
         show k                                              -> 3+40 spent 17
         settle 2 a k 1 40+5+0                               -> charged 45 lost 0
         show a                                              -> 38+0 spent 62
         show k                                              -> -2+0 spent 62",
    );
}

#[test]
fn x1_once_and_only_once() {
    check(
        "credit a 100                                        -> ok
         lease a 1 need 50 asked 50 want 50 of 1             -> 50
         settle 1 a k 1 20+0+0                               -> charged 20 lost 0
         settle 1 a k 1 20+0+0                               -> replayed
         settle 1 a k 1 30+0+0                               -> replayed
         settle 1 a k 1 20+0+0 lost                          -> replayed
         show a                                              -> 50+30 spent 20",
    );
}

#[test]
fn amounts_that_do_not_add_up_change_nothing() {
    check(
        "credit a 100                                        -> ok
         lease a 1 need 50 asked 50 want 50 of 1             -> 50
         settle 1 a k 1 20+0+0 cost 21                       -> refused: the amounts do not add up
         settle 1 a k 1 30+-10+0                             -> refused: the amounts do not add up
         settle 1 a k 1 9223372036854775807+1+0              -> refused: an amount does not fit
         credit a 0                                          -> refused: the amounts do not add up
         credit a -1                                         -> refused: the amounts do not add up
         debit a -1                                          -> refused: the amounts do not add up
         credit a 9223372036854775807                        -> refused: an amount does not fit
         overdraft a -1                                      -> refused: the amounts do not add up
         show a                                              -> 50+50 spent 0",
    );
}

#[test]
fn the_reaper_and_the_late_settlement() {
    check(
        "credit a 100                                        -> ok
         limit k 70                                          -> ok
         lease a 1 need 50 asked 50 want 50 of 1             -> 50
         lease k 1 need 50 asked 50 want 50 of 1             -> 50
         settle 1 a k 1 20+0+0 lost                          -> charged 20 lost 0
         settle 2 a k 1 5+0+0 lost                           -> charged 5 lost 0
         settle 3 a k 1 5+0+0 lost                           -> charged 5 lost 0
         reclaim 1                                           -> ok
         show a                                              -> 70+0 spent 30
         show k                                              -> 40+0 spent 30
         settle 1 a k 1 26+0+0 late                          -> late charge 6 lost 0
         settle 1 a k 1 26+0+0 late                          -> replayed
         settle 2 a k 1 3+0+0 late                           -> late refund 2
         settle 2 a k 1 3+0+0 late                           -> replayed
         settle 3 a k 1 5+0+0 late                           -> replayed
         show a                                              -> 66+0 spent 30
         settle 4 a k 1 10+0+0 late                          -> charged 10 lost 0
         lease a 2 need 54 asked 54 want 54 of 1             -> 54
         settle 5 a k 1 10+0+0 late                          -> charged 2 lost 8
         show a                                              -> 0+54 spent 42
         show k                                              -> 28+0 spent 42",
    );
}

#[test]
fn a_late_charge_takes_what_is_there_and_nothing_twice() {
    check(
        "credit a 20                                         -> ok
         credit a 10 until 50                                -> ok
         settle 1 a k 1 5+0+0 lost                           -> charged 5 lost 0
         settle 2 a k 1 5+0+0 lost                           -> charged 5 lost 0
         settle 3 a k 1 5+0+0 lost                           -> charged 5 lost 0
         settle 4 a k 1 5+0+0 lost                           -> charged 5 lost 0
         grants a                                            -> 0 10
         settle 1 a k 1 8+0+0 lost proven                    -> late charge 3 lost 0
         grants a                                            -> 0 7
         settle 1 a k 1 9+0+0 lost proven                    -> replayed
         settle 1 a k 1 9+0+0                                -> replayed
         settle 1 a k 1 9+0+0 lost                           -> replayed
         settle 2 a k 1 4+2+3 late                           -> late charge 1 lost 3
         settle 3 a k 1 3+0+0 lost proven                    -> late refund 2
         show a                                              -> 8+0 spent 20
         lease a 2 need 5 asked 5 want 5 of 1                -> 5
         settle 4 a k 1 20+0+0 late                          -> late charge 3 lost 12
         show a                                              -> 0+5 spent 20
         show k                                              -> -20+0 spent 20
         settle 5 a k 1 1+0+0 lost proven                    -> charged 0 lost 1
         settle 5 a k 1 2+0+0 lost proven                    -> replayed
         settle 5 a k 1 2+0+0                                -> replayed",
    );
}

#[test]
fn a_late_charge_may_use_the_overdraft_and_stops_at_its_floor() {
    check(
        "credit a 10                                         -> ok
         overdraft a 4                                       -> ok
         settle 1 a k 1 10+0+0 lost                          -> charged 10 lost 0
         settle 1 a k 1 19+0+0 late                          -> late charge 4 lost 5
         show a                                              -> -4+0 spent 10 debt 4
         settle 2 a k 1 1+0+0 lost                           -> charged 0 lost 1
         settle 2 a k 1 3+0+0 late                           -> late charge 0 lost 2
         settle 2 a k 1 3+0+0 late                           -> replayed
         credit a 10                                         -> ok
         show a                                              -> 6+0 spent 10",
    );
}

#[test]
fn the_soonest_expiring_is_used_first() {
    check(
        "credit a 100                                        -> ok
         credit a 10 until 50                                -> ok
         credit a 20 until 40                                -> ok
         grants a                                            -> 20 10 100
         debit a 25                                          -> ok
         grants a                                            -> 0 5 100
         lease a 1 need 7 asked 7 want 7 of 1                -> 7 until 50
         now 50                                              -> ok
         expire a                                            -> 0
         settle 1 a k 1 3+0+0                                -> charged 3 lost 0
         grants a                                            -> 0 2 100
         back a 1 3                                          -> 3
         expire a                                            -> 1
         grants a                                            -> 0 1 100
         show a                                              -> 100+1 spent 3
         lease a 2 need 100 asked 100 want 100 of 1          -> 100
         back a 1 1                                          -> 1
         expire a                                            -> 0
         back a 2 100                                        -> 100
         expire a                                            -> 1
         show a                                              -> 100+0 spent 3",
    );
}

#[test]
fn nothing_expired_is_leased() {
    check(
        "credit a 10 until 50                                -> ok
         credit a 5                                          -> ok
         now 49                                              -> ok
         lease a 1 need 15 asked 15 want 15 of 1             -> 15 until 50
         back a 1 15                                         -> 15
         now 50                                              -> ok
         lease a 1 need 6 asked 6 want 6 of 1                -> short 5 0
         lease a 1 need 5 asked 5 want 5 of 1                -> 5
         show a                                              -> 0+5 spent 0",
    );
}

#[test]
fn a_lowered_limit_stops_leases_until_it_is_raised() {
    check(
        "credit a 100                                        -> ok
         limit k 50                                          -> ok
         lease a 1 need 40 asked 40 want 40 of 1             -> 40
         lease k 1 need 40 asked 40 want 40 of 1             -> 40
         settle 1 a k 1 30+0+0                               -> charged 30 lost 0
         limit k 20                                          -> ok
         show k                                              -> -20+10 spent 30
         lease k 1 need 1 asked 1 want 1 of 1                -> short 0 0
         settle 2 a k 1 10+0+0                               -> charged 10 lost 0
         show k                                              -> -20+0 spent 40
         limit k 41                                          -> ok
         lease k 1 need 1 asked 1 want 8 of 1                -> 1",
    );
}
