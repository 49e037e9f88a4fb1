//! Random histories against an auditor that believes nothing but the list of what happened.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};
use uuid::Uuid;

use super::*;
use crate::{End, KeyId};

const REPLICAS: std::ops::RangeInclusive<u8> = 1..=3;

fn account() -> AccountId {
    AccountId::from_uuid(Uuid::from_u128(1))
}

fn key() -> KeyId {
    KeyId::from_uuid(Uuid::from_u128(2))
}

fn n(nanos: i64) -> Credits {
    Credits::from_nanos(nanos)
}

fn replica(name: u8) -> ReplicaId {
    ReplicaId::from_uuid(Uuid::from_u128(name.into()))
}

/// Something that happens to one account and its one key.
#[derive(Clone, Debug)]
enum Event {
    Credit {
        amount: i64,
        lives: Option<i64>,
    },
    Debit {
        amount: i64,
    },
    Lease {
        of_key: bool,
        by: u8,
        need: i64,
        more: i64,
        want: i64,
    },
    Back {
        of_key: bool,
        by: u8,
        amount: i64,
    },
    Settle {
        request: u8,
        by: u8,
        parts: [i64; 3],
        known: Known,
    },
    Expire,
    Reap {
        by: u8,
    },
    Limit {
        amount: i64,
    },
    Overdraft {
        amount: i64,
    },
    Wait {
        us: i64,
    },
}

/// How a request that is booked is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It settled.
    Settled,
    /// It was lost, and the local journal says what it had delivered.
    Proven,
    /// It was lost, and only its last checkpoint is there.
    Checkpoint,
}

/// The histories themselves: every event may follow every other.
#[derive(Clone, Debug)]
struct History;

impl ReferenceStateMachine for History {
    type State = ();
    type Transition = Event;

    fn init_state() -> BoxedStrategy<()> {
        Just(()).boxed()
    }

    fn transitions((): &()) -> BoxedStrategy<Event> {
        let amount = 1..=60_i64;
        prop_oneof![
            4 => (amount.clone(), proptest::option::of(1..=40_i64))
                .prop_map(|(amount, lives)| Event::Credit { amount, lives }),
            2 => amount.clone().prop_map(|amount| Event::Debit { amount }),
            6 => (any::<bool>(), REPLICAS, 0..=30_i64, 0..=30_i64, 0..=100_i64).prop_map(
                |(of_key, by, need, more, want)| Event::Lease { of_key, by, need, more, want }
            ),
            4 => (any::<bool>(), REPLICAS, amount.clone())
                .prop_map(|(of_key, by, amount)| Event::Back { of_key, by, amount }),
            8 => (0..20_u8, REPLICAS, [0..=30_i64, 0..=8, 0..=3], known())
                .prop_map(|(request, by, parts, known)| Event::Settle { request, by, parts, known }),
            2 => Just(Event::Expire),
            1 => REPLICAS.prop_map(|by| Event::Reap { by }),
            1 => (0..=200_i64).prop_map(|amount| Event::Limit { amount }),
            1 => (0..=20_i64).prop_map(|amount| Event::Overdraft { amount }),
            3 => (1..=20_i64).prop_map(|us| Event::Wait { us }),
        ]
        .boxed()
    }

    fn apply((): (), _: &Event) {}
}

fn known() -> impl Strategy<Value = Known> {
    prop_oneof![
        2 => Just(Known::Settled),
        1 => Just(Known::Proven),
        3 => Just(Known::Checkpoint),
    ]
}

/// The rules, and beside them the auditor's own figures in plain integers.
struct Audited {
    book: Book,
    ids: Rc<Cell<u128>>,
    now: i64,
    credited: i64,
    taken: i64,
    floor: i64,
    limit: i64,
    spent: i64,
    late_charges: i64,
    /// Amounts by (of the key, replica).
    leases: BTreeMap<(bool, u8), i64>,
    /// What is left of each grant: (expiry, order of birth, rest).
    grants: Vec<(Option<i64>, u128, i64)>,
    /// Cost and charge of the requests booked, by the reaper or not, corrected or not.
    booked: BTreeMap<u8, (i64, i64, bool, bool)>,
}

impl Audited {
    fn leased(&self, of_key: bool) -> i64 {
        let of = self.leases.iter().filter(|((key, _), _)| *key == of_key);
        of.map(|(_, amount)| amount).sum()
    }

    fn available(&self) -> i64 {
        self.credited - self.taken - self.leased(false)
    }

    fn key_available(&self) -> i64 {
        self.limit - self.spent - self.leased(true)
    }

    fn lease(&mut self, of_key: bool, by: u8) -> &mut i64 {
        self.leases.entry((of_key, by)).or_default()
    }

    /// Uses up grants in a slow and obvious way.
    fn consume(&mut self, mut amount: i64) {
        while amount > 0 {
            let soonest = self
                .grants
                .iter_mut()
                .filter(|(_, _, rest)| *rest > 0)
                .min_by_key(|(at, born, _)| (at.unwrap_or(i64::MAX), *born));
            let Some((_, _, rest)) = soonest else { return };
            let part = amount.min(*rest);
            *rest -= part;
            amount -= part;
        }
    }

    /// What an expiry has to end now: what is expired beyond what is leased.
    fn expirable(&self) -> i64 {
        let expired: i64 = self
            .grants
            .iter()
            .filter(|(at, _, _)| at.is_some_and(|at| at <= self.now))
            .map(|(_, _, rest)| rest)
            .sum();
        (expired - self.leased(false)).max(0)
    }

    /// Ends so much of the expired grants, the last to expire first: leases use the soonest.
    fn end(&mut self, amount: i64) {
        let mut left = amount;
        self.taken += amount;
        let mut expired: Vec<_> = self
            .grants
            .iter_mut()
            .filter(|(at, _, _)| at.is_some_and(|at| at <= self.now))
            .collect();
        expired.sort_by_key(|(at, born, _)| (*at, *born));
        for (_, _, rest) in expired.into_iter().rev() {
            let part = left.min(*rest);
            *rest -= part;
            left -= part;
        }
        assert_eq!(left, 0);
    }

    fn due(request: u8, by: u8, [charged, owed, lost_to_us]: [i64; 3], known: Known) -> Due {
        Due {
            request: RequestId::from_uuid(Uuid::from_u128(5000 + u128::from(request))),
            account: account(),
            key: key(),
            lease: replica(by),
            end: match known {
                Known::Settled => End::Completed,
                Known::Proven | Known::Checkpoint => End::GatewayLost,
            },
            checkpoint: known == Known::Checkpoint,
            cost: n(charged + owed + lost_to_us),
            charged: n(charged),
            owed: n(owed),
            house_loss: n(lost_to_us),
        }
    }

    /// Makes ids for entries.
    fn ids(&self) -> impl FnMut() -> EntryId + use<> {
        let ids = Rc::clone(&self.ids);
        move || {
            ids.set(ids.get() + 1);
            EntryId::from_uuid(Uuid::from_u128(ids.get()))
        }
    }

    fn row(&self, amount: i64) -> EntryRow {
        EntryRow {
            id: self.ids()(),
            account: account(),
            kind: EntryKind::Adjustment,
            amount: n(amount),
            grant: None,
            reference: None,
        }
    }

    fn budget(of_key: bool) -> BudgetId {
        if of_key {
            BudgetId::Key(account(), key())
        } else {
            BudgetId::Account(account())
        }
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Credit { amount, lives } => self.credit(amount, lives),
            Event::Debit { amount } => {
                let there = self.available();
                let result = self.book.debit(self.row(-amount));
                assert_eq!(result.is_ok(), amount <= there, "{result:?} of {there}");
                if result.is_ok() {
                    self.taken += amount;
                    self.consume(amount);
                }
            }
            Event::Lease {
                of_key,
                by,
                need,
                more,
                want,
            } => {
                let ask = Ask {
                    need: n(need),
                    asked: n(need + more),
                    want: n(need + more + want),
                };
                self.lend(of_key, by, ask);
            }
            Event::Back { of_key, by, amount } => {
                let id = Self::budget(of_key);
                let back = self.book.give_back(id, replica(by), n(amount)).unwrap();
                let lease = self.lease(of_key, by);
                assert_eq!(back.nanos(), amount.min(*lease));
                *lease -= back.nanos();
            }
            Event::Settle {
                request,
                by,
                parts,
                known,
            } => self.settle(request, by, parts, known),
            Event::Expire => {
                let ended = self.book.expire(account(), &mut self.ids()).unwrap();
                assert_eq!(ended.nanos(), self.expirable());
                self.end(ended.nanos());
            }
            Event::Reap { by } => {
                self.book.reclaim(replica(by)).unwrap();
                self.leases.retain(|(_, of), _| *of != by);
            }
            Event::Limit { amount } => {
                self.book.set_limit(account(), key(), n(amount)).unwrap();
                self.limit = amount;
            }
            Event::Overdraft { amount } => {
                let result = self.book.set_overdraft(account(), n(amount));
                assert_eq!(result.is_ok(), self.available() >= -amount);
                if result.is_ok() {
                    self.floor = -amount;
                }
            }
            Event::Wait { us } => {
                self.now += us;
                self.book.set_now(Moment(self.now));
            }
        }
    }

    fn credit(&mut self, amount: i64, lives: Option<i64>) {
        let at = lives.map(|us| self.now + us);
        let row = self.row(amount);
        let id = row.id;
        self.book.credit(row, at.map(Moment)).unwrap();
        let owing = -(self.credited - self.taken).min(0);
        self.credited += amount;
        self.grants
            .push((at, id.uuid().as_u128(), amount - amount.min(owing)));
    }

    fn lend(&mut self, of_key: bool, by: u8, ask: Ask) {
        let id = Self::budget(of_key);
        let granted = self
            .book
            .acquire(id, replica(by), ask, 3, &mut self.ids())
            .unwrap();
        if !of_key {
            let ended = self.expirable();
            self.end(ended);
        }
        let room = if of_key {
            self.key_available()
        } else {
            self.available() - self.floor
        };
        let need = ask.need.nanos();
        match granted {
            Granted::Lease { amount, .. } => {
                let amount = amount.nanos();
                assert!(amount > 0 && amount >= need && amount <= room);
                assert!(amount <= ask.want.nanos());
                *self.lease(of_key, by) += amount;
            }
            Granted::Short {
                available,
                leased_elsewhere,
            } => {
                assert!(room < need.max(1) || need == 0, "{room} for {need} refused");
                let mine = *self.lease(of_key, by);
                assert_eq!(available.nanos(), room.max(0));
                assert_eq!(leased_elsewhere.nanos(), self.leased(of_key) - mine);
            }
        }
    }

    fn settle(&mut self, request: u8, by: u8, parts: [i64; 3], known: Known) {
        let due = Self::due(request, by, parts, known);
        let lost = known == Known::Checkpoint;
        let cost: i64 = parts.iter().sum();
        let booked = self.book.settle(&due, false).unwrap();
        let Some((was, charged, by_reaper, corrected)) = self.booked.get(&request).copied() else {
            let Booked::Charge {
                charged,
                house_loss,
                ..
            } = booked
            else {
                panic!("{booked:?} of a new request");
            };
            let (charged, house_loss) = (charged.nanos(), house_loss.nanos());
            let from_lease = parts[0].min(*self.lease(false, by));
            let room = (self.available() - self.floor).max(0);
            let collected = (parts[0] - from_lease + parts[1]).min(room);
            assert_eq!(
                (charged, house_loss),
                (from_lease + collected, cost - charged)
            );
            *self.lease(false, by) -= from_lease;
            let key_lease = self.lease(true, by);
            // Only what was held: the rest backs the holds of other requests.
            *key_lease -= charged.min(parts[0]).min(*key_lease);
            self.taken += charged;
            self.spent += charged;
            self.consume(charged);
            self.booked.insert(request, (cost, charged, lost, false));
            return;
        };
        let correctable = by_reaper && !corrected && !lost;
        match booked {
            Booked::Charge { .. } => panic!("request {request} charged twice"),
            Booked::Replayed => assert!(!correctable || (cost <= was && cost >= charged)),
            Booked::LateCharge {
                charged: more,
                house_loss,
            } => {
                assert!(correctable);
                let (more, house_loss) = (more.nanos(), house_loss.nanos());
                let room = (self.available() - self.floor).max(0);
                let owes = (parts[0] + parts[1] - charged).clamp(0, cost - was);
                assert_eq!((more, more + house_loss), (owes.min(room), cost - was));
                self.taken += more;
                self.late_charges += more;
                self.consume(more);
            }
            Booked::LateRefund(amount) => {
                assert!(correctable);
                assert_eq!(amount.nanos(), charged - cost);
                let owing = -(self.credited - self.taken).min(0);
                self.credited += charged - cost;
                let rest = (charged - cost) - (charged - cost).min(owing);
                self.grants.push((None, due.request.uuid().as_u128(), rest));
            }
        }
        if booked != Booked::Replayed {
            self.booked.insert(request, (was, charged, true, true));
        }
    }

    /// Every figure of the book against the auditor's.
    fn check(&self) {
        let row = self.book.budget(BudgetId::Account(account())).unwrap();
        assert_eq!(row.available.nanos(), self.available());
        assert_eq!(row.leased.nanos(), self.leased(false));
        assert_eq!(row.spent.nanos(), self.spent);
        assert!(row.available >= row.floor, "below the floor");
        let entries: i64 = self
            .book
            .entries()
            .iter()
            .map(|entry| entry.amount.nanos())
            .sum();
        let balance = row.available.nanos() + row.leased.nanos();
        let late: i64 = self
            .book
            .entries()
            .iter()
            .filter(|entry| entry.kind == EntryKind::LateCharge)
            .map(|entry| entry.amount.nanos())
            .sum();
        assert_eq!(late, -self.late_charges);
        assert_eq!(balance, entries - self.spent, "entries less charges");
        let remaining: i64 = self
            .book
            .grants()
            .map(|(_, grant)| grant.remaining.nanos())
            .sum();
        assert_eq!(balance, remaining - row.debt.nanos(), "grants less debt");
        for (_, grant) in self.book.grants() {
            let own = self
                .grants
                .iter()
                .find(|(_, born, _)| *born == grant.id.uuid().as_u128());
            assert_eq!(
                grant.remaining.nanos(),
                own.unwrap().2,
                "grant {:?}",
                grant.id
            );
        }
        let key = self.book.budget(BudgetId::Key(account(), key())).unwrap();
        assert_eq!(key.available.nanos(), self.key_available());
        assert_eq!(key.leased.nanos(), self.leased(true));
        assert_eq!(key.spent.nanos(), self.spent);
        for lease in self.book.leases() {
            let of_key = matches!(lease.budget, BudgetId::Key(..));
            let by = u8::try_from(lease.replica.uuid().as_u128()).unwrap();
            let own = self.leases.get(&(of_key, by)).copied().unwrap_or_default();
            assert_eq!(lease.amount.nanos(), own);
        }
        let ids: BTreeSet<_> = self.book.entries().iter().map(|entry| entry.id).collect();
        assert_eq!(ids.len(), self.book.entries().len());
    }
}

struct Rules;

impl StateMachineTest for Rules {
    type SystemUnderTest = Audited;
    type Reference = History;

    fn init_test((): &()) -> Audited {
        let mut book = Book::default();
        for id in [
            BudgetId::Account(account()),
            BudgetId::Key(account(), key()),
        ] {
            book.open(BudgetRow {
                id,
                available: Credits::ZERO,
                floor: Credits::ZERO,
                leased: Credits::ZERO,
                spent: Credits::ZERO,
                debt: Credits::ZERO,
            });
        }
        Audited {
            book,
            ids: Rc::new(Cell::new(100_000)),
            now: 0,
            credited: 0,
            taken: 0,
            floor: 0,
            limit: 0,
            spent: 0,
            late_charges: 0,
            leases: BTreeMap::new(),
            grants: Vec::new(),
            booked: BTreeMap::new(),
        }
    }

    fn apply(mut state: Audited, (): &(), event: Event) -> Audited {
        state.run(event);
        state
    }

    fn check_invariants(state: &Audited, (): &()) {
        state.check();
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_history_breaks_the_books(sequential 1..80 => Rules);
}
