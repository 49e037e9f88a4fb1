//! The process's clocks, asked in one place, so that a paused runtime drives the whole ledger.

use std::time::Instant;

use jiff::Timestamp;

/// The monotonic clock: tokio's, which is the system's unless a test has paused it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The wall clock, for what people wrote down as a date: the expiry of a key.
pub(crate) fn wall() -> Timestamp {
    #[cfg(feature = "simulation")]
    if let Some(at) = simulated::wall() {
        return at;
    }
    Timestamp::now()
}

#[cfg(feature = "simulation")]
pub use simulated::simulate_wall;

/// What a simulation puts in the place of the system's clock.
#[cfg(feature = "simulation")]
mod simulated {
    use std::cell::RefCell;

    use jiff::Timestamp;

    type Wall = Box<dyn Fn() -> Timestamp>;

    thread_local! {
        static WALL: RefCell<Option<Wall>> = const { RefCell::new(None) };
    }

    /// The wall clock of this thread from now on.
    pub fn simulate_wall(wall: Option<Wall>) {
        WALL.set(wall);
    }

    pub(super) fn wall() -> Option<Timestamp> {
        WALL.with_borrow(|wall| wall.as_ref().map(|wall| wall()))
    }
}
