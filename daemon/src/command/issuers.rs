//! Whom to trust: the configured issuers and the vault itself.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

use super::CommandError;
use crate::{
    auth::{Issuer, IssuerKeys, Issuers, ScopeSet, Watch},
    config::{self, Config},
    hsm::Purpose,
    jose::{KeySet, KeySetError},
    sandbox::check_unalterable_file,
    vault::Keys,
};

/// What tells one state of a file from another without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// An issuer whose key file is looked at again and again.
struct Watched {
    issuer: config::Issuer,
    /// How it was when it was read last.
    seen: Option<Stamp>,
    /// What was said last of what is wrong with it.
    told: Option<String>,
}

/// Reads the key files of every issuer, and adds the vault's own keys. The [`Watch`] says when a file has changed.
pub(super) fn load(config: &Config, keys: &Keys) -> Result<(Issuers, Watch), CommandError> {
    let mut issuers = Issuers::default();
    let mut watched: Vec<Watched> = Vec::new();
    for issuer in &config.issuers {
        // Before it is read: a change in between is then seen by the next look.
        let seen = stamp(&issuer.keys).ok();
        let trusted = load_one(issuer).map_err(|error| objection(&issuer.name, &issuer.keys, &error))?;
        issuers.by_name.insert(issuer.name.clone(), trusted);
        watched.push(Watched { issuer: issuer.clone(), seen, told: None });
    }
    let own = Issuer {
        keys: IssuerKeys::Own(keys.signer().clone()),
        max_lifetime_s: config.self_issuer.max_lifetime_s,
        older_until_s: keys.needed_until_s(Purpose::Jwt),
        scopes: ScopeSet::all(),
        tenants: None,
    };
    issuers.by_name.insert(config.self_issuer.name.clone(), own);
    let watch = watch(issuers.clone(), watched);
    Ok((issuers, watch))
}

/// Reads each file once for each time it changes, and one that cannot be read until it can. One that cannot be used leaves the
/// last good keys in force.
fn watch(mut issuers: Issuers, mut watched: Vec<Watched>) -> Watch {
    Box::new(move || {
        let mut changed = false;
        for Watched { issuer, seen, told } in &mut watched {
            let now = stamp(&issuer.keys).ok();
            if now == *seen {
                continue;
            }
            let loaded = load_one(issuer);
            // What is wrong with the system may pass without a change of the file.
            if !matches!(loaded, Err(KeySetError::Unreadable(_))) {
                *seen = now;
            }
            match loaded {
                Ok(fresh) => {
                    tracing::info!(issuer = issuer.name, "the issuer's keys have changed");
                    issuers.by_name.insert(issuer.name.clone(), fresh);
                    (changed, *told) = (true, None);
                }
                Err(error) => {
                    let error = objection(&issuer.name, &issuer.keys, &error).to_string();
                    if told.as_ref() != Some(&error) {
                        tracing::error!(error, "the issuer's last good keys stay in force");
                    }
                    *told = Some(error);
                }
            }
        }
        changed.then(|| issuers.clone())
    })
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let found = fs::metadata(path)?;
    Ok(Stamp {
        device: found.dev(),
        inode: found.ino(),
        bytes: found.size(),
        changed: (found.ctime(), found.ctime_nsec()),
    })
}

pub(super) fn load_one(issuer: &config::Issuer) -> Result<Issuer, KeySetError> {
    // Whoever can change this file can mint any JWT.
    check_unalterable_file(&issuer.keys).map_err(|error| KeySetError::Unreadable(error.to_string()))?;
    Ok(Issuer {
        keys: IssuerKeys::File(KeySet::load(&issuer.keys)?),
        max_lifetime_s: issuer.max_lifetime_s,
        older_until_s: 0,
        scopes: issuer.scopes,
        tenants: issuer.tenants.clone(),
    })
}

pub(super) fn objection(name: &str, path: &Path, error: &KeySetError) -> CommandError {
    CommandError::Failed(format!("auth.issuers: the key file {} of {name:?} {error}", path.display()))
}
