//! Refills: many requests that wait for one budget become one question to the database.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use billing::{Budget, BudgetId, Credits, rules::Ask};
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
