//! A text that is a PAN is one however it is grouped, and its mask hides all but ten digits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaultd::card::{CardExpiry, Pan};

fuzz_target!(|text: &str| {
    if let Ok(pan) = Pan::parse(text) {
        let again = Pan::parse(pan.as_str()).ok().expect("digits alone are a PAN");
        assert_eq!(again.as_str(), pan.as_str());
        let mask = pan.masked().text();
        assert_eq!(mask.len(), pan.as_str().len());
        assert_eq!(mask.bytes().filter(u8::is_ascii_digit).count(), 10);
    }
    if let Ok(expiry) = CardExpiry::parse(text) {
        assert_eq!(expiry.as_str(), text);
    }
});
