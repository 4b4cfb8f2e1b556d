//! Hands [`vaultd_fuzz::ctl::ctl`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vaultd_fuzz::ctl::ctl(bytes));
