#![no_main]

#[allow(dead_code, reason = "one wrapper runs one target")]
#[path = "../../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|data: &[u8]| targets::control(data));
