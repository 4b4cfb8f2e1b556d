//! The five operations on one session.

use cryptoki::{
    error::{Error as Pkcs11Error, RvError},
    mechanism::Mechanism,
    session::Session,
};
use zeroize::Zeroizing;

use super::{
    KeyName, Purpose,
    error::Fault,
    keys::KeyRing,
    manner::{self, NonceGiven},
};

/// Bytes of a GCM nonce (SP 800-38D, 8.2.2: 96 random bits).
pub const NONCE_BYTES: usize = 12;
/// Bytes of a GCM tag, at the end of the ciphertext.
pub const TAG_BYTES: usize = 16;
/// Bytes of an HMAC-SHA-256.
pub const MAC_BYTES: usize = 32;

/// What is to be sealed.
pub struct SealRequest {
    /// The sealing key.
    pub key: KeyName,
    /// Data that is bound to the ciphertext but not hidden; must not be empty.
    pub aad: Vec<u8>,
    /// What is hidden.
    pub plaintext: Zeroizing<Vec<u8>>,
}

/// A sealed plaintext.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The nonce: made by the module, or drawn from the token's random number generator.
    pub nonce: [u8; NONCE_BYTES],
    /// Ciphertext and tag: the plaintext's length and 16 bytes.
    pub ciphertext: Vec<u8>,
}

/// What is to be opened.
#[derive(Clone, Debug)]
pub struct OpenRequest {
    /// The sealing key.
    pub key: KeyName,
    /// The data it was bound to.
    pub aad: Vec<u8>,
    /// What was sealed.
    pub sealed: Sealed,
}

/// An opened plaintext, or `None` where ciphertext, nonce, AAD and key do not belong together.
pub type Opened = Option<Zeroizing<Vec<u8>>>;

/// A session and the keys it can use.
pub(super) struct Operator<'a> {
    pub(super) session: &'a Session,
    pub(super) keys: &'a KeyRing,
}

impl Operator<'_> {
    /// AES-256-GCM with a 96-bit nonce and a 128-bit tag (SP 800-38D).
    pub(super) fn seal(&self, requests: &[SealRequest]) -> Result<Vec<Sealed>, Fault> {
        let given = self.keys.manner().nonce;
        // One call for the nonces of the whole group: on a network HSM calls cost, bytes do not.
        let mut nonces = vec![0; requests.len() * NONCE_BYTES];
        if given == NonceGiven::Random {
            self.random(&mut nonces)?;
        }
        let (nonces, _) = nonces.as_chunks::<NONCE_BYTES>();
        requests
            .iter()
            .zip(nonces)
            .map(|(request, nonce)| {
                let key = self.keys.handle(request.key)?;
                Ok(manner::seal(
                    self.keys.direct(),
                    self.session,
                    key,
                    given,
                    *nonce,
                    &request.aad,
                    &request.plaintext,
                )?)
            })
            .collect()
    }

    /// Opens what [`Operator::seal`] made.
    pub(super) fn open(&self, requests: &[OpenRequest]) -> Result<Vec<Opened>, Fault> {
        requests.iter().map(|request| self.open_one(request)).collect()
    }

    fn open_one(&self, request: &OpenRequest) -> Result<Opened, Fault> {
        match self.decrypt(request) {
            Ok(plaintext) => Ok(Some(plaintext)),
            // No key: the version was edited, or its key destroyed. Either way nobody can open it.
            Err(
                Fault::NoKey(_)
                | Fault::Permanent(Pkcs11Error::Pkcs11(
                    RvError::EncryptedDataInvalid
                    | RvError::EncryptedDataLenRange
                    | RvError::SignatureInvalid,
                    _,
                )),
            ) => Ok(None),
            // Some modules say "general error" for a tag that does not fit. If the same key on the same session
            // opens what it certainly sealed, then it is this record that is wrong and not the token.
            Err(fault) => match self.keys.reference(request.key).map(|reference| self.decrypt(reference)) {
                Some(Ok(_)) => Ok(None),
                _ => Err(fault),
            },
        }
    }

    fn decrypt(&self, request: &OpenRequest) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let key = self.keys.handle(request.key)?;
        Ok(manner::open(self.session, key, &request.aad, &request.sealed)?)
    }

    /// Whether the token draws random bytes and the newest record key still opens what it sealed.
    pub(super) fn prove(&self) -> Result<(), Fault> {
        const PROBE_BYTES: usize = 16;
        self.random(&mut [0; PROBE_BYTES])?;
        match self.keys.newest_reference() {
            Some(reference) => self.decrypt(reference).map(drop),
            None => Err(Fault::NoKey("record key".to_owned())),
        }
    }

    /// HMAC-SHA-256 (FIPS 198-1) of each message.
    pub(super) fn mac(
        &self,
        key: KeyName,
        messages: &[Zeroizing<Vec<u8>>],
    ) -> Result<Vec<[u8; MAC_BYTES]>, Fault> {
        let key = self.keys.handle(key)?;
        messages
            .iter()
            .map(|message| {
                let mac = self.session.sign(&Mechanism::Sha256Hmac, key, message)?;
                // A module that gives back another length is broken, not merely refusing.
                mac.try_into().map_err(|_| Fault::Permanent(Pkcs11Error::InvalidValue))
            })
            .collect()
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2; `RS256` in RFC 7518, 3.3).
    pub(super) fn sign(&self, key_version: u32, message: &[u8]) -> Result<Vec<u8>, Fault> {
        let key = self.keys.handle(KeyName { purpose: Purpose::Jwt, version: key_version })?;
        Ok(manner::sign(self.session, key, self.keys.manner().signed_by, message)?)
    }

    /// Bytes of the token's random number generator.
    pub(super) fn random(&self, out: &mut [u8]) -> Result<(), Fault> {
        // In pieces: Google's module gives no more than this at once.
        const MOST: usize = 1_024;
        out.chunks_mut(MOST).try_for_each(|piece| Ok(self.session.generate_random_slice(piece)?))
    }
}
