//! Records: what is known of a token without its PAN, and changes to it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use sha2::{Digest, Sha256};
use tokio::sync::{Mutex, MutexGuard};
use vault_api::{Metadata, Sensitive};

use super::{
    Token, Vault, VaultError,
    card_sealing::{Private, Sealing, card_text, open_private, open_record},
    now_s,
    tokenize::masked,
    vetting::{vet_expires_in, vet_metadata, vet_metadata_beside},
};
use crate::{
    card::Masked,
    store::{Record, Replaced, StoreError},
};

/// How often something is tried again because a change came between.
pub(super) const MAX_ATTEMPTS: usize = 8;

/// Bytes of a reference: what callers may tell each other in place of a ciphertext or a fingerprint.
const REFERENCE_BYTES: usize = 16;

/// A record without the PAN.
#[derive(Debug)]
pub struct RecordView {
    /// The token.
    pub token: Token,
    /// What may be shown of the PAN.
    pub masked: Masked,
    /// The template it was made with.
    pub template: String,
    /// When it was made, in milliseconds of Unix time.
    pub created_at_ms: u64,
    /// When it ends, in seconds of Unix time.
    pub expires_at_s: Option<u64>,
    /// Version of the key that seals it.
    pub key_version: u32,
    /// Names the sealed card: changes whenever the card is sealed anew.
    pub ciphertext_id: [u8; REFERENCE_BYTES],
    /// The same for every token of one card inside the tenant.
    pub fingerprint: [u8; REFERENCE_BYTES],
    /// The card holder's name.
    pub holder: Option<Sensitive>,
    /// What the caller wanted to remember.
    pub metadata: Metadata,
}

/// A change to a record. `None` leaves a thing as it is.
#[derive(Clone, Debug, Default)]
pub struct RecordChange {
    /// Replaces the metadata as a whole.
    pub metadata: Option<Metadata>,
    /// New lifetime in seconds from now.
    pub expires_in_s: Option<u64>,
}

/// One change of a token at a time: of many at once each would find what it has read changed by another, and would have used
/// the HSM for nothing. Tokens share a fixed number of turns, which a change holds for moments.
#[derive(Clone)]
pub(super) struct Turns(Arc<[Mutex<()>; TURNS]>);

const TURNS: usize = 256;
/// How long a change waits for those before it: shorter than a request may take, after which nobody knows whether it was done.
const TURN_PATIENCE: Duration = Duration::from_secs(5);

impl Default for Turns {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| Mutex::default())))
    }
}

impl Turns {
    async fn take(&self, tenant: &str, token: Token) -> Result<MutexGuard<'_, ()>, StoreError> {
        let mut hasher = DefaultHasher::new();
        (tenant, token.key()).hash(&mut hasher);
        let [place, ..] = hasher.finish().to_be_bytes();
        let turn = self.0.get(usize::from(place)).ok_or(StoreError::Busy)?;
        tokio::time::timeout(TURN_PATIENCE, turn.lock()).await.map_err(|_| StoreError::Busy)
    }
}

impl Vault {
    /// The record of `token` without the PAN, which is not read.
    ///
    /// # Errors
    /// [`VaultError`].
    pub async fn record(&self, tenant: &str, token: Token) -> Result<RecordView, VaultError> {
        let record = self.live_record(tenant, token)?;
        self.view(tenant, token, record).await
    }

    /// Changes the record of `token` and gives it back.
    ///
    /// Expiry and metadata are bound into the sealed parts, so both are opened and sealed anew inside the HSM.
    ///
    /// # Errors
    /// [`VaultError`]; then nothing changed.
    pub async fn change(
        &self,
        tenant: &str,
        token: Token,
        change: RecordChange,
    ) -> Result<RecordView, VaultError> {
        if let Some(seconds) = change.expires_in_s {
            vet_expires_in(seconds)?;
        }
        if let Some(metadata) = &change.metadata {
            vet_metadata(metadata)?;
        }
        let _turn = self.turns.take(tenant, token).await?;
        for _ in 0..MAX_ATTEMPTS {
            let old = self.live_record(tenant, token)?;
            let (new, private) = match self.changed(tenant, token, &old, &change).await {
                Err(VaultError::RecordForged) if self.live_record(tenant, token)? != old => continue,
                Err(error) if self.keys.moved_on(&error) => continue,
                new => new?,
            };
            match self.store.replace(tenant, token.key(), old, new.clone()).await? {
                Replaced::Done => return view(token, &new, private),
                // Or it has ended, and made room for another of its card.
                Replaced::Gone => {
                    return Err(self.live_record(tenant, token).err().unwrap_or(VaultError::TokenExpired));
                }
                Replaced::Changed => {}
                Replaced::Stale => self.keys.refresh()?,
            }
        }
        Err(VaultError::Store(StoreError::Busy))
    }

    /// Forgets `token`: its ciphertext and every index row. An expired one can be forgotten, too.
    ///
    /// # Errors
    /// [`VaultError::UnknownToken`] if there is none.
    pub async fn forget(&self, tenant: &str, token: Token) -> Result<(), VaultError> {
        let existed = self.store.remove(tenant, self.honey.hidden(tenant, token.key())).await?;
        if existed { Ok(()) } else { Err(VaultError::UnknownToken) }
    }

    /// Whether the store has a record of `token`, ended or not, as far as can be told at once.
    pub fn has_record(&self, tenant: &str, token: &Token) -> bool {
        let found = self.store.get(tenant, &[self.honey.hidden(tenant, token.key())]);
        found.is_ok_and(|found| matches!(found.as_slice(), [Ok(Some(_))]))
    }

    /// Opens the private part of `record`, the record of `token` that was just read; of the one that is there now, if
    /// it was rewrapped since and the key that sealed it then is gone.
    pub(super) async fn open_private(
        &self,
        tenant: &str,
        token: Token,
        mut record: Record,
    ) -> Result<(Record, Private), VaultError> {
        for _ in 0..MAX_ATTEMPTS {
            match open_private(&self.hsm, tenant, &token, &record).await {
                Err(VaultError::RecordForged) => {
                    let now = self.live_record(tenant, token)?;
                    if now == record {
                        return Err(VaultError::RecordForged);
                    }
                    record = now;
                }
                private => return Ok((record, private?)),
            }
        }
        Err(VaultError::Store(StoreError::Busy))
    }

    async fn changed(
        &self,
        tenant: &str,
        token: Token,
        old: &Record,
        change: &RecordChange,
    ) -> Result<(Record, Private), VaultError> {
        let ((pan, expiry), mut private) = open_record(&self.hsm, tenant, &token, old).await?;
        let mut header = old.header.clone();
        let key = self.keys.view().record;
        header.key_version = key.version;
        if let Some(seconds) = change.expires_in_s {
            header.expires_at_s = Some(now_s() + seconds);
        }
        if let Some(metadata) = &change.metadata {
            vet_metadata_beside(metadata, &pan.masked())?;
            private.metadata = metadata.clone();
        }
        let card = card_text(&pan, expiry.as_ref());
        let (sealing, requests) = Sealing::requests(header, tenant, &token, card, private.text())?;
        Ok((sealing.record(&mut self.seal(key, requests).await?.into_iter())?, private))
    }

    pub(super) async fn view(
        &self,
        tenant: &str,
        token: Token,
        record: Record,
    ) -> Result<RecordView, VaultError> {
        let (record, private) = self.open_private(tenant, token, record).await?;
        view(token, &record, private)
    }
}

fn view(token: Token, record: &Record, private: Private) -> Result<RecordView, VaultError> {
    let header = &record.header;
    Ok(RecordView {
        token,
        masked: masked(header)?,
        template: header.template.clone(),
        created_at_ms: header.created_at_ms,
        expires_at_s: header.expires_at_s,
        key_version: header.key_version,
        ciphertext_id: reference(b"vaultd ciphertext id v1\0", &record.card.ciphertext),
        fingerprint: reference(b"vaultd fingerprint reference v1\0", &header.fingerprint),
        holder: private.holder,
        metadata: private.metadata,
    })
}

/// A name for `bytes` from which they cannot be told: what is in the store's index stays in the store.
fn reference(purpose: &[u8], bytes: &[u8]) -> [u8; REFERENCE_BYTES] {
    let digest = Sha256::new().chain_update(purpose).chain_update(bytes).finalize();
    digest.first_chunk().copied().unwrap_or_default()
}
