//! The domain: what it means to tokenize a card, to give it back, and to forget it.
//!
//! The door is [`Vault`]. It decides and orchestrates; it seals nothing itself ([`crate::hsm`]) and stores nothing
//! itself ([`crate::store`]). It never sees a request, a JWT or a socket: callers hand it a tenant and values that
//! are already valid.

mod card_sealing;
mod clock;
mod detokenize;
mod envelope;
mod error;
mod holder;
mod mint;
mod records;
mod search;
mod template;
mod token;
mod tokenize;
mod vetting;

use std::{sync::Arc, time::Duration};

pub use clock::{now_ms, now_s};
pub use detokenize::Revealed;
pub use envelope::{EnvelopeRules, EnvelopeWish};
pub use error::VaultError;
pub use records::{RecordChange, RecordView};
pub use search::{Page, Search};
pub use template::{Format, LuhnRule, Reuse, Template, TemplateError, Templates};
pub use token::Token;
pub use tokenize::{NewCard, Tokenized};

use crate::{
    hsm::{Hsm, HsmError, KeyName, Purpose, SealRequest, Sealed},
    jose::{KeySet, Signer},
    store::{Store, StoreError},
};

/// The longest lifetime a caller may ask for, in seconds: a hundred years.
pub const MAX_EXPIRES_IN_S: u64 = 100 * 365 * 86_400;

/// The vault. Cheap to clone.
#[derive(Clone)]
pub struct Vault {
    hsm: Hsm,
    store: Store,
    templates: Arc<Templates>,
    envelopes: Arc<EnvelopeRules>,
    signer: Signer,
    own_keys: Arc<KeySet>,
    keys: ActiveKeys,
}

/// The keys that new work is done with.
#[derive(Clone, Copy)]
struct ActiveKeys {
    record: KeyName,
    fingerprint: KeyName,
    holder: KeyName,
    envelope: KeyName,
}

impl Vault {
    /// A vault over an HSM and a store that belong together; `signer` signs envelopes, `own_keys`
    /// verify them.
    ///
    /// # Errors
    /// [`HsmError::NoKey`] if the token lacks a key.
    pub fn new(
        hsm: Hsm,
        store: Store,
        templates: Templates,
        envelopes: EnvelopeRules,
        signer: Signer,
        own_keys: KeySet,
    ) -> Result<Self, HsmError> {
        let keys = ActiveKeys {
            record: hsm.active_key(Purpose::Record)?,
            fingerprint: hsm.active_key(Purpose::Fingerprint)?,
            holder: hsm.active_key(Purpose::Holder)?,
            envelope: hsm.active_key(Purpose::Envelope)?,
        };
        let (templates, envelopes) = (Arc::new(templates), Arc::new(envelopes));
        Ok(Self { hsm, store, templates, envelopes, signer, own_keys: Arc::new(own_keys), keys })
    }

    /// Seals with the record key, counted.
    async fn seal(&self, requests: Vec<SealRequest>) -> Result<Vec<Sealed>, VaultError> {
        self.store.spend_seals(&self.keys.record.to_string(), requests.len()).await?;
        Ok(self.hsm.seal(requests).await?)
    }

    /// Whether the HSM answers now.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn probe_hsm(&self) -> Result<(), HsmError> {
        self.hsm.probe().await
    }

    /// Whether the store can be read and written.
    ///
    /// # Errors
    /// Why not.
    pub fn probe_store(&self) -> Result<(), StoreError> {
        self.store.probe()
    }

    /// Removes tokens that ended longer than `grace` ago; says how many.
    ///
    /// The grace lets a caller who comes a little late hear "expired" rather than "unknown".
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn sweep(&self, grace: Duration) -> Result<usize, VaultError> {
        const MOST_PER_COMMIT: usize = 1_000;
        let before_s = now_s().saturating_sub(grace.as_secs());
        let mut swept = 0;
        loop {
            let removed = self.store.sweep(before_s, MOST_PER_COMMIT).await?;
            swept += removed;
            if removed < MOST_PER_COMMIT {
                return Ok(swept);
            }
        }
    }
}
