//! The vault's public keys.

use serde::{Deserialize, Serialize};

/// A JWK set (RFC 7517, 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JwkSet {
    /// The keys that verify what the vault signs.
    pub keys: Vec<Jwk>,
}

/// An RSA public key (RFC 7517, 4; RFC 7518, 6.3.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Jwk {
    /// Key type: `RSA`.
    pub kty: String,
    /// What the key is for: `sig`.
    #[serde(rename = "use")]
    pub usage: String,
    /// Algorithm: `RS256`.
    pub alg: String,
    /// Key id: the RFC 7638 thumbprint, SHA-256, base64url.
    pub kid: String,
    /// Modulus, big-endian, base64url without padding.
    pub n: String,
    /// Public exponent, big-endian, base64url without padding.
    pub e: String,
}
