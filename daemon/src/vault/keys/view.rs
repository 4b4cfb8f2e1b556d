//! The keys as one request sees them.

use super::VaultError;
use crate::{
    hsm::{HsmError, KeyName, Purpose},
    store::{KeyRole, KeyState, StoredKey},
};

/// Which key new work is done with, and under which older ones records may still be found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::vault) struct KeyView {
    pub(in crate::vault) record: KeyName,
    pub(in crate::vault) envelope: KeyName,
    /// The active key first, then the retired ones that still hold records.
    pub(in crate::vault) fingerprints: Vec<KeyName>,
    /// The same for holders.
    pub(in crate::vault) holders: Vec<KeyName>,
}

impl KeyView {
    pub(super) fn new(rows: &[(KeyName, StoredKey)]) -> Result<Self, VaultError> {
        let active = |purpose| {
            let found = rows
                .iter()
                .find(|(name, key)| name.purpose == purpose && key.state == KeyState::Active)
                .map(|(name, _)| *name);
            found.ok_or_else(|| HsmError::NoKey(format!("active {purpose} key")))
        };
        let older = |purpose| {
            let held = rows.iter().filter(move |(name, key)| {
                name.purpose == purpose && key.state == KeyState::Retired && key.records > 0
            });
            held.map(|(name, _)| *name)
        };
        let searched =
            |purpose| Ok::<_, HsmError>(std::iter::once(active(purpose)?).chain(older(purpose)).collect());
        Ok(Self {
            record: active(Purpose::Record)?,
            envelope: active(Purpose::Envelope)?,
            fingerprints: searched(Purpose::Fingerprint)?,
            holders: searched(Purpose::Holder)?,
        })
    }

    /// The key that new fingerprints are made with.
    pub(in crate::vault) fn fingerprint(&self) -> Option<KeyName> {
        self.fingerprints.first().copied()
    }

    /// The key that new holders are hashed with.
    pub(in crate::vault) fn holder(&self) -> Option<KeyName> {
        self.holders.first().copied()
    }

    /// Whether a record that depends on `versions`, in the roles of [`KeyRole::ALL`], is all of active keys.
    pub(in crate::vault) fn is_current(&self, versions: [Option<u32>; KeyRole::ALL.len()]) -> bool {
        let active = [Some(self.record), self.fingerprint(), self.holder()];
        versions.iter().zip(active).all(|(version, active)| {
            version.is_none_or(|version| active.is_some_and(|active| active.version == version))
        })
    }

    /// Whether records are current under this view exactly if they are under `other`.
    pub(in crate::vault) fn has_active_of(&self, other: &Self) -> bool {
        let active = |view: &Self| (view.record, view.fingerprint(), view.holder());
        active(self) == active(other)
    }

    /// Whether records are looked for under the same active keys as in `other`.
    pub(in crate::vault) fn searches_as(&self, other: &Self) -> bool {
        (self.fingerprint(), self.holder()) == (other.fingerprint(), other.holder())
    }
}
