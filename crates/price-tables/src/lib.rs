//! Published price tables, and how their rows become the prices of provider files.
//!
//! The plan (`crates/price-tables/prices.toml`) says which rows of which table belong to which
//! provider file. Prices are moved as decimal digits; no float is involved.

mod decimal;
mod facts;
mod genai;
mod litellm;
mod model;
mod off_peak;
mod picked;
mod plan;
mod python_literal;
mod text;

pub use self::{
    decimal::{Decimal, DecimalError},
    facts::{Kind, Price, When},
    model::{LeftOut, Model},
    picked::{Picked, Table, pick},
    plan::{PLAN_PATH, PinnedTable, Plan, Provider, Rows, Rule, TableName},
};

/// A table or a plan that is not what it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct TableError {
    /// The table, the row, or the plan.
    pub place: String,
    /// What is wrong with it.
    pub problem: String,
}

impl TableError {
    /// About a place.
    pub(crate) fn at(place: impl Into<String>, problem: impl ToString) -> Self {
        Self {
            place: place.into(),
            problem: problem.to_string(),
        }
    }
}
