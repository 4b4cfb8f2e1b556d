//! What became of the keys since a backup was made, and what a restored store has to be told of it.

use super::{CommandError, boot::substituted, init::record};
use crate::{
    config::Config,
    hsm::{CheckValue, Hsm, KeyName, Operation},
    store::{KeyMove, KeyState, MAX_SEALS_PER_KEY, Store, StoredKey},
    vault::now_ms,
};

/// What the store of a backup does not know of its keys.
pub(super) struct KeyPlan {
    /// Keys that are gone from the token; nothing in the backup depends on them.
    gone: Vec<String>,
    /// Keys that were being made.
    unfinished: Vec<String>,
    /// Keys of the token that were made since, or finished.
    fresh: Vec<KeyName>,
}

fn is_newer(one: KeyName, other: KeyName) -> bool {
    one.purpose == other.purpose && one.version > other.version
}

impl KeyPlan {
    /// Compares the keys that the backup has `recorded` with those of the token.
    ///
    /// Fails with every objection at once: keys that are others now, and keys that are gone though records of the backup
    /// depend on them.
    pub(super) fn new(
        recorded: &[(String, StoredKey)],
        vault_id: &[u8; 16],
        hsm: &Hsm,
    ) -> Result<Self, CommandError> {
        let found: Vec<_> = hsm.keys()?.into_iter().map(|key| key.name).collect();
        let mut plan = Self { gone: vec![], unfinished: vec![], fresh: found.clone() };
        let mut objections = Vec::new();
        for (text, key) in recorded {
            let Some(name) = KeyName::parse(text) else { continue };
            if key.state == KeyState::Pending {
                plan.unfinished.push(text.clone());
                continue;
            }
            plan.fresh.retain(|fresh| *fresh != name);
            if !key.state.is_live() {
                continue;
            }
            if found.contains(&name) {
                if !hsm.check_key(name, &CheckValue(key.check_value.clone()), vault_id)? {
                    objections.push(substituted(name));
                }
            } else if key.records > 0 {
                objections.push(format!(
                    "the token lacks key {name}, on which {} records of the backup depend: was it destroyed since? \
                     A later backup does not need it",
                    key.records
                ));
            } else if key.state == KeyState::Active && !found.iter().any(|other| is_newer(*other, name)) {
                objections.push(format!(
                    "the token lacks key {name}, which the vault worked with when the backup was made, and has no newer one of \
                     its purpose: it is older than the backup. Bring a newer copy of it back, or make a key {}-v{} with \
                     the vendor's tools",
                    name.purpose,
                    name.version + 1
                ));
            } else {
                plan.gone.push(text.clone());
            }
        }
        if objections.is_empty() { Ok(plan) } else { Err(CommandError::Failed(objections.join("; "))) }
    }

    /// What is worth knowing, a line each.
    pub(super) fn lines(&self) -> Vec<String> {
        let fresh: Vec<_> = self.fresh.iter().map(ToString::to_string).collect();
        let mut lines = Vec::new();
        if !fresh.is_empty() {
            lines.push(format!("keys that were made since the backup: {}", fresh.join(", ")));
        }
        if !self.gone.is_empty() {
            lines.push(format!("keys that were destroyed since the backup: {}", self.gone.join(", ")));
        }
        lines
    }

    /// Tells the restored `store` of it. Gives what is worth knowing.
    ///
    /// How often the keys have encrypted since the backup nobody knows, so they do not encrypt any more (SP 800-38D, 8.3).
    pub(super) async fn carry_out(
        &self,
        config: &Config,
        store: &Store,
        hsm: &Hsm,
    ) -> Result<Vec<String>, CommandError> {
        for name in &self.unfinished {
            store.move_key(name, KeyMove::Abandon, now_ms()).await?;
        }
        for (name, mut key) in store.keys()? {
            if self.gone.contains(&name) {
                key.state = KeyState::Destroyed;
                key.destroyed_at_ms = Some(now_ms());
                store.put_key(&name, &key)?;
            }
        }
        for name in &self.fresh {
            let check_value = hsm.record_key(*name, store.vault_id().to_vec()).await?;
            record(config, store, *name, check_value)?;
        }
        let mut spent = Vec::new();
        for (name, mut key) in store.keys()? {
            let seals = KeyName::parse(&name).is_some_and(|name| name.purpose.operation() == Operation::Seal);
            if seals && key.state.is_live() {
                key.reserved_seals = MAX_SEALS_PER_KEY;
                store.put_key(&name, &key)?;
                spent.push(name);
            }
        }
        let then = if config.keys.rotate_when_spent {
            "vaultd makes new ones when it first encrypts"
        } else {
            "rotate record and envelope before anything is tokenized (keys.when_spent)"
        };
        Ok(vec![format!(
            "{} encrypt nothing more, as nobody knows how often they have since the backup: {then}",
            spent.join(", ")
        )])
    }
}
