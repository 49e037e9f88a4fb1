//! The conformance suite of the ledger: every verb, every race and every fault, on SQLite and on Postgres alike.

mod admin;
mod audit;
mod credit;
mod faults;
mod keys;
mod leases;
mod races;
mod settle;
mod world;
