//! Refills: many requests that wait for one budget become one question to the database.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use billing::{
    Budget, BudgetId, Credits, ReplicaId,
    rules::{Ask, Granted},
};
use tokio::sync::oneshot;

/// A lease is sized for so many requests like the largest that waits …
const SLICE_NEEDS: i64 = 8;
/// … or for so many seconds of what the budget spends, whichever is more.
const SLICE_SECONDS: i64 = 2;

/// What came of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Credit arrived, or is there already: try to take it.
    Try,
    /// There is less than any waiting request needs.
    Short {
        /// What is there, in the database.
        available: Credits,
        /// What other replicas have leased.
        leased_elsewhere: Credits,
    },
}

/// The questions that wait for the journal's next batch, one a budget.
#[derive(Debug, Default)]
pub(crate) struct Refills(Mutex<HashMap<BudgetId, Waiting>>);

/// Everybody who waits for one budget.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) budget: Arc<Budget>,
    waiters: Vec<Waiter>,
    want: Credits,
    recall: bool,
}

#[derive(Debug)]
struct Waiter {
    need: Credits,
    answer: oneshot::Sender<Answer>,
}

impl Refills {
    /// Joins those who wait for `budget`. True with the first: the journal has to be told.
    pub(crate) fn join(
        &self,
        budget: &Arc<Budget>,
        need: Credits,
        want: Credits,
        recall: bool,
    ) -> (oneshot::Receiver<Answer>, bool) {
        let (answer, receiver) = oneshot::channel();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = !all.contains_key(&budget.id());
        let waiting = all.entry(budget.id()).or_insert_with(|| Waiting {
            budget: Arc::clone(budget),
            waiters: Vec::new(),
            want: Credits::ZERO,
            recall: false,
        });
        waiting.want = waiting.want.max(want);
        waiting.recall |= recall;
        waiting.waiters.push(Waiter { need, answer });
        (receiver, first)
    }

    /// Asks in nobody's name. True when the journal has to be told.
    pub(crate) fn ask_ahead(&self, budget: &Arc<Budget>, want: Credits) -> bool {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.contains_key(&budget.id()) {
            return false;
        }
        let waiting = Waiting {
            budget: Arc::clone(budget),
            waiters: Vec::new(),
            want,
            recall: false,
        };
        all.insert(budget.id(), waiting);
        true
    }

    /// Takes those who wait now; whoever comes later asks again.
    pub(crate) fn take(&self, id: BudgetId) -> Option<Waiting> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id)
    }
}

impl Waiting {
    /// What to ask the database for, after what is free in memory; `None` when that is enough.
    pub(crate) fn ask(&mut self, now: Instant) -> Option<Ask> {
        self.waiters.retain(|waiter| !waiter.answer.is_closed());
        let figures = self.budget.figures();
        let free = match figures.usable_until {
            Some(until) if now >= until => Credits::ZERO,
            Some(_) | None => figures.free,
        };
        let rate = figures.spend_per_s.nanos().saturating_mul(SLICE_SECONDS);
        let Some(smallest) = self.waiters.iter().map(|w| w.need).min() else {
            // Nobody waits: a refill ahead of need.
            let want = self
                .want
                .max(Credits::from_nanos(rate))
                .saturating_sub(free);
            return want.is_positive().then_some(Ask {
                need: Credits::ZERO,
                asked: Credits::ZERO,
                want,
            });
        };
        let largest = self
            .waiters
            .iter()
            .map(|w| w.need)
            .max()
            .unwrap_or(smallest);
        let sum = self
            .waiters
            .iter()
            .fold(Credits::ZERO, |sum, waiter| sum.saturating_add(waiter.need));
        let need = smallest.saturating_sub(free);
        let asked = sum.saturating_sub(free);
        if !asked.is_positive() {
            return None;
        }
        // What is free serves the smallest, so the next credit to come helps somebody else:
        // any amount may, up to the largest.
        let need = if need.is_positive() {
            need
        } else {
            largest.saturating_sub(free).max(Credits::from_nanos(1))
        };
        let slice = largest.nanos().saturating_mul(SLICE_NEEDS).max(rate);
        Some(Ask {
            need: need.min(asked),
            asked,
            want: self.want.max(Credits::from_nanos(slice)).max(asked),
        })
    }

    /// Puts a lease into memory and tells those who waited. The budget, where it got one.
    pub(crate) fn hear(
        self,
        replica: ReplicaId,
        granted: Granted,
        now_us: i64,
        asked: Instant,
    ) -> Option<Arc<Budget>> {
        match granted {
            Granted::Lease {
                amount,
                usable_until,
            } => {
                let usable_until = usable_until.map(|at| {
                    let left = u64::try_from(at.0.saturating_sub(now_us)).unwrap_or(0);
                    // Counted from before the question: never longer than the grant lives.
                    asked + Duration::from_micros(left)
                });
                let budget = Arc::clone(&self.budget);
                budget.add_lease(replica, amount, usable_until);
                self.answer(Answer::Try);
                Some(budget)
            }
            Granted::Short {
                available,
                leased_elsewhere,
            } => {
                self.answer(Answer::Short {
                    available,
                    leased_elsewhere,
                });
                None
            }
        }
    }

    pub(crate) fn recall(&self) -> bool {
        self.recall
    }

    pub(crate) fn answer(self, answer: Answer) {
        for waiter in self.waiters {
            // Who gave up waiting does not mind.
            let _ = waiter.answer.send(answer);
        }
    }
}

/// How much of a budget is worth having ahead of need.
pub(crate) fn slice(budget: &Budget) -> Credits {
    let rate = budget.figures().spend_per_s.nanos();
    Credits::from_nanos(rate.saturating_mul(SLICE_SECONDS))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use billing::{AccountId, Escrow, ReplicaId, Reserved};
    use uuid::Uuid;

    use super::*;

    fn n(nanos: i64) -> Credits {
        Credits::from_nanos(nanos)
    }

    fn budget(free: i64, usable_until: Option<Instant>) -> Arc<Budget> {
        let replica = ReplicaId::from_uuid(Uuid::from_u128(1));
        let escrow = Escrow::new(replica, Instant::now());
        escrow.extend_fence(Instant::now() + Duration::from_secs(3600));
        let account = AccountId::from_uuid(Uuid::from_u128(2));
        let budget = escrow.budget(BudgetId::Account(account));
        if free > 0 {
            budget.add_lease(replica, n(free), usable_until);
        }
        budget
    }

    /// What is asked for when these needs wait for a budget with `free` in memory.
    fn asked(free: i64, needs: &[i64]) -> Option<(i64, i64, i64)> {
        let (refills, budget) = (Refills::default(), budget(free, None));
        let mut waiting = Vec::new();
        for (index, need) in needs.iter().enumerate() {
            let (receiver, first) = refills.join(&budget, n(*need), Credits::ZERO, false);
            assert_eq!(first, index == 0, "the journal is told once");
            waiting.push(receiver);
        }
        let ask = refills.take(budget.id()).unwrap().ask(Instant::now())?;
        Some((ask.need.nanos(), ask.asked.nanos(), ask.want.nanos()))
    }

    #[test]
    fn many_waiters_are_one_question() {
        assert_eq!(asked(0, &[10]), Some((10, 10, 80)));
        assert_eq!(asked(0, &[10, 3, 5]), Some((3, 18, 80)));
        // What is free already serves first.
        assert_eq!(asked(4, &[10]), Some((6, 6, 80)));
        assert_eq!(asked(4, &[10, 3]), Some((6, 9, 80)));
        assert_eq!(asked(20, &[10, 3]), None);
        assert_eq!(asked(12, &[10, 10]), Some((1, 8, 80)));
    }

    #[test]
    fn credit_that_has_expired_serves_nobody() {
        let now = Instant::now();
        let (refills, budget) = (Refills::default(), budget(50, Some(now)));
        let _receiver = refills.join(&budget, n(10), Credits::ZERO, false);
        let ask = refills.take(budget.id()).unwrap().ask(now).unwrap();
        assert_eq!((ask.need, ask.asked), (n(10), n(10)));
    }

    #[test]
    fn who_gave_up_is_not_counted() {
        let (refills, budget) = (Refills::default(), budget(0, None));
        let (gone, _) = refills.join(&budget, n(1000), Credits::ZERO, true);
        drop(gone);
        let _stays = refills.join(&budget, n(10), Credits::ZERO, false);
        let mut waiting = refills.take(budget.id()).unwrap();
        assert_eq!(waiting.ask(Instant::now()).unwrap().asked, n(10));
        assert!(waiting.recall());
        assert!(refills.take(budget.id()).is_none());
    }

    #[test]
    fn the_slice_follows_the_spending() {
        let budget = budget(1000, None);
        let path = billing::Path::new([Arc::clone(&budget)]);
        let _held = Reserved::take(&path, n(300), Instant::now()).unwrap();
        assert_eq!(slice(&budget), n(600));
        let refills = Refills::default();
        assert!(refills.ask_ahead(&budget, slice(&budget)));
        assert!(!refills.ask_ahead(&budget, n(1)), "asked already");
        let mut waiting = refills.take(budget.id()).unwrap();
        assert_eq!(waiting.ask(Instant::now()), None, "700 are free");
    }
}
