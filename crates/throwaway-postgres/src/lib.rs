//! A throwaway Postgres cluster in a temporary folder, for tests.
//!
//! ```no_run
//! # fn main() -> Result<(), throwaway_postgres::ClusterError> {
//! let cluster = throwaway_postgres::Cluster::start()?;
//! let url = cluster.fresh_database()?; // postgres://postgres@127.0.0.1:PORT/NAME
//! cluster.kill9()?;
//! cluster.restart()?; // the same port, the same folder, after recovery
//! # Ok(()) }
//! ```
//!
//! All calls block; from async code use `spawn_blocking`. The server listens on 127.0.0.1 only
//! and trusts everybody there. It dies with the process that started it, even after `kill -9`.

mod account;
mod binaries;
mod cluster;
mod error;
mod folder;
mod processes;
mod psql;
mod server;
mod shared;
mod watchdog;

pub use cluster::{Cluster, Options, Stop};
pub use error::ClusterError;
pub use shared::{Database, SERVER_VARIABLE, shared};
