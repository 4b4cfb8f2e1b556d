//! Bytes that are a record are written the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaultd::store::Record;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(record) = Record::decode(bytes) {
        assert_eq!(record.encode().as_deref(), Ok(bytes));
    }
});
