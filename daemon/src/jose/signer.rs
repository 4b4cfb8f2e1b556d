//! Signing inside the HSM.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use serde_json::json;

use super::{KeySet, KeySetError, thumbprint};
use crate::hsm::{Hsm, HsmError, KeyName, Purpose};

/// Bytes of random in a `jti`.
const JTI_BYTES: usize = 16;

/// Signs JWTs with the vault's own key. Cheap to clone.
#[derive(Clone)]
pub struct Signer {
    hsm: Hsm,
    key: KeyName,
    kid: String,
}

impl Signer {
    /// A signer with the newest signing key of `hsm`.
    ///
    /// # Errors
    /// [`HsmError::NoKey`] if there is none.
    pub fn new(hsm: Hsm) -> Result<Self, HsmError> {
        let key = hsm.active_key(Purpose::Jwt)?;
        let public = hsm.keys().iter().find(|info| info.name == key).and_then(|info| info.public.as_ref());
        let public = public.ok_or_else(|| HsmError::NoKey(key.to_string()))?;
        let kid = thumbprint(&public.modulus, &public.exponent);
        Ok(Self { hsm, key, kid })
    }

    /// A JWT of type `typ` with `claims`.
    ///
    /// # Errors
    /// [`HsmError`].
    pub async fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, HsmError> {
        let encode = |value: Vec<u8>| URL_SAFE_NO_PAD.encode(value);
        let header = json!({ "alg": "RS256", "kid": self.kid, "typ": typ });
        // Structs with string keys: there is nothing to fail.
        let header = encode(serde_json::to_vec(&header).unwrap_or_default());
        let claims = encode(serde_json::to_vec(claims).unwrap_or_default());
        let signed = format!("{header}.{claims}");
        let signature = self.hsm.sign(self.key.version, signed.clone().into_bytes()).await?;
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

    /// The public halves of every signing key, to verify what this vault has signed.
    ///
    /// # Errors
    /// [`KeySetError`] for a key that cannot verify RS256.
    pub fn own_keys(hsm: &Hsm) -> Result<KeySet, KeySetError> {
        let mut keys = KeySet::default();
        for public in hsm.keys().iter().filter_map(|key| key.public.as_ref()) {
            keys.add(None, &public.modulus, &public.exponent)?;
        }
        Ok(keys)
    }
}
