//! Hands [`vaultd_fuzz::texts::pan`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| vaultd_fuzz::texts::pan(text));
