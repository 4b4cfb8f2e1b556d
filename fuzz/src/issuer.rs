//! An issuer of JWTs whose key is made for this process.

use aws_lc_rs::{
    encoding::AsDer,
    rsa::{KeyPair, KeySize},
    signature::KeyPair as _,
};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use jsonwebtoken::{Algorithm, EncodingKey};
use vaultd::{
    auth::{Issuer, IssuerKeys, ScopeSet},
    jose::KeySet,
};

/// What the corpora call its key.
const KID: &str = "k";
const MAX_LIFETIME_S: u64 = 3_600;

/// The issuer's private half.
pub(crate) struct Signer(EncodingKey);

impl Signer {
    /// A signer, and the issuer as the vault knows it: it may give every scope in every tenant.
    pub(crate) fn new() -> (Self, Issuer) {
        let pair = KeyPair::generate(KeySize::Rsa2048).expect("a key pair");
        let public = pair.public_key();
        let (modulus, exponent) = (public.modulus(), public.exponent());
        let (modulus, exponent) =
            (modulus.big_endian_without_leading_zero(), exponent.big_endian_without_leading_zero());
        let mut keys = KeySet::default();
        keys.add(Some(KID.to_owned()), modulus, exponent).expect("an RSA key");
        let issuer = Issuer {
            keys: IssuerKeys::File(keys),
            max_lifetime_s: MAX_LIFETIME_S,
            older_until_s: 0,
            scopes: ScopeSet::all(),
            tenants: None,
        };
        let private = pair.as_der().expect("its private half").as_ref().to_vec();
        let pem =
            format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", STANDARD.encode(private));
        (Self(EncodingKey::from_rsa_pem(pem.as_bytes()).expect("it signs")), issuer)
    }

    /// A JWT of this header and these claims.
    pub(crate) fn sign(&self, header: &[u8], claims: &[u8]) -> String {
        let text = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature =
            jsonwebtoken::crypto::sign(text.as_bytes(), &self.0, Algorithm::RS256).expect("a signature");
        format!("{text}.{signature}")
    }
}
