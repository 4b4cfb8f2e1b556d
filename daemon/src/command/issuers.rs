//! Whom to trust: the configured issuers and the vault itself.

use std::path::Path;

use super::CommandError;
use crate::{
    auth::{Issuer, Issuers, KeySet, KeySetError, ScopeSet},
    config::{self, Config},
    hsm::KeyInfo,
    sandbox::check_unalterable_file,
};

/// Reads the key files of every issuer, and adds the vault's own keys.
pub(super) fn load(config: &Config, own_keys: &[KeyInfo]) -> Result<Issuers, CommandError> {
    let mut issuers = Issuers::default();
    for issuer in &config.issuers {
        let trusted = load_one(issuer).map_err(|error| objection(&issuer.name, &issuer.keys, &error))?;
        issuers.by_name.insert(issuer.name.clone(), trusted);
    }
    let mut keys = KeySet::default();
    for public in own_keys.iter().filter_map(|key| key.public.as_ref()) {
        let added = keys.add(None, &public.modulus, &public.exponent);
        added.map_err(|error| CommandError::new("the vault's own signing key", error))?;
    }
    let max_lifetime_s = config.self_issuer.max_lifetime_s;
    let own = Issuer { keys, max_lifetime_s, scopes: ScopeSet::all(), tenants: None };
    issuers.by_name.insert(config.self_issuer.name.clone(), own);
    Ok(issuers)
}

pub(super) fn load_one(issuer: &config::Issuer) -> Result<Issuer, KeySetError> {
    // Whoever can change this file can mint any JWT.
    check_unalterable_file(&issuer.keys).map_err(|error| KeySetError::Unreadable(error.to_string()))?;
    Ok(Issuer {
        keys: KeySet::load(&issuer.keys)?,
        max_lifetime_s: issuer.max_lifetime_s,
        scopes: issuer.scopes,
        tenants: issuer.tenants.clone(),
    })
}

pub(super) fn objection(name: &str, path: &Path, error: &KeySetError) -> CommandError {
    CommandError::Failed(format!("auth.issuers: the key file {} of {name:?} {error}", path.display()))
}
