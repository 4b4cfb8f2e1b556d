//! One login to the token.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use cryptoki::{context::Pkcs11, error::Error as Pkcs11Error, session::SessionState, slot::Slot};
use secrecy::SecretString;

use super::{
    KeyInfo, KeyName, Library, SetupError, TokenSelector,
    check_value::CheckValue,
    keys::KeyRing,
    library,
    module::{self, Lease, Module, Visit},
    operations::Operator,
    token,
    watch::beat,
};

/// What is needed to reach the keys.
pub(super) struct Access {
    pub(super) library: Library,
    pub(super) token: TokenSelector,
    pub(super) pin: Option<SecretString>,
    pub(super) key_prefix: String,
    /// Keys whose making or destruction was cut short: they are not looked at.
    pub(super) unfinished: Vec<KeyName>,
}

/// A login with its keys. The control session keeps login and session objects alive; workers open their own.
pub(super) struct Connection {
    module: Arc<Module>,
    slot: Slot,
    /// Replaced as a whole when a key comes or goes.
    pub(super) keys: ArcSwap<KeyRing>,
    /// Counts connections, so that a worker can tell whether somebody else has already made a new one.
    pub(super) generation: u64,
    /// Whether the keys are working copies.
    pub(super) copies: bool,
    /// When it was made: in another epoch of the module its handles may be those of other keys.
    epoch: u64,
    control: Mutex<Lease>,
    /// What the control session may see and do since the login, if the module tells.
    state: Option<SessionState>,
}

impl Connection {
    pub(super) fn open(
        module: &Arc<Module>,
        access: &Access,
        generation: u64,
        wanted: &dyn Fn(KeyName) -> bool,
    ) -> Result<Self, SetupError> {
        library::initialize(&module.pkcs11, &access.library)?;
        let slot = token::find_slot(&module.pkcs11, &access.library, &access.token)?;
        beat();
        let control = module.session(slot)?;
        token::login(&access.library, slot, &control, access.pin.as_ref())?;
        beat();
        let mut keys = KeyRing::find(&access.library, &control, &access.key_prefix, wanted)?;
        beat();
        let copies = keys.use_working_copies(&control);
        keys.seal_references(&control)?;
        tracing::debug!(generation, copies, "logged in to the token");
        let (state, epoch) = (state_of(&control), control.epoch());
        let (keys, control) = (ArcSwap::from_pointee(keys), Mutex::new(control));
        Ok(Self { module: Arc::clone(module), slot, keys, generation, copies, epoch, control, state })
    }

    /// The session that working copies belong to.
    pub(super) fn control(&self) -> MutexGuard<'_, Lease> {
        lock(&self.control)
    }

    /// Whether `control` is still logged in, as it was when the keys were looked for.
    pub(super) fn is_logged_in(&self, control: &Lease) -> bool {
        state_of(control) == self.state
    }

    /// A session for one worker.
    pub(super) fn session(&self) -> Result<Lease, Pkcs11Error> {
        self.module.session(self.slot)
    }

    /// A session that may change the token.
    pub(super) fn writing_session(&self) -> Result<Lease, Pkcs11Error> {
        self.module.writing_session(self.slot)
    }

    /// Where the module comes from.
    pub(super) fn library(&self) -> &Library {
        &self.module.library
    }

    /// What tells what the module can do.
    pub(super) fn pkcs11(&self) -> &Pkcs11 {
        &self.module.pkcs11
    }

    /// To be held while any of this connection's sessions or keys is used.
    pub(super) fn visit(&self) -> Result<Visit<'_>, Pkcs11Error> {
        self.module.visit().filter(|visit| visit.is_of(self.epoch)).ok_or_else(module::away)
    }

    /// How many of `wanted` sessions the token allows for workers.
    pub(super) fn usable_sessions(&self, wanted: usize) -> Result<usize, SetupError> {
        let _visit = self.visit()?;
        token::usable_sessions(&self.module.pkcs11, self.slot, wanted)
    }

    pub(super) fn key_infos(&self) -> Vec<KeyInfo> {
        self.keys.load().infos().collect()
    }

    /// The keys that `held` names and that were not found.
    pub(super) fn lacks(&self, held: &Held) -> Vec<KeyName> {
        let keys = self.keys.load();
        held.recorded.iter().map(|(name, _)| *name).filter(|name| keys.key(*name).is_none()).collect()
    }

    /// Why these are not the keys that `held` describes, if they are not.
    pub(super) fn compare(&self, held: &Held) -> Result<(), SetupError> {
        for (name, recorded) in &held.recorded {
            if self.keys.load().key(*name).is_none() || !self.check(*name, recorded, &held.context)? {
                return Err(SetupError::Key(format!(
                    "the token came back without key {name}, or with another one in its place: bring back the token \
                     this vault started with"
                )));
            }
        }
        Ok(())
    }

    /// Whether the key `name` is the one `recorded` was made with.
    pub(super) fn check(
        &self,
        name: KeyName,
        recorded: &CheckValue,
        context: &[u8],
    ) -> Result<bool, SetupError> {
        let _visit = self.visit()?;
        let control = self.control();
        recorded.fits(&Operator { session: &control, keys: &self.keys.load() }, name, context)
    }
}

fn state_of(session: &Lease) -> Option<SessionState> {
    session.get_session_info().ok().map(|info| info.session_state())
}

/// The keys a connection must find; others in the token are not looked at.
#[derive(Clone)]
pub(super) struct Held {
    pub(super) recorded: Vec<(KeyName, CheckValue)>,
    pub(super) context: Vec<u8>,
}

/// A panic while a lock was held leaves plain values behind, which are still good.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
