//! What it costs: credits, prices, the meter, the life of a hold, and the ledger's rules without a database.

mod credits;
mod escrow;
mod hold;
mod ids;
mod meter;
mod permit;
mod price;
pub mod rules;
mod sample;
mod settlement;

pub use credits::{Credits, CreditsError};
pub use escrow::{Budget, Escrow, Figures, Path, Reserved, Short, Totals};
pub use hold::{Charge, Hold, Settled};
pub use ids::{AccountId, BudgetId, EntryId, IdError, KeyId, PriceId, ReplicaId, RequestId};
pub use meter::{CountPrompt, Meter, Prompt, Slot, Text, Verdict};
pub use permit::{LocalJournal, NotRecorded, Permit};
pub use price::{
    CostDetails, Days, Hours, Multiplier, Offer, Output, Price, PriceBook, PriceError,
    PriceVersion, Priced, Rates, ServiceTier, Tier,
};
pub use sample::Sample;
pub use settlement::{Capture, Checkpoint, Counted, End, RequestFacts, Settlement, Timings};
