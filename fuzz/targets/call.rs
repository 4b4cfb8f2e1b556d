//! Hands [`vaultd_fuzz::calls::call`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vaultd_fuzz::world::prepare(), |text: &str| vaultd_fuzz::calls::call(text));
