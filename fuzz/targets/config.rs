//! Hands [`vaultd_fuzz::files::config`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| vaultd_fuzz::files::config(text));
