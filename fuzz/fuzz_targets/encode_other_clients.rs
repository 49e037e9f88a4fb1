//! Fuzzes requests of Messages and Responses.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("encode_other_clients", data));
