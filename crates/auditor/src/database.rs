//! The database, read in one snapshot as JSON rows, whichever of the two it is.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use sqlx::{
    AssertSqlSafe, Connection as _, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions,
};

use crate::{Books, ReplicaRow};

/// Why nothing could be judged.
#[derive(Debug, thiserror::Error)]
pub enum AuditorError {
    /// The database did not answer, or has other tables.
    #[error("the database: {0}")]
    Database(#[from] sqlx::Error),
    /// A row is not what it was expected to be.
    #[error("a row of {table}: {error}")]
    Row {
        /// The table.
        table: &'static str,
        /// What is wrong with it.
        error: serde_json::Error,
    },
    /// The records cannot be read.
    #[error("the records: {0}")]
    File(#[from] std::io::Error),
    /// A line is no record.
    #[error("a record: {0}")]
    Record(serde_json::Error),
    /// Neither `sqlite://` nor `postgres://`.
    #[error("expected sqlite://PATH or postgres://…")]
    Url,
}

/// What a column holds, for its way into JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Column {
    /// 128 bits, as 32 hexadecimal digits.
    Id(&'static str),
    /// Anything that JSON has.
    Plain(&'static str),
    /// True or false, which SQLite keeps as a number.
    Bool(&'static str),
}

/// A connection of one's own.
#[derive(Debug)]
pub enum Database {
    /// SQLite.
    Sqlite(SqliteConnection),
    /// Postgres.
    Postgres(PgConnection),
}

impl Database {
    /// Connects.
    ///
    /// # Errors
    /// [`AuditorError::Url`], [`AuditorError::Database`].
    pub async fn open(url: &str) -> Result<Self, AuditorError> {
        if let Some(path) = url.strip_prefix("sqlite://") {
            let options = SqliteConnectOptions::new().filename(PathBuf::from(path));
            let connection = SqliteConnection::connect_with(&options).await?;
            return Ok(Self::Sqlite(connection));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            return Ok(Self::Postgres(PgConnection::connect(url).await?));
        }
        Err(AuditorError::Url)
    }

    /// Everything that there is, in one snapshot.
    ///
    /// # Errors
    /// [`AuditorError::Database`], [`AuditorError::Row`].
    pub async fn books(&mut self) -> Result<Books, AuditorError> {
        let begin = match self {
            Self::Sqlite(_) => "BEGIN",
            Self::Postgres(_) => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
        };
        self.run(begin).await?;
        let books = Books::read(self).await;
        self.run("COMMIT").await?;
        books
    }

    /// The runs of processes alone.
    ///
    /// # Errors
    /// [`AuditorError::Database`], [`AuditorError::Row`].
    pub async fn replicas(&mut self) -> Result<Vec<ReplicaRow>, AuditorError> {
        Books::replicas(self).await
    }

    /// Runs statements that return nothing: tests break books with it.
    ///
    /// # Errors
    /// [`AuditorError::Database`].
    pub async fn run(&mut self, statements: &str) -> Result<(), AuditorError> {
        let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()));
        match self {
            Self::Sqlite(connection) => {
                statements.execute(connection).await?;
            }
            Self::Postgres(connection) => {
                statements.execute(connection).await?;
            }
        }
        Ok(())
    }

    /// All rows of a table.
    pub(crate) async fn rows<T: DeserializeOwned>(
        &mut self,
        table: &'static str,
        columns: &[Column],
    ) -> Result<Vec<T>, AuditorError> {
        let texts: Vec<String> = match self {
            Self::Sqlite(connection) => {
                let members: Vec<_> = columns.iter().map(|column| column.of_sqlite()).collect();
                let select = format!("SELECT json_object({}) FROM {table}", members.join(", "));
                sqlx::query_scalar(AssertSqlSafe(select))
                    .fetch_all(connection)
                    .await?
            }
            Self::Postgres(connection) => {
                let members: Vec<_> = columns.iter().map(|column| column.of_postgres()).collect();
                let select = format!(
                    "SELECT row_to_json(x)::text FROM (SELECT {} FROM {table}) AS x",
                    members.join(", ")
                );
                sqlx::query_scalar(AssertSqlSafe(select))
                    .fetch_all(connection)
                    .await?
            }
        };
        texts
            .iter()
            .map(|text| {
                serde_json::from_str(text).map_err(|error| AuditorError::Row { table, error })
            })
            .collect()
    }
}

impl Column {
    fn of_sqlite(self) -> String {
        match self {
            Self::Id(name) => format!("'{name}', lower(hex({name}))"),
            Self::Plain(name) => format!("'{name}', {name}"),
            Self::Bool(name) => {
                format!("'{name}', json(CASE {name} WHEN 0 THEN 'false' ELSE 'true' END)")
            }
        }
    }

    fn of_postgres(self) -> String {
        match self {
            Self::Id(name) => format!("replace({name}::text, '-', '') AS {name}"),
            Self::Plain(name) | Self::Bool(name) => name.to_owned(),
        }
    }
}
