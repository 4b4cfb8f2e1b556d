//! Bodies of any content are read or refused, and no refusal repeats a card number.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_api::{DetokenizeBatchRequest, TokenPatch, TokenizeRequest};
use vaultd::http::parse_json;

fuzz_target!(|body: &[u8]| {
    let details = [
        parse_json::<TokenizeRequest>(body).err(),
        parse_json::<DetokenizeBatchRequest>(body).err(),
        parse_json::<TokenPatch>(body).err(),
    ];
    for (_, detail) in details.into_iter().flatten() {
        assert!(!has_twelve_digits_in_a_row(&detail), "{detail}");
    }
});

fn has_twelve_digits_in_a_row(text: &str) -> bool {
    text.as_bytes().windows(12).any(|window| window.iter().all(u8::is_ascii_digit))
}
