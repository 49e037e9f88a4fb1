//! The journal's own line to the database: made where there is none, and left when nothing comes over it any more.

use std::future::Future;

use crate::{
    Store, StoreError,
    link::Tx,
    postgres::{OwnConnection, PostgresBackend, Session},
    store::Backend,
};

/// A transaction of the journal's own.
pub(crate) async fn begin<'c>(
    store: &Store,
    connection: &'c mut Option<OwnConnection>,
) -> Result<Tx<'c>, StoreError> {
    match store.backend() {
        Backend::Sqlite(_) => store.begin().await,
        #[cfg(feature = "simulation")]
        Backend::Simulated(_) => store.begin().await,
        Backend::Postgres(backend) => open(backend, connection).await?.begin().await,
    }
}

/// The transaction that was left open on purpose.
pub(crate) fn resume(connection: &mut Option<OwnConnection>) -> Result<Tx<'_>, StoreError> {
    let left_open = connection.as_mut().and_then(OwnConnection::resume);
    // Where its connection is a new one, it is begun again.
    left_open.ok_or(StoreError::TimedOut)
}

/// Makes the connection where there is none; the server's session behind it, where it is known.
pub(crate) async fn connected(
    store: &Store,
    connection: &mut Option<OwnConnection>,
) -> Result<Option<Session>, StoreError> {
    match store.backend() {
        Backend::Sqlite(_) => Ok(None),
        #[cfg(feature = "simulation")]
        Backend::Simulated(_) => Ok(None),
        Backend::Postgres(backend) => Ok(open(backend, connection).await?.session()),
    }
}

async fn open<'c>(
    backend: &PostgresBackend,
    connection: &'c mut Option<OwnConnection>,
) -> Result<&'c mut OwnConnection, StoreError> {
    let open = match connection.take() {
        Some(open) => open,
        // Boxed: connecting is a large state, and happens seldom.
        None => Box::pin(backend.own_connection()).await?,
    };
    Ok(connection.insert(open))
}

/// Does a part of an attempt, unless it becomes known that its answer will never come.
pub(crate) async fn unless_lost<T>(
    store: &Store,
    session: Option<Session>,
    work: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let (Backend::Postgres(backend), Some(session)) = (store.backend(), session) else {
        return work.await;
    };
    tokio::select! {
        // What is done is done, however long it took.
        biased;
        done = work => done,
        () = backend.until_lost(session) => Err(StoreError::TimedOut),
    }
}
