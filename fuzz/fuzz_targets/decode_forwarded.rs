//! Fuzzes answers of the endpoints beside the chats.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("decode_forwarded", data));
