//! Envelopes: card data sealed by the HSM into a claim of a JWT that the HSM signs. Nothing is stored.
#![deny(clippy::indexing_slicing)]

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use vault_api::{CardData, EnvelopeClaims};
use zeroize::Zeroizing;

use super::{Vault, VaultError, now_s, settled_s};
use crate::{
    card::{CardExpiry, Pan},
    hsm::{KeyName, NONCE_BYTES, OpenRequest, Purpose, SealRequest, Sealed},
    jose::Compact,
    store::{Use, UseKind},
};

/// The type of an envelope's JWT: a bearer token has another, so that neither can be used as the other.
const TYPE: &str = "envelope+jwt";
const FORMAT: u8 = 1;
const MAX_AUDIENCE_BYTES: usize = 200;
/// Room for card data as JSON, so that writing it leaves no unwiped copy behind.
const CARD_DATA_BYTES: usize = 256;

/// How envelopes are made.
#[derive(Clone, Debug)]
pub struct EnvelopeRules {
    /// The `iss` they are sealed under.
    pub issuer: String,
    /// The `aud` of those whose caller names none.
    pub audience: String,
    /// The lifetime of those whose caller names none, in seconds.
    pub expires_in_s: u64,
    /// The longest lifetime, in seconds.
    pub max_expires_in_s: u64,
    /// How many openings of single-use envelopes are remembered at a time.
    pub replay_entries: usize,
}

/// What is asked of an envelope.
#[derive(Clone, Debug, Default)]
pub struct EnvelopeWish {
    /// Whom it is for. The gateway compares that; opening compares the tenant.
    pub audience: Option<String>,
    /// Its lifetime in seconds.
    pub expires_in_s: Option<u64>,
    /// Whether it may be opened only once.
    pub single_use: bool,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(flatten)]
    open: EnvelopeClaims,
    meta_data: String,
}

impl Vault {
    /// Seals `card` for `tenant` and gives the JWT with its claims.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn seal_envelope(
        &self,
        tenant: &str,
        card: &CardData,
        wish: EnvelopeWish,
    ) -> Result<(String, EnvelopeClaims), VaultError> {
        let rules = &self.envelopes;
        let aud = wish.audience.unwrap_or_else(|| rules.audience.clone());
        if aud.is_empty() || aud.len() > MAX_AUDIENCE_BYTES {
            return Err(VaultError::Request(format!("audience must have 1 to {MAX_AUDIENCE_BYTES} bytes")));
        }
        let lifetime_s = wish.expires_in_s.unwrap_or(rules.expires_in_s);
        if !(1..=rules.max_expires_in_s).contains(&lifetime_s) {
            return Err(VaultError::Request(format!(
                "expires_in must be 1 to {} seconds",
                rules.max_expires_in_s
            )));
        }
        let plaintext = plaintext(card)?;
        let iat = now_s();
        let open = EnvelopeClaims {
            iss: rules.issuer.clone(),
            aud,
            iat,
            exp: iat + lifetime_s,
            jti: self.keys.signer().jti().await?,
            tenant: tenant.to_owned(),
            single_use: wish.single_use,
        };
        let mut key = self.keys.view().envelope;
        let seal =
            |key| self.seal(key, vec![SealRequest { key, aad: aad(&open), plaintext: plaintext.clone() }]);
        let sealed = match seal(key).await {
            Err(error) if self.keys.moved_on(&error) => {
                key = self.keys.view().envelope;
                seal(key).await?
            }
            sealed => sealed?,
        };
        let Some(Sealed { nonce, ciphertext }) = sealed.into_iter().next() else {
            return Err(VaultError::EnvelopeInvalid("the HSM sealed nothing"));
        };
        let bytes = [&[FORMAT], key.version.to_be_bytes().as_slice(), &nonce, &ciphertext].concat();
        let claims = Claims { open, meta_data: URL_SAFE_NO_PAD.encode(bytes) };
        let jwt = self.keys.signer().sign(TYPE, &claims).await?;
        Ok((jwt, claims.open))
    }

    /// Opens an envelope that `tenant` sealed. `known` is told its id as soon as it is known to be the vault's, opened or not.
    ///
    /// # Errors
    /// [`VaultError::EnvelopeInvalid`], [`VaultError::EnvelopeExpired`], [`VaultError::EnvelopeReplayed`], or a fault.
    pub async fn open_envelope(
        &self,
        tenant: &str,
        jwt: &str,
        known: impl FnOnce(&str),
    ) -> Result<(CardData, EnvelopeClaims), VaultError> {
        let invalid = VaultError::EnvelopeInvalid;
        let compact = Compact::parse(jwt, |typ| typ.is_some_and(|typ| typ.eq_ignore_ascii_case(TYPE)));
        let compact = compact.map_err(|error| invalid(error.0))?;
        let key = self.keys.signer().key(&compact.kid).ok_or(invalid("the envelope is of another vault"))?;
        compact.verify(&key).map_err(|error| invalid(error.0))?;
        let Claims { open, meta_data } =
            compact.claims().ok_or(invalid("the envelope's claims are not complete"))?;
        known(&open.jti);
        // Another tenant's is told no more than one that is broken.
        if open.tenant != tenant {
            return Err(invalid("the envelope does not open"));
        }
        if now_s() >= open.exp {
            return Err(VaultError::EnvelopeExpired);
        }
        let request =
            open_request(&open, &meta_data).ok_or(invalid("the envelope's meta_data is not complete"))?;
        let opened = self.hsm.open_sealed(vec![request]).await?.into_iter().next().flatten();
        let text = opened.ok_or(invalid("the envelope does not open"))?;
        let card = serde_json::from_slice(&text).map_err(|_| invalid("the envelope does not open"))?;
        if open.single_use {
            self.use_up(&open).await?;
        }
        Ok((card, open))
    }

    /// Durable before the card data leaves: a crash must not make a second opening possible.
    async fn use_up(&self, claims: &EnvelopeClaims) -> Result<(), VaultError> {
        let id = Sha256::new().chain_update(b"vaultd envelope v1\0").chain_update(&claims.jti).finalize();
        let most = self.envelopes.replay_entries;
        match self.store.use_up(UseKind::Envelope, id.into(), claims.exp, settled_s(), most).await? {
            Use::First => Ok(()),
            Use::Again => Err(VaultError::EnvelopeReplayed),
            // While the HSM worked.
            Use::Over => Err(VaultError::EnvelopeExpired),
            Use::Full => Err(VaultError::TooManyUses),
        }
    }
}

/// The card data as JSON, the number in plain digits, once each part is what it must be.
fn plaintext(card: &CardData) -> Result<Zeroizing<Vec<u8>>, VaultError> {
    #[derive(Serialize)]
    struct Plain<'c> {
        card_number: &'c str,
        expiry_date: &'c str,
        #[serde(skip_serializing_if = "Option::is_none")]
        cvv: Option<&'c str>,
    }
    let pan = Pan::parse(card.card_number.expose())?;
    if !pan.luhn_valid() {
        return Err(crate::card::PanError::CheckDigit.into());
    }
    let expiry = CardExpiry::parse(card.expiry_date.expose())?;
    let cvv = card.cvv.as_ref().map(vault_api::Sensitive::expose);
    if cvv.is_some_and(|cvv| !(3..=4).contains(&cvv.len()) || !cvv.bytes().all(|byte| byte.is_ascii_digit()))
    {
        return Err(VaultError::Request("cvv must be 3 or 4 digits".to_owned()));
    }
    let plain = Plain { card_number: pan.as_str(), expiry_date: expiry.as_str(), cvv };
    let mut text = Zeroizing::new(Vec::with_capacity(CARD_DATA_BYTES));
    // Strings in a struct, into memory: there is nothing to fail.
    let _ = serde_json::to_writer(&mut *text, &plain);
    Ok(text)
}

fn open_request(claims: &EnvelopeClaims, meta_data: &str) -> Option<OpenRequest> {
    let bytes = URL_SAFE_NO_PAD.decode(meta_data).ok()?;
    let (format, rest) = bytes.split_first()?;
    let (version, rest) = rest.split_first_chunk()?;
    let (nonce, ciphertext) = rest.split_first_chunk::<NONCE_BYTES>()?;
    let key = KeyName { purpose: Purpose::Envelope, version: u32::from_be_bytes(*version) };
    let sealed = Sealed { nonce: *nonce, ciphertext: ciphertext.to_vec() };
    (*format == FORMAT).then(|| OpenRequest { key, aad: aad(claims), sealed })
}

/// What the card data is bound to, each part with its length: so it cannot be moved into another JWT.
fn aad(claims: &EnvelopeClaims) -> Vec<u8> {
    let EnvelopeClaims { iss, aud, iat, exp, jti, tenant, single_use } = claims;
    let mut aad = b"vaultd envelope v1".to_vec();
    for part in [iss, aud, jti, tenant] {
        aad.extend(u32::try_from(part.len()).unwrap_or(u32::MAX).to_be_bytes());
        aad.extend(part.as_bytes());
    }
    aad.extend(iat.to_be_bytes());
    aad.extend(exp.to_be_bytes());
    aad.push(u8::from(*single_use));
    aad
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(number: &str, expiry: &str, cvv: Option<&str>) -> CardData {
        CardData { card_number: number.into(), expiry_date: expiry.into(), cvv: cvv.map(Into::into) }
    }

    #[test]
    fn card_data_is_vetted() {
        let good = plaintext(&card("4111 1111 1111 1111", "12/31", Some("123"))).unwrap();
        assert_eq!(
            good.as_slice(),
            br#"{"card_number":"4111111111111111","expiry_date":"12/31","cvv":"123"}"#
        );
        for (number, expiry, cvv) in [
            ("4111111111111112", "12/31", None),
            ("4111111111111111", "13/31", None),
            ("4111111111111111", "12/31", Some("12")),
            ("4111111111111111", "12/31", Some("12a")),
        ] {
            assert!(plaintext(&card(number, expiry, cvv)).is_err());
        }
    }

    #[test]
    fn each_claim_counts() {
        let claims = EnvelopeClaims {
            iss: "i".to_owned(),
            aud: "a".to_owned(),
            iat: 1,
            exp: 2,
            jti: "j".to_owned(),
            tenant: "t".to_owned(),
            single_use: false,
        };
        let base = aad(&claims);
        for other in [
            EnvelopeClaims { iss: "ia".to_owned(), aud: String::new(), ..claims.clone() },
            EnvelopeClaims { aud: "b".to_owned(), ..claims.clone() },
            EnvelopeClaims { iat: 2, ..claims.clone() },
            EnvelopeClaims { exp: 3, ..claims.clone() },
            EnvelopeClaims { jti: "k".to_owned(), ..claims.clone() },
            EnvelopeClaims { tenant: "u".to_owned(), ..claims.clone() },
            EnvelopeClaims { single_use: true, ..claims.clone() },
        ] {
            assert_ne!(aad(&other), base, "{other:?}");
        }
    }
}
