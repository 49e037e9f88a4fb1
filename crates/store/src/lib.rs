//! Where it is kept: accounts, keys, grants, leases and the journal, on SQLite or Postgres; the only crate with SQL.

mod account;
mod audit;
mod book;
mod changes;
mod charge;
mod check;
mod credit;
mod error;
mod instance;
mod key;
mod ledger;
mod link;
mod options;
mod page;
mod postgres;
mod secret;
mod sql;
mod sqlite;
mod store;

pub use account::{Account, AccountPatch, Balance, NewAccount};
pub use audit::{Audit, Check};
pub use charge::{ChargeFilter, ChargeRecord, GroupBy, Grouping, UsageSum};
pub use credit::{Credited, Entry, IdempotencyKey, NewCredits};
pub use error::StoreError;
pub use instance::AdminKey;
pub use key::{CreatedKey, Key, KeyFilter, KeyPatch, NewKey};
pub use ledger::{AuthError, Busy, KeyRecord, Ledger, Shortfall, Stats};
pub use options::{LedgerOptions, OpenOptions, StoreUrl};
pub use page::{Cursor, Listed, PAGE_ROWS_MAX, Page};
pub use secret::{ApiKeySecret, well_formed};
pub use store::Store;
