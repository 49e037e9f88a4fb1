//! The whole program over HTTP. A test's name begins with the failure of others that it rules out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test says what failed by panicking, and prints what it measured"
)]

mod anthropic;
mod bad_input;
mod burst;
mod canaries;
mod commands;
mod completions;
mod counting;
mod database;
mod dialects;
mod ends;
mod ends_plain;
mod exactness;
mod files;
mod forwarded;
mod google;
mod idempotency;
mod kills;
mod local_journal;
mod matrix;
mod media;
mod messages;
mod open_model;
mod operator;
mod passing;
mod passthrough;
mod payment;
mod prices;
mod replicas;
mod responses;
mod restart;
mod sse;
