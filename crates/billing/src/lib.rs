//! What it costs: credits, prices, the meter, the life of a hold, and the ledger's rules without a database.

mod credits;
mod ids;
mod settlement;

pub use credits::{Credits, CreditsError};
pub use ids::{AccountId, BudgetId, EntryId, IdError, KeyId, PriceId, ReplicaId, RequestId};
pub use settlement::{Capture, End, RequestFacts, Settlement, Timings};
