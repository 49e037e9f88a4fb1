//! Fuzzes requests that are forwarded.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("encode_forwarded", data));
