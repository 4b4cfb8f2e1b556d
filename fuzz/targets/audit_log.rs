//! Hands [`vaultd_fuzz::files::audit_log`] to libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| vaultd_fuzz::files::audit_log(bytes));
