//! A connection of the bench's own, past the store: to fill the books and to look whether they are right.

use std::{str::FromStr as _, time::Duration};

use sqlx::{
    AssertSqlSafe, ConnectOptions as _, PgConnection, SqliteConnection, postgres::PgConnectOptions,
    sqlite::SqliteConnectOptions,
};
use uuid::Uuid;

use crate::{error::BenchError, plan::Kind};

/// The store may be writing.
const BUSY_MAX: Duration = Duration::from_secs(60);

/// A connection to either database.
pub(crate) enum Raw {
    /// The file.
    Sqlite(SqliteConnection),
    /// The cluster.
    Postgres(PgConnection),
}

impl Raw {
    /// Connects to a database that the store has made.
    pub(crate) async fn open(url: &str) -> Result<Self, BenchError> {
        Ok(if url.starts_with("sqlite") {
            let options = SqliteConnectOptions::from_str(url)?.busy_timeout(BUSY_MAX);
            Self::Sqlite(options.connect().await?)
        } else {
            Self::Postgres(PgConnectOptions::from_str(url)?.connect().await?)
        })
    }

    /// Which database it is.
    pub(crate) const fn kind(&self) -> Kind {
        match self {
            Self::Sqlite(_) => Kind::Sqlite,
            Self::Postgres(_) => Kind::Postgres,
        }
    }

    /// Runs statements.
    pub(crate) async fn run(&mut self, text: &str) -> Result<(), BenchError> {
        let query = sqlx::raw_sql(AssertSqlSafe(text));
        match self {
            Self::Sqlite(c) => query.execute(c).await.map(|_| ())?,
            Self::Postgres(c) => query.execute(c).await.map(|_| ())?,
        }
        Ok(())
    }

    /// One number.
    pub(crate) async fn number(&mut self, text: &str) -> Result<i64, BenchError> {
        Ok(match self {
            Self::Sqlite(c) => sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(c).await?,
            Self::Postgres(c) => sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(c).await?,
        })
    }

    /// Texts.
    pub(crate) async fn texts(&mut self, text: &str) -> Result<Vec<String>, BenchError> {
        Ok(match self {
            Self::Sqlite(c) => sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(c).await?,
            Self::Postgres(c) => sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(c).await?,
        })
    }

    /// Whether a request of an account is booked.
    pub(crate) async fn booked(&mut self, account: Uuid, id: Uuid) -> Result<bool, BenchError> {
        const TEXT: &str = "SELECT 1 FROM charges WHERE account_id = $1 AND id = $2";
        let found: Option<i32> = match self {
            Self::Sqlite(c) => {
                let query = sqlx::query_scalar(TEXT).bind(account).bind(id);
                query.fetch_optional(c).await?
            }
            Self::Postgres(c) => {
                let query = sqlx::query_scalar(TEXT).bind(account).bind(id);
                query.fetch_optional(c).await?
            }
        };
        Ok(found.is_some())
    }
}
