//! Several gateways as real processes on one database, under load, judged by the auditor.

mod auditing;
mod clocks;
mod exact;
mod fencing;
mod grants;
mod hoarding;
mod load;
mod shutdown;
mod soak;

use std::env;

/// A number from a variable, for the long forms of these tests.
fn number(variable: &str, otherwise: u64) -> u64 {
    env::var(variable).map_or(otherwise, |text| text.parse().unwrap())
}
