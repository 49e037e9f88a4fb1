//! Judges the books from outside: reads the database and what clients received, and shares no code with the program.
//!
//! Its SQL, its arithmetic and its idea of a price are its own, so that a mistake in the ledger
//! cannot hide behind the same mistake here. It is for tests: it reads whole tables into memory.

mod books;
mod database;
mod money;
mod proof;
mod records;

pub use books::{Books, ReplicaRow};
pub use database::{AuditorError, Database};
pub use money::{Nanos, PriceBook, Tokens, nanos};
pub use proof::{Finding, Options, Report, Totals, judge};
pub use records::{Answer, Credit, Outcome, Record, Reported, Shown, read_records};
