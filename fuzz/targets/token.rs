//! A text that is a token is written the same, but for the case of a UUID.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vaultd::vault::Token;

fuzz_target!(|text: &str| {
    if let Ok(token) = Token::parse(text) {
        assert!(token.to_string().eq_ignore_ascii_case(text));
        assert_eq!(Token::parse(&token.to_string()), Ok(token));
    }
});
