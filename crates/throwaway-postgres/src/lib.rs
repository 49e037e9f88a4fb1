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
mod disk;
mod error;
mod folder;
mod pooler;
mod processes;
mod proxy;
mod psql;
mod server;
mod shared;
mod standby;
mod watchdog;
mod wire;

pub use cluster::{Cluster, Disk, Options, Stop};
pub use disk::SmallDisk;
pub use error::ClusterError;
pub use pooler::Pooler;
pub use proxy::{AtCommit, Proxy};
pub use shared::{Database, SERVER_VARIABLE, shared};
