//! Where the database is and how the store behaves towards it.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use crate::StoreError;

/// A database URL: `sqlite://PATH` or `postgres://USER@HOST/NAME`.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(pub(crate) Target);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Sqlite(PathBuf),
    Postgres(String),
}

impl StoreUrl {
    /// The URL in this text. A relative SQLite path is relative to the working folder:
    /// `sqlite://data/tollway.db`; an absolute one has three slashes.
    ///
    /// # Errors
    /// [`StoreError::Url`].
    pub fn parse(text: &str) -> Result<Self, StoreError> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains('?') || path.starts_with(':') {
                return Err(StoreError::Url("sqlite:// needs the path of a file".into()));
            }
            return Ok(Self(Target::Sqlite(PathBuf::from(path))));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            sqlx::postgres::PgConnectOptions::from_str(text)
                .map_err(|_| StoreError::Url("not a Postgres URL".into()))?;
            return Ok(Self(Target::Postgres(text.to_owned())));
        }
        Err(StoreError::Url("an unknown kind of database".into()))
    }
}

/// The URL without user, password and parameters.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Target::Sqlite(path) => write!(f, "sqlite://{}", path.display()),
            Target::Postgres(url) => match sqlx::postgres::PgConnectOptions::from_str(url) {
                Ok(o) => write!(
                    f,
                    "postgres://{}:{}/{}",
                    o.get_host(),
                    o.get_port(),
                    o.get_database().unwrap_or("")
                ),
                Err(_) => f.write_str("postgres://"),
            },
        }
    }
}

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

/// What stands between this program and a Postgres server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Pooler {
    /// Find out when the database is opened: two connections that are served by one session of
    /// the server prove a transaction pooler.
    #[default]
    Detect,
    /// Nothing, or a pooler that gives each connection a session of its own.
    Session,
    /// A pooler that gives each transaction any session, such as PgBouncer with
    /// `pool_mode = transaction`: no prepared statements, no LISTEN, no session's settings.
    Transaction,
}

/// How the store opens its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Connections for reading and for the operator's calls; the journal has one of its own.
    pub connections: u32,
    /// How long a call waits for a free connection, and a statement for the server.
    pub timeout: Duration,
    /// Postgres: what stands before the server.
    pub pooler: Pooler,
    /// SQLite: leave what a dead process of this file had running to [`crate::Ledger::start`],
    /// which reads its local journal first.
    pub leave_dead: bool,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            connections: 8,
            timeout: Duration::from_secs(5),
            pooler: Pooler::Detect,
            leave_dead: false,
        }
    }
}

/// How the ledger of one replica behaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerOptions {
    /// The most requests in flight: one permit each.
    pub in_flight_max: usize,
    /// How long leases are good for without a heartbeat; heartbeats come every fifth of it.
    pub lease_ttl: Duration,
    /// What a replica stops granting before the end of its leases, and what a reaper waits after it.
    pub lease_margin: Duration,
    /// How often other replicas' changes are looked for.
    pub poll: Duration,
    /// How often dead replicas, expired grants and old rows are looked for.
    pub chores: Duration,
    /// A budget's free credit goes back when it was not asked for so long, or with the settlement
    /// of a request, where requests come no more often than this.
    pub idle: Duration,
    /// How long a request waits for credit that running requests hold or other replicas lease.
    pub short_wait: Duration,
    /// Keys kept in memory.
    pub keys_cached_max: usize,
    /// How long settlements gather for one commit while nobody asks for anything.
    pub linger: Duration,
    /// The folder of this process's local journal, where it keeps one: then a killed process
    /// loses nothing. Open the store with [`OpenOptions::leave_dead`].
    pub local_journal: Option<PathBuf>,
}

impl Default for LedgerOptions {
    fn default() -> Self {
        Self {
            in_flight_max: 10_000,
            lease_ttl: Duration::from_secs(10),
            lease_margin: Duration::from_secs(2),
            poll: Duration::from_millis(250),
            chores: Duration::from_secs(1),
            idle: Duration::from_secs(2),
            short_wait: Duration::from_millis(300),
            keys_cached_max: 100_000,
            linger: Duration::from_millis(10),
            local_journal: None,
        }
    }
}
