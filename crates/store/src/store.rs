//! The store: one of two databases behind the same verbs.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use billing::{Credits, Price, PriceId};
use tokio::sync::watch;

#[cfg(feature = "simulation")]
use crate::simulation::{Node, SimulatedLink};
use crate::{
    OpenOptions, StoreError, StoreUrl,
    link::{BEGIN_SQLITE, Reader, Tx},
    options::Target,
    postgres::{self, PostgresBackend},
    secret::Pepper,
    sql::{Rows, sql},
    sqlite::{self, SqliteBackend},
};

/// A database. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    backend: Backend,
    /// Absent where the database was opened for reading.
    pepper: Option<Pepper>,
    /// What the operator bore of requests that the reaper charged, since the start.
    reaped_loss: Mutex<Credits>,
    /// Wakes this process's own watchers.
    changed: watch::Sender<u64>,
}

/// Which database it is.
#[derive(Clone, Debug)]
pub(crate) enum Backend {
    /// The embedded default.
    Sqlite(SqliteBackend),
    /// For several replicas.
    Postgres(Box<PostgresBackend>),
    /// Of a simulation.
    #[cfg(feature = "simulation")]
    Simulated(Node),
}

impl Store {
    /// Opens the database, creating a SQLite file where there is none, and brings the tables up
    /// to date. Replicas that start together do that once.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::Migrate`], [`StoreError::Database`].
    pub async fn open(url: &StoreUrl, options: OpenOptions) -> Result<Self, StoreError> {
        let backend = match &url.0 {
            Target::Sqlite(path) => Backend::Sqlite(SqliteBackend::open(path, options).await?),
            Target::Postgres(url) => {
                Backend::Postgres(Box::new(PostgresBackend::open(url, options).await?))
            }
        };
        let pepper = crate::instance::pepper(&backend).await?;
        let store = Self::over(backend, Some(pepper));
        match store.backend() {
            // The file was locked, so whoever used it before is dead.
            Backend::Sqlite(_) if options.leave_dead => {}
            Backend::Sqlite(_) => crate::reaper::reap_all(&store).await?,
            Backend::Postgres(_) => {
                if let Err(error) = crate::month::make_ahead(&store).await {
                    tracing::warn!(%error, "the next months have no partitions yet");
                }
            }
            #[cfg(feature = "simulation")]
            Backend::Simulated(_) => {}
        }
        Ok(store)
    }

    /// The simulated database as this node reaches it, which has its tables already.
    ///
    /// # Errors
    /// What the node's link does to it.
    #[cfg(feature = "simulation")]
    pub async fn simulated(node: &Node) -> Result<Self, StoreError> {
        let backend = Backend::Simulated(node.clone());
        let pepper = crate::instance::pepper(&backend).await?;
        Ok(Self::over(backend, Some(pepper)))
    }

    /// Opens an existing database for reading only, beside a running gateway: for the audit.
    ///
    /// # Errors
    /// [`StoreError::Empty`], [`StoreError::OtherVersion`], [`StoreError::Database`].
    pub async fn open_read_only(url: &StoreUrl, options: OpenOptions) -> Result<Self, StoreError> {
        let backend = match &url.0 {
            Target::Sqlite(path) => {
                Backend::Sqlite(SqliteBackend::open_read_only(path, options).await?)
            }
            Target::Postgres(url) => {
                Backend::Postgres(Box::new(PostgresBackend::read_only(url, options).await?))
            }
        };
        Self::existing(backend).await
    }

    /// Opens an existing database for reading and writing, beside a running gateway: to close
    /// months and to resolve settlements. It must have the tables of this program's version.
    ///
    /// # Errors
    /// [`StoreError::Empty`], [`StoreError::OtherVersion`], [`StoreError::Database`].
    pub async fn open_beside(url: &StoreUrl, options: OpenOptions) -> Result<Self, StoreError> {
        let backend = match &url.0 {
            Target::Sqlite(path) => {
                Backend::Sqlite(SqliteBackend::open_beside(path, options).await?)
            }
            Target::Postgres(url) => {
                Backend::Postgres(Box::new(PostgresBackend::beside(url, options).await?))
            }
        };
        Self::existing(backend).await
    }

    async fn existing(backend: Backend) -> Result<Self, StoreError> {
        let looked = async {
            let mut reader = backend.reader().await?;
            let look = sql(
                "SELECT (SELECT MAX(version) FROM _sqlx_migrations) FROM instance WHERE id = 1",
            );
            reader.link().maybe::<(i64,)>(look).await
        };
        let found = match looked.await {
            Ok(Some((found,))) => found,
            Ok(None) | Err(StoreError::Database(sqlx::Error::Database(_))) => {
                return Err(StoreError::Empty);
            }
            Err(error) => return Err(error),
        };
        let wanted = backend.version();
        // Another program's tables are not ours to touch.
        if found != wanted {
            return Err(StoreError::OtherVersion { found, wanted });
        }
        Ok(Self::over(backend, None))
    }

    fn over(backend: Backend, pepper: Option<Pepper>) -> Self {
        Self(Arc::new(Inner {
            backend,
            pepper,
            reaped_loss: Mutex::default(),
            changed: watch::Sender::new(0),
        }))
    }

    /// Asks the database for an answer.
    ///
    /// # Errors
    /// [`StoreError::TimedOut`], [`StoreError::Database`].
    pub async fn ping(&self, deadline: Duration) -> Result<(), StoreError> {
        let asked = async {
            let mut reader = self.read().await?;
            reader.link().one::<(i32,)>(sql("SELECT 1")).await
        };
        tokio::time::timeout(deadline, asked)
            .await
            .map_err(|_| StoreError::TimedOut)?
            .map(|_| ())
    }

    /// Keeps price versions, so that every charge can be computed again. Those already kept stay.
    /// Each row is the id, the provider, the model and the canonical JSON.
    ///
    /// # Errors
    /// [`StoreError::Database`].
    pub async fn record_prices(
        &self,
        prices: &[(PriceId, &str, &str, &str)],
    ) -> Result<(), StoreError> {
        let rows = Rows::new()
            .uuid("id", prices.iter().map(|p| p.0.uuid()))
            .text("provider", prices.iter().map(|p| p.1))
            .text("model", prices.iter().map(|p| p.2))
            .text("price", prices.iter().map(|p| p.3));
        let insert = sql(
            "INSERT INTO prices (id, provider, model, price, created_at) \
             SELECT id, provider, model, price, {now} FROM {rows} WHERE true \
             ON CONFLICT (id) DO NOTHING",
        )
        .rows(rows);
        let mut tx = self.begin().await?;
        tx.link().run(insert).await?;
        tx.commit().await
    }

    /// The price version of this id; `None` where it is not kept.
    ///
    /// # Errors
    /// [`StoreError::Database`]; [`StoreError::Corrupt`] when what is kept is no price.
    pub async fn price(&self, id: PriceId) -> Result<Option<Price>, StoreError> {
        let select = sql("SELECT price FROM prices WHERE id = ?").uuid(id.uuid());
        let mut reader = self.read().await?;
        let kept: Option<(String,)> = reader.link().maybe(select).await?;
        kept.map(|(text,)| Price::from_json(&text))
            .transpose()
            .map_err(|error| StoreError::Corrupt(error.to_string()))
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.0.backend
    }

    pub(crate) fn pepper(&self) -> Result<&Pepper, StoreError> {
        self.0.pepper.as_ref().ok_or(StoreError::Empty)
    }

    /// Counts what the operator bears of requests that the reaper charged.
    pub(crate) fn note_loss(&self, loss: Credits) {
        let lost = self.0.reaped_loss.lock();
        let mut lost = lost.unwrap_or_else(PoisonError::into_inner);
        *lost = lost.saturating_add(loss);
    }

    /// The sum of all [`Store::note_loss`].
    pub(crate) fn reaped_loss(&self) -> Credits {
        let lost = self.0.reaped_loss.lock();
        *lost.unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes this process's watchers look at once.
    pub(crate) fn wake(&self) {
        self.0
            .changed
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Hears [`Store::wake`].
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.0.changed.subscribe()
    }

    /// Runs a task of a ledger that works on this store.
    pub(crate) fn spawn(
        &self,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::JoinHandle<()> {
        #[cfg(feature = "simulation")]
        if let Backend::Simulated(node) = self.backend() {
            return tokio::spawn(node.task(task));
        }
        tokio::spawn(task)
    }

    pub(crate) async fn read(&self) -> Result<Reader, StoreError> {
        self.backend().reader().await
    }

    pub(crate) async fn begin(&self) -> Result<Tx<'static>, StoreError> {
        self.backend().begin().await
    }
}

impl Backend {
    /// The number of the last migration of this program.
    fn version(&self) -> i64 {
        let migrations = match self {
            Self::Sqlite(_) => &sqlite::MIGRATIONS,
            Self::Postgres(_) => &postgres::MIGRATIONS,
            #[cfg(feature = "simulation")]
            Self::Simulated(_) => &sqlite::MIGRATIONS,
        };
        let numbers = migrations.iter().map(|migration| migration.version);
        numbers.max().unwrap_or_default()
    }

    pub(crate) async fn reader(&self) -> Result<Reader, StoreError> {
        Ok(match self {
            Self::Sqlite(backend) => Reader::Sqlite(backend.readers.acquire().await?),
            Self::Postgres(backend) => backend.reader().await?,
            #[cfg(feature = "simulation")]
            Self::Simulated(node) => Reader::Simulated(node.connect().await?),
        })
    }

    pub(crate) async fn begin(&self) -> Result<Tx<'static>, StoreError> {
        Ok(match self {
            Self::Sqlite(backend) => Tx::Sqlite(backend.writer.begin_with(BEGIN_SQLITE).await?),
            Self::Postgres(backend) => backend.begin().await?,
            #[cfg(feature = "simulation")]
            Self::Simulated(node) => Tx::Simulated(SimulatedLink::begin(node).await?),
        })
    }

    /// A transaction that sees one moment of the whole database.
    pub(crate) async fn snapshot(&self) -> Result<Tx<'static>, StoreError> {
        Ok(match self {
            Self::Sqlite(backend) => Tx::Sqlite(backend.readers.begin_with("BEGIN").await?),
            Self::Postgres(backend) => {
                let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
                Tx::Postgres(backend.pool.begin_with(begin).await?, backend.statements)
            }
            #[cfg(feature = "simulation")]
            Self::Simulated(node) => Tx::Simulated(SimulatedLink::begin(node).await?),
        })
    }
}
