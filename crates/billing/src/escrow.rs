//! The escrow: a replica's leases in memory, from which holds are taken without asking the database.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use smallvec::SmallVec;
use tokio::sync::Notify;

use crate::{BudgetId, Credits, ReplicaId};

/// Shards of the budget map; requests of different accounts rarely meet in one.
const SHARDS: usize = 32;
/// The window over which spending is summed to size the next lease.
const SPEND_WINDOW: Duration = Duration::from_secs(1);

/// This replica's leases. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Escrow(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In the order of ids, so that whoever visits all budgets always does so in one order.
    shards: Vec<RwLock<BTreeMap<BudgetId, Arc<Budget>>>>,
    fence: Arc<Fence>,
    replica: RwLock<ReplicaId>,
}

/// Until when this replica may grant, by its own monotonic clock.
#[derive(Debug)]
struct Fence {
    epoch: Instant,
    /// Microseconds after `epoch`.
    until_us: AtomicU64,
}

impl Fence {
    fn allows(&self, now: Instant) -> bool {
        now < self.epoch + Duration::from_micros(self.until_us.load(Ordering::Acquire))
    }
}

/// What all budgets together hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Leased and not set aside, of accounts.
    pub free: Credits,
    /// Set aside for running requests, of accounts.
    pub held: Credits,
    /// Requests that hold from an account.
    pub holds_open: u64,
}

impl Escrow {
    /// An escrow without leases that grants nothing until [`Escrow::extend_fence`]. `epoch` is now,
    /// by the clock whose instants it will be asked with.
    #[must_use]
    pub fn new(replica: ReplicaId, epoch: Instant) -> Self {
        Self(Arc::new(Shared {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            fence: Arc::new(Fence {
                epoch,
                until_us: AtomicU64::new(0),
            }),
            replica: RwLock::new(replica),
        }))
    }

    /// The replica under whose name leases are taken now.
    #[must_use]
    pub fn replica(&self) -> ReplicaId {
        *self
            .0
            .replica
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The budget with this id, made empty where it was not known.
    #[must_use]
    pub fn budget(&self, id: BudgetId) -> Arc<Budget> {
        if let Some(budget) = self.known(id) {
            return budget;
        }
        let mut shard = self
            .shard(id)
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Read under the shard's lock: `reset` changes the name first and visits the shard after.
        let replica = self.replica();
        shard
            .entry(id)
            .or_insert_with(|| Arc::new(Budget::new(id, replica, self.0.fence.clone())))
            .clone()
    }

    /// The budget with this id, where it is known.
    #[must_use]
    pub fn known(&self, id: BudgetId) -> Option<Arc<Budget>> {
        let shard = self.shard(id);
        let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&id).cloned()
    }

    /// Allows grants until `until` (never shortens what was allowed).
    pub fn extend_fence(&self, until: Instant) {
        let us = until
            .saturating_duration_since(self.0.fence.epoch)
            .as_micros();
        self.0
            .fence
            .until_us
            .fetch_max(u64::try_from(us).unwrap_or(u64::MAX / 2), Ordering::AcqRel);
    }

    /// True when nothing may be granted at `now`, because the leases may have been taken back.
    #[must_use]
    pub fn fenced(&self, now: Instant) -> bool {
        !self.0.fence.allows(now)
    }

    /// The old replica was reaped: every free amount is void, running holds become late, and
    /// leases are taken under the name `new` from now on.
    pub fn reset(&self, new: ReplicaId) {
        *self
            .0
            .replica
            .write()
            .unwrap_or_else(PoisonError::into_inner) = new;
        self.for_each_budget(|budget| {
            let mut state = budget.lock();
            state.replica = new;
            state.free = Credits::ZERO;
            state.usable_until = None;
        });
    }

    /// Visits every budget; do not call back into the escrow from `visit`.
    pub fn for_each_budget(&self, mut visit: impl FnMut(&Arc<Budget>)) {
        for shard in &self.0.shards {
            for budget in shard
                .read()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
            {
                visit(budget);
            }
        }
    }

    /// Drops empty budgets that nobody refers to, so that the map stays as small as the traffic.
    pub fn forget_unused(&self) {
        for shard in &self.0.shards {
            shard
                .write()
                .unwrap_or_else(PoisonError::into_inner)
                .retain(|_, budget| {
                    let state = budget.lock();
                    let empty = state.free.is_zero() && state.held.is_zero();
                    drop(state);
                    !empty || Arc::strong_count(budget) > 1
                });
        }
    }

    /// Sums over all accounts.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = Totals::default();
        self.for_each_budget(|budget| {
            if matches!(budget.id, BudgetId::Account(_)) {
                let state = budget.lock();
                totals.free = totals.free.saturating_add(state.free);
                totals.held = totals.held.saturating_add(state.held);
                totals.holds_open += state.holds_open;
            }
        });
        totals
    }

    fn shard(&self, id: BudgetId) -> &RwLock<BTreeMap<BudgetId, Arc<Budget>>> {
        // The low bits of an id are random.
        let index = usize::try_from(id.uuid().as_u128() % (SHARDS as u128)).unwrap_or(0);
        &self.0.shards[index]
    }
}

/// One budget as this replica sees it: what is leased and free, and what is set aside.
#[derive(Debug)]
pub struct Budget {
    id: BudgetId,
    fence: Arc<Fence>,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Whose lease `free` is part of.
    replica: ReplicaId,
    free: Credits,
    held: Credits,
    holds_open: u64,
    /// `free` is not granted past this instant: the grant behind it expires.
    usable_until: Option<Instant>,
    touched: Option<Instant>,
    /// When the last request took its hold, and how long after the one before that was.
    took: Option<Instant>,
    gap: Option<Duration>,
    /// A lease came, and no request has taken from it yet.
    awaited: bool,
    spend: Spend,
}

/// Net takings in the running window and in the one before.
#[derive(Debug, Default)]
struct Spend {
    since: Option<Instant>,
    now: Credits,
    before: Credits,
}

impl Spend {
    fn add(&mut self, amount: Credits, at: Instant) {
        let age = self.since.map(|since| at.saturating_duration_since(since));
        match age {
            Some(age) if age < SPEND_WINDOW => {}
            Some(age) if age < SPEND_WINDOW * 2 => {
                self.before = std::mem::take(&mut self.now);
                self.since = Some(at);
            }
            Some(_) | None => {
                *self = Self {
                    since: Some(at),
                    ..Self::default()
                };
            }
        }
        self.now = self.now.saturating_add(amount);
    }
}

/// A budget's figures at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    /// Leased and not set aside.
    pub free: Credits,
    /// Set aside for running requests.
    pub held: Credits,
    /// Running requests that hold from it.
    pub holds_open: u64,
    /// When it was last asked for credit.
    pub touched: Option<Instant>,
    /// How long after the one before it the last request came; `None` before there were two.
    pub gap: Option<Duration>,
    /// A lease came, and no request has taken from it yet.
    pub awaited: bool,
    /// Credits taken in about a second, for sizing leases.
    pub spend_per_s: Credits,
    /// `free` is not granted past this instant.
    pub usable_until: Option<Instant>,
}

impl Budget {
    fn new(id: BudgetId, replica: ReplicaId, fence: Arc<Fence>) -> Self {
        Self {
            id,
            fence,
            state: Mutex::new(State {
                replica,
                free: Credits::ZERO,
                held: Credits::ZERO,
                holds_open: 0,
                usable_until: None,
                touched: None,
                took: None,
                gap: None,
                awaited: false,
                spend: Spend::default(),
            }),
            changed: Notify::new(),
        }
    }

    /// Which budget this is.
    #[must_use]
    pub const fn id(&self) -> BudgetId {
        self.id
    }

    /// A lease of `replica` was granted or grew. Ignored when the replica was reset meanwhile:
    /// the reaper takes it back.
    pub fn add_lease(&self, replica: ReplicaId, amount: Credits, usable_until: Option<Instant>) {
        let mut state = self.lock();
        if state.replica == replica {
            state.free = state.free.saturating_add(amount);
            state.awaited = true;
            state.usable_until = match (state.usable_until, usable_until) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        drop(state);
        self.changed.notify_waiters();
    }

    /// Removes all that is free, to be given back to the database.
    #[must_use]
    pub fn take_idle(&self) -> Credits {
        let mut state = self.lock();
        state.usable_until = None;
        std::mem::take(&mut state.free)
    }

    /// The figures now.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let state = self.lock();
        Figures {
            free: state.free,
            held: state.held,
            holds_open: state.holds_open,
            touched: state.touched,
            gap: state.gap,
            awaited: state.awaited,
            spend_per_s: state.spend.now.max(state.spend.before),
            usable_until: state.usable_until,
        }
    }

    /// Wakes when a lease arrived or a hold was released; register before looking.
    pub const fn changed(&self) -> &Notify {
        &self.changed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every critical section leaves the state whole at every step, so a panic in one
        // cannot have torn it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn usable(&self, now: Instant) -> Credits {
        match self.usable_until {
            Some(until) if now >= until => Credits::ZERO,
            Some(_) | None => self.free,
        }
    }
}

/// The budgets a request takes from, in id order: its account and, where it has one, its key's limit.
#[derive(Clone, Debug)]
pub struct Path(SmallVec<[Arc<Budget>; 2]>);

impl Path {
    /// The path over these budgets.
    #[must_use]
    pub fn new(budgets: impl IntoIterator<Item = Arc<Budget>>) -> Self {
        let mut budgets: SmallVec<[Arc<Budget>; 2]> = budgets.into_iter().collect();
        budgets.sort_by_key(|budget| budget.id);
        budgets.dedup_by_key(|budget| budget.id);
        Self(budgets)
    }

    /// The budgets, in id order.
    #[must_use]
    pub fn budgets(&self) -> &[Arc<Budget>] {
        &self.0
    }

    /// What every budget could grant in memory now.
    #[must_use]
    pub fn free(&self, now: Instant) -> Credits {
        self.0
            .iter()
            .map(|budget| budget.lock().usable(now))
            .min()
            .unwrap_or(Credits::ZERO)
    }
}

/// Why nothing was taken.
#[derive(Clone, Debug)]
pub struct Short {
    /// The first budget that could not give.
    pub budget: Arc<Budget>,
    /// What it lacks.
    pub missing: Credits,
    /// True when the replica may grant nothing at all now, whatever is leased.
    pub fenced: bool,
}

/// An amount set aside in every budget of a path. Dropping it gives everything back.
#[derive(Debug)]
pub struct Reserved {
    path: Path,
    replica: ReplicaId,
    amount: Credits,
}

impl Reserved {
    /// Sets `amount` aside in every budget, all or none.
    ///
    /// # Errors
    /// [`Short`] names the first budget that could not give.
    pub fn take(path: &Path, amount: Credits, now: Instant) -> Result<Self, Short> {
        let mut states: Locked<'_> = path.0.iter().map(|b| (b, b.lock())).collect();
        move_to_held(&mut states, None, amount, now)?;
        let mut replica = ReplicaId::from_uuid(uuid::Uuid::nil());
        for (_, state) in &mut states {
            replica = state.replica;
            state.holds_open += 1;
            state.gap = state.took.map(|took| now.saturating_duration_since(took));
            state.took = Some(now);
            state.awaited = false;
        }
        drop(states);
        Ok(Self {
            path: path.clone(),
            replica,
            amount,
        })
    }

    /// Sets `more` aside in addition, all or none.
    ///
    /// # Errors
    /// As [`Reserved::take`]; also when the lease behind the hold was taken back meanwhile.
    pub fn grow(&mut self, more: Credits, now: Instant) -> Result<(), Short> {
        let mut states: Locked<'_> = self.path.0.iter().map(|b| (b, b.lock())).collect();
        move_to_held(&mut states, Some(self.replica), more, now)?;
        drop(states);
        self.amount = self.amount.saturating_add(more);
        Ok(())
    }

    /// Sets aside as much of `more` as there is, and tells how much that was.
    pub fn grow_up_to(&mut self, more: Credits, now: Instant) -> Credits {
        let mut states: Locked<'_> = self.path.0.iter().map(|b| (b, b.lock())).collect();
        let most = states.iter().map(|(_, s)| s.usable(now)).min();
        let amount = more.min(most.unwrap_or(Credits::ZERO)).at_least_zero();
        match move_to_held(&mut states, Some(self.replica), amount, now) {
            Ok(()) => {
                drop(states);
                self.amount = self.amount.saturating_add(amount);
                amount
            }
            Err(_) => Credits::ZERO,
        }
    }

    /// Sets a part of it aside for another request: `None` where it has not so much.
    pub fn split(&mut self, part: Credits) -> Option<Self> {
        if part.is_negative() || part > self.amount {
            return None;
        }
        for budget in &self.path.0 {
            budget.lock().holds_open += 1;
        }
        self.amount = self.amount.saturating_sub(part);
        Some(Self {
            path: self.path.clone(),
            replica: self.replica,
            amount: part,
        })
    }

    /// Gives back what is above `amount`.
    pub fn shrink_to(&mut self, amount: Credits) {
        let back = self.amount.saturating_sub(amount).at_least_zero();
        self.give_back(back, back, false);
        self.amount = self.amount.saturating_sub(back);
    }

    /// What is set aside.
    #[must_use]
    pub const fn amount(&self) -> Credits {
        self.amount
    }

    /// The lease it was taken from.
    #[must_use]
    pub const fn replica(&self) -> ReplicaId {
        self.replica
    }

    /// True when the lease it was taken from was taken back meanwhile: it can never grow again,
    /// whatever the new lease has.
    #[must_use]
    pub fn is_stranded(&self) -> bool {
        let budgets = self.path.0.iter();
        budgets
            .into_iter()
            .any(|budget| budget.lock().replica != self.replica)
    }

    /// The budgets it was taken from.
    #[must_use]
    pub const fn path(&self) -> &Path {
        &self.path
    }

    /// Ends the hold: `charged` (at most the amount) is spent, the rest is free again.
    pub fn spend(mut self, charged: Credits) {
        let charged = charged.min(self.amount).at_least_zero();
        let held = std::mem::take(&mut self.amount);
        self.give_back(held, held.saturating_sub(charged), true);
        // Nothing is left for `drop` to give back.
        self.path.0.clear();
    }

    /// Takes `held` off the held amounts and frees `freed` of it, where the lease is still ours.
    fn give_back(&self, held: Credits, freed: Credits, ends: bool) {
        for budget in &self.path.0 {
            let mut state = budget.lock();
            state.held = state.held.saturating_sub(held);
            state.holds_open -= u64::from(ends);
            if state.replica == self.replica {
                state.free = state.free.saturating_add(freed);
            }
            state.spend.now = state.spend.now.saturating_sub(freed).at_least_zero();
            drop(state);
            budget.changed.notify_waiters();
        }
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        self.give_back(self.amount, self.amount, true);
    }
}

type Locked<'a> = SmallVec<[(&'a Arc<Budget>, MutexGuard<'a, State>); 2]>;

/// Moves `amount` from free to held in all the states, or in none.
fn move_to_held(
    states: &mut Locked<'_>,
    lease: Option<ReplicaId>,
    amount: Credits,
    now: Instant,
) -> Result<(), Short> {
    // Nothing at all needs no lease: models priced zero work at zero balance.
    if amount.is_zero() {
        return Ok(());
    }
    // In the middle of a reset two budgets may be of different leases: such a hold could not
    // be settled against one, so it is refused until the reset is through.
    let lease = lease.or_else(|| states.first().map(|(_, state)| state.replica));
    for (budget, state) in states.iter() {
        let free = state.usable(now);
        let fenced = !budget.fence.allows(now) || lease.is_some_and(|lease| lease != state.replica);
        if fenced || free < amount {
            return Err(Short {
                budget: Arc::clone(budget),
                missing: amount.saturating_sub(free),
                fenced,
            });
        }
    }
    for (_, state) in states {
        state.free = state.free.saturating_sub(amount);
        state.held = state.held.saturating_add(amount);
        state.touched = Some(now);
        state.spend.add(amount, now);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccountId, KeyId};
    use uuid::Uuid;

    const REPLICA: ReplicaId = ReplicaId::from_uuid(Uuid::from_u128(7));
    const NEXT: ReplicaId = ReplicaId::from_uuid(Uuid::from_u128(8));

    fn credits(nanos: i64) -> Credits {
        Credits::from_nanos(nanos)
    }

    /// An open escrow and a path over an account with `account` leased and a key with `key`.
    fn path(account: i64, key: i64) -> (Escrow, Path) {
        let escrow = Escrow::new(REPLICA, Instant::now());
        escrow.extend_fence(Instant::now() + Duration::from_secs(3600));
        let owner = AccountId::from_uuid(Uuid::from_u128(1));
        let a = escrow.budget(BudgetId::Account(owner));
        let k = escrow.budget(BudgetId::Key(owner, KeyId::from_uuid(Uuid::from_u128(2))));
        a.add_lease(REPLICA, credits(account), None);
        k.add_lease(REPLICA, credits(key), None);
        (escrow, Path::new([k, a]))
    }

    fn free(path: &Path) -> Vec<i64> {
        path.budgets()
            .iter()
            .map(|b| b.figures().free.nanos())
            .collect()
    }

    #[test]
    fn all_budgets_or_none() {
        let (_escrow, path) = path(10, 4);
        let now = Instant::now();
        let short = Reserved::take(&path, credits(5), now).unwrap_err();
        assert_eq!(short.missing, credits(1));
        assert!(matches!(short.budget.id(), BudgetId::Key(..)));
        assert_eq!(free(&path), [10, 4]);
        let hold = Reserved::take(&path, credits(4), now).unwrap();
        assert_eq!(free(&path), [6, 0]);
        hold.spend(credits(3));
        assert_eq!(free(&path), [7, 1]);
    }

    #[test]
    fn c9_exactly_the_limit_and_not_one_more() {
        let (_escrow, path) = path(10, 10);
        assert!(Reserved::take(&path, credits(11), Instant::now()).is_err());
        assert!(Reserved::take(&path, credits(10), Instant::now()).is_ok());
    }

    #[test]
    fn l1_dropping_a_hold_gives_everything_back() {
        let (escrow, path) = path(10, 10);
        let mut hold = Reserved::take(&path, credits(6), Instant::now()).unwrap();
        hold.grow(credits(2), Instant::now()).unwrap();
        assert_eq!(hold.grow_up_to(credits(9), Instant::now()), credits(2));
        hold.shrink_to(credits(5));
        assert_eq!(free(&path), [5, 5]);
        assert_eq!(escrow.totals().holds_open, 1);
        drop(hold);
        assert_eq!(free(&path), [10, 10]);
        assert_eq!(escrow.totals().holds_open, 0);
        assert_eq!(escrow.totals().held, Credits::ZERO);
    }

    #[test]
    fn a_hold_is_split_into_parts_that_add_up() {
        let (escrow, path) = path(10, 10);
        let mut hold = Reserved::take(&path, credits(6), Instant::now()).unwrap();
        assert!(hold.split(credits(7)).is_none());
        let part = hold.split(credits(4)).unwrap();
        let none = hold.split(Credits::ZERO).unwrap();
        assert_eq!((part.amount(), hold.amount()), (credits(4), credits(2)));
        assert_eq!(escrow.totals().holds_open, 3);
        assert_eq!(free(&path), [4, 4]);
        part.spend(credits(3));
        drop((hold, none));
        assert_eq!(free(&path), [7, 7]);
        assert_eq!(escrow.totals().holds_open, 0);
        assert_eq!(escrow.totals().held, Credits::ZERO);
    }

    #[test]
    fn nothing_is_granted_behind_the_fence() {
        let (escrow, path) = path(10, 10);
        let later = Instant::now() + Duration::from_secs(3601);
        assert!(escrow.fenced(later));
        assert!(Reserved::take(&path, credits(1), later).unwrap_err().fenced);
        // Free models still work.
        assert!(Reserved::take(&path, Credits::ZERO, later).is_ok());
    }

    #[test]
    fn a_reset_voids_the_leases_and_old_holds_return_nothing() {
        let (escrow, path) = path(10, 10);
        let mut hold = Reserved::take(&path, credits(6), Instant::now()).unwrap();
        escrow.reset(NEXT);
        assert_eq!(free(&path), [0, 0]);
        for budget in path.budgets() {
            budget.add_lease(REPLICA, credits(50), None);
        }
        assert_eq!(free(&path), [0, 0], "a lease of the old name is not ours");
        for budget in path.budgets() {
            budget.add_lease(NEXT, credits(3), None);
        }
        assert!(hold.grow(credits(1), Instant::now()).is_err());
        drop(hold);
        assert_eq!(free(&path), [3, 3]);
        assert_eq!(escrow.totals().held, Credits::ZERO);
    }

    #[test]
    fn credit_of_an_expired_grant_is_not_granted() {
        let (_escrow, path) = path(10, 10);
        let now = Instant::now();
        path.budgets()[0].add_lease(REPLICA, credits(5), Some(now + Duration::from_secs(2)));
        let hold = Reserved::take(&path, credits(9), now).unwrap();
        assert!(Reserved::take(&path, credits(1), now + Duration::from_secs(2)).is_err());
        // What a running request holds stays usable.
        assert_eq!(hold.amount(), credits(9));
    }

    #[test]
    fn the_spend_rate_is_net_of_what_came_back() {
        let (_escrow, path) = path(100, 100);
        let now = Instant::now();
        Reserved::take(&path, credits(40), now)
            .unwrap()
            .spend(credits(10));
        Reserved::take(&path, credits(5), now)
            .unwrap()
            .spend(credits(5));
        assert_eq!(path.budgets()[0].figures().spend_per_s, credits(15));
    }
}
