//! The public keys of an issuer: a PEM file or a JWK set (RFC 7517).

use std::{collections::BTreeMap, path::Path};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, Jwk},
};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

use crate::hsm::RsaPublic;

/// The shortest RSA modulus (RFC 7518, 3.3).
const MIN_RSA_BITS: usize = 2_048;

/// Why a key file cannot be used. Each message says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// It cannot be read.
    #[error("cannot be used: {0}")]
    Unreadable(String),
    /// It is neither PEM nor a JWK set.
    #[error("is neither PEM (`-----BEGIN PUBLIC KEY-----`) nor a JWK set (`{{\"keys\": […]}}`)")]
    Form,
    /// A private key where a public one belongs.
    #[error("holds a private key: give the vault the public key only")]
    Private,
    /// A key that is not an RSA public key.
    #[error("holds a key that is not an RSA public key")]
    NotRsa,
    /// A key that is too short.
    #[error("holds an RSA key of {0} bits; at least {MIN_RSA_BITS} are needed")]
    Short(usize),
    /// Two keys with one id.
    #[error("holds two keys with the same `kid`")]
    DoubleKid,
    /// No key that could verify RS256.
    #[error("holds no RSA key for RS256 signatures")]
    Empty,
}

/// The public key `key` for others (RFC 7517; RFC 7518, 6.3.1).
pub fn jwk(key: &RsaPublic) -> vault_api::Jwk {
    vault_api::Jwk {
        kty: "RSA".to_owned(),
        usage: "sig".to_owned(),
        alg: "RS256".to_owned(),
        kid: thumbprint(&key.modulus, &key.exponent),
        n: URL_SAFE_NO_PAD.encode(&key.modulus),
        e: URL_SAFE_NO_PAD.encode(&key.exponent),
    }
}

/// A key that verifies RS256 signatures.
#[derive(Clone)]
pub struct VerifyingKey(DecodingKey);

impl VerifyingKey {
    /// Whether it made `signature` (RS256, in base64url without padding) over `message`.
    pub fn verify(&self, message: &[u8], signature: &str) -> bool {
        jsonwebtoken::crypto::verify(signature, message, &self.0, Algorithm::RS256).unwrap_or(false)
    }
}

/// An issuer's keys by `kid`.
#[derive(Clone, Default)]
pub struct KeySet {
    keys: BTreeMap<String, VerifyingKey>,
}

impl KeySet {
    /// Reads the file at `path`. A PEM key's `kid` is its RFC 7638 thumbprint, as is that of a JWK without one.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn load(path: &Path) -> Result<Self, KeySetError> {
        let text =
            std::fs::read_to_string(path).map_err(|error| KeySetError::Unreadable(error.to_string()))?;
        Self::parse(&text)
    }

    /// Reads the text of a PEM file or a JWK set.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn parse(text: &str) -> Result<Self, KeySetError> {
        let mut set = Self::default();
        if text.trim_start().starts_with('{') {
            let file: JwkSetFile = serde_json::from_str(text).map_err(|_| KeySetError::Form)?;
            for jwk in file.keys {
                if jwk.d.is_some() || jwk.k.is_some() {
                    return Err(KeySetError::Private);
                }
                // Keys for other uses are passed over (RFC 7517, 5).
                let fits = |is: Option<&str>, wanted: &str| is.is_none_or(|is| is == wanted);
                if jwk.kty == "RSA" && fits(jwk.usage.as_deref(), "sig") && fits(jwk.alg.as_deref(), "RS256")
                {
                    let (n, e) = jwk.n.zip(jwk.e).ok_or(KeySetError::NotRsa)?;
                    set.add(jwk.kid, &decode(&n)?, &decode(&e)?)?;
                }
            }
        } else {
            for section in pem::parse_many(text).map_err(|_| KeySetError::Form)? {
                if section.tag().contains("PRIVATE") {
                    return Err(KeySetError::Private);
                }
                let key = DecodingKey::from_rsa_pem(pem::encode(&section).as_bytes());
                let jwk = key
                    .and_then(|key| Jwk::from_decoding_key(&key, None))
                    .map_err(|_| KeySetError::NotRsa)?;
                let AlgorithmParameters::RSA(rsa) = jwk.algorithm else { return Err(KeySetError::NotRsa) };
                set.add(None, &decode(&rsa.n)?, &decode(&rsa.e)?)?;
            }
        }
        if set.keys.is_empty() { Err(KeySetError::Empty) } else { Ok(set) }
    }

    /// Adds an RSA public key, both numbers big-endian; `kid` is its thumbprint if `None`.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn add(&mut self, kid: Option<String>, modulus: &[u8], exponent: &[u8]) -> Result<(), KeySetError> {
        let (modulus, exponent) = (without_leading_zeros(modulus), without_leading_zeros(exponent));
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - usize_from(first.leading_zeros()));
        if bits < MIN_RSA_BITS {
            return Err(KeySetError::Short(bits));
        }
        if exponent.last().is_none_or(|last| last % 2 == 0) || exponent == [1] {
            return Err(KeySetError::NotRsa);
        }
        let kid = kid.unwrap_or_else(|| thumbprint(modulus, exponent));
        let key = VerifyingKey(DecodingKey::from_rsa_raw_components(modulus, exponent));
        match self.keys.insert(kid, key) {
            None => Ok(()),
            Some(_) => Err(KeySetError::DoubleKid),
        }
    }

    /// The ids of the keys.
    pub fn kids(&self) -> impl Iterator<Item = &str> {
        self.keys.keys().map(String::as_str)
    }

    /// The key with this `kid`.
    pub fn key(&self, kid: &str) -> Option<&VerifyingKey> {
        self.keys.get(kid)
    }
}

/// The RFC 7638 thumbprint of an RSA public key: SHA-256, base64url without padding.
pub fn thumbprint(modulus: &[u8], exponent: &[u8]) -> String {
    // Members in lexical order and no white space (RFC 7638, 3.2).
    let canonical = format!(
        r#"{{"e":"{}","kty":"RSA","n":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(exponent),
        URL_SAFE_NO_PAD.encode(modulus)
    );
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical))
}

#[derive(Deserialize)]
struct JwkSetFile {
    keys: Vec<JwkFile>,
}

#[derive(Deserialize)]
struct JwkFile {
    kty: String,
    #[serde(rename = "use")]
    usage: Option<String>,
    alg: Option<String>,
    kid: Option<String>,
    n: Option<String>,
    e: Option<String>,
    d: Option<IgnoredAny>,
    k: Option<IgnoredAny>,
}

fn decode(base64url: &str) -> Result<Vec<u8>, KeySetError> {
    URL_SAFE_NO_PAD.decode(base64url).map_err(|_| KeySetError::NotRsa)
}

fn without_leading_zeros(bytes: &[u8]) -> &[u8] {
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    bytes.get(zeros..).unwrap_or_default()
}

fn usize_from(bits: u32) -> usize {
    usize::try_from(bits).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 7638, 3.1.
    const RFC_N: &str = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRX\
        jBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d\
        0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-\
        kEgU8awapJzKnqDKgw";
    const RFC_KID: &str = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";

    fn set(member: &str) -> String {
        format!(r#"{{"keys":[{{"kty":"RSA","n":"{RFC_N}","e":"AQAB"{member}}}]}}"#)
    }

    #[test]
    fn the_thumbprint_is_that_of_the_rfc() {
        assert!(KeySet::parse(&set("")).ok().unwrap().key(RFC_KID).is_some());
    }

    #[test]
    fn a_kid_in_the_set_is_kept() {
        assert!(KeySet::parse(&set(r#","kid":"2011-04-29""#)).ok().unwrap().key("2011-04-29").is_some());
    }

    #[test]
    fn keys_for_other_uses_do_not_count() {
        for member in [r#","use":"enc""#, r#","alg":"PS256""#] {
            assert_eq!(KeySet::parse(&set(member)).err(), Some(KeySetError::Empty), "{member}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_its_reason() {
        let double = format!(
            r#"{{"keys":[{{"kty":"RSA","n":"{RFC_N}","e":"AQAB"}},{{"kty":"RSA","n":"{RFC_N}","e":"AQAB"}}]}}"#
        );
        for (text, error) in [
            ("", KeySetError::Empty),
            ("{", KeySetError::Form),
            (&set(r#","d":"AQAB""#), KeySetError::Private),
            (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, KeySetError::Private),
            (r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#, KeySetError::Short(17)),
            (&double, KeySetError::DoubleKid),
        ] {
            assert_eq!(KeySet::parse(text).err(), Some(error), "{text}");
        }
    }
}
