//! Leased credit that nobody uses: which budgets have any, and when it goes back.
//!
//! A budget that is asked for again and again keeps its lease until it was not asked for in a while. One
//! that is asked for seldom gives its rest back with the settlement of the request that the
//! lease was for, in the same transaction and the same rows: a return of its own would be one
//! more write for every request where many accounts are each asked now and then.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{Budget, BudgetId, Credits, Escrow, Figures, Settlement};

/// A budget is not looked at more often than this, …
const LOOK_MIN: Duration = Duration::from_millis(1);
/// … and not later than this where the clock cannot say when.
const LOOK_MAX: Duration = Duration::from_secs(24 * 3600);

/// The budgets that have leased credit, free or held, in the order in which they are looked at.
#[derive(Debug)]
pub(crate) struct Idle {
    unused_for: Duration,
    queue: BTreeMap<(Instant, BudgetId), Arc<Budget>>,
    due: HashMap<BudgetId, Instant>,
}

impl Idle {
    /// Credit goes back when it was not asked for so long.
    pub(crate) fn new(unused_for: Duration) -> Self {
        Self {
            unused_for,
            queue: BTreeMap::new(),
            due: HashMap::new(),
        }
    }

    /// A lease of this budget came.
    pub(crate) fn note(&mut self, budget: Arc<Budget>, now: Instant) {
        let at = self.look_at(&budget.figures(), now);
        if let Some(due) = self.due.remove(&budget.id()) {
            self.queue.remove(&(due, budget.id()));
        }
        self.put(budget, at);
    }

    /// When the first of them is to be looked at.
    pub(crate) fn first(&self) -> Option<Instant> {
        self.queue.first_key_value().map(|((at, _), _)| *at)
    }

    /// Budgets whose free credit is to go back now, at most `max`; those that have none any more
    /// are forgotten.
    pub(crate) fn take(&mut self, now: Instant, max: usize) -> Vec<Arc<Budget>> {
        let mut idle = Vec::new();
        while idle.len() < max
            && let Some(first) = self.queue.first_entry()
            && first.key().0 <= now
        {
            let budget = first.remove();
            self.due.remove(&budget.id());
            let figures = budget.figures();
            if is_idle(&figures, now, self.unused_for) {
                idle.push(Arc::clone(&budget));
                if figures.held.is_positive() {
                    // What is left of that when its request ends.
                    self.put(budget, self.after(now));
                }
            } else if figures.free.is_positive() || figures.held.is_positive() {
                self.put(Arc::clone(&budget), self.look_at(&figures, now));
            }
        }
        idle
    }

    /// What of each budget is held by running requests, where anything is.
    pub(crate) fn held(&self) -> BTreeMap<BudgetId, Credits> {
        let budgets = self.queue.values();
        let held = budgets.map(|budget| (budget.id(), budget.figures().held));
        held.filter(|(_, held)| held.is_positive()).collect()
    }

    /// The budgets that a request took from and that are asked for so seldom that the rest goes back
    /// with its settlement.
    pub(crate) fn with(&self, settlement: &Settlement, escrow: &Escrow, now: Instant) -> Returned {
        let facts = &settlement.facts;
        let account = BudgetId::Account(facts.account_id);
        let key = facts
            .key_has_limit
            .then_some(BudgetId::Key(facts.account_id, facts.key_id));
        [Some(account), key].map(|id| {
            let budget = escrow.known(id?)?;
            let figures = budget.figures();
            let goes =
                is_seldom(&figures, self.unused_for) || is_idle(&figures, now, self.unused_for);
            (goes && figures.free.is_positive() && !figures.awaited).then_some(budget)
        })
    }

    /// When it can be idle at the earliest; later than now, so that nothing is looked at twice.
    fn look_at(&self, figures: &Figures, now: Instant) -> Instant {
        if !figures.free.is_positive() {
            return self.after(now);
        }
        let touched = figures.touched.filter(|_| !figures.awaited);
        let at = self.after(touched.unwrap_or(now));
        let at = figures.usable_until.map_or(at, |until| at.min(until));
        at.max(now + LOOK_MIN)
    }

    fn after(&self, then: Instant) -> Instant {
        let after = self.unused_for.max(LOOK_MIN);
        then.checked_add(after).unwrap_or(then + LOOK_MAX)
    }

    fn put(&mut self, budget: Arc<Budget>, at: Instant) {
        self.due.insert(budget.id(), at);
        self.queue.insert((at, budget.id()), budget);
    }
}

/// At most an account and a key.
pub(crate) type Returned = [Option<Arc<Budget>>; 2];

/// Whether a budget has credit that was not asked for in so long, or that may not be used any more.
fn is_idle(figures: &Figures, now: Instant, unused_for: Duration) -> bool {
    let unused = figures
        .touched
        .is_none_or(|at| now.saturating_duration_since(at) >= unused_for);
    let expired = figures.usable_until.is_some_and(|until| now >= until);
    figures.free.is_positive() && (unused || expired)
}

/// Whether requests come so seldom that the next one will not find what this one leaves.
fn is_seldom(figures: &Figures, unused_for: Duration) -> bool {
    figures.gap.is_none_or(|gap| gap >= unused_for)
}

#[cfg(test)]
mod tests {
    use billing::{AccountId, Path, ReplicaId, Reserved};
    use uuid::Uuid;

    use super::*;

    const REPLICA: ReplicaId = ReplicaId::from_uuid(Uuid::from_u128(1));
    const UNUSED_FOR: Duration = Duration::from_secs(2);

    fn n(nanos: i64) -> Credits {
        Credits::from_nanos(nanos)
    }

    fn budget(now: Instant) -> Arc<Budget> {
        let escrow = Escrow::new(REPLICA, now);
        escrow.extend_fence(now + Duration::from_secs(3600));
        escrow.budget(BudgetId::Account(AccountId::from_uuid(Uuid::from_u128(2))))
    }

    fn lease(idle: &mut Idle, budget: &Arc<Budget>, until: Option<Instant>, now: Instant) {
        budget.add_lease(REPLICA, n(100), until);
        idle.note(Arc::clone(budget), now);
    }

    #[test]
    fn what_nobody_asked_for_goes_back_once() {
        let (start, mut idle) = (Instant::now(), Idle::new(UNUSED_FOR));
        let budget = budget(start);
        lease(&mut idle, &budget, None, start);
        assert_eq!(idle.first(), Some(start + UNUSED_FOR));
        let held = Reserved::take(&Path::new([Arc::clone(&budget)]), n(10), start).unwrap();
        assert_eq!(idle.held()[&budget.id()], n(10));
        assert!(idle.take(start + UNUSED_FOR / 2, 9).is_empty(), "not yet");
        let at = start + UNUSED_FOR;
        assert_eq!(idle.take(at, 9).len(), 1);
        assert_eq!(budget.take_idle(), n(90));
        // What is held may come back.
        drop(held);
        assert_eq!(idle.take(at + UNUSED_FOR, 9).len(), 1);
        assert_eq!(budget.take_idle(), n(10));
        assert_eq!((idle.first(), idle.due.len()), (None, 0), "it is forgotten");
    }

    #[test]
    fn who_asks_again_keeps_it() {
        let (start, mut idle) = (Instant::now(), Idle::new(UNUSED_FOR));
        let budget = budget(start);
        let path = Path::new([Arc::clone(&budget)]);
        lease(&mut idle, &budget, None, start);
        let later = start + UNUSED_FOR / 2;
        drop(Reserved::take(&path, n(10), later).unwrap());
        assert!(idle.take(start + UNUSED_FOR, 9).is_empty());
        assert_eq!(idle.first(), Some(later + UNUSED_FOR));
        // A lease that came just now is not taken from under who waits for it, whatever was due.
        let due = later + UNUSED_FOR;
        lease(&mut idle, &budget, None, due);
        assert!(idle.take(due, 9).is_empty());
        assert_eq!(idle.take(due + UNUSED_FOR, 9).len(), 1);
    }

    #[test]
    fn what_expires_goes_back_when_it_does() {
        let (start, mut idle) = (Instant::now(), Idle::new(UNUSED_FOR));
        let budget = budget(start);
        lease(&mut idle, &budget, None, start);
        let until = start + UNUSED_FOR / 4;
        lease(&mut idle, &budget, Some(until), start);
        drop(Reserved::take(&Path::new([Arc::clone(&budget)]), n(10), start).unwrap());
        let held = Reserved::take(&Path::new([Arc::clone(&budget)]), n(200), start).unwrap();
        assert!(
            idle.take(until, 9).is_empty(),
            "a running request has it all"
        );
        drop(held);
        assert_eq!(idle.take(until + UNUSED_FOR, 9).len(), 1);
        lease(
            &mut idle,
            &budget,
            Some(until + UNUSED_FOR * 2),
            until + UNUSED_FOR,
        );
        drop(Reserved::take(&Path::new([Arc::clone(&budget)]), n(10), start).unwrap());
        assert_eq!(idle.take(until + UNUSED_FOR * 2, 9).len(), 1);
    }

    #[test]
    fn seldom_is_less_often_than_credit_lies_idle() {
        let start = Instant::now();
        let budget = budget(start);
        let path = Path::new([Arc::clone(&budget)]);
        budget.add_lease(REPLICA, n(100), None);
        let mut gaps = Vec::new();
        for at in [start, start + UNUSED_FOR, start + UNUSED_FOR * 3 / 2] {
            drop(Reserved::take(&path, n(10), at).unwrap());
            gaps.push(is_seldom(&budget.figures(), UNUSED_FOR));
        }
        assert_eq!(gaps, [true, true, false]);
    }
}
