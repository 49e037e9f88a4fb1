//! New ids: version 7, which sorts by time.

use uuid::Uuid;

/// An id that nobody has had before.
pub(crate) fn uuid() -> Uuid {
    Uuid::now_v7()
}
