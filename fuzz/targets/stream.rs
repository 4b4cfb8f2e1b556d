//! Hands [`vaultd_fuzz::streams::stream`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vaultd_fuzz::world::prepare(), |bytes: &[u8]| vaultd_fuzz::streams::stream(bytes));
