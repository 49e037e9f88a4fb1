//! Why a measurement could not be made.

use std::{io, path::PathBuf};

/// Why a measurement could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The Postgres cluster would not start.
    #[error(transparent)]
    Cluster(#[from] throwaway_postgres::ClusterError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::StoreError),
    /// A statement of the bench's own failed.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
    /// A price could not be made.
    #[error(transparent)]
    Price(#[from] billing::PriceError),
    /// A file or folder.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The results could not be written.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What was wrong.
        source: serde_json::Error,
    },
    /// A task of the load ended before its time.
    #[error("a task of the load failed: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// Credit was not to be had, although every account is rich.
    #[error("a hold was refused: {0}")]
    Shortfall(#[from] store::Shortfall),
    /// The local journal could not be written.
    #[error(transparent)]
    NotRecorded(#[from] billing::NotRecorded),
    /// The books do not say what was measured: the figures mean nothing.
    #[error("the books are off after {run}: {what}")]
    Books {
        /// The run.
        run: String,
        /// What is off.
        what: String,
    },
    /// Settlements were not written in time.
    #[error("settlements were still waiting {seconds} s after the load ended")]
    NotDrained {
        /// The limit.
        seconds: u64,
    },
}
