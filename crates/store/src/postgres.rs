//! Postgres: a pool for reading and the operator's calls; the journal has a connection of its own.

use std::{str::FromStr, time::Duration};

use sqlx::{
    ConnectOptions, Executor, PgConnection, Pool, Postgres,
    migrate::Migrator,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};

use crate::{OpenOptions, StoreError, link::STATEMENT_MAX};

static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/postgres");

/// Wakes the other replicas' watchers; they look by themselves too, so a lost one is harmless.
pub(crate) const CHANNEL: &str = "tollway_changes";

/// An open database.
#[derive(Clone, Debug)]
pub(crate) struct PostgresBackend {
    pub(crate) pool: Pool<Postgres>,
    options: PgConnectOptions,
    timeout: Duration,
}

impl PostgresBackend {
    pub(crate) async fn open(url: &str, options: OpenOptions) -> Result<Self, StoreError> {
        let backend = Self::connect(url, options).await?;
        // Takes an advisory lock, so replicas that start together migrate once.
        MIGRATIONS.run(&backend.pool).await?;
        Ok(backend)
    }

    /// Without migrating; transactions of this backend are for reading.
    pub(crate) async fn connect(url: &str, options: OpenOptions) -> Result<Self, StoreError> {
        let connect = PgConnectOptions::from_str(url)
            .map_err(|_| StoreError::Url("not a Postgres URL".into()))?
            .application_name("tollway");
        let pool = PgPoolOptions::new()
            .max_connections(options.connections.max(2))
            .acquire_timeout(options.timeout)
            // After a restart of the server every pooled connection is dead: none is handed out.
            .test_before_acquire(true)
            .after_connect(|connection, _| Box::pin(prepare(connection)))
            .connect_lazy_with(connect.clone());
        let backend = Self {
            pool,
            options: connect,
            timeout: options.timeout,
        };
        drop(backend.pool.acquire().await?);
        Ok(backend)
    }

    /// A connection outside the pool: nobody else's calls can keep it busy, and it can be thrown
    /// away without asking the server.
    pub(crate) async fn own_connection(&self) -> Result<PgConnection, StoreError> {
        let connecting = async {
            let mut connection = self.options.connect().await?;
            prepare(&mut connection).await?;
            Ok::<_, sqlx::Error>(connection)
        };
        tokio::time::timeout(self.timeout, connecting)
            .await
            .map_err(|_| StoreError::TimedOut)?
            .map_err(StoreError::Database)
    }

    /// A connection that hears of changes.
    pub(crate) async fn listen(&self) -> Result<PgListener, StoreError> {
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(self.timeout)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(listener)
    }
}

/// Bounds on the server's side: a forgotten transaction must not hold its locks.
async fn prepare(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let ms = STATEMENT_MAX.as_millis();
    let text = format!(
        "SET statement_timeout = {ms}; SET lock_timeout = {ms}; \
         SET idle_in_transaction_session_timeout = {ms}; SET synchronous_commit = on"
    );
    connection
        .execute(sqlx::AssertSqlSafe(text))
        .await
        .map(|_| ())
}
