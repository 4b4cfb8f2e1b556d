//! The steps that several commands begin with.

use std::{fs, path::Path};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::CommandError;
use crate::{
    audit::Audit,
    config::Config,
    hsm::{self, CheckValue, Hsm, KeyName, Purpose, SetupError},
    sandbox::{self, Identity, PermissionError, drop_privileges},
    store::Store,
    vault::last_signed,
};

/// The most bytes a PIN file may have.
const MAX_PIN_BYTES: usize = 256;

/// Makes the process, which is root's, the user's who is called `name`, and gives up every privilege.
///
/// # Errors
/// [`CommandError`].
pub fn become_user(name: &str) -> Result<(), CommandError> {
    Ok(drop_privileges(Some(&identity(name)?), false)?)
}

/// What commands wait in that do one thing at a time.
pub(super) fn one_thread() -> Result<tokio::runtime::Runtime, CommandError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| CommandError::new("cannot start", error))
}

/// The user `--user` names.
pub(super) fn identity(name: &str) -> Result<Identity, CommandError> {
    Identity::of(name).map_err(|error| CommandError::Usage(error.to_string()))
}

/// How to reach the token, PIN included; `unfinished` keys are not looked at.
pub(super) fn hsm_settings(config: &Config, unfinished: Vec<KeyName>) -> Result<hsm::Settings, CommandError> {
    Ok(hsm::Settings {
        library: config.hsm.library.clone(),
        token: config.hsm.token.clone(),
        pin: config.hsm.pin_file.as_deref().map(read_pin).transpose()?,
        key_prefix: config.hsm.key_prefix.clone(),
        unfinished,
        sessions: config.hsm.sessions,
        queue: config.hsm.queue,
        call_timeout: config.hsm.call_timeout,
        max_written_off: config.hsm.max_written_off,
    })
}

/// Sets the environment the module reads. Must come before any thread is started.
pub(super) fn module_environment(config: &Config) -> Result<(), SetupError> {
    let variables = config.hsm.environment.iter();
    hsm::set_module_environment(variables.map(|(name, value)| (name.as_str(), value.as_str())))
}

/// The user PIN: one line in a file that is nobody else's.
fn read_pin(path: &Path) -> Result<SecretString, CommandError> {
    sandbox::check_private_file(path).map_err(|error| CommandError::new("hsm.pin_file", error))?;
    let text = fs::read_to_string(path).map(Zeroizing::new);
    let text =
        text.map_err(|error| CommandError::new("hsm.pin_file", format!("{}: {error}", path.display())))?;
    let pin = text.strip_suffix('\n').unwrap_or(&text);
    let pin = pin.strip_suffix('\r').unwrap_or(pin);
    if pin.is_empty() || pin.len() > MAX_PIN_BYTES || pin.contains('\n') {
        let why = format!("{} must hold the PIN and nothing else, on one line", path.display());
        return Err(CommandError::new("hsm.pin_file", why));
    }
    Ok(SecretString::from(pin))
}

/// Opens the store of `config`, which must be there and nobody else's.
pub(super) fn open_store(config: &Config) -> Result<Store, CommandError> {
    let checked = sandbox::check_private_dir(&config.store.dir);
    checked.map_err(|error| CommandError::new("store.dir", with_advice(&error)))?;
    let store = Store::open(&config.store.dir, config.store.cache_bytes, config.store.queue)?;
    store.recover_quickly_from(config.store.quick_recovery_bytes);
    Ok(store)
}

/// The audit log, whose directory must be there and nobody else's; it must go as far as `store` remembers.
pub(super) fn open_audit(config: &Config, store: &Store) -> Result<Audit, CommandError> {
    let checked = sandbox::check_private_dir(&config.audit.dir);
    checked.map_err(|error| CommandError::new("audit.dir", with_advice(&error)))?;
    let audit = Audit::open(config.audit.clone(), &store.vault_id(), last_signed(store)?);
    audit.map_err(|error| CommandError::new("audit.dir", error))
}

/// The error of a directory that `vaultd init` would have made.
pub(super) fn with_advice(error: &PermissionError) -> String {
    if error.is_missing() { format!("{error}: run `vaultd init` once") } else { error.to_string() }
}

/// The keys of the store that the token may hold or not: their making or destruction may have been cut short.
pub(super) fn unfinished_keys(store: &Store) -> Result<Vec<KeyName>, CommandError> {
    let keys = store.keys()?.into_iter().filter(|(_, key)| !key.state.is_live());
    Ok(keys.filter_map(|(name, _)| KeyName::parse(&name)).collect())
}

/// The keys that the token must hold, and their check values.
pub(super) fn recorded_keys(store: &Store) -> Result<Vec<(KeyName, CheckValue)>, CommandError> {
    let keys = store.keys()?.into_iter().filter(|(_, key)| key.state.is_live());
    Ok(keys.filter_map(|(name, key)| Some((KeyName::parse(&name)?, CheckValue(key.check_value)))).collect())
}

/// Everything that does not fit between the keys in the token and those the store remembers.
///
/// This is how a substituted key is found, and a store that belongs to another vault.
pub(super) fn key_objections(hsm: &Hsm, store: &Store) -> Result<Vec<String>, CommandError> {
    let mut objections = Vec::new();
    let (recorded, found) = (recorded_keys(store)?, hsm.keys()?);
    let vault = store.vault_id();
    for key in &found {
        let name = key.name;
        match recorded.iter().find(|(known, _)| *known == name) {
            None => objections.push(format!(
                "key {name} is in the token but not recorded in the store: if it is yours, run `vaultd init`"
            )),
            Some((_, check_value)) if !hsm.check_key(name, check_value, &vault)? => {
                objections.push(substituted(name));
            }
            Some(_) => {}
        }
    }
    for (name, _) in &recorded {
        if !found.iter().any(|key| key.name == *name) {
            objections.push(format!(
                "key {name} is recorded in the store but not in the token: bring back the token this store was made \
                 with, or correct hsm.token_label, hsm.token_serial or hsm.key_prefix"
            ));
        }
    }
    for purpose in Purpose::ALL {
        let is_there = recorded.iter().any(|(name, _)| name.purpose == purpose)
            || found.iter().any(|key| key.name.purpose == purpose);
        if !is_there {
            objections.push(format!("there is no {purpose} key: run `vaultd init`"));
        }
    }
    Ok(objections)
}

/// The objection to a key whose check value is another's.
pub(super) fn substituted(name: KeyName) -> String {
    format!(
        "key {name} is not the one this store was made with (its check value differs): the store belongs to another \
         vault, or the key was substituted"
    )
}
