//! How a token wants things done, where tokens differ. Found by trial, never by a vendor's name.

use cryptoki::{error::Error as Pkcs11Error, object::ObjectHandle, session::Session};
use cryptoki_sys::{CKM_RSA_PKCS, CKM_SHA256_RSA_PKCS};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{NONCE_BYTES, Sealed, SetupError, TAG_BYTES, class::Class, direct::Direct, error::brief};

/// What a module is given as the nonce of a GCM encryption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum NonceGiven {
    /// Bytes of the token's random number generator.
    #[default]
    Random,
    /// Room of zeros that it writes the nonce it has made into.
    Room,
    /// Nothing: it appends the nonce it has made to the ciphertext.
    Nothing,
}

/// The mechanism of RSASSA-PKCS1-v1_5 signatures with SHA-256.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum SignedBy {
    /// `CKM_SHA256_RSA_PKCS`.
    #[default]
    Sha256RsaPkcs,
    /// `CKM_RSA_PKCS` over a `DigestInfo` that is made here.
    RsaPkcs,
}

/// How one token wants things done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Manner {
    pub(super) nonce: NonceGiven,
    pub(super) signed_by: SignedBy,
}

impl NonceGiven {
    /// Tries `key` and says what the module takes.
    ///
    /// # Errors
    /// [`SetupError`] with the refusals if it takes nothing that works.
    pub(super) fn find(direct: &Direct, session: &Session, key: ObjectHandle) -> Result<Self, SetupError> {
        let mut refusals = Vec::new();
        let mut broken = None;
        // What is sealed here is dropped, so that it does no harm if a module takes the room for a nonce of zeros.
        for given in [Self::Random, Self::Room, Self::Nothing] {
            match given.works(direct, session, key) {
                Ok(()) => return Ok(given),
                Err(error) => {
                    refusals.push(format!("{given}, {}", brief(&error)));
                    if matches!(error, Pkcs11Error::Pkcs11(..)) && Class::of(&error) != Class::Request {
                        broken.get_or_insert(error);
                    }
                }
            }
        }
        // Only a module that is there can be said to refuse.
        if let Some(error) = broken {
            return Err(error.into());
        }
        Err(SetupError::Key(format!(
            "the module seals and opens with no {NONCE_BYTES}-byte nonce, neither ours nor its own ({})",
            refusals.join("; ")
        )))
    }

    /// Seals twice and opens: a module may take a nonce and use another, or use the same one again.
    fn works(self, direct: &Direct, session: &Session, key: ObjectHandle) -> Result<(), Pkcs11Error> {
        const TEXT: &[u8] = b"vaultd trial";
        let seal = || {
            let mut nonce = [0; NONCE_BYTES];
            if self == Self::Random {
                session.generate_random_slice(&mut nonce)?;
            }
            seal(direct, session, key, self, nonce, TEXT, TEXT)
        };
        let (first, second) = (seal()?, seal()?);
        let opens = |sealed: &Sealed| {
            open(direct, session, key, TEXT, sealed).map(|opened| opened.as_slice() == TEXT)
        };
        if first.nonce != second.nonce && opens(&first)? && opens(&second)? {
            Ok(())
        } else {
            Err(Pkcs11Error::InvalidValue)
        }
    }
}

impl std::fmt::Display for NonceGiven {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Random => "given one drawn from the token",
            Self::Room => "given room for one",
            Self::Nothing => "given none",
        })
    }
}

impl SignedBy {
    /// Tries `key` and says which mechanism the module has.
    ///
    /// # Errors
    /// What the module said to the last one.
    pub(super) fn find(direct: &Direct, session: &Session, key: ObjectHandle) -> Result<Self, SetupError> {
        match sign(direct, session, key, Self::Sha256RsaPkcs, b"vaultd trial") {
            Ok(_) => Ok(Self::Sha256RsaPkcs),
            Err(_) => Ok(sign(direct, session, key, Self::RsaPkcs, b"vaultd trial").map(|_| Self::RsaPkcs)?),
        }
    }
}

impl std::fmt::Display for SignedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Sha256RsaPkcs => "CKM_SHA256_RSA_PKCS",
            Self::RsaPkcs => "CKM_RSA_PKCS over a digest made by vaultd",
        })
    }
}

/// AES-256-GCM with a 128-bit tag (SP 800-38D). `nonce` is used if random ones are `given`.
pub(super) fn seal(
    direct: &Direct,
    session: &Session,
    key: ObjectHandle,
    given: NonceGiven,
    nonce: [u8; NONCE_BYTES],
    aad: &[u8],
    plaintext: &[u8],
) -> Result<Sealed, Pkcs11Error> {
    let mut room = if given == NonceGiven::Random { nonce } else { [0; NONCE_BYTES] };
    let offered = (given != NonceGiven::Nothing).then_some(&mut room);
    let mut ciphertext = direct.encrypt_gcm(session, key, offered, aad, plaintext)?;
    // Whatever was given, a module may have used a nonce of its own: it is at the end of the ciphertext or in the room.
    let sealed_len = plaintext.len() + TAG_BYTES;
    if let Some((_, appended)) = ciphertext.split_at_checked(sealed_len)
        && let Ok(appended) = <[u8; NONCE_BYTES]>::try_from(appended)
    {
        room = appended;
        ciphertext.truncate(sealed_len);
    }
    if ciphertext.len() == sealed_len && room != [0; NONCE_BYTES] {
        Ok(Sealed { nonce: room, ciphertext })
    } else {
        // Never stored: it could not be opened, or its nonce is nobody's choice.
        Err(Pkcs11Error::InvalidValue)
    }
}

/// Opens what [`seal`] made.
pub(super) fn open(
    direct: &Direct,
    session: &Session,
    key: ObjectHandle,
    aad: &[u8],
    sealed: &Sealed,
) -> Result<Zeroizing<Vec<u8>>, Pkcs11Error> {
    direct.decrypt_gcm(session, key, &mut { sealed.nonce }, aad, &sealed.ciphertext)
}

/// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2; `RS256` in RFC 7518, 3.3).
pub(super) fn sign(
    direct: &Direct,
    session: &Session,
    key: ObjectHandle,
    by: SignedBy,
    message: &[u8],
) -> Result<Vec<u8>, Pkcs11Error> {
    match by {
        SignedBy::Sha256RsaPkcs => direct.sign(session, key, CKM_SHA256_RSA_PKCS, message),
        SignedBy::RsaPkcs => direct.sign(session, key, CKM_RSA_PKCS, &digest_info(message)),
    }
}

/// The DER encoding of the `DigestInfo` of `message` (RFC 8017, 9.2, step 2 and note 1).
fn digest_info(message: &[u8]) -> Vec<u8> {
    const SHA256: [u8; 19] = [
        0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0x00,
        0x04, 0x20,
    ];
    [SHA256.as_slice(), &Sha256::digest(message)].concat()
}
