//! The module: who is inside it, and how it is initialised anew while the daemon runs.

use std::{
    mem::ManuallyDrop,
    ops::Deref,
    sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError},
    time::{Duration, Instant},
};

use cryptoki::{
    context::{Function, Pkcs11},
    error::{Error as Pkcs11Error, RvError},
    session::Session,
    slot::Slot,
};

use super::{
    Library,
    class::told,
    library, token,
    watch::{Call, beat_for},
};

/// How often a busy module is looked at.
const POLL: Duration = Duration::from_millis(1);

/// A loaded module. `C_Finalize` while another thread is inside is undefined (PKCS #11 v3.1, 5.4.2), so everybody who
/// calls it holds a [`Visit`].
pub(super) struct Module {
    pub(super) pkcs11: Pkcs11,
    pub(super) library: Library,
    /// How often it was initialised: what was made in another epoch means nothing, or something else, in this one.
    epoch: RwLock<u64>,
}

/// As long as it lives the module is not finalized.
pub(super) struct Visit<'m> {
    epoch: RwLockReadGuard<'m, u64>,
}

impl Visit<'_> {
    /// Whether `lease` is of this time.
    pub(super) fn fits(&self, lease: &Lease) -> bool {
        self.is_of(lease.epoch)
    }

    /// Whether what was made in `epoch` means anything now.
    pub(super) fn is_of(&self, epoch: u64) -> bool {
        *self.epoch == epoch
    }
}

impl Module {
    pub(super) fn new(pkcs11: Pkcs11, library: Library) -> Self {
        Self { pkcs11, library, epoch: RwLock::new(0) }
    }

    /// Enters the module; `None` while it is being initialised anew. Does not wait.
    pub(super) fn visit(&self) -> Option<Visit<'_>> {
        match self.epoch.try_read() {
            Ok(epoch) => Some(Visit { epoch }),
            Err(TryLockError::Poisoned(poisoned)) => Some(Visit { epoch: poisoned.into_inner() }),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// A session on the token in `slot`, read-only where it can be.
    pub(super) fn session(self: &Arc<Self>, slot: Slot) -> Result<Lease, Pkcs11Error> {
        self.lease(|pkcs11| token::open_session(pkcs11, slot))
    }

    /// A read-write session on the token in `slot`.
    pub(super) fn writing_session(self: &Arc<Self>, slot: Slot) -> Result<Lease, Pkcs11Error> {
        self.lease(|pkcs11| pkcs11.open_rw_session(slot))
    }

    fn lease(
        self: &Arc<Self>,
        open: impl FnOnce(&Pkcs11) -> Result<Session, Pkcs11Error>,
    ) -> Result<Lease, Pkcs11Error> {
        let visit = self.visit().ok_or_else(away)?;
        let session = ManuallyDrop::new(open(&self.pkcs11)?);
        Ok(Lease { session, epoch: *visit.epoch, module: Arc::clone(self) })
    }

    /// `C_Finalize` and `C_Initialize`, once nobody is inside. Says `false` if somebody stays longer than `patience`:
    /// then nothing is done.
    pub(super) fn reinitialize(&self, patience: Duration) -> Result<bool, Pkcs11Error> {
        let Some(mut epoch) = self.alone(patience) else { return Ok(false) };
        beat_for(Call::Start);
        match self.pkcs11.clone().finalize() {
            Ok(()) | Err(Pkcs11Error::Pkcs11(RvError::CryptokiNotInitialized, _)) => *epoch += 1,
            // It is still what it was, and so are its sessions.
            Err(error) => tracing::debug!(error = told(&error), "the PKCS#11 module did not finalize"),
        }
        library::initialize(&self.pkcs11, &self.library)?;
        Ok(true)
    }

    /// `C_Finalize`, for good. Says `false`, and does nothing, if somebody stays inside.
    pub(super) fn finalize(&self, patience: Duration) -> Result<bool, Pkcs11Error> {
        let Some(mut epoch) = self.alone(patience) else { return Ok(false) };
        *epoch += 1;
        self.pkcs11.clone().finalize().map(|()| true)
    }

    fn alone(&self, patience: Duration) -> Option<RwLockWriteGuard<'_, u64>> {
        let deadline = Instant::now() + patience;
        loop {
            match self.epoch.try_write() {
                Ok(epoch) => return Some(epoch),
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) if Instant::now() >= deadline => return None,
                Err(TryLockError::WouldBlock) => std::thread::sleep(POLL),
            }
        }
    }
}

/// What a call would say while the module is being initialised anew.
pub(super) fn away() -> Pkcs11Error {
    Pkcs11Error::Pkcs11(RvError::CryptokiNotInitialized, Function::Initialize)
}

/// A session that is closed with its owner, unless the module was initialised anew: then its handle may be that of
/// somebody else's session by now.
pub(super) struct Lease {
    session: ManuallyDrop<Session>,
    epoch: u64,
    module: Arc<Module>,
}

impl Lease {
    /// When it was opened, as [`Visit::is_of`] takes it.
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

impl Drop for Lease {
    #[expect(
        unsafe_code,
        reason = "a session of another epoch must not be closed, which dropping it would do"
    )]
    fn drop(&mut self) {
        // Held until the session is closed.
        let visit = self.module.visit();
        if visit.as_ref().is_some_and(|visit| visit.is_of(self.epoch)) {
            // SAFETY: this is the only place that drops it, and nothing uses it afterwards.
            unsafe { ManuallyDrop::drop(&mut self.session) };
        }
    }
}
