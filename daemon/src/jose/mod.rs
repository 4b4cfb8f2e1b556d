//! Signed JWTs in compact form (RFC 7515, 7.1): signed inside the HSM, verified with public keys. RS256 and nothing else.
//!
//! The doors are [`Signer::sign`] and [`Compact::parse`]. What the claims mean is for those to say who use them.

mod compact;
mod keyset;
mod signer;

pub use compact::{Compact, JwsError, MAX_JWT_BYTES};
pub use keyset::{KeySet, KeySetError, VerifyingKey, jwk, thumbprint};
pub use signer::{Signer, SigningKeys};
