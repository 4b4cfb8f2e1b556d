//! Key files of any content are read or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaultd::jose::KeySet;

fuzz_target!(|text: &str| {
    if let Ok(keys) = KeySet::parse(text) {
        assert!(keys.kids().next().is_some());
    }
});
