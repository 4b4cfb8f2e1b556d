//! Hands [`vaultd_fuzz::bodies::body`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vaultd_fuzz::bodies::body(bytes));
