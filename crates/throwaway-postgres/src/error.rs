//! What can go wrong with a throwaway cluster, said so that the reader can mend it.

use std::io;

/// Why a cluster could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// No folder with the server's programs was found.
    #[error(
        "no PostgreSQL server found in PATH, by `pg_config --bindir` or in /usr/lib/postgresql/*/bin; \
         install the Debian package `postgresql` (apt-get install -y postgresql)"
    )]
    ServerNotFound,
    /// The server refuses to run as root, and there is nobody else to run it as.
    #[error(
        "PostgreSQL refuses to run as root, and this machine has neither a user `postgres` nor a user `nobody`"
    )]
    NoAccount,
    /// There is no `pgbouncer`.
    #[error(
        "no pgbouncer found in PATH or /usr/sbin; install the Debian package `pgbouncer` (apt-get install -y pgbouncer)"
    )]
    PoolerNotFound,
    /// The cluster was made without a disk of its own.
    #[error("this cluster has no disk of its own to fill")]
    NoDisk,
    /// The operating system refused something.
    #[error("could not {doing}: {source}")]
    Io {
        /// What was being done.
        doing: String,
        /// The system's answer.
        source: io::Error,
    },
    /// A program of PostgreSQL's failed.
    #[error("{program} failed ({status}): {output}")]
    Program {
        /// Its name.
        program: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it printed.
        output: String,
    },
    /// The server ended while it was starting.
    #[error("the server ended while starting ({status}); end of its log:\n{log}")]
    EndedEarly {
        /// How it ended.
        status: String,
        /// The end of its log.
        log: String,
    },
    /// Something took longer than allowed.
    #[error("{doing} took more than {limit_s} s; end of the log:\n{log}")]
    TooSlow {
        /// What took so long.
        doing: &'static str,
        /// The limit, in seconds.
        limit_s: u64,
        /// The end of the server's log.
        log: String,
    },
    /// No port could be bound in several attempts.
    #[error("no free port on 127.0.0.1 after {attempts} attempts; end of the log:\n{log}")]
    NoPort {
        /// How many ports were tried.
        attempts: u32,
        /// The end of the server's log.
        log: String,
    },
    /// A database name that would need quoting.
    #[error(
        "database name {name:?}: expected 1 to 63 of a-z, 0-9 and _, not beginning with a digit"
    )]
    BadName {
        /// The name given.
        name: String,
    },
    /// The variable that names the server does not hold the address of one.
    #[error(
        "{variable}: expected postgres://[USER[:PASSWORD]@]HOST[:PORT][/DATABASE], got {got:?}"
    )]
    BadServer {
        /// The environment variable.
        variable: &'static str,
        /// What follows the password in it, if anything: secrets are not repeated.
        got: String,
    },
}

/// Names what was being done when the system refused it.
pub(crate) trait Doing<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ClusterError>;
}

impl<T> Doing<T> for io::Result<T> {
    fn doing(self, what: impl FnOnce() -> String) -> Result<T, ClusterError> {
        self.map_err(|source| ClusterError::Io {
            doing: what(),
            source,
        })
    }
}

/// The last `bytes_max` bytes of a text, cut at a character.
pub(crate) fn tail(bytes: &[u8], bytes_max: usize) -> String {
    let from = bytes.len().saturating_sub(bytes_max);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default())
        .trim()
        .to_owned()
}
