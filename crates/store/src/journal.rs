//! The journal: the one task of a replica that writes, batch after batch, until everything is durable.
//!
//! It gathers what a batch is made of; the [`Writer`] commits it. On Postgres the charges of the next
//! batch go ahead over a second connection meanwhile ([`crate::ahead`]), so that the server inserts
//! rows while it waits for the disk.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{AccountId, Budget, BudgetId, Checkpoint, Credits, Settlement};
use tokio::sync::{mpsc, oneshot};

use crate::{
    Balance, StoreError,
    ahead::{Ahead, Next},
    batch::{Asked, Batch, Item},
    clock,
    lag::Lag,
    refill::{Refills, Waiting},
    writer::{Waiters, Writer},
};

/// The most settlements, and the most commands, of one transaction. What a transaction costs by
/// itself is small beside what so many settlements cost, and they take a few tens of milliseconds.
pub(crate) const BATCH_MAX: usize = 2048;
/// The most idle budgets that are given back in one transaction: nobody waits for them, and others
/// wait for the transaction.
const IDLE_AT_ONCE: usize = 256;
/// Settlements that are worth a transaction without waiting for more.
const GATHERED_ENOUGH: usize = 512;
/// While settlements gather, they are counted so often.
const GATHER_STEP: Duration = Duration::from_millis(1);
/// So often others get a turn before a batch is made of what they ask.
const YIELDS_MAX: usize = 4;
/// No task of the ledger looks more often, whatever the options say.
pub(crate) const PERIOD_MIN: Duration = Duration::from_millis(10);
/// For the last writes of a replica that closes.
pub(crate) const CLOSE_GRACE: Duration = Duration::from_secs(2);

/// What the journal is asked to do.
#[derive(Debug)]
pub(crate) enum Command {
    /// Somebody waits for this budget.
    Refill(BudgetId),
    /// Give what is free of this budget back.
    GiveBack(Arc<Budget>),
    /// Keep what a long request has consumed.
    Checkpoint(Checkpoint),
    /// Tell an account's balance.
    Balance(AccountId, oneshot::Sender<Result<Balance, StoreError>>),
    /// Write everything and end; true when it was all written.
    Close(Instant, oneshot::Sender<bool>),
}

/// Figures that the journal keeps for metrics.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) lag: Duration,
    pub(crate) losses: BTreeMap<&'static str, Credits>,
    pub(crate) dead: u64,
}

/// The task's state.
#[derive(Debug)]
pub(crate) struct Journal {
    pub(crate) writer: Writer,
    pub(crate) ahead: Option<Ahead>,
    pub(crate) refills: Arc<Refills>,
    pub(crate) settlements: mpsc::Receiver<Settlement>,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) lag: Lag,
    pub(crate) closing: Option<(Instant, oneshot::Sender<bool>)>,
}

impl Journal {
    /// Runs until it is told to close, or until nobody is left who could tell it.
    pub(crate) async fn run(mut self) {
        let mut heartbeat =
            tokio::time::interval((self.writer.options.lease_ttl / 5).max(PERIOD_MIN));
        heartbeat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut settled = Vec::new();
        let mut next: Option<Next> = None;
        let mut drained = false;
        loop {
            let mut commands = Vec::new();
            let mut beat = false;
            let deadline = self.closing.as_ref().map(|(deadline, _)| *deadline);
            let queued = self.settlements.len();
            let taken = next.is_some();
            let idle_at = self.idle_at();
            tokio::select! {
                // In a fixed order, so that a simulation repeats; nobody starves, because every
                // round takes from both queues what is there.
                biased;
                () = until(deadline), if deadline.is_some() => drained = true,
                _ = heartbeat.tick() => beat = true,
                count = self.commands.recv_many(&mut commands, BATCH_MAX) => {
                    if count == 0 { return; }
                }
                () = std::future::ready(()), if taken => {}
                count = self.settlements.recv_many(&mut settled, BATCH_MAX), if !drained => {
                    drained = count == 0;
                }
                () = until(idle_at), if idle_at.is_some() => {}
            }
            if queued == 0 {
                // Whatever is here now came just now.
                self.lag.waiting(0, clock::now());
            }
            if self.closing.is_none() && !taken {
                if commands.is_empty() && !beat {
                    self.gather(settled.len(), &mut commands).await;
                }
                self.let_others_ask(&mut commands).await;
            }
            let (mut batch, mut waiters, since) = match next.take() {
                Some(next) => self.go_on(next),
                None => self.begin(&mut settled),
            };
            self.give_back_with(&mut batch);
            self.collect(&mut batch, &mut waiters, commands);
            self.give_idle_back(&mut batch);
            if beat {
                self.writer.note_held(&mut batch);
            }
            let idle = batch.is_empty() && waiters.is_empty() && !beat;
            if !idle {
                // Boxed: two batches under way are a large state.
                next = Box::pin(self.write(batch, waiters)).await;
                self.writer.tell_lag(since);
            }
            if drained
                && next.is_none()
                && let Some((_, done)) = self.closing.take()
            {
                let closed = self.close().await;
                let _ = done.send(closed);
                return;
            }
        }
    }

    /// A batch of what waits; since when the first of it did.
    fn begin(&mut self, settled: &mut Vec<Settlement>) -> (Batch, Waiters, Instant) {
        let since = take(&mut self.settlements, &mut self.lag, settled);
        let batch = Batch {
            settlements: settled.drain(..).map(Item::new).collect(),
            ..Batch::default()
        };
        (batch, Waiters::default(), since)
    }

    /// A batch of settlements that were taken already, whose charges may have gone ahead.
    fn go_on(&mut self, next: Next) -> (Batch, Waiters, Instant) {
        let sent = match (&mut self.ahead, next.sent) {
            (Some(ahead), Some(sent)) => ahead.hand_over(sent, &mut self.writer.connection),
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        let batch = Batch {
            settlements: next.items,
            ahead: sent,
            ..Batch::default()
        };
        (batch, Waiters::default(), next.since)
    }

    /// Writes a batch. Where enough for another one has gathered meanwhile, that is taken, and its
    /// charges go ahead while this one's commit is waited for.
    async fn write(&mut self, batch: Batch, waiters: Waiters) -> Option<Next> {
        let replica = self.writer.escrow.replica();
        let enough = enough(&self.settlements);
        let mut writing = pin!(self.writer.write(batch, waiters));
        let Some(ahead) = &mut self.ahead else {
            writing.await;
            return None;
        };
        while self.settlements.len() < enough {
            tokio::select! {
                biased;
                () = &mut writing => return None,
                () = tokio::time::sleep(GATHER_STEP) => {}
            }
        }
        let mut settled = Vec::new();
        let since = take(&mut self.settlements, &mut self.lag, &mut settled);
        let items: Vec<Item> = settled.into_iter().map(Item::new).collect();
        let ((), sent) = tokio::join!(writing, ahead.send(&items, replica));
        Some(Next { items, since, sent })
    }

    /// Lets settlements gather for a moment: nobody waits for them, and a commit costs the same
    /// for one as for hundreds. Whoever asks for something is not kept waiting, nor is a queue
    /// that fills up.
    async fn gather(&mut self, settled: usize, commands: &mut Vec<Command>) {
        let enough = enough(&self.settlements);
        let until = clock::now() + self.writer.options.linger;
        while settled + self.settlements.len() < enough && commands.is_empty() {
            let left = until.saturating_duration_since(clock::now());
            if left.is_zero() {
                return;
            }
            let gathered = self.commands.recv_many(commands, BATCH_MAX);
            let _ = tokio::time::timeout(left.min(GATHER_STEP), gathered).await;
        }
    }

    /// Lets everybody ask who is about to: those whom one commit answered come again at the same
    /// time, and a batch for the first of them would keep the others waiting.
    async fn let_others_ask(&mut self, commands: &mut Vec<Command>) {
        for _ in 0..YIELDS_MAX {
            if commands.is_empty() || commands.len() >= BATCH_MAX {
                return;
            }
            tokio::task::yield_now().await;
            let before = commands.len();
            self.take_asked(commands);
            if commands.len() == before {
                return;
            }
        }
    }

    /// Takes what is asked already, as far as it goes into one batch.
    fn take_asked(&mut self, commands: &mut Vec<Command>) {
        while commands.len() < BATCH_MAX
            && let Ok(command) = self.commands.try_recv()
        {
            commands.push(command);
        }
    }

    /// Puts what was asked into a batch, with what else is asked already: waiting longer would only
    /// add delay.
    fn collect(&mut self, batch: &mut Batch, waiters: &mut Waiters, mut commands: Vec<Command>) {
        self.take_asked(&mut commands);
        for command in commands {
            match command {
                Command::Refill(id) => {
                    if let Some(waiting) = self.refills.take(id) {
                        ask(batch, waiters, waiting);
                    }
                }
                Command::GiveBack(budget) => give_back(&mut batch.returns, &budget),
                Command::Checkpoint(checkpoint) => batch.checkpoints.push(checkpoint),
                Command::Balance(account, reply) => waiters.balances.push((account, reply)),
                Command::Close(deadline, done) => {
                    // No new permits; those that are out may still be used.
                    self.settlements.close();
                    self.closing = Some((deadline, done));
                }
            }
        }
    }

    /// Gives the rest of a lease back with the settlement of the request that it was taken for, where
    /// no other is expected soon: the rows that the settlement changes are the same.
    fn give_back_with(&self, batch: &mut Batch) {
        let now = clock::now();
        let mut before = None;
        for item in &batch.settlements {
            let settlement = &item.settlement;
            // Of a busy account they come in rows.
            let of = (settlement.facts.account_id, settlement.facts.key_id);
            if before.replace(of) == Some(of) {
                continue;
            }
            let writer = &self.writer;
            let budgets = writer.idle.with(settlement, &writer.escrow, now);
            for budget in budgets.into_iter().flatten() {
                give_back(&mut batch.returns, &budget);
            }
        }
    }

    /// Gives back some of what nobody asked for in a while.
    fn give_idle_back(&mut self, batch: &mut Batch) {
        for budget in self.writer.idle.take(clock::now(), IDLE_AT_ONCE) {
            give_back(&mut batch.returns, &budget);
        }
    }

    /// When idle credit is worth a batch of its own; it goes with any batch before that.
    fn idle_at(&self) -> Option<Instant> {
        let first = self.writer.idle.first()?;
        Some(first + self.writer.options.poll.max(PERIOD_MIN))
    }

    /// Writes what is left and ends the replica; true when everything was written.
    async fn close(&mut self) -> bool {
        loop {
            let (batch, waiters, _) = self.begin(&mut Vec::new());
            if !batch.is_empty() {
                self.writer.write(batch, waiters).await;
                continue;
            }
            let mut returns = Batch::default();
            self.writer
                .escrow
                .for_each_budget(|budget| give_back(&mut returns.returns, budget));
            if !self.writer.give_all_back(returns).await {
                return false;
            }
            // Requests may have ended while that was written. Once nobody has a permit any more,
            // nothing can come.
            match self.last_words().await {
                LastWords::Said(settlement) => {
                    let batch = Batch {
                        settlements: vec![Item::new(settlement)],
                        ..Batch::default()
                    };
                    self.writer.write(batch, Waiters::default()).await;
                }
                LastWords::NoneAnyMore => return self.writer.end().await,
                // Whatever still runs is booked by the reaper, from its checkpoints.
                LastWords::SomebodyRuns => return false,
            }
        }
    }

    /// What is in the queue now; the queue is closed.
    async fn last_words(&mut self) -> LastWords {
        let next = tokio::task::unconstrained(self.settlements.recv());
        tokio::select! {
            biased;
            said = next => said.map_or(LastWords::NoneAnyMore, LastWords::Said),
            () = std::future::ready(()) => LastWords::SomebodyRuns,
        }
    }
}

/// What is heard of requests when the journal closes.
#[expect(clippy::large_enum_variant, reason = "one at a time, and not for long")]
enum LastWords {
    Said(Settlement),
    NoneAnyMore,
    SomebodyRuns,
}

/// How many settlements are worth a transaction without waiting for more.
fn enough(settlements: &mpsc::Receiver<Settlement>) -> usize {
    GATHERED_ENOUGH.min(settlements.max_capacity() / 4)
}

/// Takes what waits, up to a batch in all; since when the first of it did.
fn take(
    settlements: &mut mpsc::Receiver<Settlement>,
    lag: &mut Lag,
    settled: &mut Vec<Settlement>,
) -> Instant {
    while settled.len() < BATCH_MAX
        && let Ok(settlement) = settlements.try_recv()
    {
        settled.push(settlement);
    }
    let now = clock::now();
    let since = lag.taken(settled.len(), now);
    lag.waiting(settlements.len(), now);
    since
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn ask(batch: &mut Batch, waiters: &mut Waiters, mut waiting: Waiting) {
    let now = clock::now();
    let figures = waiting.budget.figures();
    if figures.usable_until.is_some_and(|until| now >= until) {
        // What is free cannot be used any more; new credit must not be mixed with it.
        give_back(&mut batch.returns, &waiting.budget);
    }
    match waiting.ask(now) {
        Some(ask) => {
            batch.asks.push(Asked {
                budget: waiting.budget.id(),
                ask,
                recall: waiting.recall(),
            });
            waiters.asks.push(waiting);
        }
        None => waiters.idle.push(waiting),
    }
}

fn give_back(returns: &mut Vec<(BudgetId, Credits)>, budget: &Budget) {
    let amount = budget.take_idle();
    if amount.is_positive() {
        returns.push((budget.id(), amount));
    }
}
