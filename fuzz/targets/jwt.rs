//! Hands [`vaultd_fuzz::jwt::jwt`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vaultd_fuzz::jwt::jwt(bytes));
