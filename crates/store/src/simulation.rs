//! A simulated database for tests: the real statements on one SQLite file, over links that are late, fail and break as a seed says.
//!
//! Every statement runs inside the poll that asks for it, so no time passes meanwhile on a paused
//! runtime: delays, faults and the database's clock are the [`Weather`]'s alone. Transactions
//! that write take turns, as they do where all touch one account; readers see what is committed.

mod link;
mod node;

use std::{
    fmt,
    future::Future,
    path::Path,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    thread::Thread,
    time::{Duration, Instant},
};

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, FromRow, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteRow, SqliteSynchronous},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};

pub(crate) use self::link::SimulatedLink;
pub use self::node::Node;
pub use crate::{clock::simulate_wall, fresh::simulate_ids};

use crate::{StoreError, clock, link::STATEMENT_MAX, sqlite};

/// Decides all that the code under test cannot: time, faults and delays.
pub trait Weather: fmt::Debug + Send + Sync {
    /// The database's clock, in microseconds since 1970.
    fn now_us(&self) -> i64;
    /// What becomes of this step of this node.
    fn fate(&self, node: u32, step: Step) -> Fate;
    /// A client went away while its commit was under way: whether it happens all the same.
    fn commits_anyway(&self, node: u32) -> bool;
    /// The connection of a client broke in the middle of a transaction: how long the server
    /// keeps the transaction open before it hears of it.
    fn lingers(&self, node: u32) -> Duration;
}

/// What is about to happen on a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A connection is made.
    Connect,
    /// A transaction begins.
    Begin,
    /// A statement runs.
    Statement,
    /// A transaction is committed.
    Commit,
    /// A notice of a change travels to a watcher.
    Notice,
}

/// What becomes of a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    /// Passes before the server does it.
    pub before: Duration,
    /// Passes before its answer arrives.
    pub after: Duration,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

/// What goes wrong with a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The server never hears of it; the connection is gone.
    Refused,
    /// The server does it, and the answer is lost with the connection.
    AnswerLost,
    /// A commit that the client gives up on at once, and that the server does so much later.
    Late(Duration),
    /// Nobody ever answers; the server never hears of it.
    Silence,
}

/// An id for a request of a simulation, from where all its ids come.
#[must_use]
pub fn new_id() -> uuid::Uuid {
    crate::fresh::uuid()
}

/// The one database of a simulation. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Database(Arc<Server>);

#[derive(Debug)]
struct Server {
    weather: Arc<dyn Weather>,
    writer: Mutex<SqliteConnection>,
    reader: Mutex<SqliteConnection>,
    turn: Arc<Semaphore>,
    /// The transaction that is open now.
    open: Mutex<Option<Open>>,
    sessions: AtomicU64,
    /// A broadcast wakes its receivers in order; a watch channel throws dice of its own.
    changes: broadcast::Sender<()>,
}

#[derive(Debug)]
struct Open {
    session: u64,
    _turn: OwnedSemaphorePermit,
    /// When the server will end it, if it hears nothing more.
    ends: Instant,
}

impl Database {
    /// An empty database with all tables in the folder.
    ///
    /// # Errors
    /// [`StoreError::Database`], [`StoreError::Migrate`].
    pub fn create(folder: &Path, weather: Arc<dyn Weather>) -> Result<Self, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(folder.join("simulated.db"))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Only simulated machines lose power.
            .synchronous(SqliteSynchronous::Off)
            .foreign_keys(true)
            .disable_statement_logging();
        let mut writer = run(SqliteConnection::connect_with(&options))?;
        run(sqlite::MIGRATIONS.run_direct(None, &mut writer, false))?;
        let reader = run(SqliteConnection::connect_with(&options))?;
        Ok(Self(Arc::new(Server {
            weather,
            writer: Mutex::new(writer),
            reader: Mutex::new(reader),
            turn: Arc::new(Semaphore::new(1)),
            open: Mutex::new(None),
            sessions: AtomicU64::new(1),
            changes: broadcast::Sender::new(64),
        })))
    }

    /// What is committed, without delay and without faults: for whoever judges a run.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub fn look<T>(&self, text: &str) -> Result<Vec<T>, StoreError>
    where
        T: for<'r> FromRow<'r, SqliteRow> + Send + Unpin,
    {
        let mut reader = lock(&self.0.reader);
        let rows = sqlx::query_as(AssertSqlSafe(text)).fetch_all(&mut *reader);
        Ok(run(rows)?)
    }

    /// Hears that changes were committed.
    pub(crate) fn changes(&self) -> broadcast::Receiver<()> {
        self.0.changes.subscribe()
    }
}

impl Server {
    /// Waits for the turn to write and begins a transaction; its number.
    async fn begin(&self) -> Result<u64, sqlx::Error> {
        let turn = loop {
            let turn = Arc::clone(&self.turn).acquire_owned();
            let ends = lock(&self.open).as_ref().map(|open| open.ends);
            let ends = ends.unwrap_or_else(|| clock::now() + STATEMENT_MAX);
            match tokio::time::timeout_at(ends.into(), turn).await {
                Ok(turn) => break turn.map_err(|_| gone())?,
                Err(_) => self.end_the_idle(),
            }
        };
        let session = self.sessions.fetch_add(1, Ordering::Relaxed);
        self.write("BEGIN IMMEDIATE")?;
        *lock(&self.open) = Some(Open {
            session,
            _turn: turn,
            ends: clock::now() + STATEMENT_MAX,
        });
        Ok(session)
    }

    /// Undoes an open transaction whose time is over.
    fn end_the_idle(&self) {
        let now = clock::now();
        let idle = lock(&self.open)
            .as_ref()
            .filter(|open| open.ends <= now)
            .map(|open| open.session);
        if let Some(session) = idle {
            self.roll_back(session);
        }
    }

    /// True while this transaction is open; it will be for another while.
    fn hears_from(&self, session: u64) -> bool {
        match lock(&self.open).as_mut() {
            Some(open) if open.session == session => {
                open.ends = clock::now() + STATEMENT_MAX;
                true
            }
            Some(_) | None => false,
        }
    }

    /// The client is gone without a word; the server will notice after `after`.
    fn abandon(&self, session: u64, after: Duration) {
        if after.is_zero() {
            self.roll_back(session);
        } else if let Some(open) = lock(&self.open).as_mut()
            && open.session == session
        {
            open.ends = clock::now() + after;
        }
    }

    fn roll_back(&self, session: u64) {
        let mut open = lock(&self.open);
        if open.as_ref().is_some_and(|open| open.session == session) {
            // SQLite ends some failed transactions by itself; then there is nothing to undo.
            let _ = self.write("ROLLBACK");
            *open = None;
        }
    }

    fn commit(&self, session: u64, changed: bool) -> Result<(), sqlx::Error> {
        let mut open = lock(&self.open);
        if open.as_ref().is_none_or(|open| open.session != session) {
            return Err(gone());
        }
        let committed = self.write("COMMIT");
        if committed.is_err() {
            let _ = self.write("ROLLBACK");
        }
        *open = None;
        drop(open);
        if committed.is_ok() && changed {
            // Nobody may be listening.
            let _ = self.changes.send(());
        }
        committed
    }

    fn write(&self, text: &'static str) -> Result<(), sqlx::Error> {
        let mut writer = lock(&self.writer);
        run(sqlx::query(text).execute(&mut *writer)).map(|_| ())
    }
}

/// The connection is gone.
fn gone() -> sqlx::Error {
    sqlx::Error::Io(std::io::ErrorKind::ConnectionReset.into())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a future of SQLite's to its end here and now: its worker is a thread, and on a paused
/// runtime time would run away while this one waits.
fn run<F: Future>(future: F) -> F::Output {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return done;
        }
        std::thread::park();
    }
}
