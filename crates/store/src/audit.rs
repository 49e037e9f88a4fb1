//! The proof of the books: every invariant as a query over one snapshot, naming the first broken row.

use std::collections::BTreeMap;

use billing::Credits;

/// The result of a proof.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    /// True when every check holds.
    pub balanced: bool,
    /// The checks, in a fixed order.
    pub checks: Vec<Check>,
    /// What the operator bore so far, by cause.
    pub house_losses: BTreeMap<String, Credits>,
    /// The sum of all differences between balances and their ledgers, without sign.
    pub imbalance: Credits,
}

/// One invariant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, stable.
    pub name: &'static str,
    /// What it says, for people.
    pub says: &'static str,
    /// Whether it holds.
    pub ok: bool,
    /// How many rows it looked at.
    pub rows_checked: u64,
    /// The first row that breaks it, with what is wrong.
    pub first_broken: Option<String>,
}

impl crate::Store {
    /// Proves the books on one snapshot.
    ///
    /// # Errors
    /// [`crate::StoreError::Database`]; books that are off are no error.
    pub async fn audit(&self) -> Result<Audit, crate::StoreError> {
        todo!()
    }
}
