//! The process's clocks, asked in one place, so that a paused runtime drives the whole ledger.

use std::time::Instant;

use jiff::Timestamp;

/// The monotonic clock: tokio's, which is the system's unless a test has paused it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, for what people wrote down as a date: the expiry of a key.
pub(crate) fn wall() -> Timestamp {
    Timestamp::now()
}
