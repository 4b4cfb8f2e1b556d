//! Hands [`vaultd_fuzz::files::record`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vaultd_fuzz::files::record(bytes));
