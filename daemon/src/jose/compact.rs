//! A JWT taken apart.
#![deny(clippy::indexing_slicing)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};

use super::VerifyingKey;

/// The longest JWT that is looked at.
pub const MAX_JWT_BYTES: usize = 8_192;

const ALGORITHM: &str = "RS256";

/// Why a text is no JWT that the vault reads. No message repeats any part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JwsError(pub &'static str);

/// A compact JWS, nothing of it verified yet.
pub struct Compact<'a> {
    /// Which of the issuer's keys is said to have signed it.
    pub kid: String,
    payload: &'a str,
    signed: &'a str,
    signature: &'a str,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    jwk: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
}

impl<'a> Compact<'a> {
    /// Takes `text` apart and refuses what needs no key to be refused. `is_type` says whether a `typ` is welcome.
    ///
    /// # Errors
    /// [`JwsError`].
    pub fn parse(text: &'a str, is_type: impl Fn(Option<&str>) -> bool) -> Result<Self, JwsError> {
        if text.len() > MAX_JWT_BYTES {
            return Err(JwsError("the JWT is longer than 8 KiB"));
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(NOT_COMPACT)?;
        let (header, payload) = signed.split_once('.').ok_or(NOT_COMPACT)?;
        if payload.contains('.') {
            return Err(NOT_COMPACT);
        }
        let header: Header = json(header).ok_or(JwsError(
            "the JWT's header must be a JSON object with `alg` and `kid` as strings, each once",
        ))?;
        if header.alg != ALGORITHM {
            return Err(JwsError("the JWT's `alg` must be RS256"));
        }
        if !is_type(header.typ.as_deref()) {
            return Err(JwsError("the JWT's `typ` is not one that is used here"));
        }
        // Keys come from the configuration, and there is no extension this version understands.
        if [header.crit, header.jku, header.jwk, header.x5u, header.x5c].iter().any(Option::is_some) {
            return Err(JwsError("the JWT's header must not have crit, jku, jwk, x5u or x5c"));
        }
        let kid = header.kid.ok_or(JwsError("the JWT's header needs a `kid`"))?;
        Ok(Self { kid, payload, signed, signature })
    }

    /// The claims, if they are a JSON object and a `T`. Not to be believed before [`Compact::verify`].
    pub fn claims<T: DeserializeOwned>(&self) -> Option<T> {
        json(self.payload)
    }

    /// Whether `key` made the signature.
    ///
    /// # Errors
    /// [`JwsError`] if not.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), JwsError> {
        if key.verify(self.signed.as_bytes(), self.signature) {
            Ok(())
        } else {
            Err(JwsError("the JWT's signature does not verify"))
        }
    }
}

const NOT_COMPACT: JwsError = JwsError("the JWT does not have three parts");

fn json<T: DeserializeOwned>(part: &str) -> Option<T> {
    let bytes = URL_SAFE_NO_PAD.decode(part).ok()?;
    // Serde reads a struct from an array, too; a JOSE header and a claims set are objects.
    bytes.first().filter(|first| **first == b'{')?;
    serde_json::from_slice(&bytes).ok()
}
