//! Where it is kept: accounts, keys, grants, leases and the journal, on SQLite or Postgres; the only crate with SQL.

mod account;
mod audit;
mod charge;
mod error;
mod key;
mod ledger;
mod options;
mod page;
mod secret;
mod store;

pub use account::{
    Account, AccountPatch, Balance, Credited, Entry, IdempotencyKey, NewAccount, NewCredits,
};
pub use audit::{Audit, Check};
pub use charge::{ChargeFilter, ChargeRecord, GroupBy, Grouping, UsageSum};
pub use error::StoreError;
pub use key::{CreatedKey, Key, KeyFilter, KeyPatch, NewKey};
pub use ledger::{AuthError, Busy, KeyRecord, Ledger, Shortfall, Stats};
pub use options::{LedgerOptions, OpenOptions, StoreUrl};
pub use page::{Cursor, Listed, PAGE_ROWS_MAX, Page};
pub use secret::{ApiKeySecret, well_formed};
pub use store::{AdminKey, Store};
