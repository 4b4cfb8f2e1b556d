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
mod honey;
mod inspect;
mod keys;
mod mint;
mod notary;
mod records;
mod rewrap;
mod search;
mod seen;
mod stats;
mod template;
mod token;
mod tokenize;
mod vetting;

use std::{sync::Arc, time::Duration};

use honey::Honey;
use records::Turns;
use rewrap::Rewrapping;

pub use clock::{now_ms, now_s, settled_s};
pub use detokenize::Revealed;
pub use envelope::{EnvelopeRules, EnvelopeWish};
pub use error::VaultError;
pub use honey::HoneyView;
pub use inspect::{Inspection, inspect};
use keys::KeyView;
pub use keys::{KeyReport, KeyRules, KeyWarning, Keys, finish_key_changes, needed_until_s};
pub use notary::{Notary, NotaryError, last_signed, remember};
pub use records::{RecordChange, RecordView};
pub use rewrap::RewrapReport;
pub use search::{Page, Search};
pub use template::{Format, LuhnRule, Reuse, Template, TemplateError, Templates};
pub use token::Token;
pub use tokenize::{NewCard, Tokenized};
pub use vetting::{MAX_METADATA_NAME_BYTES, MAX_METADATA_NAMES, MAX_METADATA_TEXT_BYTES};

use crate::{
    hsm::{Hsm, HsmError, KeyName, SealRequest, Sealed},
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
    keys: Keys,
    rewrapping: Rewrapping,
    honey: Honey,
    turns: Turns,
    /// How long a rewrapped record is to take.
    rewrap_pace: Duration,
}

impl Vault {
    /// A vault over the HSM and the store that `keys` are of. `rewrap_pace` is how long a rewrapped record is to take.
    pub fn new(keys: Keys, templates: Templates, envelopes: EnvelopeRules, rewrap_pace: Duration) -> Self {
        let (hsm, store) = (keys.hsm().clone(), keys.store().clone());
        let (templates, envelopes) = (Arc::new(templates), Arc::new(envelopes));
        let (rewrapping, honey, turns) = (Rewrapping::default(), Honey::default(), Turns::default());
        Self { hsm, store, templates, envelopes, keys, rewrapping, honey, turns, rewrap_pace }
    }

    /// The keys it works with.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// How it makes envelopes.
    pub fn envelope_rules(&self) -> &EnvelopeRules {
        &self.envelopes
    }

    /// Seals with `key`, counted.
    async fn seal(&self, key: KeyName, requests: Vec<SealRequest>) -> Result<Vec<Sealed>, VaultError> {
        self.keys.spend(key, requests.len()).await?;
        Ok(self.hsm.seal(requests).await?)
    }

    /// How many records there are.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub fn records(&self) -> Result<u64, VaultError> {
        Ok(self.store.records()?)
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

    /// Removes tokens that ended before `before_s` (seconds of Unix time), and forgets what was used once and ended. `told` is
    /// given how many tokens each commit has removed.
    ///
    /// # Errors
    /// [`VaultError::Store`]; what was told is removed all the same.
    pub async fn sweep(&self, before_s: u64, mut told: impl FnMut(usize)) -> Result<(), VaultError> {
        const MOST_PER_COMMIT: usize = 1_000;
        loop {
            let removed = self.store.sweep(before_s, MOST_PER_COMMIT).await?;
            if removed > 0 {
                told(removed);
            }
            if removed < MOST_PER_COMMIT {
                return Ok(());
            }
        }
    }
}
