//! What it costs: credits, prices, the meter, the life of a hold, and the ledger's rules without a database.

mod credits;
mod escrow;
mod ids;
mod price;
mod settlement;

pub use credits::{Credits, CreditsError};
pub use escrow::{Budget, Escrow, Figures, Path, Reserved, Short, Totals};
pub use ids::{AccountId, BudgetId, EntryId, IdError, KeyId, PriceId, ReplicaId, RequestId};
pub use price::{Output, Price, PriceError, Rates, Tier};
pub use settlement::{Capture, End, RequestFacts, Settlement, Timings};
