//! The conformance suite of the ledger: every verb, every race and every fault, on SQLite and on Postgres alike.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "the whole program is a test; its helpers are too"
)]

mod admin;
mod ahead;
mod audit;
mod batches;
mod clocks;
mod closing;
mod credit;
mod faults;
mod idempotency;
mod keys;
mod large;
mod leases;
mod local_journal;
mod months;
mod network;
mod owned;
mod plans;
mod races;
mod settle;
mod standing;
mod token_factors;
mod upgrade;
mod world;
