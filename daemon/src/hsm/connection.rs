//! One login to the token, and how it is made anew after a fault.

use std::{
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use cryptoki::{context::Pkcs11, session::Session, slot::Slot};
use secrecy::SecretString;

use super::{
    HsmError, KeyInfo, KeyName, Library, SetupError, TokenSelector, check_value::CheckValue, keys::KeyRing,
    module, operations::Operator, token,
};

/// How long after a failed attempt the next one may be made. Callers in between fail at once.
const RETRY_PAUSE: Duration = Duration::from_millis(500);

/// What is needed to reach the keys.
pub(super) struct Access {
    pub(super) library: Library,
    pub(super) token: TokenSelector,
    pub(super) pin: Option<SecretString>,
    pub(super) key_prefix: String,
}

/// A login with its keys. The control session keeps login and session objects alive; workers open their own.
pub(super) struct Connection {
    pub(super) module: Pkcs11,
    pub(super) slot: Slot,
    pub(super) keys: KeyRing,
    /// Counts connections, so that a worker can tell whether somebody else has already made a new one.
    pub(super) generation: u64,
    control: Mutex<Session>,
}

impl Connection {
    fn open(module: &Pkcs11, access: &Access, generation: u64) -> Result<Self, SetupError> {
        module::initialize(module, &access.library)?;
        let slot = token::find_slot(module, &access.library, &access.token)?;
        let control = token::open_session(module, slot)?;
        token::login(&access.library, slot, &control, access.pin.as_ref())?;
        let mut keys = KeyRing::find(&access.library, &control, &access.key_prefix)?;
        let copies = keys.use_working_copies(&control);
        keys.seal_references(&control)?;
        tracing::debug!(generation, copies, "logged in to the token");
        Ok(Self { module: module.clone(), slot, keys, generation, control: Mutex::new(control) })
    }

    /// A session for one worker.
    pub(super) fn session(&self) -> Result<Session, cryptoki::error::Error> {
        token::open_session(&self.module, self.slot)
    }

    /// How many of `wanted` sessions the token allows for workers.
    pub(super) fn usable_sessions(&self, wanted: usize) -> Result<usize, SetupError> {
        token::usable_sessions(&self.module, self.slot, wanted)
    }

    pub(super) fn key_infos(&self) -> Vec<KeyInfo> {
        self.keys.infos().collect()
    }

    /// Why these are not the keys that `held` describes, if they are not.
    fn compare(&self, held: &Held) -> Result<(), SetupError> {
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
        let control = lock(&self.control);
        recorded.fits(&Operator { session: &control, keys: &self.keys }, name, context)
    }
}

/// The keys a connection must find.
struct Held {
    recorded: Vec<(KeyName, CheckValue)>,
    context: Vec<u8>,
}

/// The current connection, shared by all workers: up, or down until somebody brings it up again.
pub(super) struct Link {
    module: Pkcs11,
    access: Access,
    held: OnceLock<Held>,
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
        let module = module::load(&access.library)?;
        let connection = match Connection::open(&module, &access, 0) {
            Ok(connection) => connection,
            Err(error) => {
                let _ = module.finalize();
                return Err(error);
            }
        };
        Ok(Self { module, access, held: OnceLock::new(), state: Mutex::new(State::Up(Arc::new(connection))) })
    }

    /// From now on a new connection must find the keys that `recorded` describes.
    pub(super) fn hold_to(&self, recorded: Vec<(KeyName, CheckValue)>, context: Vec<u8>) {
        let _ = self.held.set(Held { recorded, context });
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
        let opened = Connection::open(&self.module, &self.access, generation).and_then(|connection| {
            self.held.get().map_or(Ok(()), |held| connection.compare(held))?;
            Ok(connection)
        });
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
