//! The notary: has the HSM sign how far the audit log goes, and the store remember it.

use std::{collections::BTreeMap, time::Duration};

use vault_api::{Jwk, JwkSet};

use super::{Keys, VaultError};
use crate::{
    audit::{Audit, AuditError, Mark},
    hsm::{HsmError, KeyName, Purpose, RsaPublic},
    jose::jwk,
    store::{KeyState, Store, StoreError},
};

/// The store's note of the last line that was signed.
const MARK: &str = "audit-checkpoint";
/// The store's note of every public key that ever signed: checkpoints outlive their keys.
const KEYS: &str = "audit-keys";
/// How long after a checkpoint that failed the next one is tried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub enum NotaryError {
    /// The HSM cannot sign.
    #[error(transparent)]
    Hsm(#[from] HsmError),
    /// The store cannot remember.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys cannot be looked at.
    #[error(transparent)]
    Keys(#[from] VaultError),
    /// The log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The public keys cannot be put beside the log.
    #[error("keys.json of the audit log cannot be written: {0}")]
    Publish(#[from] std::io::Error),
}

/// Signs the audit log.
#[derive(Clone)]
pub struct Notary {
    keys: Keys,
    audit: Audit,
}

/// The last line of the audit log that was signed, as `store` remembers it.
///
/// # Errors
/// [`StoreError`].
pub fn last_signed(store: &Store) -> Result<Option<Mark>, StoreError> {
    let bytes = store.note(MARK)?;
    bytes
        .map(|bytes| {
            Mark::decode(&bytes).ok_or_else(|| StoreError::Failed(format!("the note {MARK} is damaged")))
        })
        .transpose()
}

/// Makes `store` remember that the log is to be relied on from `mark` on.
///
/// # Errors
/// [`StoreError`].
pub async fn remember(store: &Store, mark: Mark) -> Result<(), StoreError> {
    store.put_note(MARK, mark.encode()).await
}

impl Notary {
    /// A notary for `audit` with the audit key of `keys`.
    pub fn new(keys: Keys, audit: Audit) -> Self {
        Self { keys, audit }
    }

    /// Signs whenever it is due, for ever.
    pub async fn serve(&self) {
        let mut signed = 0;
        let mut upto = self.audit.last();
        let mut failing = false;
        loop {
            match self.sign(upto, false).await {
                Ok(()) => failing = false,
                Err(error) => {
                    // Once, not every second.
                    if !std::mem::replace(&mut failing, true) {
                        tracing::error!(%error, "the audit log is not signed; trying on");
                    }
                    tokio::time::sleep(RETRY_PAUSE).await;
                    upto = self.audit.last();
                    continue;
                }
            }
            (signed, upto) = self.audit.due(signed).await;
        }
    }

    /// Signs all of the log. For the end, when nothing is written any more.
    ///
    /// # Errors
    /// [`NotaryError`].
    pub async fn finish(&self) -> Result<(), NotaryError> {
        self.audit.retry().await?;
        self.sign(self.audit.last(), true).await
    }

    async fn sign(&self, upto: Mark, is_final: bool) -> Result<(), NotaryError> {
        let (name, public) = self.key()?;
        let key = jwk(&public);
        self.publish(&key).await?;
        let statement = self.audit.statement(upto, &key.kid, is_final);
        let signature = self.keys.hsm().sign(name, statement.text().to_vec()).await?;
        self.audit.checkpoint(&statement, &signature).await?;
        Ok(remember(self.keys.store(), upto).await?)
    }

    /// The active audit key.
    fn key(&self) -> Result<(KeyName, RsaPublic), NotaryError> {
        let rows = self.keys.store().keys()?;
        let active = rows.iter().filter(|(_, key)| key.state == KeyState::Active);
        let mut names = active.filter_map(|(name, _)| KeyName::parse(name));
        let missing = || HsmError::NoKey("active audit key".to_owned());
        let name = names.find(|name| name.purpose == Purpose::Audit).ok_or_else(missing)?;
        Ok((name, self.keys.public(name).ok_or_else(missing)?))
    }

    /// Puts `key` and those before it beside the log.
    async fn publish(&self, key: &Jwk) -> Result<(), NotaryError> {
        let store = self.keys.store();
        // Not the active one alone: a store that was restored remembers none that has come and gone since its backup.
        let rows = store.keys()?;
        let names = rows.iter().filter_map(|(name, _)| KeyName::parse(name));
        let held =
            names.filter(|name| name.purpose == Purpose::Audit).filter_map(|name| self.keys.public(name));
        let known = store.note(KEYS)?.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let JwkSet { keys } = known.unwrap_or_else(|| JwkSet { keys: Vec::new() });
        let mut keys: BTreeMap<_, _> = keys.into_iter().map(|key| (key.kid.clone(), key)).collect();
        let known = keys.len();
        keys.extend(held.map(|public| jwk(&public)).chain([key.clone()]).map(|key| (key.kid.clone(), key)));
        let is_new = keys.len() > known;
        let set = JwkSet { keys: keys.into_values().collect() };
        // Structs with string keys: there is nothing to fail.
        let text = serde_json::to_vec_pretty(&set).unwrap_or_default();
        if is_new {
            store.put_note(KEYS, text.clone()).await?;
        }
        Ok(self.audit.publish_keys(&text)?)
    }
}
