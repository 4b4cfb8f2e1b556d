//! Tokens as text and as keys of the store.
#![deny(clippy::indexing_slicing)]

use std::fmt;

use uuid::Uuid;

use super::VaultError;
use crate::{
    card::{MAX_PAN_DIGITS, MIN_PAN_DIGITS},
    store::TokenKey,
};

const OPAQUE_PREFIX: &str = "tok_";
/// Random bytes of an opaque token.
pub(super) const OPAQUE_BYTES: usize = 16;
const UUID_TEXT_BYTES: usize = 36;
const KIND_UUID: u8 = b'u';
const KIND_NUMERIC: u8 = b'n';
const KIND_OPAQUE: u8 = b'o';

/// A token in one of its three forms. Two tokens are equal if and only if their texts are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// A UUID, in lower case with hyphens.
    Uuid(Uuid),
    /// Digits.
    Numeric {
        /// The digits as ASCII, then zeros.
        digits: [u8; MAX_PAN_DIGITS],
        /// How many there are.
        len: usize,
    },
    /// `tok_` and base58 (Bitcoin's alphabet) of 16 bytes.
    Opaque([u8; OPAQUE_BYTES]),
}

impl Token {
    /// Reads a token's text.
    ///
    /// # Errors
    /// [`VaultError::MalformedToken`] for any other text.
    pub fn parse(text: &str) -> Result<Self, VaultError> {
        if let Some(base58) = text.strip_prefix(OPAQUE_PREFIX) {
            let mut bytes = [0; OPAQUE_BYTES];
            return match bs58::decode(base58).onto(&mut bytes) {
                Ok(OPAQUE_BYTES) => Ok(Self::Opaque(bytes)),
                _ => Err(VaultError::MalformedToken),
            };
        }
        if text.len() == UUID_TEXT_BYTES {
            return Uuid::try_parse(text).map(Self::Uuid).map_err(|_| VaultError::MalformedToken);
        }
        Self::numeric(text.as_bytes())
    }

    /// A token of 12 to 19 ASCII digits.
    pub(super) fn numeric(text: &[u8]) -> Result<Self, VaultError> {
        let mut digits = [0; MAX_PAN_DIGITS];
        if text.len() < MIN_PAN_DIGITS || !text.iter().all(u8::is_ascii_digit) {
            return Err(VaultError::MalformedToken);
        }
        digits.get_mut(..text.len()).ok_or(VaultError::MalformedToken)?.copy_from_slice(text);
        Ok(Self::Numeric { digits, len: text.len() })
    }

    /// The token as a key of the store: a letter for its form, and its bytes.
    pub(crate) fn key(&self) -> TokenKey {
        let mut key = Vec::with_capacity(1 + MAX_PAN_DIGITS);
        match self {
            Self::Uuid(uuid) => {
                key.push(KIND_UUID);
                key.extend(uuid.as_bytes());
            }
            Self::Numeric { digits, len } => {
                key.push(KIND_NUMERIC);
                key.extend(digits.iter().take(*len));
            }
            Self::Opaque(bytes) => {
                key.push(KIND_OPAQUE);
                key.extend(bytes);
            }
        }
        #[expect(clippy::expect_used, reason = "the longest form has 1 + 19 bytes, below the store's 24")]
        TokenKey::new(&key).expect("a token's key fits")
    }

    /// Reads what [`Token::key`] wrote; `None` for anything else.
    pub(super) fn from_key(key: &TokenKey) -> Option<Self> {
        let (kind, bytes) = key.as_bytes().split_first()?;
        match *kind {
            KIND_UUID => Some(Self::Uuid(Uuid::from_bytes(bytes.try_into().ok()?))),
            KIND_NUMERIC => Self::numeric(bytes).ok(),
            KIND_OPAQUE => Some(Self::Opaque(bytes.try_into().ok()?)),
            _ => None,
        }
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => write!(f, "{}", uuid.as_hyphenated()),
            Self::Numeric { digits, len } => {
                digits.iter().take(*len).try_for_each(|d| write!(f, "{}", char::from(*d)))
            }
            Self::Opaque(bytes) => write!(f, "{OPAQUE_PREFIX}{}", bs58::encode(bytes).into_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn token() -> impl Strategy<Value = Token> {
        prop_oneof![
            any::<[u8; 16]>().prop_map(|bytes| Token::Uuid(Uuid::from_bytes(bytes))),
            any::<[u8; 16]>().prop_map(Token::Opaque),
            "[0-9]{12,19}".prop_map(|text| Token::numeric(text.as_bytes()).unwrap()),
        ]
    }

    proptest! {
        #[test]
        fn text_and_key_come_back_the_same(token in token()) {
            prop_assert_eq!(Token::parse(&token.to_string()), Ok(token));
            prop_assert_eq!(Token::from_key(&token.key()), Some(token));
        }

        #[test]
        fn no_text_has_two_meanings(text in "(tok_[1-9A-HJ-NP-Za-km-z]{20,23}|[0-9a-fA-F-]{36}|[0-9]{10,20}|.{0,40})") {
            if let Ok(token) = Token::parse(&text) {
                prop_assert_eq!(Token::parse(&token.to_string()), Ok(token));
                prop_assert!(token.to_string().eq_ignore_ascii_case(&text));
            }
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            "",
            "tok_",
            "tok_0OIl",
            "12345678901",
            "12345678901234567890",
            "not-a-token",
            "tok_ab\u{e9}",
            "{67e55044-10b1-426f-9247-bb680e5fe0c8}",
            "67e5504410b1426f9247bb680e5fe0c8",
        ] {
            assert_eq!(Token::parse(text), Err(VaultError::MalformedToken), "{text}");
        }
    }
}
