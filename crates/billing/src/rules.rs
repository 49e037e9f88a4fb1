//! The ledger's transitions as pure functions over rows: the store loads them, applies one, and writes them back.
//!
//! A [`Book`] holds the rows that a transaction touches, all of them locked. Every method either
//! changes the book as a whole or refuses and changes nothing. What must always hold:
//!
//! - an account: `available + leased = Σ entries − Σ charges = Σ grants.remaining − debt`, `available ≥ floor`;
//! - a key: `available + leased + spent = limit` (zero where it has none);
//! - `leased = Σ leases`; a charge: `charged + house_loss = cost`, at most one per request.

mod rows;

use std::collections::BTreeMap;

pub use rows::{
    Ask, Booked, BookedCharge, BudgetRow, Due, EntryKind, EntryRow, GrantRow, Granted, LeaseRow,
    Moment, RuleError,
};

use crate::{AccountId, BudgetId, Credits, EntryId, KeyId, ReplicaId, RequestId};

/// A wanted slice smaller than this many times what is needed is not worth keeping: then exactly
/// what is needed is handed out.
const SLICE_NEEDS_MIN: i64 = 4;

/// The rows that one transaction touches.
#[derive(Clone, Debug, Default)]
pub struct Book {
    now: Moment,
    budgets: BTreeMap<BudgetId, BudgetRow>,
    leases: BTreeMap<(BudgetId, ReplicaId), LeaseRow>,
    grants: BTreeMap<AccountId, Vec<GrantRow>>,
    booked: BTreeMap<RequestId, BookedCharge>,
    entries: Vec<EntryRow>,
}

impl Book {
    /// A book over these rows at `now`, by the database's clock. `grants` need to hold those with
    /// something remaining only, `booked` the charges of the requests that will be settled.
    #[must_use]
    pub fn new(
        now: Moment,
        budgets: impl IntoIterator<Item = BudgetRow>,
        leases: impl IntoIterator<Item = LeaseRow>,
        grants: impl IntoIterator<Item = (AccountId, GrantRow)>,
        booked: impl IntoIterator<Item = (RequestId, BookedCharge)>,
    ) -> Self {
        let mut by_account: BTreeMap<AccountId, Vec<GrantRow>> = BTreeMap::new();
        for (account, grant) in grants {
            by_account.entry(account).or_default().push(grant);
        }
        for grants in by_account.values_mut() {
            grants.sort_by_key(GrantRow::order);
        }
        Self {
            now,
            budgets: budgets.into_iter().map(|row| (row.id, row)).collect(),
            leases: leases
                .into_iter()
                .map(|row| ((row.budget, row.replica), row))
                .collect(),
            grants: by_account,
            booked: booked.into_iter().collect(),
            entries: Vec::new(),
        }
    }

    /// The moment the book was opened at.
    #[must_use]
    pub const fn now(&self) -> Moment {
        self.now
    }

    /// Moves the book's clock; a book of the store never outlives its transaction and need not.
    pub fn set_now(&mut self, now: Moment) {
        self.now = now;
    }

    /// The budgets as they are now.
    pub fn budgets(&self) -> impl Iterator<Item = &BudgetRow> {
        self.budgets.values()
    }

    /// The leases as they are now.
    pub fn leases(&self) -> impl Iterator<Item = &LeaseRow> {
        self.leases.values()
    }

    /// The grants as they are now, each account's in the order of use.
    pub fn grants(&self) -> impl Iterator<Item = (AccountId, &GrantRow)> {
        self.grants
            .iter()
            .flat_map(|(account, grants)| grants.iter().map(|grant| (*account, grant)))
    }

    /// The entries that the rules made.
    #[must_use]
    pub fn entries(&self) -> &[EntryRow] {
        &self.entries
    }

    /// One budget.
    ///
    /// # Errors
    /// [`RuleError::UnknownBudget`].
    pub fn budget(&self, id: BudgetId) -> Result<&BudgetRow, RuleError> {
        self.budgets.get(&id).ok_or(RuleError::UnknownBudget)
    }

    /// Adds a new and empty budget: of an account with its floor, or of a key with its limit.
    pub fn open(&mut self, row: BudgetRow) {
        self.budgets.entry(row.id).or_insert(row);
    }

    /// Adds credits: debt is paid first, the rest is a grant.
    ///
    /// # Errors
    /// [`RuleError::Unbalanced`] for an amount that is not positive, [`RuleError::Overflow`],
    /// [`RuleError::UnknownBudget`].
    pub fn credit(&mut self, entry: EntryRow, expires_at: Option<Moment>) -> Result<(), RuleError> {
        if !entry.amount.is_positive() {
            return Err(RuleError::Unbalanced);
        }
        let budget = self.account_mut(entry.account)?;
        let available = budget.available.checked_add(entry.amount)?;
        // The sums of the audit must fit as well.
        available.checked_add(budget.leased)?;
        let repaid = budget.debt.min(entry.amount);
        budget.available = available;
        budget.debt = budget.debt.checked_sub(repaid)?;
        let grant = GrantRow {
            id: entry.id,
            kind: entry.kind,
            amount: entry.amount,
            remaining: entry.amount.checked_sub(repaid)?,
            expires_at,
        };
        let grants = self.grants.entry(entry.account).or_default();
        let at = grants.partition_point(|other| other.order() < grant.order());
        grants.insert(at, grant);
        self.entries.push(EntryRow {
            grant: Some(entry.id),
            ..entry
        });
        Ok(())
    }

    /// Takes credits away (`entry.amount` is negative), never below zero and never what is leased.
    ///
    /// # Errors
    /// [`RuleError::BelowZero`]; [`RuleError::Unbalanced`] for an amount that is not negative.
    pub fn debit(&mut self, entry: EntryRow) -> Result<(), RuleError> {
        if !entry.amount.is_negative() {
            return Err(RuleError::Unbalanced);
        }
        let amount = entry.amount.checked_neg()?;
        let budget = self.account_mut(entry.account)?;
        if budget.available < amount {
            return Err(RuleError::BelowZero {
                available: budget.available.at_least_zero(),
            });
        }
        budget.available = budget.available.checked_sub(amount)?;
        self.consume(entry.account, amount)?;
        self.entries.push(entry);
        Ok(())
    }

    /// Hands credit of a budget to a replica. An account's expired grants end first, so that
    /// nothing expired is handed out; `entry_id` makes ids for the entries.
    ///
    /// # Errors
    /// [`RuleError::UnknownBudget`], [`RuleError::Overflow`].
    pub fn acquire(
        &mut self,
        id: BudgetId,
        replica: ReplicaId,
        ask: Ask,
        live_replicas: u32,
        entry_id: &mut dyn FnMut() -> EntryId,
    ) -> Result<Granted, RuleError> {
        if let BudgetId::Account(account) = id {
            self.expire(account, entry_id)?;
        }
        let now = self.now;
        let usable_until = match id {
            BudgetId::Account(account) => self.next_expiry(account, now),
            BudgetId::Key(..) => None,
        };
        let mine = self.lease_amount(id, replica);
        let budget = self.budgets.get_mut(&id).ok_or(RuleError::UnknownBudget)?;
        let room = budget.available.saturating_sub(budget.floor);
        let Some(amount) = lease_grant(room, ask, live_replicas) else {
            return Ok(Granted::Short {
                available: room.at_least_zero(),
                leased_elsewhere: budget.leased.saturating_sub(mine).at_least_zero(),
            });
        };
        budget.leased = budget.leased.checked_add(amount)?;
        budget.available = budget.available.checked_sub(amount)?;
        let amount_after = mine.checked_add(amount)?;
        self.leases.insert(
            (id, replica),
            LeaseRow {
                budget: id,
                replica,
                amount: amount_after,
            },
        );
        Ok(Granted::Lease {
            amount,
            usable_until,
        })
    }

    /// Takes up to `amount` of a lease back, and tells how much that was.
    ///
    /// # Errors
    /// [`RuleError::UnknownBudget`], [`RuleError::Overflow`].
    pub fn give_back(
        &mut self,
        id: BudgetId,
        replica: ReplicaId,
        amount: Credits,
    ) -> Result<Credits, RuleError> {
        let amount = amount.min(self.lease_amount(id, replica)).at_least_zero();
        let budget = self.budgets.get_mut(&id).ok_or(RuleError::UnknownBudget)?;
        let available = budget.available.checked_add(amount)?;
        budget.leased = budget.leased.checked_sub(amount)?;
        budget.available = available;
        self.lower_lease(id, replica, amount)?;
        Ok(amount)
    }

    /// Takes back everything that a dead replica had.
    ///
    /// # Errors
    /// [`RuleError::UnknownBudget`] when a lease's budget was not loaded, [`RuleError::Overflow`].
    pub fn reclaim(&mut self, replica: ReplicaId) -> Result<(), RuleError> {
        let theirs: Vec<_> = self
            .leases
            .values()
            .filter(|lease| lease.replica == replica)
            .copied()
            .collect();
        for lease in theirs {
            self.give_back(lease.budget, replica, lease.amount)?;
        }
        Ok(())
    }

    /// Books a request that ended, exactly once.
    ///
    /// What its lease covers is drawn from the lease; what it does not cover, because it is owed
    /// or because the lease was taken back meanwhile, is taken from the account as far as credit
    /// is there, and the operator bears the rest. `late` says that the lease is known to be gone.
    ///
    /// # Errors
    /// [`RuleError::Unbalanced`] when the amounts do not add up, [`RuleError::UnknownBudget`],
    /// [`RuleError::Overflow`].
    pub fn settle(&mut self, due: &Due, late: bool) -> Result<Booked, RuleError> {
        let parts = [due.charged, due.owed, due.house_loss];
        let sum = parts
            .iter()
            .try_fold(Credits::ZERO, |sum, part| sum.checked_add(*part))?;
        if sum != due.cost || parts.iter().any(|part| part.is_negative()) {
            return Err(RuleError::Unbalanced);
        }
        if let Some(booked) = self.booked.get(&due.request).copied() {
            return self.settle_again(due, booked);
        }
        let (charged, house_loss) = self.draw(due)?;
        self.booked.insert(
            due.request,
            BookedCharge {
                cost: due.cost,
                charged,
                checkpoint: due.checkpoint,
                corrected: false,
            },
        );
        Ok(Booked::Charge {
            charged,
            house_loss,
            late,
        })
    }

    /// Ends the rest of an account's expired grants. What is leased may still be used and is
    /// counted against the soonest-expiring grants; it expires when it comes back.
    ///
    /// # Errors
    /// [`RuleError::UnknownBudget`], [`RuleError::Overflow`].
    pub fn expire(
        &mut self,
        account: AccountId,
        entry_id: &mut dyn FnMut() -> EntryId,
    ) -> Result<Credits, RuleError> {
        let now = self.now;
        let mut in_use = self.budget(BudgetId::Account(account))?.leased;
        let mut ended = Credits::ZERO;
        let grants = self.grants.entry(account).or_default();
        for grant in grants.iter_mut().filter(|grant| grant.expired(now)) {
            let kept = in_use.min(grant.remaining);
            in_use = in_use.checked_sub(kept)?;
            let end = grant.remaining.checked_sub(kept)?;
            if end.is_zero() {
                continue;
            }
            grant.remaining = kept;
            ended = ended.checked_add(end)?;
            self.entries.push(EntryRow {
                id: entry_id(),
                account,
                kind: EntryKind::Expiry,
                amount: end.checked_neg()?,
                grant: Some(grant.id),
                reference: None,
            });
        }
        let budget = self.account_mut(account)?;
        budget.available = budget.available.checked_sub(ended)?;
        Ok(ended)
    }

    /// Changes an account's overdraft.
    ///
    /// # Errors
    /// [`RuleError::OverdraftInUse`] when more of it is used than would be left.
    pub fn set_overdraft(
        &mut self,
        account: AccountId,
        overdraft: Credits,
    ) -> Result<(), RuleError> {
        if overdraft.is_negative() {
            return Err(RuleError::Unbalanced);
        }
        let floor = overdraft.checked_neg()?;
        let budget = self.account_mut(account)?;
        if budget.available < floor {
            return Err(RuleError::OverdraftInUse {
                available: budget.available,
            });
        }
        budget.floor = floor;
        Ok(())
    }

    /// Changes a key's limit; zero for a key that has none. Below what is spent and leased
    /// already, nothing more is handed out until the limit is raised.
    ///
    /// # Errors
    /// [`RuleError::UnknownBudget`], [`RuleError::Overflow`].
    pub fn set_limit(
        &mut self,
        account: AccountId,
        key: KeyId,
        limit: Credits,
    ) -> Result<(), RuleError> {
        let budget = self
            .budgets
            .get_mut(&BudgetId::Key(account, key))
            .ok_or(RuleError::UnknownBudget)?;
        budget.available = limit
            .checked_sub(budget.spent)?
            .checked_sub(budget.leased)?;
        Ok(())
    }

    /// Takes what `due` costs: first from its lease, then from what is available.
    fn draw(&mut self, due: &Due) -> Result<(Credits, Credits), RuleError> {
        let account = BudgetId::Account(due.account);
        let from_lease = due.charged.min(self.lease_amount(account, due.lease));
        let budget = self.budget(account)?;
        let uncovered = due.charged.checked_sub(from_lease)?.checked_add(due.owed)?;
        let room = budget
            .available
            .saturating_sub(budget.floor)
            .at_least_zero();
        let collected = uncovered.min(room);
        let charged = from_lease.checked_add(collected)?;
        let spent = budget.spent.checked_add(charged)?;
        let key = BudgetId::Key(due.account, due.key);
        // What is owed was never held: the rest of the key's lease is what other requests hold.
        let held = charged.min(due.charged);
        let key_leased = held.min(self.lease_amount(key, due.lease));
        let key_budget = self.budget(key)?;
        let key_available = key_budget
            .available
            .checked_sub(charged.checked_sub(key_leased)?)?;
        let key_spent = key_budget.spent.checked_add(charged)?;

        // Nothing below can refuse: every amount is part of one that was checked above.
        let budget = self.account_mut(due.account)?;
        budget.spent = spent;
        budget.leased = budget.leased.checked_sub(from_lease)?;
        budget.available = budget.available.checked_sub(collected)?;
        self.lower_lease(account, due.lease, from_lease)?;
        self.consume(due.account, charged)?;
        if let Some(key_budget) = self.budgets.get_mut(&key) {
            key_budget.spent = key_spent;
            key_budget.leased = key_budget.leased.checked_sub(key_leased)?;
            key_budget.available = key_available;
        }
        self.lower_lease(key, due.lease, key_leased)?;
        Ok((charged, due.cost.checked_sub(charged)?))
    }

    /// A request that was booked before: a replay changes nothing; the true figure of one whose
    /// checkpoint the reaper charged corrects it, once.
    fn settle_again(&mut self, due: &Due, booked: BookedCharge) -> Result<Booked, RuleError> {
        if !booked.checkpoint || due.checkpoint || booked.corrected {
            return Ok(Booked::Replayed);
        }
        let outcome = if due.cost > booked.cost {
            self.charge_late(due, booked)?
        } else if due.cost < booked.charged {
            let back = booked.charged.checked_sub(due.cost)?;
            self.credit(late_entry(due, EntryKind::Adjustment, back), None)?;
            Booked::LateRefund(back)
        } else {
            return Ok(Booked::Replayed);
        };
        self.booked.insert(
            due.request,
            BookedCharge {
                corrected: true,
                ..booked
            },
        );
        Ok(outcome)
    }

    /// Takes what a request cost beyond its checkpoint from what is available, above the floor.
    /// What the request itself knew to be the operator's stays so.
    fn charge_late(&mut self, due: &Due, booked: BookedCharge) -> Result<Booked, RuleError> {
        let rest = due.cost.checked_sub(booked.cost)?;
        let owes = due.charged.checked_add(due.owed)?;
        let owes = owes.checked_sub(booked.charged)?.at_least_zero().min(rest);
        let budget = self.account_mut(due.account)?;
        let room = budget
            .available
            .saturating_sub(budget.floor)
            .at_least_zero();
        let charged = owes.min(room);
        let house_loss = rest.checked_sub(charged)?;
        if charged.is_positive() {
            let entry = late_entry(due, EntryKind::LateCharge, charged.checked_neg()?);
            budget.available = budget.available.checked_sub(charged)?;
            self.consume(due.account, charged)?;
            self.entries.push(entry);
        }
        Ok(Booked::LateCharge {
            charged,
            house_loss,
        })
    }

    /// Uses grants up, soonest-expiring first; what they do not cover is debt.
    fn consume(&mut self, account: AccountId, amount: Credits) -> Result<(), RuleError> {
        let mut rest = amount;
        for grant in self.grants.entry(account).or_default() {
            if rest.is_zero() {
                return Ok(());
            }
            let part = rest.min(grant.remaining);
            grant.remaining = grant.remaining.checked_sub(part)?;
            rest = rest.checked_sub(part)?;
        }
        let budget = self.account_mut(account)?;
        budget.debt = budget.debt.checked_add(rest)?;
        Ok(())
    }

    fn next_expiry(&self, account: AccountId, now: Moment) -> Option<Moment> {
        self.grants
            .get(&account)?
            .iter()
            .filter(|grant| grant.remaining.is_positive() && !grant.expired(now))
            .find_map(|grant| grant.expires_at)
    }

    fn lease_amount(&self, budget: BudgetId, replica: ReplicaId) -> Credits {
        self.leases
            .get(&(budget, replica))
            .map_or(Credits::ZERO, |lease| lease.amount)
    }

    fn lower_lease(
        &mut self,
        budget: BudgetId,
        replica: ReplicaId,
        amount: Credits,
    ) -> Result<(), RuleError> {
        if let Some(lease) = self.leases.get_mut(&(budget, replica)) {
            lease.amount = lease.amount.checked_sub(amount)?;
        }
        Ok(())
    }

    fn account_mut(&mut self, account: AccountId) -> Result<&mut BudgetRow, RuleError> {
        self.budgets
            .get_mut(&BudgetId::Account(account))
            .ok_or(RuleError::UnknownBudget)
    }
}

/// The correction of a request whose checkpoint was charged.
fn late_entry(due: &Due, kind: EntryKind, amount: Credits) -> EntryRow {
    EntryRow {
        // The request's own id: it cannot be corrected twice.
        id: EntryId::from_uuid(due.request.uuid()),
        account: due.account,
        kind,
        amount,
        grant: None,
        reference: Some(format!("late settlement of {}", due.request)),
    }
}

/// How much of `room` a replica gets: a slice that serves the next seconds while there is plenty
/// (at most half of what each live replica's share would be), exactly what is asked for when
/// there is not, as far as it goes; nothing when it helps no request.
#[must_use]
pub fn lease_grant(room: Credits, ask: Ask, live_replicas: u32) -> Option<Credits> {
    let need = ask.need.at_least_zero();
    if room < need || !room.is_positive() {
        return None;
    }
    let share = room.nanos() / (2 * i64::from(live_replicas.max(1)));
    let slice = ask.want.min(Credits::from_nanos(share));
    let worth_keeping = if need.is_zero() {
        Credits::from_nanos(ask.want.nanos() / SLICE_NEEDS_MIN)
    } else {
        Credits::from_nanos(need.nanos().saturating_mul(SLICE_NEEDS_MIN))
    };
    let amount = if slice >= worth_keeping && slice >= ask.asked {
        slice
    } else {
        ask.asked.max(need).min(room)
    };
    amount.is_positive().then_some(amount)
}

#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod table_tests;
