//! The keys as an operator sees them.

use super::{Inner, Keys, VaultError, rows};
use crate::{
    hsm::{KeyName, Operation},
    store::{KeyState, StoredKey},
    vault::now_s,
};

/// A key, its age and what depends on it. Times are seconds of Unix time.
#[derive(Clone, Debug)]
pub struct KeyReport {
    /// Purpose and version.
    pub name: KeyName,
    /// Where it stands in its life.
    pub state: KeyState,
    /// When it was made.
    pub created_at_s: u64,
    /// When it was retired.
    pub retired_at_s: Option<u64>,
    /// When it was destroyed.
    pub destroyed_at_s: Option<u64>,
    /// How old it is, in seconds.
    pub age_s: u64,
    /// When its cryptoperiod is over.
    pub ends_at_s: u64,
    /// How many records depend on it; `None` for a purpose that records do not depend on.
    pub records: Option<u64>,
    /// How many encryptions were counted under it; `None` for one that does not encrypt.
    pub encryptions: Option<u64>,
    /// Until when something outside the store may need it.
    pub needed_until_s: Option<u64>,
    /// What an operator should see to.
    pub warning: Option<KeyWarning>,
}

/// What an operator should see to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyWarning {
    /// The cryptoperiod of the active key is over soon.
    EndsSoon,
    /// The cryptoperiod of the active key is over.
    Over,
    /// The active key nears its last encryption.
    SpentSoon,
    /// It encrypts nothing more, and is replaced when it next should: as after a restore.
    Replaced,
    /// It encrypts nothing more, and refuses.
    Spent,
}

impl KeyWarning {
    /// What to do, in a sentence.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::EndsSoon => "its cryptoperiod is over soon: rotate it",
            Self::Over => "its cryptoperiod is over: rotate it now",
            Self::SpentSoon => "it nears its last encryption: rotate it",
            Self::Replaced => "it has done its last encryption: vaultd makes a new key for the next one",
            Self::Spent => "it has done its last encryption: rotate it now",
        }
    }
}

impl Keys {
    /// Every key there is or was, by purpose and version.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub fn report(&self) -> Result<Vec<KeyReport>, VaultError> {
        let now_s = now_s();
        let mut reports: Vec<_> = rows(&self.inner.store)?
            .into_iter()
            .map(|(name, key)| self.report_one(name, &key, now_s))
            .collect();
        reports.sort_by_key(|report| report.name);
        Ok(reports)
    }

    fn report_one(&self, name: KeyName, key: &StoredKey, now_s: u64) -> KeyReport {
        let Inner { store, rules, .. } = &*self.inner;
        let created_at_s = key.created_at_ms / 1_000;
        let ends_at_s = created_at_s.saturating_add(rules.cryptoperiod_s(name.purpose));
        let seals = name.purpose.operation() == Operation::Seal;
        let encryptions = seals.then(|| store.seals_used(&name.to_string()));
        let warning = if key.state != KeyState::Active {
            None
        } else if now_s >= ends_at_s {
            Some(KeyWarning::Over)
        } else if encryptions.is_some_and(|used| used >= rules.max_encryptions) {
            Some(if rules.rotate_when_spent { KeyWarning::Replaced } else { KeyWarning::Spent })
        } else if encryptions.is_some_and(|used| used >= rules.spent_soon()) {
            Some(KeyWarning::SpentSoon)
        } else if now_s >= ends_at_s.saturating_sub(rules.warn_before_s) {
            Some(KeyWarning::EndsSoon)
        } else {
            None
        };
        KeyReport {
            name,
            state: key.state,
            created_at_s,
            retired_at_s: key.retired_at_ms.map(|at| at / 1_000),
            destroyed_at_s: key.destroyed_at_ms.map(|at| at / 1_000),
            age_s: now_s.saturating_sub(created_at_s),
            ends_at_s,
            records: crate::store::KeyRole::of(name.purpose.as_str()).map(|_| key.records),
            encryptions,
            needed_until_s: Some(key.needed_until_s).filter(|until| *until > now_s),
            warning,
        }
    }
}
