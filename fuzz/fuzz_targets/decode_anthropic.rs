//! Fuzzes answers of providers that speak Anthropic's Messages.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("decode_anthropic", data));
