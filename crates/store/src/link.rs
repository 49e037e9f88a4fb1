//! Connections and transactions of either database, and how a statement runs on them.

use std::{future::Future, time::Duration};

use sqlx::{
    FromRow, PgConnection, Postgres, Sqlite, SqliteConnection, Transaction, pool::PoolConnection,
    postgres::PgRow, sqlite::SqliteRow,
};

#[cfg(feature = "simulation")]
use crate::simulation::SimulatedLink;
use crate::{
    StoreError,
    postgres::OwnConnection,
    sql::{Flavor, Rows, Sql},
};

/// No statement may take longer; the server is told the same.
pub(crate) const STATEMENT_MAX: Duration = Duration::from_secs(15);

/// A row type that both databases can fill.
pub(crate) trait Record:
    for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{
}

impl<T> Record for T where
    T: for<'r> FromRow<'r, PgRow> + for<'r> FromRow<'r, SqliteRow> + Send + Unpin
{
}

/// A connection that is borrowed for a statement.
pub(crate) enum Link<'a> {
    /// SQLite.
    Sqlite(&'a mut SqliteConnection),
    /// Postgres.
    Postgres(PostgresLink<'a>),
    /// Of a simulation.
    #[cfg(feature = "simulation")]
    Simulated(&'a mut SimulatedLink),
}

/// A connection to Postgres, and what becomes of the statements prepared on it.
pub(crate) struct PostgresLink<'a> {
    pub(crate) connection: &'a mut PgConnection,
    pub(crate) statements: Statements,
}

/// Whether prepared statements are kept under names. A transaction pooler hands the server's
/// session on after every transaction: names of one client would meet those of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statements {
    /// They are: the session is this connection's alone.
    Named,
    /// They are not, and everything runs in a transaction.
    Unnamed,
}

impl Statements {
    fn are_named(self) -> bool {
        match self {
            Self::Named => true,
            Self::Unnamed => false,
        }
    }
}

impl Link<'_> {
    /// Whose dialect it speaks.
    pub(crate) const fn flavor(&self) -> Flavor {
        match self {
            Self::Sqlite(_) => Flavor::Sqlite,
            Self::Postgres(_) => Flavor::Postgres,
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => Flavor::Sqlite,
        }
    }

    /// All rows.
    pub(crate) async fn all<T: Record>(&mut self, sql: Sql) -> Result<Vec<T>, StoreError> {
        self.all_within(sql, STATEMENT_MAX).await
    }

    /// All rows of a statement that may take longer than usual.
    pub(crate) async fn all_within<T: Record>(
        &mut self,
        sql: Sql,
        max: Duration,
    ) -> Result<Vec<T>, StoreError> {
        let rows = async {
            match self {
                Self::Sqlite(c) => sql.sqlite_as().fetch_all(&mut **c).await,
                Self::Postgres(c) => {
                    let named = c.statements.are_named();
                    let query = sql.postgres_as().persistent(named);
                    query.fetch_all(&mut *c.connection).await
                }
                #[cfg(feature = "simulation")]
                Self::Simulated(c) => c.all(sql).await,
            }
        };
        bounded_by(max, rows).await
    }

    /// The first row, where there is one.
    pub(crate) async fn maybe<T: Record>(&mut self, sql: Sql) -> Result<Option<T>, StoreError> {
        match self {
            Self::Sqlite(c) => bounded(sql.sqlite_as().fetch_optional(&mut **c)).await,
            Self::Postgres(c) => {
                let query = sql.postgres_as().persistent(c.statements.are_named());
                bounded(query.fetch_optional(&mut *c.connection)).await
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(c) => bounded(c.maybe(sql)).await,
        }
    }

    /// The row of a statement that always has one.
    pub(crate) async fn one<T: Record>(&mut self, sql: Sql) -> Result<T, StoreError> {
        self.maybe(sql)
            .await?
            .ok_or_else(|| StoreError::Corrupt("a row that must be there is not".into()))
    }

    /// Adds new rows to a table; the columns have its columns' names and types.
    pub(crate) async fn insert(
        &mut self,
        table: &'static str,
        rows: &Rows,
    ) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(c) => {
                for statement in rows.value_statements(table) {
                    bounded(statement.execute(&mut **c)).await?;
                }
            }
            Self::Postgres(c) => {
                let copy = async {
                    let mut copy = c
                        .connection
                        .copy_in_raw(&rows.copy_statement(table))
                        .await?;
                    copy.send(rows.copy_data()).await?;
                    copy.finish().await
                };
                bounded(copy).await?;
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(c) => {
                for statement in rows.value_statements(table) {
                    bounded(c.execute(statement)).await?;
                }
            }
        }
        Ok(())
    }

    /// Runs statements that change rows of different tables: in Postgres they are one.
    pub(crate) async fn run_together(
        &mut self,
        statements: impl IntoIterator<Item = Sql>,
    ) -> Result<(), StoreError> {
        match self.flavor() {
            Flavor::Sqlite => {
                for statement in statements {
                    self.run(statement).await?;
                }
            }
            Flavor::Postgres => {
                if let Some(all) = Sql::together(statements) {
                    self.run(all).await?;
                }
            }
        }
        Ok(())
    }

    /// Runs it; how many rows it changed.
    pub(crate) async fn run(&mut self, sql: Sql) -> Result<u64, StoreError> {
        self.run_within(sql, STATEMENT_MAX).await
    }

    /// Runs what may take longer than usual; how many rows it changed.
    pub(crate) async fn run_within(&mut self, sql: Sql, max: Duration) -> Result<u64, StoreError> {
        match self {
            Self::Sqlite(c) => {
                let done = bounded_by(max, sql.sqlite().execute(&mut **c)).await?;
                Ok(done.rows_affected())
            }
            Self::Postgres(c) => {
                let query = sql.postgres().persistent(c.statements.are_named());
                let done = bounded_by(max, query.execute(&mut *c.connection)).await?;
                Ok(done.rows_affected())
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(c) => bounded(c.run(sql)).await,
        }
    }
}

async fn bounded<T>(
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    bounded_by(STATEMENT_MAX, statement).await
}

/// Waits for what the database does, up to `max`.
pub(crate) async fn bounded_by<T>(
    max: Duration,
    statement: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, StoreError> {
    tokio::time::timeout(max, statement)
        .await
        .map_err(|_| StoreError::TimedOut)?
        .map_err(StoreError::Database)
}

/// A connection from a pool, for reading.
pub(crate) enum Reader {
    /// SQLite.
    Sqlite(PoolConnection<Sqlite>),
    /// Postgres.
    Postgres(PoolConnection<Postgres>),
    /// Postgres behind a transaction pooler: a statement is prepared and run in two steps, which
    /// only a transaction keeps on one session.
    Pooled(Transaction<'static, Postgres>),
    /// Of a simulation.
    #[cfg(feature = "simulation")]
    Simulated(SimulatedLink),
}

impl Reader {
    pub(crate) fn link(&mut self) -> Link<'_> {
        match self {
            Self::Sqlite(c) => Link::Sqlite(c),
            Self::Postgres(c) => Link::Postgres(PostgresLink {
                connection: c,
                statements: Statements::Named,
            }),
            Self::Pooled(tx) => Link::Postgres(PostgresLink {
                connection: tx,
                statements: Statements::Unnamed,
            }),
            #[cfg(feature = "simulation")]
            Self::Simulated(c) => Link::Simulated(c),
        }
    }
}

/// A transaction; undone when it is dropped without [`Tx::commit`], at the latest when its
/// connection begins another one.
pub(crate) enum Tx<'c> {
    /// SQLite.
    Sqlite(Transaction<'c, Sqlite>),
    /// Postgres.
    Postgres(Transaction<'c, Postgres>, Statements),
    /// Postgres, on a connection of one's own.
    Own(&'c mut OwnConnection),
    /// Of a simulation.
    #[cfg(feature = "simulation")]
    Simulated(SimulatedLink),
}

impl Tx<'_> {
    pub(crate) fn link(&mut self) -> Link<'_> {
        match self {
            Self::Sqlite(tx) => Link::Sqlite(tx),
            Self::Postgres(tx, statements) => Link::Postgres(PostgresLink {
                connection: tx,
                statements: *statements,
            }),
            Self::Own(own) => Link::Postgres(own.link()),
            #[cfg(feature = "simulation")]
            Self::Simulated(c) => Link::Simulated(c),
        }
    }

    /// Makes it durable. After an error it is unknown whether it is.
    pub(crate) async fn commit(self) -> Result<(), StoreError> {
        match self {
            Self::Sqlite(tx) => bounded(tx.commit()).await,
            Self::Postgres(tx, _) => bounded(tx.commit()).await,
            Self::Own(own) => own.commit().await,
            #[cfg(feature = "simulation")]
            Self::Simulated(c) => bounded(c.commit()).await,
        }
    }
}

/// Said in full, so that a server with other defaults behaves the same.
pub(crate) const BEGIN_POSTGRES: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
/// The same where the session is another one each time: its settings travel along.
pub(crate) const BEGIN_POOLED: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; \
     SET LOCAL statement_timeout = 15000; SET LOCAL lock_timeout = 15000; \
     SET LOCAL idle_in_transaction_session_timeout = 15000; SET LOCAL synchronous_commit = on";
/// The write lock at once: a transaction that reads first and writes later could not get it.
pub(crate) const BEGIN_SQLITE: &str = "BEGIN IMMEDIATE";
