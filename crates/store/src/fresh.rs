//! New ids: version 7, which sorts by time.

use uuid::Uuid;

/// An id that nobody has had before.
pub(crate) fn uuid() -> Uuid {
    #[cfg(feature = "simulation")]
    if let Some(id) = simulated::next() {
        return id;
    }
    Uuid::now_v7()
}

#[cfg(feature = "simulation")]
pub use simulated::simulate_ids;

/// What a simulation puts in the place of the system's randomness.
#[cfg(feature = "simulation")]
mod simulated {
    use std::cell::RefCell;

    use uuid::Uuid;

    type Ids = Box<dyn FnMut() -> Uuid>;

    thread_local! {
        static IDS: RefCell<Option<Ids>> = const { RefCell::new(None) };
    }

    /// Where the new ids of this thread come from, from now on.
    pub fn simulate_ids(ids: Option<Ids>) {
        IDS.set(ids);
    }

    pub(super) fn next() -> Option<Uuid> {
        IDS.with_borrow_mut(|ids| ids.as_mut().map(|next| next()))
    }
}
