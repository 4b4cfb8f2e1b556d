//! `vaultd init`: makes the keys and the store that are missing, and touches nothing that exists.

use std::path::Path;

use super::{
    CommandError,
    boot::{hsm_settings, module_environment, stored_key, substituted},
    logging,
};
use crate::{
    config::Config,
    hsm::{CheckValue, Provisioner, Purpose},
    sandbox::{harden, make_private_dir},
    store::Store,
};

/// Provisions the vault that the file at `path` describes; `say` is given a line for each thing found or done.
///
/// # Errors
/// [`CommandError`].
pub fn init(path: &Path, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    logging::start(&config.log_filter);
    harden().map_err(|error| CommandError::new("cannot restrict the process", error))?;
    provision(&config, say)
}

/// The work of [`init`] on a configuration that is loaded.
pub(super) fn provision(config: &Config, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    module_environment(config)?;
    let settings = hsm_settings(config)?;
    make_private_dir(&config.store.dir).map_err(|error| CommandError::new("store.dir", error))?;
    make_private_dir(&config.audit_dir).map_err(|error| CommandError::new("audit.dir", error))?;

    let mut token = Provisioner::open(&settings)?;
    let done = make_keys_and_store(config, &mut token, say);
    let closed = token.close();
    done?;
    Ok(closed?)
}

fn make_keys_and_store(
    config: &Config,
    token: &mut Provisioner,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let mut vault_id = [0; 16];
    token.random(&mut vault_id)?;
    let store = Store::create(&config.store.dir, vault_id, config.store.cache_bytes, config.store.queue)?;
    let recorded = record_keys(token, &store, say);
    store.close();
    recorded
}

fn record_keys(
    token: &mut Provisioner,
    store: &Store,
    say: &mut dyn FnMut(&str),
) -> Result<(), CommandError> {
    let vault = store.vault_id();
    let made_now = if store.keys()?.is_empty() { "created" } else { "kept" };
    say(&format!("{made_now} store {}", store.path().display()));
    let lost: Vec<_> = store
        .keys()?
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| !token.names().iter().any(|found| found.to_string() == *name))
        .collect();
    if !lost.is_empty() {
        // Nothing is made: a new key beside the lost one would only hide what happened.
        return Err(CommandError::Failed(format!(
            "the token lacks what this store was made with ({}): bring back that token, or correct hsm.token_label, \
             hsm.token_serial or hsm.key_prefix",
            lost.join(", ")
        )));
    }
    for purpose in Purpose::ALL {
        let found = token.ensure(purpose)?;
        let did = if found.created { "created" } else { "kept" };
        say(&format!("{did} key {}-{}", token.key_prefix(), found.name));
    }
    let recorded = store.keys()?;
    for name in token.names() {
        let text = name.to_string();
        match recorded.iter().find(|(known, _)| *known == text) {
            Some((_, stored)) if token.fits(name, &CheckValue(stored.check_value.clone()), &vault)? => {}
            Some(_) => return Err(CommandError::Failed(substituted(name))),
            None => {
                store.put_key(&text, &stored_key(token.check_value(name, &vault)?))?;
                say(&format!("recorded check value of {text}"));
            }
        }
    }
    Ok(())
}
