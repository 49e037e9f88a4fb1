//! Postgres: a pool for reading and the operator's calls; the journal has a connection of its own.

use std::{
    str::FromStr,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use sqlx::{
    ConnectOptions, Connection, Executor, PgConnection, Pool, Postgres, Row,
    migrate::Migrator,
    pool::PoolConnectionMetadata,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use crate::{
    OpenOptions, Pooler, StoreError,
    link::{
        BEGIN_POOLED, BEGIN_POSTGRES, PostgresLink, Reader, STATEMENT_MAX, Statements, Tx,
        bounded_by,
    },
    no_delay,
};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");

/// Wakes the other replicas' watchers; they look by themselves too, so a lost one is harmless.
pub(crate) const CHANNEL: &str = "tollway_changes";

/// To connect outside the pool. A packet that was lost is sent again after a second.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long the pool is asked for a connection at a time.
const ACQUIRE_ROUND: Duration = Duration::from_millis(1500);
/// A connection of the pool that has not answered by then is given up, and all of its age with it.
const PING_MAX: Duration = Duration::from_secs(1);
/// An answer that takes longer makes the journal ask whether the server is still at work.
const SLOW: Duration = Duration::from_millis(500);
/// Between two such questions.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// The journal's transactions are never idle for longer. When its network is gone, the server
/// lets go of the rows by then, and the journal can have them again over another connection.
const JOURNAL_IDLE_MAX: Duration = Duration::from_secs(1);
/// A plan that is kept was made for the tables as they were: a partition of the charges that
/// begins empty would be read as a whole for each settlement, for as long as the plan is kept.
/// Every statement of the journal has an index. Behind a pooler no plan is kept.
const BY_INDEX: &str = "SET enable_seqscan = off";
/// Rounds of looking for a transaction pooler.
const POOLER_LOOKS: usize = 8;
/// Of the advisory lock behind which replicas migrate through a pooler; any number.
const MIGRATION_LOCK: &str = "SELECT pg_advisory_xact_lock(7310863411)";

/// An open database.
#[derive(Clone, Debug)]
pub(crate) struct PostgresBackend {
    pub(crate) pool: Pool<Postgres>,
    pub(crate) statements: Statements,
    options: PgConnectOptions,
    timeout: Duration,
    distrust: Distrust,
}

/// The server's process behind a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session(i32);

/// A connection outside the pool: nobody else's calls can keep it busy, and it can be thrown
/// away without asking the server.
#[derive(Debug)]
pub(crate) struct OwnConnection {
    connection: PgConnection,
    statements: Statements,
    session: Option<Session>,
    /// A transaction was begun and is not known to have ended.
    begun: bool,
}

impl OwnConnection {
    /// Begins a transaction; one that was left open is undone.
    pub(crate) async fn begin(&mut self) -> Result<Tx<'_>, StoreError> {
        if self.begun {
            self.run("ROLLBACK").await?;
        }
        self.begun = true;
        self.run(match self.statements {
            Statements::Named => BEGIN_POSTGRES,
            Statements::Unnamed => BEGIN_POOLED,
        })
        .await?;
        Ok(Tx::Own(self))
    }

    /// The transaction that is open, where one is.
    pub(crate) fn resume(&mut self) -> Option<Tx<'_>> {
        self.begun.then_some(Tx::Own(self))
    }

    /// Ends the transaction; after an error it is unknown how.
    pub(crate) async fn commit(&mut self) -> Result<(), StoreError> {
        self.run("COMMIT").await?;
        self.begun = false;
        Ok(())
    }

    pub(crate) fn link(&mut self) -> PostgresLink<'_> {
        PostgresLink {
            connection: &mut self.connection,
            statements: self.statements,
        }
    }

    async fn run(&mut self, text: &'static str) -> Result<(), StoreError> {
        let run = self.connection.execute(text);
        bounded_by(STATEMENT_MAX, run).await.map(|_| ())
    }

    /// `None` behind a pooler, where it is another one each time.
    pub(crate) fn session(&self) -> Option<Session> {
        self.session
    }
}

/// When the network was last found to have swallowed a connection: those that are older are
/// swallowed too, and are not asked one after the other.
#[derive(Clone, Debug, Default)]
struct Distrust(Arc<Mutex<Option<Instant>>>);

impl Distrust {
    fn note(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn is_due(&self, age: Duration) -> bool {
        let noted = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.is_some_and(|at| at.elapsed() < age)
    }

    /// Whether a connection of the pool still leads somewhere. sqlx's own test has no bound.
    async fn passes(
        self,
        connection: &mut PgConnection,
        meta: PoolConnectionMetadata,
    ) -> Result<bool, sqlx::Error> {
        if self.is_due(meta.age) {
            return Ok(false);
        }
        match tokio::time::timeout(PING_MAX, connection.ping()).await {
            Ok(answer) => Ok(answer.is_ok()),
            Err(_) => {
                self.note();
                Ok(false)
            }
        }
    }
}

impl PostgresBackend {
    pub(crate) async fn open(url: &str, options: OpenOptions) -> Result<Self, StoreError> {
        let backend = Self::establish(url, options, Use::Write).await?;
        backend.migrate().await?;
        Ok(backend)
    }

    /// Without migrating, beside those that did.
    pub(crate) async fn beside(url: &str, options: OpenOptions) -> Result<Self, StoreError> {
        Self::establish(url, options, Use::Write).await
    }

    /// Without migrating; transactions of this backend are for reading, and a standby will do.
    pub(crate) async fn read_only(url: &str, options: OpenOptions) -> Result<Self, StoreError> {
        Self::establish(url, options, Use::Read).await
    }

    async fn establish(url: &str, options: OpenOptions, what_for: Use) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Url("not a Postgres URL".into()))?
            .application_name("tollway")
            // PgBouncer refuses it unless told otherwise, and there are no floats here.
            .extra_float_digits(None);
        let pooled = match options.pooler {
            Pooler::Session => false,
            Pooler::Transaction => true,
            Pooler::Detect => is_pooled(&connect, options.timeout).await?,
        };
        let statements = if pooled {
            Statements::Unnamed
        } else {
            Statements::Named
        };
        let distrust = Distrust::default();
        let (before, after) = (distrust.clone(), distrust.clone());
        let port = connect.get_port();
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.max(2))
            .acquire_timeout(ACQUIRE_ROUND.min(options.timeout))
            // After a restart of the server every pooled connection is dead: none is handed out.
            // Ours, because the library's own tests wait for ever.
            .test_before_acquire(false)
            .before_acquire(move |c, meta| Box::pin(before.clone().passes(c, meta)))
            .after_release(move |c, meta| Box::pin(after.clone().passes(c, meta)))
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    no_delay::set(port).await;
                    prepare(connection, statements, what_for, STATEMENT_MAX).await?;
                    Ok(())
                })
            })
            .connect_lazy_with(connect.clone());
        let backend = Self {
            pool,
            statements,
            options: connect,
            timeout: options.timeout,
            distrust,
        };
        drop(backend.pool.acquire().await?);
        Ok(backend)
    }

    /// Brings the tables up to date. Replicas that start together do that once, behind an
    /// advisory lock.
    async fn migrate(&self) -> Result<(), StoreError> {
        if self.has_sessions() {
            return Ok(MIGRATIONS.run(&self.pool).await?);
        }
        // A session's lock would be taken on one session and given back on another. A
        // transaction's lock is good, and all migrations then are one transaction.
        let mut migrations = sqlx::migrate!("../../migrations/postgres");
        migrations.set_locking(false);
        let mut tx = self.pool.begin_with(BEGIN_POOLED).await?;
        tx.execute(MIGRATION_LOCK).await?;
        // The library's own statements have names, which the next client would meet.
        tx.execute("DEALLOCATE ALL").await?;
        migrations.run_direct(None, &mut *tx, false).await?;
        tx.execute("DEALLOCATE ALL").await?;
        Ok(tx.commit().await?)
    }

    /// Whether a connection is a session of the server, with all that lives in one.
    pub(crate) fn has_sessions(&self) -> bool {
        match self.statements {
            Statements::Named => true,
            Statements::Unnamed => false,
        }
    }

    pub(crate) async fn reader(&self) -> Result<Reader, StoreError> {
        match self.statements {
            Statements::Named => {
                let acquired = self.in_rounds(|| self.pool.acquire()).await;
                Ok(Reader::Postgres(acquired?))
            }
            Statements::Unnamed => {
                let begun = self.in_rounds(|| self.pool.begin_with(BEGIN_POOLED)).await;
                Ok(Reader::Pooled(begun?))
            }
        }
    }

    pub(crate) async fn begin(&self) -> Result<Tx<'static>, StoreError> {
        let begin = match self.statements {
            Statements::Named => BEGIN_POSTGRES,
            Statements::Unnamed => BEGIN_POOLED,
        };
        let begun = self.in_rounds(|| self.pool.begin_with(begin)).await;
        Ok(Tx::Postgres(begun?, self.statements))
    }

    /// Asks the pool again until the time is up. Between its own attempts to connect it pauses
    /// for a fifth of its time: in short rounds a server that is back is noticed soon.
    async fn in_rounds<T, F>(&self, ask: impl Fn() -> F) -> Result<T, sqlx::Error>
    where
        F: Future<Output = Result<T, sqlx::Error>>,
    {
        let deadline = Instant::now() + self.timeout;
        loop {
            match ask().await {
                Err(sqlx::Error::PoolTimedOut) if Instant::now() < deadline => {}
                answer => return answer,
            }
        }
    }

    /// A connection for the journal.
    pub(crate) async fn own_connection(&self) -> Result<OwnConnection, StoreError> {
        let connecting = async {
            let options = self.options.clone().application_name("tollway-journal");
            let mut connection = options.connect().await?;
            no_delay::set(options.get_port()).await;
            let session = prepare(
                &mut connection,
                self.statements,
                Use::Write,
                JOURNAL_IDLE_MAX,
            )
            .await?;
            if self.has_sessions() {
                connection.execute(BY_INDEX).await?;
            }
            Ok::<_, sqlx::Error>(OwnConnection {
                connection,
                statements: self.statements,
                session: self.has_sessions().then_some(session),
                begun: false,
            })
        };
        bounded_by(CONNECT_MAX, connecting).await
    }

    /// Ends when the answer to what was asked on this session will never come: the server, asked
    /// over another connection, is not at work for it. A slow disk, a lock, a standby that does
    /// not confirm: then it is at work, and this waits on. A server that cannot be asked tells
    /// nothing.
    pub(crate) async fn until_lost(&self, session: Session) {
        tokio::time::sleep(SLOW).await;
        let mut idle = 0;
        while idle < 2 {
            idle = match tokio::time::timeout(CONNECT_MAX, self.is_at_work(session)).await {
                Ok(Ok(false)) => idle + 1,
                Ok(Ok(true) | Err(_)) | Err(_) => 0,
            };
            tokio::time::sleep(ASK_AGAIN).await;
        }
        // What swallowed this connection has swallowed the pool's as well.
        self.distrust.note();
    }

    async fn is_at_work(&self, session: Session) -> Result<bool, sqlx::Error> {
        let mut connection = self.options.connect().await?;
        let look = format!(
            "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE pid = {} \
             AND application_name = 'tollway-journal' AND state = 'active')",
            session.0
        );
        let row = connection.fetch_one(sqlx::AssertSqlSafe(look)).await?;
        row.try_get::<bool, _>(0)
    }

    /// A connection that hears of changes.
    pub(crate) async fn listen(&self) -> Result<PgListener, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.timeout)
            .connect_lazy_with(self.options.clone().application_name("tollway-listen"));
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}

/// What a connection is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    Read,
    Write,
}

/// Bounds on the server's side: a forgotten transaction must not hold its locks. Behind a
/// pooler they are set in each transaction.
async fn prepare(
    connection: &mut PgConnection,
    statements: Statements,
    what_for: Use,
    idle_max: Duration,
) -> Result<Session, sqlx::Error> {
    if statements == Statements::Named {
        let (ms, idle_ms) = (STATEMENT_MAX.as_millis(), idle_max.as_millis());
        let text = format!(
            "SET statement_timeout = {ms}; SET lock_timeout = {ms}; \
             SET idle_in_transaction_session_timeout = {idle_ms}; SET synchronous_commit = on"
        );
        connection.execute(sqlx::AssertSqlSafe(text)).await?;
    }
    let row = connection
        .fetch_one("SELECT pg_backend_pid(), pg_is_in_recovery()")
        .await?;
    // Before its promotion a standby answers, from a past that may lack a revocation.
    if what_for == Use::Write && row.try_get::<bool, _>(1)? {
        let standby = "the server is a standby, which takes no writes";
        return Err(sqlx::Error::Protocol(standby.into()));
    }
    Ok(Session(row.try_get(0)?))
}

/// Whether two connections that are both open are served by one process of the server. Only a
/// transaction pooler does that. It usually hands out the session that came back last, so a few
/// looks are enough; where the pooler is busy the setting says it for sure.
async fn is_pooled(options: &PgConnectOptions, max: Duration) -> Result<bool, StoreError> {
    let looking = async {
        let (mut one, mut two) = (options.connect().await?, options.connect().await?);
        for _ in 0..POOLER_LOOKS {
            if backend_pid(&mut one).await? == backend_pid(&mut two).await? {
                return Ok(true);
            }
        }
        Ok::<_, sqlx::Error>(false)
    };
    bounded_by(max, looking).await
}

async fn backend_pid(connection: &mut PgConnection) -> Result<i32, sqlx::Error> {
    let row = connection.fetch_one("SELECT pg_backend_pid()").await?;
    row.try_get(0)
}
