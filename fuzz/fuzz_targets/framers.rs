//! Fuzzes the framers.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("framers", data));
