//! The ledger of one replica: what the request path asks for keys, permits and credit.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use billing::{
    AccountId, Budget, BudgetId, Checkpoint, Credits, Escrow, Path, Permit, ReplicaId, Settlement,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use crate::{
    AuthError, Balance, KeyRecord, LedgerOptions, Store, StoreError,
    ahead::Ahead,
    auth::Keys,
    booking::USAGE_ABOVE_HOLD,
    changes::Marks,
    chores, clock, fresh,
    idle::Idle,
    journal::{CLOSE_GRACE, Command, Figures, Journal},
    lag::Lag,
    line,
    local_journal::{self, JournalFile},
    postgres::OwnConnection,
    reaper,
    refill::{Answer, Refills, slice},
    replica,
    store::Backend,
    watch::{self, Watcher},
    writer::Writer,
};

/// While other replicas are asked for what they do not use, the database is asked so often.
const RECALL_POLL: Duration = Duration::from_millis(15);
/// Other replicas are asked again after this.
const RECALL_EVERY: Duration = Duration::from_millis(100);
/// Where other replicas lease what is lacking, so many short waits are made for it.
const RECALL_WAITS: u32 = 10;
/// Commands that may wait for the journal.
const COMMANDS_MAX: usize = 4096;

/// One replica's side of the ledger. Cheap to clone; the last clone that goes takes the tasks
/// with it, without giving leases back (see [`Ledger::shutdown`]).
#[derive(Clone, Debug)]
pub struct Ledger(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    options: LedgerOptions,
    escrow: Escrow,
    keys: Arc<Keys>,
    refills: Arc<Refills>,
    figures: Arc<Mutex<Figures>>,
    settlements: mpsc::Sender<Settlement>,
    commands: mpsc::Sender<Command>,
    close_by: Arc<OnceLock<Instant>>,
    local: Option<Arc<JournalFile>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Why there is no permit for another request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoPermit {
    /// Too many requests are in flight, or the gateway shuts down.
    #[error("too many requests in flight")]
    Busy,
    /// The local journal cannot be written, so a request could be lost.
    #[error("the local journal cannot be written")]
    NotRecorded,
}

/// Why credit could not be obtained.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "not enough credit: {available} available, {held} held, {leased_elsewhere} with other replicas"
)]
pub struct Shortfall {
    /// The first budget that could not give.
    pub budget: BudgetId,
    /// What of it could be taken by a request here.
    pub available: Credits,
    /// What requests running here hold of it.
    pub held: Credits,
    /// What other replicas lease of it, held or not.
    pub leased_elsewhere: Credits,
    /// True when the ledger cannot be asked now, so that nothing is known: 503, not 402.
    pub unavailable: bool,
}

/// Figures for metrics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// Settlements and commands that wait.
    pub journal_queue: usize,
    /// How long the oldest settlement of the last batch waited, from when it was sent until its
    /// commit; at most a batch more than the truth, never less.
    pub journal_lag: Duration,
    /// Credits leased by this replica, free and held.
    pub leased: Credits,
    /// Credits held by running requests.
    pub held: Credits,
    /// Running requests that hold credit.
    pub holds_open: u64,
    /// Permits in use.
    pub in_flight: usize,
    /// Settlements put aside since the start, because nothing would take them.
    pub dead_settlements: u64,
    /// What the operator bore since the start, by cause.
    pub house_losses: BTreeMap<&'static str, Credits>,
    /// Whether this replica may grant nothing now.
    pub fenced: bool,
    /// Whether the local journal cannot be written now, where there is one.
    pub local_journal_failing: Option<bool>,
}

impl Ledger {
    /// Registers this process as a replica and starts its journal, watcher and chores. Where it
    /// keeps a local journal, what earlier lives left there is booked first.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::LocalJournalInUse`], [`StoreError::LocalJournal`].
    /// After a failure that may pass, call again: nothing is lost and nothing is booked twice.
    pub async fn start(store: Store, options: LedgerOptions) -> Result<Self, StoreError> {
        let id = ReplicaId::from_uuid(fresh::uuid());
        let local = open_local(&store, &options, id).await?;
        let asked = clock::now();
        let escrow = Escrow::new(id, asked);
        let connection = register(&store, id, options.lease_ttl).await?;
        escrow.extend_fence(asked + options.lease_ttl.saturating_sub(options.lease_margin));
        let (settlements, settlements_in) = mpsc::channel(options.in_flight_max.max(1));
        let (commands, commands_in) = mpsc::channel(COMMANDS_MAX);
        let keys = Arc::new(Keys::new(options.keys_cached_max));
        let refills = Arc::new(Refills::default());
        let figures = Arc::new(Mutex::new(Figures::default()));
        let close_by = Arc::new(OnceLock::new());
        let writer = Writer {
            store: store.clone(),
            options: options.clone(),
            escrow: escrow.clone(),
            figures: Arc::clone(&figures),
            connection,
            seq: 0,
            idle: Idle::new(options.idle),
            held: BTreeMap::new(),
            close_by: Arc::clone(&close_by),
            local: local.clone(),
            named: 0,
            unwritten: false,
        };
        let journal = Journal {
            writer,
            ahead: Ahead::new(&store),
            refills: Arc::clone(&refills),
            settlements: settlements_in,
            commands: commands_in,
            lag: Lag::default(),
            closing: None,
        };
        let watcher = Watcher {
            store: store.clone(),
            options: options.clone(),
            escrow: escrow.clone(),
            keys: Arc::clone(&keys),
            commands: commands.downgrade(),
            seen: HashSet::new(),
            marks: Marks::new(watch::OVERLAP),
            looked: None,
        };
        let tasks = vec![
            store.spawn(journal.run()),
            store.spawn(watcher.run()),
            store.spawn(watch::listen(store.clone())),
            store.spawn(chores::run(store.clone(), options.clone(), escrow.clone())),
        ];
        Ok(Self(Arc::new(Inner {
            store,
            options,
            escrow,
            keys,
            refills,
            figures,
            settlements,
            commands,
            close_by,
            local,
            tasks,
        })))
    }

    /// The store behind it.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.0.store
    }

    /// This replica's leases.
    #[must_use]
    pub fn escrow(&self) -> &Escrow {
        &self.0.escrow
    }

    /// The key with this secret. Known keys are answered from memory; a change to a key or its
    /// account is known within a second.
    ///
    /// # Errors
    /// [`AuthError`].
    pub async fn authenticate(&self, secret: &str) -> Result<Arc<KeyRecord>, AuthError> {
        let inner = &self.0;
        inner
            .keys
            .authenticate(&inner.store, &inner.escrow, secret)
            .await
    }

    /// The permit with which a request will settle, taken at admission.
    ///
    /// # Errors
    /// [`NoPermit`].
    pub fn reserve(&self) -> Result<Permit, NoPermit> {
        let place = self.0.settlements.clone().try_reserve_owned();
        let place = place.map_err(|_| NoPermit::Busy)?;
        match &self.0.local {
            None => Ok(place.into()),
            Some(local) if local.failing() => Err(NoPermit::NotRecorded),
            Some(local) => Ok(Permit::new(place, Some(Arc::clone(local) as _))),
        }
    }

    /// Waits until every budget of the path has `need` free in memory, fetching leases of about
    /// `want`, recalling other replicas' idle ones and waiting a little for running requests.
    /// Another task may take it first: loop over taking and obtaining, with one deadline.
    ///
    /// # Errors
    /// [`Shortfall`].
    pub async fn obtain(
        &self,
        path: &Path,
        need: Credits,
        want: Credits,
        deadline: Instant,
    ) -> Result<(), Shortfall> {
        if !need.is_positive() {
            return Ok(());
        }
        // Counted from the first answer: a database that was away says nothing about credit.
        let mut answered: Option<Instant> = None;
        let mut recalled: Option<Instant> = None;
        let mut recall = false;
        loop {
            let Some(budget) = self.lacking(path, need, clock::now()) else {
                return Ok(());
            };
            let mut changed = std::pin::pin!(budget.changed().notified());
            changed.as_mut().enable();
            let answer = self.refill(&budget, need, want, recall, deadline).await;
            let figures = budget.figures();
            let shortfall = |available, leased_elsewhere, unavailable| Shortfall {
                budget: budget.id(),
                available,
                held: figures.held,
                leased_elsewhere,
                unavailable,
            };
            let (available, leased_elsewhere) = match answer {
                Some(Answer::Try) => {
                    if clock::now() < deadline || self.lacking(path, need, clock::now()).is_none() {
                        continue;
                    }
                    // Others took what came, and there is no time to ask again.
                    return Err(shortfall(figures.free, Credits::ZERO, true));
                }
                Some(Answer::Short {
                    available,
                    leased_elsewhere,
                }) => (available.saturating_add(figures.free), leased_elsewhere),
                // Nobody answered in time, but credit may have come by another way.
                None if self.lacking(path, need, clock::now()).is_none() => return Ok(()),
                None => return Err(shortfall(figures.free, Credits::ZERO, true)),
            };
            if figures.free >= need {
                continue;
            }
            let elsewhere = leased_elsewhere.is_positive();
            let now = clock::now();
            // What lies idle with others comes back after a commit of theirs, also on a busy machine.
            let wait = self.0.options.short_wait * if elsewhere { RECALL_WAITS } else { 1 };
            let patience = deadline.min(*answered.get_or_insert(now) + wait);
            if !(elsewhere || figures.held.is_positive()) || now >= patience {
                return Err(shortfall(available, leased_elsewhere, false));
            }
            recall = elsewhere && recalled.is_none_or(|at| now >= at + RECALL_EVERY);
            recalled = if recall { Some(now) } else { recalled };
            let wake = if !elsewhere {
                patience
            } else if recall {
                now
            } else {
                patience.min(now + RECALL_POLL)
            };
            let _ = tokio::time::timeout_at(wake.into(), changed).await;
        }
    }

    /// Fetches more in the background where a budget has less than half of what its spending
    /// asks for. Cheap; does not wait.
    pub fn refill_soon(&self, budget: &Arc<Budget>) {
        let slice = slice(budget);
        let half = Credits::from_nanos(slice.nanos() / 2);
        if budget.figures().free >= half || !slice.is_positive() {
            return;
        }
        if self.0.refills.ask_ahead(budget, slice) {
            self.tell(budget.id());
        }
    }

    /// Writes down what a long request has consumed so far. Dropped when the journal is busy.
    pub fn checkpoint(&self, checkpoint: Checkpoint) {
        // The next one comes in a few seconds and says everything that this one says.
        let _ = self.0.commands.try_send(Command::Checkpoint(checkpoint));
    }

    /// An account's balance: exact for this replica, as of the last heartbeat for others.
    ///
    /// # Errors
    /// [`StoreError::UnknownAccount`], [`StoreError::TimedOut`].
    pub async fn balance(&self, account: AccountId) -> Result<Balance, StoreError> {
        let (reply, balance) = oneshot::channel();
        self.0
            .commands
            .try_send(Command::Balance(account, reply))
            .map_err(|_| StoreError::TimedOut)?;
        tokio::time::timeout(BALANCE_MAX, balance)
            .await
            .map_err(|_| StoreError::TimedOut)?
            .map_err(|_| StoreError::TimedOut)?
    }

    /// [`Stats::journal_lag`] alone. Cheap, while [`Ledger::stats`] visits every budget.
    #[must_use]
    pub fn journal_lag(&self) -> Duration {
        let figures = self.0.figures.lock();
        figures.unwrap_or_else(PoisonError::into_inner).lag
    }

    /// Figures for metrics.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let inner = &self.0;
        let totals = inner.escrow.totals();
        let waiting = |max: usize, free: usize| max.saturating_sub(free);
        let commands = waiting(inner.commands.max_capacity(), inner.commands.capacity());
        let in_flight = waiting(
            inner.settlements.max_capacity(),
            inner.settlements.capacity(),
        );
        let figures = inner.figures.lock().unwrap_or_else(PoisonError::into_inner);
        let mut house_losses = figures.losses.clone();
        let reaped = inner.store.reaped_loss();
        if reaped.is_positive() {
            let sum = house_losses.entry(USAGE_ABOVE_HOLD).or_default();
            *sum = sum.saturating_add(reaped);
        }
        Stats {
            journal_queue: commands,
            journal_lag: figures.lag,
            leased: totals.free.saturating_add(totals.held),
            held: totals.held,
            holds_open: totals.holds_open,
            in_flight,
            dead_settlements: figures.dead,
            house_losses,
            fenced: inner.escrow.fenced(clock::now()),
            local_journal_failing: inner.local.as_ref().map(|local| local.failing()),
        }
    }

    /// Takes no more requests, waits for running ones up to `deadline`, writes every settlement,
    /// gives all leases back. True when everything was written.
    pub async fn shutdown(&self, deadline: Duration) -> bool {
        let deadline = clock::now() + deadline;
        let _ = self.0.close_by.set(deadline);
        let (done, closed) = oneshot::channel();
        let give_up = (deadline + CLOSE_GRACE * 2).into();
        let close = async {
            let told = self.0.commands.send(Command::Close(deadline, done)).await;
            told.is_ok() && closed.await.unwrap_or(false)
        };
        tokio::time::timeout_at(give_up, close)
            .await
            .unwrap_or(false)
    }

    /// The first budget of the path that cannot give `need` now.
    fn lacking(&self, path: &Path, need: Credits, now: Instant) -> Option<Arc<Budget>> {
        let fenced = self.0.escrow.fenced(now);
        path.budgets()
            .iter()
            .find(|budget| {
                let figures = budget.figures();
                let expired = figures.usable_until.is_some_and(|until| now >= until);
                fenced || expired || figures.free < need
            })
            .cloned()
    }

    /// Asks for credit together with all who wait for the same budget. `None`: nobody answered.
    async fn refill(
        &self,
        budget: &Arc<Budget>,
        need: Credits,
        want: Credits,
        recall: bool,
        deadline: Instant,
    ) -> Option<Answer> {
        let (answer, first) = self.0.refills.join(budget, need, want, recall);
        if first {
            self.tell(budget.id());
        }
        tokio::time::timeout_at(deadline.into(), answer)
            .await
            .ok()?
            .ok()
    }

    /// Tells the journal that somebody waits; where its queue is full, nobody is left waiting.
    fn tell(&self, id: BudgetId) {
        if self.0.commands.try_send(Command::Refill(id)).is_err() {
            drop(self.0.refills.take(id));
        }
    }
}

/// Makes this process known, over the connection that the journal goes on with.
async fn register(
    store: &Store,
    id: ReplicaId,
    ttl: Duration,
) -> Result<Option<OwnConnection>, StoreError> {
    let mut connection = None;
    let mut tx = line::begin(store, &mut connection).await?;
    replica::register(&mut tx.link(), id, ttl).await?;
    tx.commit().await?;
    Ok(connection)
}

/// Opens the local journal where one is kept, and books what earlier lives left in it.
async fn open_local(
    store: &Store,
    options: &LedgerOptions,
    replica: ReplicaId,
) -> Result<Option<Arc<JournalFile>>, StoreError> {
    let Some(folder) = &options.local_journal else {
        return Ok(None);
    };
    let local = local_journal::open(store, folder, replica).await?;
    match store.backend() {
        // What the local journal did not know of: by its checkpoints.
        Backend::Sqlite(_) => reaper::reap_all(store).await?,
        Backend::Postgres(_) => {}
        #[cfg(feature = "simulation")]
        Backend::Simulated(_) => {}
    }
    Ok(Some(local))
}

/// The longest wait for a balance.
const BALANCE_MAX: Duration = Duration::from_secs(5);
