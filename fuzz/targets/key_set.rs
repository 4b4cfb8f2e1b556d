//! Hands [`vaultd_fuzz::files::key_set`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| vaultd_fuzz::files::key_set(text));
