//! The limit of open files: raised as far as the system lets us, and how many connections it allows.

/// Files that are open beside the connections of clients and to providers: databases, listeners,
/// logs.
const RESERVE: u64 = 128;
/// A request has a connection from its client and one to a provider.
const FILES_PER_CONNECTION: u64 = 2;
/// So many connections are tried whatever the limit is.
const CONNECTIONS_MIN: usize = 16;

/// The connections that can be served of those that are wanted, so that the program never runs
/// out of files in the middle of requests. Says so where it is fewer.
#[must_use]
pub fn connections(wanted: usize) -> usize {
    let Some(limit) = limit(files_for(wanted)) else {
        return wanted;
    };
    let possible = connections_within(limit).min(wanted);
    if possible < wanted {
        tracing::warn!(
            open_files = limit,
            connections_max = possible,
            "the limit of open files allows fewer connections than connections_max = {wanted}; raise it to {} (ulimit -n, LimitNOFILE=)",
            files_for(wanted)
        );
    }
    possible
}

fn files_for(connections: usize) -> u64 {
    (connections as u64)
        .saturating_mul(FILES_PER_CONNECTION)
        .saturating_add(RESERVE)
}

fn connections_within(files: u64) -> usize {
    let connections = files.saturating_sub(RESERVE) / FILES_PER_CONNECTION;
    usize::try_from(connections)
        .unwrap_or(usize::MAX)
        .max(CONNECTIONS_MIN)
}

/// The limit after it was raised to what is needed, as far as that is allowed; `None` is no limit.
#[cfg(unix)]
fn limit(needed: u64) -> Option<u64> {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let current = limit.current?;
    let raised = needed.min(limit.maximum.unwrap_or(u64::MAX));
    if raised <= current {
        return Some(current);
    }
    let raise = Rlimit {
        current: Some(raised),
        maximum: limit.maximum,
    };
    // Refused: it stays as it is.
    Some(setrlimit(Resource::Nofile, raise).map_or(current, |()| raised))
}

#[cfg(not(unix))]
fn limit(_: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_allows_so_many_connections() {
        for (files, connections) in [(1024, 448), (40_128, 20_000), (128, 16), (0, 16)] {
            assert_eq!(connections_within(files), connections, "{files}");
        }
        for connections in [100, 20_000] {
            assert_eq!(connections_within(files_for(connections)), connections);
        }
        assert!(connections(100) >= CONNECTIONS_MIN);
    }
}
