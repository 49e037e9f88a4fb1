//! Fuzzes answers of providers that speak OpenAI's chat or Responses.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| hostile_input::run("decode_openai", data));
