//! Signing inside the HSM.

use std::sync::Arc;

use arc_swap::ArcSwap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::json;

use super::{KeySet, KeySetError, VerifyingKey, thumbprint};
use crate::hsm::{Hsm, HsmError, KeyName, RsaPublic};

/// Bytes of random in a `jti`.
const JTI_BYTES: usize = 16;

/// Signs JWTs with the vault's own key, and knows the keys it signed with before. Cheap to clone; a change is seen by
/// all clones.
#[derive(Clone)]
pub struct Signer {
    hsm: Hsm,
    keys: Arc<ArcSwap<SigningKeys>>,
}

/// The vault's own signing keys at one time.
pub struct SigningKeys {
    active: KeyName,
    kid: String,
    public: Vec<RsaPublic>,
    verifying: KeySet,
}

impl SigningKeys {
    /// Keys of which `active` signs, and `others` may still have to verify.
    ///
    /// # Errors
    /// [`KeySetError`] for a key that cannot verify RS256.
    pub fn new(active: KeyName, public: RsaPublic, others: Vec<RsaPublic>) -> Result<Self, KeySetError> {
        let kid = thumbprint(&public.modulus, &public.exponent);
        let public: Vec<_> = std::iter::once(public).chain(others).collect();
        let mut verifying = KeySet::default();
        for key in &public {
            verifying.add(None, &key.modulus, &key.exponent)?;
        }
        Ok(Self { active, kid, public, verifying })
    }
}

impl Signer {
    /// A signer with `keys` of `hsm`.
    pub fn new(hsm: Hsm, keys: SigningKeys) -> Self {
        Self { hsm, keys: Arc::new(ArcSwap::from_pointee(keys)) }
    }

    /// Signs and verifies with `keys` from now on.
    pub fn change(&self, keys: SigningKeys) {
        self.keys.store(Arc::new(keys));
    }

    /// A JWT of type `typ` with `claims`.
    ///
    /// # Errors
    /// [`HsmError`].
    pub async fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, HsmError> {
        let keys = self.keys.load_full();
        let encode = |value: Vec<u8>| URL_SAFE_NO_PAD.encode(value);
        let header = json!({ "alg": "RS256", "kid": keys.kid, "typ": typ });
        // Structs with string keys: there is nothing to fail.
        let header = encode(serde_json::to_vec(&header).unwrap_or_default());
        let claims = encode(serde_json::to_vec(claims).unwrap_or_default());
        let signed = format!("{header}.{claims}");
        let signature = self.hsm.sign(keys.active, signed.clone().into_bytes()).await?;
        Ok(format!("{signed}.{}", encode(signature)))
    }

    /// A new `jti`: 128 bits of the HSM's random in base64url.
    ///
    /// # Errors
    /// [`HsmError`].
    pub async fn jti(&self) -> Result<String, HsmError> {
        let mut bytes = [0; JTI_BYTES];
        self.hsm.random(&mut bytes).await?;
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The key with this `kid`, if the vault signs or signed with it.
    pub fn key(&self, kid: &str) -> Option<VerifyingKey> {
        self.keys.load().verifying.key(kid).cloned()
    }

    /// The public halves: the key that signs first, then those whose signatures may still have to be verified.
    pub fn public_keys(&self) -> Vec<RsaPublic> {
        self.keys.load().public.clone()
    }
}
