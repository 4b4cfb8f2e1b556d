//! Hands [`vaultd_fuzz::texts::template`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vaultd_fuzz::texts::template(bytes));
