//! One login to the token, and how it is made anew after a fault.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use cryptoki::{context::Pkcs11, session::Session, slot::Slot};
use secrecy::SecretString;

use super::{
    HsmError, KeyInfo, KeyName, SetupError, TokenFacts, TokenSelector, check_value::CheckValue,
    keys::KeyRing, operations::Operator, token,
};

/// How long after a failed attempt the next one may be made. Callers in between fail at once.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What is needed to reach the keys.
pub(super) struct Access {
    pub(super) module_path: PathBuf,
    pub(super) token: TokenSelector,
    pub(super) pin: SecretString,
    pub(super) key_prefix: String,
    pub(super) unfinished: Vec<KeyName>,
}

/// A login with its keys. The control session keeps login and session objects alive; workers open their own.
pub(super) struct Connection {
    pub(super) module: Pkcs11,
    pub(super) slot: Slot,
    /// Replaced as a whole when a key comes or goes.
    pub(super) keys: ArcSwap<KeyRing>,
    /// Counts connections, so that a worker can tell whether somebody else has already made a new one.
    pub(super) generation: u64,
    control: Mutex<Session>,
}

impl Connection {
    fn open(
        module: &Pkcs11,
        access: &Access,
        generation: u64,
        wanted: &dyn Fn(KeyName) -> bool,
    ) -> Result<Self, SetupError> {
        token::initialize(module)?;
        let slot = token::find_slot(module, &access.module_path, &access.token)?;
        let control = module.open_ro_session(slot)?;
        token::login(&control, &access.pin)?;
        let mut keys = KeyRing::find(&control, &access.key_prefix, wanted)?;
        let copies = keys.use_working_copies(&control);
        keys.seal_references(&control)?;
        tracing::debug!(generation, copies, "logged in to the token");
        let (keys, control) = (ArcSwap::from_pointee(keys), Mutex::new(control));
        Ok(Self { module: module.clone(), slot, keys, generation, control })
    }

    /// The session that working copies belong to.
    pub(super) fn control(&self) -> MutexGuard<'_, Session> {
        lock(&self.control)
    }

    /// A session for one worker.
    pub(super) fn session(&self) -> Result<Session, cryptoki::error::Error> {
        self.module.open_ro_session(self.slot)
    }

    pub(super) fn facts(&self) -> Result<TokenFacts, SetupError> {
        Ok(token::facts(&self.module, self.slot)?)
    }

    pub(super) fn key_infos(&self) -> Vec<KeyInfo> {
        self.keys.load().infos().collect()
    }

    /// Why these are not the keys that `held` describes, if they are not.
    fn compare(&self, held: &Held) -> Result<(), SetupError> {
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
        let control = self.control();
        recorded.fits(&Operator { session: &control, keys: &self.keys.load() }, name, context)
    }
}

/// The keys a connection must find; others in the token are not looked at.
struct Held {
    recorded: Vec<(KeyName, CheckValue)>,
    context: Vec<u8>,
}

/// The current connection, shared by all workers: up, or down until somebody brings it up again.
pub(super) struct Link {
    module: Pkcs11,
    access: Access,
    held: Mutex<Option<Held>>,
    state: Mutex<State>,
}

enum State {
    Up(Arc<Connection>),
    /// Tried again when the pause since the last attempt is over.
    Down {
        since: Instant,
        generation: u64,
        reason: String,
    },
    /// Never tried again: the PIN was refused, or the module is finalized.
    Closed {
        reason: String,
    },
}

impl Link {
    pub(super) fn open(access: Access) -> Result<Self, SetupError> {
        let module = token::load(&access.module_path)?;
        let wanted = |name| !access.unfinished.contains(&name);
        let connection = match Connection::open(&module, &access, 0, &wanted) {
            Ok(connection) => connection,
            Err(error) => {
                let _ = module.finalize();
                return Err(error);
            }
        };
        let state = Mutex::new(State::Up(Arc::new(connection)));
        Ok(Self { module, access, held: Mutex::default(), state })
    }

    /// What the labels of the vault's keys start with.
    pub(super) fn key_prefix(&self) -> &str {
        &self.access.key_prefix
    }

    /// From now on a new connection must find the keys that `recorded` describes.
    pub(super) fn hold_to(&self, recorded: Vec<(KeyName, CheckValue)>, context: Vec<u8>) {
        *lock(&self.held) = Some(Held { recorded, context });
    }

    /// From now on a new connection must find the key `name`, too.
    pub(super) fn hold(&self, name: KeyName, recorded: CheckValue) {
        if let Some(held) = lock(&self.held).as_mut() {
            held.recorded.push((name, recorded));
        }
    }

    /// From now on a new connection need not find the key `name`.
    pub(super) fn release(&self, name: KeyName) {
        if let Some(held) = lock(&self.held).as_mut() {
            held.recorded.retain(|(is, _)| *is != name);
        }
    }

    /// The connection that was made at start-up.
    pub(super) fn current(&self) -> Result<Arc<Connection>, SetupError> {
        self.connection().map_err(|error| SetupError::Key(error.to_string()))
    }

    /// The connection, made anew if it is down and the pause since the last attempt is over.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, HsmError> {
        let mut state = lock(&self.state);
        match &*state {
            State::Up(connection) => Ok(Arc::clone(connection)),
            State::Down { since, reason, .. } if since.elapsed() < RETRY_PAUSE => {
                Err(HsmError::Unavailable(reason.clone()))
            }
            State::Down { generation, .. } => {
                let generation = generation + 1;
                self.reconnect(&mut state, generation)
            }
            State::Closed { reason } => Err(HsmError::Unavailable(reason.clone())),
        }
    }

    /// Replaces the connection `failed`, unless another worker has done so.
    pub(super) fn replace(&self, failed: u64) -> Result<Arc<Connection>, HsmError> {
        let mut state = lock(&self.state);
        match &*state {
            State::Up(connection) if connection.generation == failed => {
                self.reconnect(&mut state, failed + 1)
            }
            State::Up(connection) => Ok(Arc::clone(connection)),
            State::Down { reason, .. } | State::Closed { reason } => {
                Err(HsmError::Unavailable(reason.clone()))
            }
        }
    }

    /// Declares the connection `failed` dead without trying to replace it at once.
    pub(super) fn fail(&self, failed: u64, reason: &str) {
        let mut state = lock(&self.state);
        if matches!(&*state, State::Up(connection) if connection.generation == failed) {
            *state = State::Down { since: Instant::now(), generation: failed, reason: reason.to_owned() };
            tracing::error!(reason, "the HSM connection is down; operations fail until it is back");
        }
    }

    fn reconnect(&self, state: &mut State, generation: u64) -> Result<Arc<Connection>, HsmError> {
        let held = lock(&self.held);
        let wanted = |name| match &*held {
            Some(held) => held.recorded.iter().any(|(is, _)| *is == name),
            None => !self.access.unfinished.contains(&name),
        };
        let opened = Connection::open(&self.module, &self.access, generation, &wanted);
        let opened = opened.and_then(|connection| {
            held.as_ref().map_or(Ok(()), |held| connection.compare(held))?;
            Ok(connection)
        });
        drop(held);
        match opened {
            Ok(connection) => {
                tracing::warn!(generation, "the HSM connection was made anew");
                let connection = Arc::new(connection);
                *state = State::Up(Arc::clone(&connection));
                Ok(connection)
            }
            Err(error) => {
                let reason = error.to_string();
                tracing::error!(reason, "the HSM connection is down; operations fail until it is back");
                *state = match error {
                    // A second try with a PIN that was refused is how tokens get locked.
                    SetupError::Pin { .. } => State::Closed { reason: reason.clone() },
                    _ => State::Down { since: Instant::now(), generation, reason: reason.clone() },
                };
                Err(HsmError::Unavailable(reason))
            }
        }
    }

    /// Ends the login and the module (`C_Finalize`): some modules crash in `atexit` handlers if this is left out.
    pub(super) fn finalize(&self) {
        *lock(&self.state) = State::Closed { reason: "shut down".to_owned() };
        if let Err(error) = self.module.clone().finalize() {
            tracing::warn!(%error, "the PKCS#11 module did not finalize");
        }
    }
}

/// A panic while a lock was held leaves plain values behind, which are still good.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
