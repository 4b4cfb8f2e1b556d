//! `vaultd init`: makes the keys and the store that are missing, and touches nothing that exists.

use std::path::Path;

use super::{
    CommandError,
    boot::{hsm_settings, module_environment, recorded_keys, substituted, unfinished_keys},
    logging,
};
use crate::{
    config::Config,
    hsm::{CheckValue, KeyName, Provisioner, Purpose},
    sandbox::{harden, make_private_dir},
    store::{KeyState, OpenError, Store, StoredKey},
    vault::{needed_until_s, now_ms},
};

/// Provisions the vault that the file at `path` describes; `say` is given a line for each thing found or done.
///
/// # Errors
/// [`CommandError`].
pub fn init(path: &Path, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    logging::start(&config.log);
    harden().map_err(|error| CommandError::new("cannot restrict the process", error))?;
    provision(&config, say)
}

/// The work of [`init`] on a configuration that is loaded.
pub(super) fn provision(config: &Config, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    module_environment(config)?;
    make_private_dir(&config.store.dir).map_err(|error| CommandError::new("store.dir", error))?;
    make_private_dir(&config.audit.dir).map_err(|error| CommandError::new("audit.dir", error))?;
    let existing = match Store::open(&config.store.dir, config.store.cache_bytes, config.store.queue) {
        Ok(store) => Some(store),
        Err(OpenError::Missing(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let unfinished = existing.as_ref().map(unfinished_keys).transpose()?.unwrap_or_default();
    let settings = hsm_settings(config, unfinished)?;

    let mut token = Provisioner::open(&settings)?;
    let done = make_keys_and_store(config, existing, &mut token, say);
    let closed = token.close();
    done?;
    Ok(closed?)
}

fn make_keys_and_store(
    config: &Config,
    existing: Option<Store>,
    token: &mut Provisioner,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let made_now = if existing.is_some() { "kept" } else { "created" };
    let store = if let Some(store) = existing {
        store
    } else {
        let mut vault_id = [0; 16];
        token.random(&mut vault_id)?;
        Store::create(&config.store.dir, vault_id, config.store.cache_bytes, config.store.queue)?
    };
    say(&format!("{made_now} store {}", store.path().display()));
    let recorded = record_keys(config, token, &store, say);
    store.close();
    recorded
}

fn record_keys(
    config: &Config,
    token: &mut Provisioner,
    store: &Store,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let vault = store.vault_id();
    let recorded = recorded_keys(store)?;
    let found = token.names();
    let lost: Vec<_> =
        recorded.iter().filter(|(name, _)| !found.contains(name)).map(|(name, _)| name.to_string()).collect();
    if !lost.is_empty() {
        // Nothing is made: a new key beside the lost one would only hide what happened.
        return Err(CommandError::Failed(format!(
            "the token lacks what this store was made with ({}): bring back that token, or correct hsm.token_label, \
             hsm.token_serial or hsm.key_prefix",
            lost.join(", ")
        )));
    }
    if recorded.is_empty() && !found.is_empty() {
        say(
            "the token had keys before this store. Are they another vault's? Give this one an hsm.key_prefix of its own. Was their \
             store lost? Rotate record and envelope: nobody knows how often they have encrypted",
        );
    }
    for purpose in Purpose::ALL {
        let found = token.ensure(purpose)?;
        let did = if found.created { "created" } else { "kept" };
        say(&format!("{did} key {}-{}", token.key_prefix(), found.name));
    }
    for name in token.names() {
        match recorded.iter().find(|(known, _)| *known == name) {
            Some((_, check_value)) if token.fits(name, check_value, &vault)? => {}
            Some(_) => return Err(CommandError::Failed(substituted(name))),
            None => {
                let state = record(config, store, name, token.check_value(name, &vault)?)?;
                say(&format!("recorded {name}, {state}"));
            }
        }
    }
    Ok(())
}

/// Records a key that the token holds. The newest of a purpose becomes the active one: so a key can be made with the
/// vendor's own tools where the vault may not make any.
pub(super) fn record(
    config: &Config,
    store: &Store,
    name: KeyName,
    check_value: CheckValue,
) -> Result<&'static str, CommandError> {
    let now_ms = now_ms();
    let mut fresh = StoredKey::new(KeyState::Active, now_ms, check_value.0);
    for (text, mut active) in store.keys()? {
        let Some(known) = KeyName::parse(&text) else { continue };
        if known.purpose != name.purpose || active.state != KeyState::Active {
            continue;
        }
        let retired = if known > name { &mut fresh } else { &mut active };
        retired.state = KeyState::Retired;
        retired.retired_at_ms = Some(now_ms);
        retired.needed_until_s = needed_until_s(store, &config.keys, name.purpose)?;
        if known < name {
            store.put_key(&text, &active)?;
        }
    }
    store.put_key(&name.to_string(), &fresh)?;
    Ok(if fresh.state == KeyState::Active { "active" } else { "retired" })
}
