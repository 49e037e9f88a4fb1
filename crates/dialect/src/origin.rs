//! What an answer is called, for dialects whose answers do not say it.

use std::sync::Arc;

/// When an answer was made and what it is called. Made from a time alone it has no name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// When it began, in Unix seconds.
    pub created: u64,
    /// The id of the answer; calls that the provider gives no ids are named after it.
    pub id: Arc<str>,
    /// The model's name.
    pub model: Arc<str>,
}

impl From<u64> for Origin {
    fn from(created: u64) -> Self {
        Self {
            created,
            ..Self::default()
        }
    }
}
