//! The five operations on one session.

use cryptoki::{
    context::Function,
    error::{Error as Pkcs11Error, RvError},
    session::Session,
};
use cryptoki_sys::CKM_SHA256_HMAC;
use zeroize::Zeroizing;

use super::{
    KeyName,
    class::Class,
    error::Fault,
    keys::KeyRing,
    manner::{self, NonceGiven},
    watch::beat,
};

/// Bytes of a GCM nonce (SP 800-38D, 8.2.2: 96 random bits).
pub const NONCE_BYTES: usize = 12;
/// Bytes of a GCM tag, at the end of the ciphertext.
pub const TAG_BYTES: usize = 16;
/// Bytes of an HMAC-SHA-256.
pub const MAC_BYTES: usize = 32;

/// How often a record must be refused, and a sound one opened in between, before it counts as forged: a token of which
/// every second call fails would look like that once in 130,000 times.
const PROOFS: usize = 8;

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
                beat();
                let sealed = manner::seal(
                    self.keys.direct(),
                    self.session,
                    key,
                    given,
                    *nonce,
                    &request.aad,
                    &request.plaintext,
                )?;
                let must_be = request.plaintext.len() + TAG_BYTES;
                let ciphertext = Fault::check_length("a ciphertext", must_be, sealed.ciphertext)?;
                Ok(Sealed { ciphertext, ..sealed })
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
            Err(Fault::NoKey(_)) => Ok(None),
            Err(fault) => match refusal(&fault) {
                Some(reason) if self.is_refused(request, reason) => Ok(None),
                _ => Err(fault),
            },
        }
    }

    /// Whether `request` is refused for `reason` each time, while the same key on the same session opens what it
    /// certainly sealed.
    ///
    /// Modules may say the same of a tag that does not fit and of a device that fails. The first must be told apart:
    /// to call a good record forged is a wrong answer.
    fn is_refused(&self, request: &OpenRequest, reason: RvError) -> bool {
        let Some(reference) = self.keys.reference(request.key) else { return false };
        (0..PROOFS).all(|_| {
            self.decrypt(reference).is_ok()
                && self.decrypt(request).is_err_and(|fault| refusal(&fault) == Some(reason))
        })
    }

    fn decrypt(&self, request: &OpenRequest) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let key = self.keys.handle(request.key)?;
        beat();
        let plaintext = manner::open(self.keys.direct(), self.session, key, &request.aad, &request.sealed)?;
        let must_be = request.sealed.ciphertext.len().saturating_sub(TAG_BYTES);
        Fault::check_length("a plaintext", must_be, plaintext)
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
                beat();
                let mac = self.keys.direct().sign(self.session, key, CKM_SHA256_HMAC, message)?;
                let bytes = mac.len();
                mac.try_into().map_err(|_| Fault::Length { what: "a MAC", bytes, must_be: MAC_BYTES })
            })
            .collect()
    }

    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017, 8.2; `RS256` in RFC 7518, 3.3).
    pub(super) fn sign(&self, name: KeyName, message: &[u8]) -> Result<Vec<u8>, Fault> {
        beat();
        let key = self.keys.handle(name)?;
        let signature =
            manner::sign(self.keys.direct(), self.session, key, self.keys.manner().signed_by, message)?;
        let modulus =
            self.keys.key(name).and_then(|key| key.public.as_ref()).map(|public| public.modulus.len());
        Fault::check_length("a signature", modulus.unwrap_or_default(), signature)
    }

    /// Bytes of the token's random number generator.
    pub(super) fn random(&self, out: &mut [u8]) -> Result<(), Fault> {
        // In pieces: Google's module gives no more than this at once.
        const MOST: usize = 1_024;
        out.chunks_mut(MOST).try_for_each(|piece| {
            beat();
            Ok(self.session.generate_random_slice(piece)?)
        })
    }
}

/// What the module says of a tag that does not fit, if `fault` can be that.
fn refusal(fault: &Fault) -> Option<RvError> {
    match fault {
        Fault::Call(error @ Pkcs11Error::Pkcs11(value, Function::Decrypt)) => {
            Class::of(error).may_be_a_tag().then_some(*value)
        }
        _ => None,
    }
}
