//! Fuzzes chat requests.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("encode_chat", data));
