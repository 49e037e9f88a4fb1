//! SQLite: one file, owned by one process; one connection that writes, a few that read.

use std::{
    fs::{File, TryLockError},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    Pool, Sqlite,
    migrate::Migrator,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::{OpenOptions, StoreError};

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("../../migrations/sqlite");

const READERS: u32 = 4;
/// Only the audit of another process can be in the way, and only while it opens.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// An open file.
#[derive(Clone, Debug)]
pub(crate) struct SqliteBackend {
    pub(crate) writer: Pool<Sqlite>,
    pub(crate) readers: Pool<Sqlite>,
    /// Held as long as the store lives; the operating system lets go of it when the process dies.
    _lock: Option<Arc<File>>,
}

impl SqliteBackend {
    pub(crate) async fn open(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
            private_folder(folder)?;
        }
        let lock = own(path)?;
        private_file(path)?;
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // Every commit is on the disk before it is acknowledged.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = pool(1, options).connect_with(connect.clone()).await?;
        MIGRATIONS.run(&writer).await?;
        let readers = pool(READERS, options).connect_lazy_with(connect.read_only(true));
        Ok(Self {
            writer,
            readers,
            _lock: Some(Arc::new(lock)),
        })
    }

    /// Reads and writes beside the process that owns the file, each transaction in its turn.
    pub(crate) async fn open_beside(path: &Path, options: OpenOptions) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Empty);
        }
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(BUSY_TIMEOUT);
        let writer = pool(1, options).connect_with(connect.clone()).await?;
        let readers = pool(1, options).connect_lazy_with(connect.read_only(true));
        Ok(Self {
            writer,
            readers,
            _lock: None,
        })
    }

    /// Reads beside the process that owns the file.
    pub(crate) async fn open_read_only(
        path: &Path,
        options: OpenOptions,
    ) -> Result<Self, StoreError> {
        if !path.exists() {
            return Err(StoreError::Empty);
        }
        let connect = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT);
        let readers = pool(1, options).connect_with(connect).await?;
        Ok(Self {
            writer: readers.clone(),
            readers,
            _lock: None,
        })
    }
}

fn pool(connections: u32, options: OpenOptions) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(options.timeout)
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
}

/// Makes the folders that are missing, for this user alone: who reads the database reads what
/// every customer did.
fn private_folder(folder: &Path) -> Result<(), StoreError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    Ok(builder.create(folder)?)
}

/// Makes the file where there is none, for this user alone. SQLite gives its other files the
/// same rights. An existing file keeps what it has.
fn private_file(path: &Path) -> Result<(), StoreError> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?;
    Ok(())
}

/// Takes the lock file beside the database, so that a second process is refused at once.
fn own(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let name = PathBuf::from(name);
    private_file(&name)?;
    let file = File::options().write(true).open(&name)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StoreError::InUse {
            path: path.display().to_string(),
        }),
        Err(TryLockError::Error(error)) => Err(StoreError::File(error)),
    }
}
