//! Hands [`vaultd_fuzz::texts::token`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| vaultd_fuzz::texts::token(text));
