//! Fuzzes answers of providers that speak Ollama's.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("decode_ollama", data));
