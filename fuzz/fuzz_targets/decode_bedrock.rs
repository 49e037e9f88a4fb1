//! Fuzzes answers of providers that speak Bedrock's Converse.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("decode_bedrock", data));
