//! Hands [`vaultd_fuzz::envelope::envelope`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(init: vaultd_fuzz::world::prepare(), |bytes: &[u8]| vaultd_fuzz::envelope::envelope(bytes));
