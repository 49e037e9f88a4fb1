//! The rows that the ledger's rules work on, free of any database.

use crate::{AccountId, BudgetId, Credits, End, EntryId, KeyId, ReplicaId, RequestId};

/// A moment by the database's clock: microseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(pub i64);

/// One budget. `available + leased` is what is left of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BudgetRow {
    /// Which budget.
    pub id: BudgetId,
    /// Neither spent nor leased. Never below `floor` for an account; below it for a key whose
    /// limit was lowered, or that has none.
    pub available: Credits,
    /// Minus the overdraft, for an account; zero for a key.
    pub floor: Credits,
    /// Handed to replicas: the sum of the leases.
    pub leased: Credits,
    /// The sum of what its charges took.
    pub spent: Credits,
    /// What was spent beyond all grants, for an account: `Σ remaining − debt = available + leased`.
    pub debt: Credits,
}

/// What one replica was handed of one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseRow {
    /// The budget.
    pub budget: BudgetId,
    /// The replica.
    pub replica: ReplicaId,
    /// What is still in its hands, free and held together.
    pub amount: Credits,
}

/// Why an entry was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryKind {
    /// Credits were bought.
    Purchase,
    /// Credits were given.
    Promo,
    /// Credits to try the service with.
    Trial,
    /// Credits of a period.
    Allowance,
    /// A correction, up or down.
    Adjustment,
    /// Money given back: down, when a purchase is undone; up, when a charge is.
    Refund,
    /// A grant's rest ended with its time.
    Expiry,
    /// The charges of a month that was closed, in one sum.
    Closing,
    /// What a request had cost beyond the checkpoint that was charged for it.
    LateCharge,
}

impl EntryKind {
    /// Every kind, for tables and documentation.
    pub const ALL: [Self; 9] = [
        Self::Purchase,
        Self::Promo,
        Self::Trial,
        Self::Allowance,
        Self::Adjustment,
        Self::Refund,
        Self::Expiry,
        Self::Closing,
        Self::LateCharge,
    ];

    /// The name in JSON and in the database.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Purchase => "purchase",
            Self::Promo => "promo",
            Self::Trial => "trial",
            Self::Allowance => "allowance",
            Self::Adjustment => "adjustment",
            Self::Refund => "refund",
            Self::Expiry => "expiry",
            Self::Closing => "closing",
            Self::LateCharge => "late_charge",
        }
    }

    /// The kind of this name.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// True for the kinds that may take credits away.
    #[must_use]
    pub const fn may_be_negative(self) -> bool {
        match self {
            Self::Adjustment | Self::Refund | Self::Expiry | Self::Closing | Self::LateCharge => {
                true
            }
            Self::Purchase | Self::Promo | Self::Trial | Self::Allowance => false,
        }
    }

    /// True for the kinds that only the program itself books.
    #[must_use]
    pub const fn is_the_programs_own(self) -> bool {
        match self {
            Self::Expiry | Self::Closing | Self::LateCharge => true,
            Self::Purchase
            | Self::Promo
            | Self::Trial
            | Self::Allowance
            | Self::Adjustment
            | Self::Refund => false,
        }
    }
}

/// Credits that were added, and how much of them is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GrantRow {
    /// The entry that added them.
    pub id: EntryId,
    /// Why they were added.
    pub kind: EntryKind,
    /// What was added.
    pub amount: Credits,
    /// What is left, from zero to `amount`.
    pub remaining: Credits,
    /// When the rest expires.
    pub expires_at: Option<Moment>,
}

impl GrantRow {
    /// Soonest-expiring first, those that never expire last, then by id.
    pub(crate) fn order(&self) -> (bool, Option<Moment>, EntryId) {
        (self.expires_at.is_none(), self.expires_at, self.id)
    }

    pub(crate) fn expired(&self, now: Moment) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

/// An immutable row of the ledger; a balance is the sum of entries less the sum of charges.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryRow {
    /// Its id.
    pub id: EntryId,
    /// Whose balance it changes.
    pub account: AccountId,
    /// Why.
    pub kind: EntryKind,
    /// By how much, signed.
    pub amount: Credits,
    /// The grant it made or ended.
    pub grant: Option<EntryId>,
    /// What it refers to, in the operator's words or ours.
    pub reference: Option<String>,
}

/// What a charge already booked says, as far as the rules need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BookedCharge {
    /// The price of its usage.
    pub cost: Credits,
    /// What of that was taken from the account.
    pub charged: Credits,
    /// Whether it was booked from a checkpoint alone, as [`Due::checkpoint`] says.
    pub checkpoint: bool,
    /// Whether a difference found later was booked already.
    pub corrected: bool,
}

/// A request that ended and has to be booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    /// The request: it is booked once.
    pub request: RequestId,
    /// Who pays.
    pub account: AccountId,
    /// The key that asked.
    pub key: KeyId,
    /// The replica whose leases covered it.
    pub lease: ReplicaId,
    /// How it ended.
    pub end: End,
    /// Only its last checkpoint is known: its settlement, should one come, corrects the charge.
    pub checkpoint: bool,
    /// The price of its usage: the sum of the next three.
    pub cost: Credits,
    /// Covered by the lease.
    pub charged: Credits,
    /// To be taken from the account where credit is there.
    pub owed: Credits,
    /// Known to be the operator's.
    pub house_loss: Credits,
}

/// What booking a [`Due`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Booked {
    /// A new charge: `charged + house_loss = cost`.
    Charge {
        /// Taken from the account.
        charged: Credits,
        /// Borne by the operator.
        house_loss: Credits,
        /// Its lease had been taken back before it arrived.
        late: bool,
    },
    /// It had been booked before; nothing changed.
    Replayed,
    /// The reaper had charged a checkpoint and the request cost more: the difference is taken
    /// from the account as far as credit is there, by an entry of its own.
    LateCharge {
        /// Taken from the account.
        charged: Credits,
        /// Borne by the operator.
        house_loss: Credits,
    },
    /// The reaper had charged a checkpoint and the request cost less: the account got it back.
    LateRefund(Credits),
}

/// What a replica asks of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// The least that helps: the smallest amount that one request waits for; zero when none
    /// waits and the refill is only ahead of need.
    pub need: Credits,
    /// What all waiting requests ask for together; at least `need`.
    pub asked: Credits,
    /// What would serve the next seconds; at least `asked`.
    pub want: Credits,
}

/// What a replica got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Granted {
    /// A lease, or more of one.
    Lease {
        /// How much it grew.
        amount: Credits,
        /// When the soonest-expiring grant behind the account ends, where one does.
        usable_until: Option<Moment>,
    },
    /// Less is there than any one request needs.
    Short {
        /// What is there.
        available: Credits,
        /// What other replicas have.
        leased_elsewhere: Credits,
    },
}

/// Why a rule refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The budget is not in the book.
    #[error("no such budget")]
    UnknownBudget,
    /// An amount below zero, or a sum that does not add up.
    #[error("the amounts do not add up")]
    Unbalanced,
    /// An amount does not fit.
    #[error("an amount does not fit")]
    Overflow,
    /// There is less to take from.
    #[error("only {available} to take from")]
    BelowZero {
        /// What could be taken.
        available: Credits,
    },
    /// The floor would be above what is available.
    #[error("the overdraft is in use, available is {available}")]
    OverdraftInUse {
        /// What is available, below zero.
        available: Credits,
    },
}

impl From<crate::CreditsError> for RuleError {
    fn from(_: crate::CreditsError) -> Self {
        Self::Overflow
    }
}
