//! One login to the token.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use cryptoki::{error::Error as Pkcs11Error, slot::Slot};
use secrecy::SecretString;

use super::{
    KeyInfo, KeyName, SetupError, TokenFacts, TokenSelector,
    check_value::CheckValue,
    keys::KeyRing,
    module::{self, Lease, Module, Visit},
    operations::Operator,
    token,
    watch::beat,
};

/// What is needed to reach the keys.
pub(super) struct Access {
    pub(super) module_path: PathBuf,
    pub(super) token: TokenSelector,
    pub(super) pin: SecretString,
    pub(super) key_prefix: String,
}

/// A login with its keys. The control session keeps login and session objects alive; workers open their own.
pub(super) struct Connection {
    module: Arc<Module>,
    slot: Slot,
    pub(super) keys: KeyRing,
    /// Counts connections, so that a worker can tell whether somebody else has already made a new one.
    pub(super) generation: u64,
    /// Whether the keys are working copies.
    pub(super) copies: bool,
    control: Mutex<Lease>,
}

impl Connection {
    pub(super) fn open(module: &Arc<Module>, access: &Access, generation: u64) -> Result<Self, SetupError> {
        token::initialize(&module.pkcs11)?;
        let slot = token::find_slot(&module.pkcs11, &access.module_path, &access.token)?;
        beat();
        let control = module.session(slot)?;
        token::login(&control, &access.pin)?;
        beat();
        let mut keys = KeyRing::find(&control, &access.key_prefix)?;
        beat();
        let copies = keys.use_working_copies(&control);
        keys.seal_references(&control)?;
        tracing::debug!(generation, copies, "logged in to the token");
        Ok(Self { module: Arc::clone(module), slot, keys, generation, copies, control: Mutex::new(control) })
    }

    /// A session for one worker.
    pub(super) fn session(&self) -> Result<Lease, Pkcs11Error> {
        self.module.session(self.slot)
    }

    /// To be held while any of this connection's sessions is used.
    pub(super) fn visit(&self) -> Result<Visit<'_>, Pkcs11Error> {
        self.module.visit().ok_or_else(module::away)
    }

    pub(super) fn facts(&self) -> Result<TokenFacts, SetupError> {
        let _visit = self.visit()?;
        Ok(token::facts(&self.module.pkcs11, self.slot)?)
    }

    pub(super) fn key_infos(&self) -> Vec<KeyInfo> {
        self.keys.infos().collect()
    }

    /// Why these are not the keys that `held` describes, if they are not.
    pub(super) fn compare(&self, held: &Held) -> Result<(), SetupError> {
        let found = self.keys.infos().count();
        for (name, recorded) in &held.recorded {
            if self.keys.key(*name).is_none() || !self.check(*name, recorded, &held.context)? {
                return Err(SetupError::Key(format!(
                    "the token came back without key {name}, or with another one in its place: bring back the token \
                     this vault started with"
                )));
            }
        }
        if found == held.recorded.len() {
            Ok(())
        } else {
            Err(SetupError::Key(
                "the token came back with more keys than the vault knows: restart vaultd".to_owned(),
            ))
        }
    }

    /// Whether the key `name` is the one `recorded` was made with.
    pub(super) fn check(
        &self,
        name: KeyName,
        recorded: &CheckValue,
        context: &[u8],
    ) -> Result<bool, SetupError> {
        let _visit = self.visit()?;
        let control = lock(&self.control);
        recorded.fits(&Operator { session: &control, keys: &self.keys }, name, context)
    }
}

/// The keys a connection must find.
pub(super) struct Held {
    pub(super) recorded: Vec<(KeyName, CheckValue)>,
    pub(super) context: Vec<u8>,
}

/// A panic while a lock was held leaves plain values behind, which are still good.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
