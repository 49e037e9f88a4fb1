//! The search for more credit in the middle of a stream: all that is lacking, else what is left, else none.

use std::{
    task::{Context, Poll},
    time::{Duration, Instant},
};

use billing::{AccountId, BudgetId, Charge, Credits, Path};
use futures_util::future::BoxFuture;
use store::{Ledger, Shortfall};

/// How long a stream waits for credit: long enough for a database to restart.
const WAIT_MAX: Duration = Duration::from_secs(5);

/// Where the search stands.
pub enum Search {
    /// Nothing is lacking.
    Enough,
    /// All that is lacking was asked for.
    Asked(Asking),
    /// It was not there; what is left was asked for.
    Rest(Asking, Shortfall),
    /// No more is to be had now, for this reason.
    Refused(Shortfall),
}

/// A question to the ledger.
pub struct Asking {
    lacking: Credits,
    answer: BoxFuture<'static, Result<(), Shortfall>>,
}

impl Search {
    /// Begins to look for what a charge lacks.
    #[must_use]
    pub fn begin(ledger: &Ledger, charge: &Charge, lacking: Credits) -> Self {
        match charge.path() {
            // Its replica was taken for dead: no credit that comes can be its own, so asking for
            // some would succeed for ever and help never.
            Some(path) if charge.is_stranded() => Self::Refused(stranded(path, charge.held())),
            Some(path) => Self::Asked(ask(ledger, path, lacking, lacking)),
            None => Self::Enough,
        }
    }

    /// Goes on; ready when the charge may have grown, or is refused more.
    pub fn poll(&mut self, cx: &mut Context<'_>, ledger: &Ledger, charge: &mut Charge) -> Poll<()> {
        loop {
            match self {
                Self::Enough | Self::Refused(_) => return Poll::Ready(()),
                Self::Asked(asking) => {
                    let answer = std::task::ready!(asking.answer.as_mut().poll(cx));
                    *self = match answer {
                        Ok(()) => Self::Enough,
                        Err(shortfall) => rest(ledger, charge, asking.lacking, shortfall),
                    };
                }
                Self::Rest(asking, shortfall) => {
                    let _ = std::task::ready!(asking.answer.as_mut().poll(cx));
                    charge.grow_up_to(asking.lacking, Instant::now());
                    *self = Self::Refused(*shortfall);
                }
            }
        }
    }
}

/// Not all of it is there: asks for what is.
fn rest(ledger: &Ledger, charge: &mut Charge, lacking: Credits, shortfall: Shortfall) -> Search {
    let left = shortfall.available.min(lacking);
    match charge.path() {
        Some(path) if left.is_positive() && !shortfall.unavailable => {
            Search::Rest(ask(ledger, path, left, lacking), shortfall)
        }
        Some(_) | None => {
            charge.grow_up_to(lacking, Instant::now());
            Search::Refused(shortfall)
        }
    }
}

/// The books of this request are lost, not its credit.
fn stranded(path: &Path, held: Credits) -> Shortfall {
    let account = AccountId::from_uuid(uuid::Uuid::nil());
    Shortfall {
        budget: path
            .budgets()
            .first()
            .map_or(BudgetId::Account(account), |budget| budget.id()),
        available: Credits::ZERO,
        held,
        leased_elsewhere: Credits::ZERO,
        unavailable: true,
    }
}

fn ask(ledger: &Ledger, path: &Path, amount: Credits, lacking: Credits) -> Asking {
    let ledger = ledger.clone();
    let path = path.clone();
    Asking {
        lacking,
        answer: Box::pin(async move {
            let deadline = Instant::now() + WAIT_MAX;
            ledger.obtain(&path, amount, amount, deadline).await
        }),
    }
}
