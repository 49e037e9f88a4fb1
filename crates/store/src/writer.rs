//! The writer: tries a batch until it is known to be committed, and makes memory agree with it.
//!
//! A batch's number is written with it, so an attempt whose commit was in doubt is never repeated:
//! that makes settlements, leases and returns happen exactly once, without ids of their own.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use billing::{AccountId, BudgetId, Credits, Escrow, ReplicaId, Settlement};
use tokio::sync::oneshot;

use crate::{
    Balance, LedgerOptions, Store, StoreError,
    batch::{self, Applied, Batch, Outcome},
    clock, fresh,
    idle::Idle,
    journal::{CLOSE_GRACE, Figures},
    line::{begin, connected, resume, unless_lost},
    local_journal::JournalFile,
    postgres::OwnConnection,
    refill::{Answer, Waiting},
    replica,
    sql::sql,
};

/// Between attempts; doubled up to the second. Short, so that a database that is back is used at
/// once: an attempt costs next to nothing.
const RETRY_FIRST: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(250);
/// So many settlements that could not be written are named in the log, one by one.
const NAMED_MAX: usize = 1000;

/// What writes batches, one after the other.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) store: Store,
    pub(crate) options: LedgerOptions,
    pub(crate) escrow: Escrow,
    pub(crate) figures: Arc<Mutex<Figures>>,
    /// Postgres: a connection of its own, thrown away after any fault.
    pub(crate) connection: Option<OwnConnection>,
    pub(crate) seq: i64,
    /// Where there is credit that may have to go back.
    pub(crate) idle: Idle,
    /// What of each lease the database knows to be held.
    pub(crate) held: BTreeMap<BudgetId, Credits>,
    /// When to stop trying, set from outside: the task may be in the middle of a batch.
    pub(crate) close_by: Arc<OnceLock<Instant>>,
    pub(crate) local: Option<Arc<JournalFile>>,
    /// Whether settlements were given up when the ledger closed.
    pub(crate) unwritten: bool,
    /// Settlements named in the log because they could not be written.
    pub(crate) named: usize,
}

/// What a batch carries beside the rows: who waits for it.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    pub(crate) asks: Vec<Waiting>,
    pub(crate) idle: Vec<Waiting>,
    pub(crate) balances: Vec<(AccountId, oneshot::Sender<Result<Balance, StoreError>>)>,
}

enum Attempt {
    Done(Outcome, Instant),
    Before,
    /// What was sent ahead is not what follows from the rules: once more, from the beginning.
    Otherwise,
    Reaped {
        committed: bool,
    },
    Failed(StoreError),
    /// The commit was sent and not answered.
    InDoubt(Outcome, Instant, StoreError),
}

impl Writer {
    /// Adds what changed of the held amounts, for other replicas' eyes.
    pub(crate) fn note_held(&self, batch: &mut Batch) {
        let held_now = self.idle.held();
        let gone = self.held.keys().filter(|id| !held_now.contains_key(id));
        batch.held.extend(gone.map(|id| (*id, Credits::ZERO)));
        let changed = held_now
            .into_iter()
            .filter(|(id, held)| self.held.get(id) != Some(held));
        batch.held.extend(changed);
    }

    /// Writes one batch, however long it takes, and tells those who wait for it.
    pub(crate) async fn write(&mut self, mut batch: Batch, waiters: Waiters) {
        let mut parts = Vec::new();
        if let Some(done) = self.commit(&mut batch, &mut parts).await {
            self.apply(&batch, done, waiters).await;
            return;
        }
        // Halves of a batch that the database refused for good, until the poison is alone.
        while let Some(mut part) = parts.pop() {
            if let Some(done) = self.commit(&mut part, &mut parts).await {
                self.apply(&part, done, Waiters::default()).await;
            }
        }
        // Those who waited for credit had no part in it.
        let mut questions = Batch {
            asks: std::mem::take(&mut batch.asks),
            ..Batch::default()
        };
        match self.commit(&mut questions, &mut parts).await {
            Some(done) => self.apply(&questions, done, waiters).await,
            None => waiters.refuse(),
        }
    }

    /// Tries until the batch is committed. `None`: it was refused for good, and what can be
    /// tried again in smaller pieces is in `parts`.
    pub(crate) async fn commit(
        &mut self,
        batch: &mut Batch,
        parts: &mut Vec<Batch>,
    ) -> Option<(Outcome, Instant)> {
        self.seq += 1;
        batch.seq = self.seq;
        let mut pause = RETRY_FIRST;
        let mut in_doubt = None;
        let mut failing_since = None;
        loop {
            // What was sent ahead is good for one attempt.
            let ahead = std::mem::take(&mut batch.ahead);
            let began = clock::now();
            let error = match self.attempt(batch, ahead).await {
                Attempt::Done(outcome, asked) => {
                    tell_return(failing_since);
                    return Some((outcome, asked));
                }
                Attempt::Before => match in_doubt.take() {
                    Some(done) => return Some(done),
                    None => StoreError::Corrupt("a batch of another process".into()),
                },
                Attempt::Reaped { committed } => {
                    let done = in_doubt.take().filter(|_| committed);
                    if let Err(error) = self.start_over().await {
                        error
                    } else if let Some((outcome, _)) = done {
                        // Booked, but what it leased was taken back.
                        return Some((outcome.without_leases(), clock::now()));
                    } else {
                        batch.returns.clear();
                        batch.held.clear();
                        self.seq += 1;
                        batch.seq = self.seq;
                        continue;
                    }
                }
                Attempt::Otherwise => continue,
                Attempt::Failed(error) if error.is_duplicate() && !batch.careful => {
                    // Settled before, perhaps: look first.
                    self.connection = None;
                    batch.careful = true;
                    continue;
                }
                Attempt::Failed(error) if error.is_refusal() => {
                    tracing::error!(%error, "the database refused a batch of the journal");
                    self.connection = None;
                    batch.split(parts, &error);
                    return None;
                }
                Attempt::Failed(error) => error,
                Attempt::InDoubt(outcome, asked, error) => {
                    in_doubt = Some((outcome, asked));
                    error
                }
            };
            self.connection = None;
            if self.give_up(began) {
                self.tell_unwritten(batch, &error);
                return None;
            }
            if failing_since.is_none() {
                tracing::warn!(%error, "the journal waits for the database");
            }
            failing_since.get_or_insert_with(clock::now);
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Closing with settlements that are not in the database: in the local journal they wait for
    /// the next start; without one, the log is all that knows them.
    fn tell_unwritten(&mut self, batch: &Batch, error: &StoreError) {
        let settlements = batch.settlements.len();
        if settlements == 0 {
            return;
        }
        self.unwritten = true;
        if self.local.is_some() {
            tracing::error!(
                settlements, %error,
                "closing with settlements that could not be written to the database; they are in the local journal and are booked by the next start"
            );
            return;
        }
        tracing::error!(settlements, %error, "closing with settlements that could not be written");
        for item in &batch.settlements {
            if self.named >= NAMED_MAX {
                break;
            }
            self.named += 1;
            let Settlement { facts, capture, .. } = &item.settlement;
            tracing::error!(
                request_id = %facts.request_id,
                account_id = %facts.account_id,
                cost = %capture.cost,
                "not written"
            );
            if self.named == NAMED_MAX {
                tracing::error!("more that could not be written are not named");
            }
        }
    }

    /// One attempt; `ahead` says that the charges lie in a transaction that is open already.
    async fn attempt(&mut self, batch: &Batch, ahead: bool) -> Attempt {
        let replica = self.escrow.replica();
        let store = self.store.clone();
        let asked = clock::now();
        let session = match connected(&store, &mut self.connection).await {
            Ok(session) => session,
            Err(error) => return Attempt::Failed(error),
        };
        let connection = &mut self.connection;
        let applying = async {
            let mut tx = match ahead {
                true => resume(connection)?,
                false => begin(&store, connection).await?,
            };
            let applied = batch::apply(&mut tx.link(), replica, batch, ahead).await?;
            Ok((tx, applied))
        };
        let (tx, outcome) = match unless_lost(&store, session, applying).await {
            Ok((tx, Applied::Ready(outcome))) => (tx, outcome),
            Ok((_, Applied::Otherwise)) => return Attempt::Otherwise,
            Ok((_, Applied::Before)) => return Attempt::Before,
            Ok((_, Applied::Reaped { committed })) => return Attempt::Reaped { committed },
            Err(error) => return Attempt::Failed(error),
        };
        match unless_lost(&store, session, tx.commit()).await {
            Ok(()) => Attempt::Done(outcome, asked),
            Err(error) => Attempt::InDoubt(outcome, asked, error),
        }
    }

    /// Makes memory agree with what was committed.
    async fn apply(&mut self, batch: &Batch, done: (Outcome, Instant), waiters: Waiters) {
        let (outcome, asked) = done;
        if let Some(local) = &self.local
            && !batch.settlements.is_empty()
        {
            let written = batch.settlements.iter();
            local.committed(written.map(|item| item.settlement.facts.request_id));
        }
        let replica = self.escrow.replica();
        let life = self
            .options
            .lease_ttl
            .saturating_sub(self.options.lease_margin);
        self.escrow.extend_fence(asked + life);
        for (budget, held) in &batch.held {
            if held.is_zero() {
                self.held.remove(budget);
            } else {
                self.held.insert(*budget, *held);
            }
        }
        // Before anybody hears of the batch: whoever does may ask for the figures next.
        self.note_figures(outcome.losses, outcome.dead);
        let now = clock::now();
        for (waiting, granted) in waiters.asks.into_iter().zip(outcome.granted) {
            if let Some(budget) = waiting.hear(replica, granted, outcome.now.0, asked) {
                self.idle.note(budget, now);
            }
        }
        for waiting in waiters.idle {
            waiting.answer(Answer::Try);
        }
        for (account, reply) in waiters.balances {
            let balance = self.balance(account).await;
            let _ = reply.send(balance);
        }
    }

    /// Counts what the operator bears, by cause, and how many settlements were put aside.
    fn note_figures(&self, losses: BTreeMap<&'static str, Credits>, dead: u64) {
        let mut figures = self.figures.lock().unwrap_or_else(PoisonError::into_inner);
        for (cause, amount) in losses {
            let sum = figures.losses.entry(cause).or_default();
            *sum = sum.saturating_add(amount);
        }
        figures.dead += dead;
        drop(figures);
        if dead > 0 {
            tracing::error!(
                settlements = dead,
                "settlements were put aside in dead_settlements; `tollway audit` lists them"
            );
        }
    }

    /// This process was taken for dead: its leases are gone. It goes on under a new name.
    async fn start_over(&mut self) -> Result<(), StoreError> {
        let id = ReplicaId::from_uuid(fresh::uuid());
        let mut tx = begin(&self.store, &mut self.connection).await?;
        replica::register(&mut tx.link(), id, self.options.lease_ttl).await?;
        tx.commit().await?;
        if let Some(local) = &self.local {
            local.replica(id);
        }
        self.escrow.reset(id);
        self.held.clear();
        self.seq = 0;
        tracing::warn!(replica = %id, "the leases had been taken back; going on as a new replica");
        Ok(())
    }

    /// An account's balance after the batch that was just committed. The rows of this replica's
    /// own lease are replaced by what is in memory, which is newer.
    async fn balance(&mut self, account: AccountId) -> Result<Balance, StoreError> {
        let replica = self.escrow.replica();
        let mut tx = begin(&self.store, &mut self.connection).await?;
        let select = sql("SELECT b.available, b.leased, b.spent, \
             CAST(COALESCE((SELECT l.amount FROM leases l \
                WHERE l.account_id = b.account_id AND l.budget_id = b.id \
                  AND l.replica_id = ?), 0) AS bigint), \
             CAST(COALESCE((SELECT SUM(l.held) FROM leases l \
                WHERE l.account_id = b.account_id AND l.budget_id = b.id \
                  AND l.replica_id <> ?), 0) AS bigint) \
             FROM budgets b WHERE b.account_id = ? AND b.id = ?")
        .uuid(replica.uuid())
        .uuid(replica.uuid())
        .uuid(account.uuid())
        .uuid(account.uuid());
        let row: Option<(i64, i64, i64, i64, i64)> = tx.link().maybe(select).await?;
        tx.commit().await?;
        let (available, leased, spent, mine, held_elsewhere) =
            row.ok_or(StoreError::UnknownAccount(account))?;
        let figures = self.escrow.budget(BudgetId::Account(account)).figures();
        let here = figures.free.saturating_add(figures.held);
        let mine = Credits::from_nanos(mine);
        let held = figures
            .held
            .saturating_add(Credits::from_nanos(held_elsewhere));
        let total = Credits::from_nanos(available)
            .saturating_add(Credits::from_nanos(leased))
            .saturating_sub(mine)
            .saturating_add(here);
        Ok(Balance {
            available: total.saturating_sub(held),
            held,
            total,
            used: Credits::from_nanos(spent).saturating_add(mine.saturating_sub(here)),
        })
    }

    /// Gives back what is free of all leases; false when that could not be written.
    pub(crate) async fn give_all_back(&mut self, mut returns: Batch) -> bool {
        self.commit(&mut returns, &mut Vec::new()).await.is_some()
    }

    /// Ends the replica, from which nobody holds any more; true when everything was written.
    pub(crate) async fn end(&mut self) -> bool {
        let replica = self.escrow.replica();
        let ended = async {
            let mut tx = begin(&self.store, &mut self.connection).await?;
            replica::end(&mut tx.link(), replica, "closed").await?;
            tx.commit().await
        };
        match ended.await {
            Ok(()) => !self.unwritten,
            Err(error) => {
                tracing::warn!(%error, "closed without giving the leases back; they expire");
                false
            }
        }
    }

    /// Whether an attempt that `began` then and failed was the last.
    fn give_up(&self, began: Instant) -> bool {
        // The grace is for the last writes, when running requests used the deadline up. An attempt
        // from before the deadline may have waited all the while for an answer that was lost,
        // from a database that is there: a new connection tells.
        self.close_by
            .get()
            .is_some_and(|deadline| clock::now() >= *deadline + CLOSE_GRACE && began >= *deadline)
    }

    pub(crate) fn tell_lag(&self, since: Instant) {
        let lag = clock::now().saturating_duration_since(since);
        let figures = self.figures.lock();
        figures.unwrap_or_else(PoisonError::into_inner).lag = lag;
    }
}

/// Says that the database is back, where it was away.
fn tell_return(failing_since: Option<Instant>) {
    if let Some(since) = failing_since {
        let away = clock::now().duration_since(since);
        tracing::info!(away_ms = away.as_millis(), "the database is back");
    }
}

impl Waiters {
    pub(crate) fn is_empty(&self) -> bool {
        self.asks.is_empty() && self.idle.is_empty() && self.balances.is_empty()
    }

    /// Drops the questions: whoever waits sees that nobody answers.
    fn refuse(self) {
        for (_, reply) in self.balances {
            let _ = reply.send(Err(StoreError::TimedOut));
        }
    }
}
