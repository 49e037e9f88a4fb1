//! The whole program over HTTP. A test's name begins with the failure of others that it rules out.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test says what failed by panicking"
)]

mod bad_input;
mod database;
mod ends;
mod ends_plain;
mod exactness;
mod operator;
mod passing;
mod payment;
mod restart;
mod sse;
