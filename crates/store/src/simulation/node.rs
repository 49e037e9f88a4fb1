//! A simulated process: its link to the database, and the switch that freezes all its tasks.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use tokio::sync::broadcast::{self, error::RecvError};

use super::{Database, Fate, Fault, SimulatedLink, Step, gone, lock};
use crate::StoreError;

/// One process of a simulation. Cheap to clone.
#[derive(Clone)]
pub struct Node {
    database: Database,
    id: u32,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    frozen: AtomicBool,
    dead: AtomicBool,
    /// Tasks that were polled while frozen, in order.
    asleep: Mutex<Vec<Waker>>,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Node").field(&self.id).finish()
    }
}

impl Node {
    /// A process with this number, which the weather knows it by.
    #[must_use]
    pub fn new(database: &Database, id: u32) -> Self {
        Self {
            database: database.clone(),
            id,
            state: Arc::default(),
        }
    }

    /// Stops all tasks of the process, as `SIGSTOP` does; what the server does goes on.
    pub fn freeze(&self) {
        self.state.frozen.store(true, Ordering::SeqCst);
    }

    /// Lets them run on.
    pub fn thaw(&self) {
        self.state.frozen.store(false, Ordering::SeqCst);
        for waker in std::mem::take(&mut *lock(&self.state.asleep)) {
            waker.wake();
        }
    }

    /// The process is killed: nothing it does from now on reaches anybody.
    pub fn kill(&self) {
        self.state.dead.store(true, Ordering::SeqCst);
        self.thaw();
    }

    /// Whether it is frozen now.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.state.frozen.load(Ordering::SeqCst)
    }

    /// A task of this process.
    pub fn task<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        Task {
            state: Arc::clone(&self.state),
            inner: Box::pin(task),
        }
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state.dead.load(Ordering::SeqCst)
    }

    pub(crate) fn fate(&self, step: Step) -> Fate {
        self.database.0.weather.fate(self.id, step)
    }

    pub(crate) const fn id(&self) -> u32 {
        self.id
    }

    pub(crate) const fn database(&self) -> &Database {
        &self.database
    }

    /// Makes a connection.
    pub(crate) async fn connect(&self) -> Result<SimulatedLink, StoreError> {
        let fate = self.fate(Step::Connect);
        tokio::time::sleep(fate.before + fate.after).await;
        match fate.fault {
            None => Ok(SimulatedLink::new(self.clone())),
            Some(Fault::Silence) => {
                // No pool and no connect waits longer than its timeout.
                tokio::time::sleep(CONNECT_MAX).await;
                Err(StoreError::TimedOut)
            }
            Some(Fault::Refused | Fault::AnswerLost | Fault::Late(_)) => {
                Err(StoreError::Database(gone()))
            }
        }
    }

    /// Waits for a notice of a change; some are lost.
    pub(crate) async fn noticed(&self, changes: &mut broadcast::Receiver<()>) {
        loop {
            if let Err(RecvError::Closed) = changes.recv().await {
                return std::future::pending().await;
            }
            let fate = self.fate(Step::Notice);
            tokio::time::sleep(fate.before + fate.after).await;
            if fate.fault.is_none() {
                return;
            }
        }
    }
}

/// As [`crate::OpenOptions`] has it by default.
const CONNECT_MAX: Duration = Duration::from_secs(5);

struct Task<F> {
    state: Arc<State>,
    inner: Pin<Box<F>>,
}

impl<F: Future> Future for Task<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if self.state.frozen.load(Ordering::SeqCst) {
            lock(&self.state.asleep).push(cx.waker().clone());
            return Poll::Pending;
        }
        self.inner.as_mut().poll(cx)
    }
}
