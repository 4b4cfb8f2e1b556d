//! Issuers and peers, read anew on SIGHUP or `POST /v1/reload`.

use std::sync::{Arc, Mutex, PoisonError};

use vault_api::Reloaded;

use super::{CommandError, issuers, peers};
use crate::{
    auth::{Authenticator, Login},
    config::Config,
    vault::Keys,
};

/// What a reload changes, and the configuration of the start.
pub(super) struct Reloader {
    config: Config,
    keys: Keys,
    auth: Arc<Authenticator>,
    login: Arc<Login>,
    turn: Mutex<()>,
}

impl Reloader {
    pub(super) fn new(config: Config, keys: Keys, auth: Arc<Authenticator>, login: Arc<Login>) -> Self {
        Self { config, keys, auth, login, turn: Mutex::new(()) }
    }

    /// Reads issuers and peers anew. If anything is wrong, the last good ones stay.
    pub(super) fn reload(&self) -> Result<Reloaded, String> {
        let Self { config, keys, auth, login, turn } = self;
        // Of two at once, the one that has read older files is not to end last.
        let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = Config::load(&config.path).map_err(CommandError::from);
        let resolved = loaded.and_then(|fresh| {
            // Login goes on to sign with the name of the start, and what it has signed is out there.
            if fresh.self_issuer.name != config.self_issuer.name {
                return Err(CommandError::Failed(format!(
                    "auth.self_issuer takes a restart: this vaultd was started as {:?}",
                    config.self_issuer.name
                )));
            }
            Ok((issuers::load(&fresh, keys)?, peers::resolve(&fresh)?, fresh.keys.jwt_needed_s))
        });
        match resolved {
            Ok(((issuers, watch), rules, jwt_needed_s)) => {
                // Before the first JWT that lives longer.
                keys.allow_jwts(jwt_needed_s);
                let reloaded = Reloaded { issuers: issuers.by_name.len(), peers: rules.len() };
                auth.trust(issuers, watch);
                login.set_rules(rules);
                tracing::info!(
                    issuers = reloaded.issuers,
                    peers = reloaded.peers,
                    "reloaded issuers and peers"
                );
                Ok(reloaded)
            }
            Err(error) => {
                tracing::error!(%error, "not reloaded: issuers and peers stay as they were");
                Err(error.to_string())
            }
        }
    }
}
