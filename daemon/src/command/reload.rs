//! Issuers and peers, read anew on SIGHUP or `POST /v1/reload`.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use vault_api::Reloaded;

use super::{
    CommandError, issuers,
    peers::{self, Names},
};
use crate::{
    auth::{Authenticator, Login},
    config::Config,
    vault::Keys,
};

/// What a reload changes, and the configuration of the start.
pub(super) struct Reloader {
    config: Config,
    names: Names,
    keys: Keys,
    auth: Arc<Authenticator>,
    login: Arc<Login>,
    begun: AtomicU64,
    /// Of those that have begun, the one whose outcome is in force, and that outcome.
    in_force: Mutex<(u64, Reloaded)>,
}

impl Reloader {
    pub(super) fn new(
        config: Config,
        names: Names,
        keys: Keys,
        auth: Arc<Authenticator>,
        login: Arc<Login>,
    ) -> Self {
        Self { config, names, keys, auth, login, begun: AtomicU64::default(), in_force: Mutex::default() }
    }

    /// Reads issuers and peers anew, and says what is in force then: of two at once, that which has begun last, for the other
    /// may have read older files, or hang. If anything is wrong, the last good ones stay.
    pub(super) fn reload(&self) -> Result<Reloaded, String> {
        let Self { config, names, keys, auth, login, .. } = self;
        let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
        let loaded = Config::load(&config.path).map_err(CommandError::from);
        let resolved = loaded.and_then(|fresh| {
            // Login goes on to sign with the name of the start, and what it has signed is out there.
            if fresh.self_issuer.name != config.self_issuer.name {
                return Err(CommandError::Failed(format!(
                    "auth.self_issuer takes a restart: this vaultd was started as {:?}",
                    config.self_issuer.name
                )));
            }
            let rules = peers::resolve(&fresh, Some(names))?;
            Ok((issuers::load(&fresh, keys)?, rules, fresh.keys.jwt_needed_s))
        });
        match resolved {
            Ok(((issuers, watch), rules, jwt_needed_s)) => {
                // Before the first JWT that lives longer.
                keys.allow_jwts(jwt_needed_s);
                let mut in_force = self.in_force.lock().unwrap_or_else(PoisonError::into_inner);
                let (newest, outcome) = &*in_force;
                if number < *newest {
                    tracing::info!("a reload ends that another has overtaken: it changes nothing");
                    return Ok(outcome.clone());
                }
                let reloaded = Reloaded { issuers: issuers.by_name.len(), peers: rules.len() };
                auth.trust(issuers, watch);
                login.set_rules(rules);
                tracing::info!(
                    issuers = reloaded.issuers,
                    peers = reloaded.peers,
                    "reloaded issuers and peers"
                );
                *in_force = (number, reloaded.clone());
                Ok(reloaded)
            }
            Err(error) => {
                tracing::error!(%error, "not reloaded: issuers and peers stay as they were");
                Err(error.to_string())
            }
        }
    }
}
