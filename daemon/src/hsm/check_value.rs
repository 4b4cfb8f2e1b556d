//! Check values: how a substituted key is found (PCI DSS 3.7.7).
//!
//! Not the usual zero-block check value: for a GCM key that is part of its hash subkey. Instead
//! - a sealing key seals a known text once; whoever can open it again holds the same key;
//! - a MAC key has the HMAC of a known text, cut to 16 bytes;
//! - a signing key has the SHA-256 of its public half, and signs a fresh challenge that the public half verifies.

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    KeyName, NONCE_BYTES, OpenRequest, Operation, RsaPublic, SealRequest, Sealed, SetupError, error::Fault,
    operations::Operator,
};

const KNOWN_TEXT: &[u8] = b"vaultd key check value, version 1";
const CHALLENGE_BYTES: usize = 32;
const CUT_BYTES: usize = 16;

/// The recorded check value of a key: bytes for the store, which are no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckValue(pub Vec<u8>);

impl CheckValue {
    /// Makes the check value of a key that was just created or adopted; `context` binds it to one vault.
    pub(super) fn make(operator: &Operator<'_>, name: KeyName, context: &[u8]) -> Result<Self, SetupError> {
        match name.purpose.operation() {
            Operation::Seal => {
                let request = SealRequest {
                    key: name,
                    aad: bound(name, context),
                    plaintext: Zeroizing::new(KNOWN_TEXT.to_vec()),
                };
                let sealed = operator.seal(&[request])?.into_iter().next();
                Ok(Self(sealed.map(|s| [s.nonce.as_slice(), &s.ciphertext].concat()).unwrap_or_default()))
            }
            Operation::Mac => Ok(Self(mac(operator, name, context)?)),
            Operation::Sign => Ok(Self(public_digest(&signing_key(operator, name)?))),
        }
    }

    /// Whether the key `name` in the token is the one this value was made with.
    pub(super) fn fits(
        &self,
        operator: &Operator<'_>,
        name: KeyName,
        context: &[u8],
    ) -> Result<bool, SetupError> {
        match name.purpose.operation() {
            Operation::Seal => {
                let Some((nonce, ciphertext)) = self.0.split_first_chunk::<NONCE_BYTES>() else {
                    return Ok(false);
                };
                let request = OpenRequest {
                    key: name,
                    aad: bound(name, context),
                    sealed: Sealed { nonce: *nonce, ciphertext: ciphertext.to_vec() },
                };
                match operator.open(&[request]) {
                    Ok(opened) => {
                        Ok(opened.iter().flatten().any(|plaintext| plaintext.as_slice() == KNOWN_TEXT))
                    }
                    // Where keys are made there is no reference yet to tell a tag that does not fit by.
                    Err(Fault::Call(_)) if operator.keys.reference(name).is_none() => Ok(false),
                    Err(fault) => Err(fault.into()),
                }
            }
            Operation::Mac => Ok(mac(operator, name, context)? == self.0),
            Operation::Sign => Ok(public_digest(&signing_key(operator, name)?) == self.0),
        }
    }
}

fn mac(operator: &Operator<'_>, name: KeyName, context: &[u8]) -> Result<Vec<u8>, SetupError> {
    let message = Zeroizing::new([KNOWN_TEXT, &bound(name, context)].concat());
    let macs = operator.mac(name, &[message])?;
    Ok(macs.iter().flat_map(|mac| mac.iter().copied().take(CUT_BYTES)).collect())
}

/// The public half of a signing key, once the private half has proved that it belongs to it.
fn signing_key(operator: &Operator<'_>, name: KeyName) -> Result<RsaPublic, SetupError> {
    let public = operator
        .keys
        .key(name)
        .and_then(|key| key.public.clone())
        .ok_or_else(|| SetupError::Key(format!("key {name}: no public half")))?;
    let mut challenge = [0; CHALLENGE_BYTES];
    operator.random(&mut challenge)?;
    let signature = operator.sign(name, &challenge)?;
    let components = RsaPublicKeyComponents { n: &public.modulus, e: &public.exponent };
    components.verify(&RSA_PKCS1_2048_8192_SHA256, &challenge, &signature).map_err(|_| {
        SetupError::Key(format!("key {name}: its public key in the token belongs to another private key"))
    })?;
    Ok(public)
}

fn public_digest(public: &RsaPublic) -> Vec<u8> {
    let mut hash = Sha256::new();
    hash.update(&public.modulus);
    hash.update(&public.exponent);
    hash.finalize().to_vec()
}

fn bound(name: KeyName, context: &[u8]) -> Vec<u8> {
    [name.to_string().as_bytes(), b"\0", context].concat()
}
