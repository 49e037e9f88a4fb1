//! Fuzzes answers of providers that speak Google's generateContent.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("decode_gemini", data));
