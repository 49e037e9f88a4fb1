//! One server for many tests: a fresh database in it for each.

use std::env;
use std::process;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::binaries::Binaries;
use crate::{Cluster, ClusterError, psql};

/// The environment variable by which a test command names one server for all test processes:
/// `postgres://USER@HOST:PORT/ANY`. Its user must be allowed to create databases.
pub const SERVER_VARIABLE: &str = "TOLLWAY_TEST_POSTGRES";

/// An empty database of one's own. It stays until its server goes, which is cheaper than dropping
/// it (that forces a checkpoint).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    url: String,
    name: String,
}

impl Database {
    /// The address: `postgres://postgres@127.0.0.1:PORT/NAME`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name, unlike that of any other database, also of other processes.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// Makes a fresh database on the server named in [`SERVER_VARIABLE`]; without it, on one cluster
/// that this process starts once and keeps until it ends.
///
/// # Errors
/// No server found, or it would not start or make the database.
pub fn shared() -> Result<Database, ClusterError> {
    let name = fresh_name();
    let url = match env::var(SERVER_VARIABLE) {
        Ok(server) if !server.is_empty() => {
            let url = with_database(&server, &name)?;
            let statement = psql::create_database(&name)?;
            psql::run(&Binaries::find()?, &["-d", &server], &statement)?;
            url
        }
        Ok(_) | Err(_) => in_own_cluster(&name)?,
    };
    Ok(Database { url, name })
}

/// A static is never dropped; the watchdog removes this cluster when the process ends.
fn in_own_cluster(name: &str) -> Result<String, ClusterError> {
    static OWN: Mutex<Option<Cluster>> = Mutex::new(None);
    let mut own = OWN.lock().unwrap_or_else(PoisonError::into_inner);
    let cluster = match own.take() {
        Some(cluster) => cluster,
        None => Cluster::start()?,
    };
    own.insert(cluster).create_database(name)
}

/// A name that no other process, thread or call makes.
pub(crate) fn fresh_name() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_micros();
    format!("t_{now:x}_{:x}_{count:x}", process::id())
}

/// The server's address with another database, everything else kept.
fn with_database(server: &str, name: &str) -> Result<String, ClusterError> {
    let bad = || ClusterError::BadServer {
        variable: SERVER_VARIABLE,
        got: server.rsplit('@').next().unwrap_or_default().to_owned(),
    };
    let (scheme, rest) = server.split_once("://").ok_or_else(bad)?;
    let (rest, query) = match rest.split_once('?') {
        Some((rest, query)) => (rest, format!("?{query}")),
        None => (rest, String::new()),
    };
    let authority = rest.split('/').next().unwrap_or_default();
    if !matches!(scheme, "postgres" | "postgresql") || authority.is_empty() {
        return Err(bad());
    }
    Ok(format!("{scheme}://{authority}/{name}{query}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_database_of_an_address_is_replaced() {
        for (server, expected) in [
            ("postgres://p@h:5/x", "postgres://p@h:5/n"),
            ("postgres://p@h:5", "postgres://p@h:5/n"),
            ("postgresql://h/", "postgresql://h/n"),
            ("postgres://p:w@h/x?a=b/c", "postgres://p:w@h/n?a=b/c"),
        ] {
            assert_eq!(with_database(server, "n").unwrap(), expected);
        }
    }

    #[test]
    fn a_wrong_address_is_named_without_its_secret() {
        for server in ["h:5", "mysql://u:secret@h/x", "postgres:///x", ""] {
            let text = with_database(server, "n").unwrap_err().to_string();
            assert!(text.contains(SERVER_VARIABLE), "{text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn names_differ_and_need_no_quotes() {
        let (one, two) = (fresh_name(), fresh_name());
        assert_ne!(one, two);
        assert!(psql::create_database(&one).is_ok());
    }
}
