//! Fuzzes answers of providers that speak Cohere's chat API.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("decode_cohere", data));
