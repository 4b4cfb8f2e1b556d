//! Rotation and destruction: each a few steps between store and token that may be cut short anywhere.
//!
//! The store is told before the token is touched, so that a crash leaves nothing unexplained: a key that is pending
//! there is finished at the next start if it is whole in the token, and given up otherwise; a key that is destroyed
//! there is removed from the token once more.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{Inner, KeyRules, KeyView, Keys, VaultError, needed_until_s, rows};
use crate::{
    audit::{Audit, Event},
    hsm::{CheckValue, Hsm, HsmError, KeyName, Purpose},
    store::{KeyMove, KeyMoved, KeyState, Store, StoredKey},
    vault::{now_ms, settled_s},
};

/// How often the keys are looked at without being asked.
const LOOK_EVERY: Duration = Duration::from_mins(1);
/// How long after a rotation that failed the next request that needs it may try.
const REST: Duration = Duration::from_secs(1);

impl Keys {
    /// Makes a new key for `purpose`: new work is done with it from now on, and the one before it is retired.
    ///
    /// # Errors
    /// [`VaultError`]; then the key before it is still the active one.
    pub async fn rotate(&self, purpose: Purpose) -> Result<KeyName, VaultError> {
        let _changing = self.inner.changing.lock().await;
        self.rotate_now(purpose).await
    }

    /// Rotates the purpose of `spent`, unless somebody else has.
    pub(super) async fn replace(&self, spent: KeyName) -> Result<(), VaultError> {
        let changing = Arc::clone(&self.inner.changing).lock_owned().await;
        let keys = self.clone();
        // Whoever asked may go away: what is begun between store and token is ended.
        let replaced = tokio::spawn(async move {
            let mut changing = changing;
            keys.replace_now(spent, &mut changing).await
        });
        let ended = |_| Err(HsmError::Unavailable("a rotation ended early".to_owned()).into());
        replaced.await.unwrap_or_else(ended)
    }

    async fn replace_now(
        &self,
        spent: KeyName,
        failed: &mut Option<(Instant, VaultError)>,
    ) -> Result<(), VaultError> {
        let rows = rows(&self.inner.store)?;
        if rows.iter().any(|(name, key)| *name == spent && key.state == KeyState::Active) {
            if let Some((at, error)) = failed
                && at.elapsed() < REST
            {
                return Err(error.clone());
            }
            let rotated = self.rotate_now(spent.purpose).await;
            *failed = rotated.as_ref().err().map(|error| (Instant::now(), error.clone()));
            let fresh = rotated?;
            let (key, detail) = (fresh.to_string(), Some("the one before nears its last encryption"));
            let event = Event { event: "key.rotated", key: Some(&key), detail, ..Event::default() };
            self.inner.audit.event(&event);
            tracing::warn!(%spent, %fresh, "rotated a key before its last encryption; records are rewrapped on request");
        }
        self.refresh()
    }

    async fn rotate_now(&self, purpose: Purpose) -> Result<KeyName, VaultError> {
        let Inner { hsm, store, .. } = &*self.inner;
        let newest = rows(store)?
            .into_iter()
            .filter(|(name, _)| name.purpose == purpose)
            .max_by_key(|(name, _)| *name);
        let name = match newest {
            // One that was not finished and not given up: nothing was ever done with it.
            Some((name, key)) if key.state == KeyState::Pending => {
                hsm.release_key(name);
                hsm.destroy_key(name).await?;
                name
            }
            newest => {
                let version = newest.map_or(1, |(newest, _)| newest.version.saturating_add(1));
                let name = KeyName { purpose, version };
                // Whatever has that name is not of this store; once begun, it would be removed if the rotation fails.
                if hsm.has_key(name).await? {
                    return Err(VaultError::KeyInUse(format!(
                        "the token has a {name} that this vault does not know: another vault uses the same \
                         hsm.key_prefix, or it was made with other tools and `vaultd init` has not been run since"
                    )));
                }
                step(store, name, KeyMove::Begin).await?;
                name
            }
        };
        let made = match hsm.create_key(name).await {
            Ok(info) => {
                self.learn(info);
                hsm.record_key(name, store.vault_id().to_vec()).await
            }
            Err(error) => Err(error),
        };
        match made {
            Ok(check_value) => {
                let activated = activate(store, self.needed_until_s(name.purpose), name, check_value).await;
                // A commit that failed may have been kept.
                self.refresh()?;
                activated?;
            }
            Err(error) => {
                give_up(hsm, store, name).await;
                return Err(error.into());
            }
        }
        tracing::info!(key = %name, "rotated");
        Ok(name)
    }

    /// Destroys a retired key that nothing depends on any more. There is no way back. One that is destroyed already is
    /// removed from the token once more: that may have failed before.
    ///
    /// # Errors
    /// [`VaultError::UnknownKey`] and [`VaultError::KeyInUse`]; after another error the key may still be in the token,
    /// and is removed from it when this is asked for again, or at the next start.
    pub async fn destroy(&self, name: KeyName) -> Result<(), VaultError> {
        let _changing = self.inner.changing.lock().await;
        let Inner { hsm, store, .. } = &*self.inner;
        let gone = |(is, key): &(KeyName, StoredKey)| *is == name && key.state == KeyState::Destroyed;
        if !rows(store)?.iter().any(gone) {
            step_at(store, name, KeyMove::Destroy, settled_s().saturating_mul(1_000)).await?;
        }
        self.refresh()?;
        hsm.release_key(name);
        hsm.destroy_key(name).await?;
        tracing::info!(key = %name, "destroyed");
        Ok(())
    }

    /// Rotates keys as they near their last encryption, and lets go of JWT keys whose last JWT is over. Never ends by
    /// itself.
    pub async fn tend(&self) {
        loop {
            let told = tokio::time::timeout(LOOK_EVERY, self.inner.spent_soon.notified()).await;
            // A leap counts from when it was seen.
            settled_s();
            if let Err(error) = self.refresh() {
                tracing::warn!(%error, "the keys cannot be looked at");
            }
            if told.is_err() {
                continue;
            }
            let KeyView { record, envelope, .. } = *self.view();
            for key in [record, envelope] {
                if self.spent_soon(key)
                    && let Err(error) = self.replace(key).await
                {
                    tracing::error!(%key, %error, "cannot rotate a key that nears its last encryption");
                    // Whoever encrypts tells of it again.
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            }
        }
    }

    fn spent_soon(&self, key: KeyName) -> bool {
        let Inner { store, rules, .. } = &*self.inner;
        store.seals_used(&key.to_string()) >= rules.spent_soon()
    }
}

/// Finishes what a crash has cut short, and tells `audit` of it: the request that it was part of may have no entry. For
/// start-up, before anybody calls.
///
/// # Errors
/// [`VaultError`].
pub async fn finish_key_changes(
    hsm: &Hsm,
    store: &Store,
    rules: &KeyRules,
    audit: &Audit,
) -> Result<(), VaultError> {
    for (name, key) in rows(store)? {
        match key.state {
            KeyState::Active | KeyState::Retired => {}
            KeyState::Pending => {
                let whole = match hsm.adopt_key(name).await {
                    Ok(_) => hsm.record_key(name, store.vault_id().to_vec()).await,
                    Err(error) => Err(error),
                };
                match whole {
                    Ok(check_value) => {
                        let needed_until_s = needed_until_s(store, rules, name.purpose)?;
                        activate(store, needed_until_s, name, check_value).await?;
                        let (key, detail) =
                            (name.to_string(), Some("a rotation that was cut short is finished"));
                        audit.event(&Event {
                            event: "key.rotated",
                            key: Some(&key),
                            detail,
                            ..Event::default()
                        });
                        tracing::warn!(key = %name, "finished a rotation that was cut short");
                    }
                    Err(error) => {
                        tracing::warn!(key = %name, %error, "gave up a rotation that was cut short: rotate again");
                        give_up(hsm, store, name).await;
                    }
                }
            }
            // Nothing is done with it, and nobody has to wait for a token that does not let it go.
            KeyState::Destroyed => {
                if let Err(error) = hsm.destroy_key(name).await {
                    tracing::error!(key = %name, %error, "a key that is destroyed cannot be removed from the token");
                }
            }
        }
    }
    Ok(())
}

/// Takes the key `name` into use; the one before it may be needed until `needed_until_s`. If this fails the store may have
/// done it all the same: the key must stay.
async fn activate(
    store: &Store,
    needed_until_s: u64,
    name: KeyName,
    check_value: CheckValue,
) -> Result<(), VaultError> {
    step(store, name, KeyMove::Activate { check_value: check_value.0, needed_until_s }).await
}

/// Removes what there is of a key that was never used.
async fn give_up(hsm: &Hsm, store: &Store, name: KeyName) {
    hsm.release_key(name);
    let removed = match hsm.destroy_key(name).await {
        Ok(()) => step(store, name, KeyMove::Abandon).await,
        Err(error) => Err(error.into()),
    };
    if let Err(error) = removed {
        tracing::error!(key = %name, %error, "a key that was not finished is in the way until the next start");
    }
}

async fn step(store: &Store, name: KeyName, step: KeyMove) -> Result<(), VaultError> {
    step_at(store, name, step, now_ms()).await
}

async fn step_at(store: &Store, name: KeyName, step: KeyMove, now_ms: u64) -> Result<(), VaultError> {
    let in_use = |why: String| Err(VaultError::KeyInUse(why));
    match store.move_key(&name.to_string(), step, now_ms).await? {
        KeyMoved::Done => Ok(()),
        KeyMoved::Impossible(None) => Err(VaultError::UnknownKey),
        KeyMoved::Impossible(Some(KeyState::Active)) => in_use(format!("{name} is active: rotate it first")),
        KeyMoved::Impossible(Some(KeyState::Pending)) => {
            in_use(format!("{name} is not finished: the next start of the vault finishes it"))
        }
        KeyMoved::Impossible(Some(KeyState::Retired | KeyState::Destroyed)) => {
            in_use(format!("{name} is destroyed already"))
        }
        KeyMoved::HoldsRecords(records) => {
            in_use(format!("records that depend on {name}: {records}; rewrap them first"))
        }
        KeyMoved::NeededUntil(until_s) => in_use(format!(
            "what was made with {name} may live for {} more seconds",
            until_s.saturating_sub(now_ms / 1_000)
        )),
    }
}
