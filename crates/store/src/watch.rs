//! The watcher: hears what other replicas changed, by looking a few times a second; Postgres' notifications only make it look sooner.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use billing::{BudgetId, Escrow};
use tokio::sync::mpsc;

use crate::{
    LedgerOptions, Store, StoreError,
    auth::Keys,
    changes::{CHANGES_KEPT, Change, ChangeRecord, Marks},
    clock,
    journal::{Command, PERIOD_MIN},
    link::STATEMENT_MAX,
    sql::sql,
    store::Backend,
};

/// Changes are numbered before they are committed and may appear out of order: every look goes
/// back to a number that was the highest so long ago. The number is taken right before the
/// commit, and a server ends a transaction that it has not heard of for a statement's time: once
/// before the notice, once before the commit.
pub(crate) const OVERLAP: Duration = Duration::from_secs(45);
/// Between attempts to listen again.
const LISTEN_PAUSE: Duration = Duration::from_secs(5);
/// The longest look after one that went well: what another replica changed is to be known
/// within a second.
const LOOK_FIRST: Duration = Duration::from_millis(700);

/// The task's state.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) store: Store,
    pub(crate) options: LedgerOptions,
    pub(crate) escrow: Escrow,
    pub(crate) keys: Arc<Keys>,
    pub(crate) commands: mpsc::WeakSender<Command>,
    /// The numbers seen in the last look.
    pub(crate) seen: HashSet<i64>,
    /// Below which number nothing can appear any more.
    pub(crate) marks: Marks,
    pub(crate) looked: Option<Instant>,
}

impl Watcher {
    /// Runs until the ledger is gone.
    pub(crate) async fn run(mut self) {
        let mut changed = self.store.changes();
        let mut tick = tokio::time::interval(self.options.poll.max(PERIOD_MIN));
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut failing = false;
        let mut patience = LOOK_FIRST;
        loop {
            tokio::select! {
                // In a fixed order, so that a simulation repeats: both only say "look".
                biased;
                _ = tick.tick() => {}
                Ok(()) = changed.changed() => {}
            }
            // A look that hangs must not keep this replica blind: the next one starts afresh.
            // It gets twice the time, for a database that is slow and not away.
            let looked = tokio::time::timeout(patience, self.look())
                .await
                .unwrap_or(Err(StoreError::TimedOut));
            patience = match &looked {
                Ok(()) => LOOK_FIRST,
                Err(_) => (patience * 2).min(STATEMENT_MAX),
            };
            if let Err(error) = &looked
                && !failing
            {
                tracing::warn!(%error, "changes of other replicas cannot be read");
            }
            failing = looked.is_err();
            if self.commands.upgrade().is_none() {
                return;
            }
        }
    }

    /// Reads the changes since the last look and acts on those not seen before.
    async fn look(&mut self) -> Result<(), StoreError> {
        let started = clock::now();
        let since_last = self.looked.map(|at| started.duration_since(at));
        let settled = self.marks.settled(started);
        let select =
            sql("SELECT seq, kind, id, account_id, source FROM changes WHERE seq > ? ORDER BY seq");
        let rows: Vec<ChangeRecord> = {
            let mut reader = self.store.read().await?;
            reader.link().all(select.int(settled)).await?
        };
        if let Some(last) = rows.last() {
            self.marks.note(clock::now(), last.seq);
        }
        // What was looked up before the first look may have changed before it, too.
        let slept = since_last.is_none_or(|slept| slept + OVERLAP > CHANGES_KEPT);
        if slept {
            self.keys.forget_all();
        }
        let me = self.escrow.replica().uuid();
        // At the first look nothing is known any more that could be wrong.
        if self.looked.is_some() {
            for row in &rows {
                if !self.seen.contains(&row.seq) && row.source != Some(me) {
                    self.act(row);
                }
            }
        }
        self.seen = rows.iter().map(|row| row.seq).collect();
        self.looked = Some(started);
        Ok(())
    }

    fn act(&self, row: &ChangeRecord) {
        match row.change() {
            Some(Change::Key(key)) => self.keys.forget(Some(key), None),
            Some(Change::Account(account)) => {
                self.keys.forget(None, Some(account));
                // Streams that wait for a top-up try again.
                let budget = self.escrow.budget(BudgetId::Account(account));
                budget.changed().notify_waiters();
            }
            Some(Change::Recall(budget)) => {
                let budget = self.escrow.budget(budget);
                if budget.figures().free.is_positive()
                    && let Some(commands) = self.commands.upgrade()
                {
                    // A full queue means that the journal has better to do; the idle rule follows.
                    let _ = commands.try_send(Command::GiveBack(budget));
                }
            }
            // A newer version's change; what it is about was made for newer versions too.
            None => {}
        }
    }
}

/// Turns the notifications of Postgres into wake-ups of this process's watchers. A connection
/// that was lost is made again; meanwhile the watchers look by themselves.
pub(crate) async fn listen(store: Store) {
    let backend = match store.backend() {
        Backend::Sqlite(_) => return,
        Backend::Postgres(backend) => backend,
        #[cfg(feature = "simulation")]
        Backend::Simulated(node) => {
            let mut changes = node.database().changes();
            loop {
                node.noticed(&mut changes).await;
                store.wake();
            }
        }
    };
    if !backend.has_sessions() {
        // Behind a transaction pooler nobody would be told: the watchers look by themselves.
        return;
    }
    loop {
        if let Ok(mut listener) = backend.listen().await {
            store.wake();
            while listener.recv().await.is_ok() {
                store.wake();
            }
        }
        tokio::time::sleep(LISTEN_PAUSE).await;
    }
}
