//! Bodies of requests and answers.

use serde::{Serialize, de::DeserializeOwned};
use vault_api::{
    AuditQuery, BatchAnswer, CompareRequest, DetokenizeAnswer, DetokenizeBatchRequest, DetokenizeRequest,
    Health, Keys, LoginRequest, OpenEnvelopeAnswer, OpenEnvelopeRequest, PlantRequest, Problem,
    SealEnvelopeRequest, SearchAnswer, SearchRequest, Status, TokenPatch, TokenRecord, TokenizeAnswer,
    TokenizeBatchRequest, TokenizeRequest, UnlockRequest,
};
use vaultd::http::parse_json;

/// The first byte chooses what the others are a body of. A body is read or refused; a refusal repeats nothing that could
/// be a card number, and what is read is read the same once it is written.
pub fn body(bytes: &[u8]) {
    const KINDS: [fn(&[u8]); 21] = [
        read::<TokenizeRequest>,
        read::<TokenizeBatchRequest>,
        read::<DetokenizeRequest>,
        read::<DetokenizeBatchRequest>,
        read::<TokenPatch>,
        read::<SearchRequest>,
        read::<CompareRequest>,
        read::<SealEnvelopeRequest>,
        read::<OpenEnvelopeRequest>,
        read::<LoginRequest>,
        read::<UnlockRequest>,
        read::<PlantRequest>,
        // What clients read.
        read::<TokenizeAnswer>,
        read::<BatchAnswer<DetokenizeAnswer>>,
        read::<TokenRecord>,
        read::<SearchAnswer>,
        read::<OpenEnvelopeAnswer>,
        read::<Problem>,
        read::<Keys>,
        read::<Status>,
        read::<Health>,
    ];
    let Some((kind, body)) = bytes.split_first() else { return };
    // Letters, so that seeds can be written by hand.
    match usize::from(kind.wrapping_sub(b'a')) {
        place if place < KINDS.len() => KINDS[place](body),
        _ => read::<AuditQuery>(body),
    }
}

fn read<T: DeserializeOwned + Serialize>(body: &[u8]) {
    match parse_json::<T>(body) {
        Err((_, detail)) => assert!(!has_digits_of_a_card(&detail), "{detail}"),
        Ok(read) => {
            let written = serde_json::to_vec(&read).expect("what was read can be written");
            let again =
                parse_json::<T>(&written).unwrap_or_else(|error| panic!("it is not read again: {error:?}"));
            assert_eq!(serde_json::to_vec(&again).unwrap(), written);
        }
    }
}

/// As many digits in a row as the shortest card number has.
pub(crate) fn has_digits_of_a_card(text: &str) -> bool {
    text.as_bytes().windows(12).any(|window| window.iter().all(u8::is_ascii_digit))
}
