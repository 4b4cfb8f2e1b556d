//! The way to the token: who is let through, and how the connection is made anew after a fault.

use std::{
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    HsmError, KeyName, SetupError,
    breaker::{Breaker, Depth, Event, Standing, Task},
    check_value::CheckValue,
    class::{Class, told},
    connection::{Access, Connection, Held, lock},
    error::Fault,
    library,
    module::{self, Module},
    stats::HsmStats,
    watch::{Desk, beat},
};

/// How long a mend waits for the module to be empty before it does without `C_Finalize`.
const EMPTY_PATIENCE: Duration = Duration::from_millis(250);

/// How long the mender sleeps where nothing is to be done. It is woken when that changes.
const LONG: Duration = Duration::from_hours(1);

/// The current connection, shared by all workers: up, or down until the mender has made another.
pub(super) struct Link {
    module: Arc<Module>,
    access: Access,
    held: Mutex<Option<Held>>,
    breaker: Mutex<Breaker<Arc<Connection>>>,
    /// The breaker has moved.
    moved: Condvar,
    /// Changed under the breaker's lock, like the breaker itself.
    ended: AtomicBool,
    /// Workers that have a session and are not written off.
    seats: AtomicUsize,
    /// The mender found no session free on the token.
    wants_a_session: AtomicBool,
    /// The longest that a worker waits for the mender.
    patience: Duration,
    /// Whether the token made working copies of keys at start-up.
    copies: bool,
    stats: HsmStats,
}

impl Link {
    pub(super) fn open(access: Access, patience: Duration) -> Result<Self, SetupError> {
        let pkcs11 = library::load(&access.library)?;
        let module = Arc::new(Module::new(pkcs11, access.library.clone()));
        let wanted = |name| !access.unfinished.contains(&name);
        let connection = match Connection::open(&module, &access, 0, &wanted) {
            Ok(connection) => Arc::new(connection),
            Err(error) => {
                let _ = module.finalize(EMPTY_PATIENCE);
                return Err(error);
            }
        };
        let copies = connection.copies;
        let breaker = Mutex::new(Breaker::new(connection, Instant::now()));
        Ok(Self {
            module,
            access,
            held: Mutex::default(),
            breaker,
            moved: Condvar::new(),
            ended: AtomicBool::new(false),
            seats: AtomicUsize::new(0),
            wants_a_session: AtomicBool::new(false),
            patience,
            copies,
            stats: HsmStats::default(),
        })
    }

    /// What is counted of it and of those who use it.
    pub(super) fn stats(&self) -> &HsmStats {
        &self.stats
    }

    /// How it stands, in a word of [`Snapshot::STATES`](super::stats::Snapshot::STATES).
    pub(super) fn state(&self) -> &'static str {
        match lock(&self.breaker).standing() {
            Standing::Up(_) => "up",
            Standing::Wait => "mending",
            Standing::Refused(_) => "down",
        }
    }

    /// From now on a new connection must find the keys that `recorded` describes.
    pub(super) fn hold_to(&self, recorded: Vec<(KeyName, CheckValue)>, context: Vec<u8>) {
        *lock(&self.held) = Some(Held { recorded, context });
    }

    /// From now on a new connection must find the key `name`, too.
    pub(super) fn expect_key(&self, name: KeyName, recorded: CheckValue) {
        if let Some(held) = lock(&self.held).as_mut() {
            held.recorded.push((name, recorded));
        }
    }

    /// From now on a new connection need not find the key `name`.
    pub(super) fn forget_key(&self, name: KeyName) {
        if let Some(held) = lock(&self.held).as_mut() {
            held.recorded.retain(|(is, _)| *is != name);
        }
    }

    /// What the labels of the vault's keys start with.
    pub(super) fn key_prefix(&self) -> &str {
        &self.access.key_prefix
    }

    /// The connection that was made at start-up.
    pub(super) fn current(&self) -> Result<Arc<Connection>, SetupError> {
        self.connection().map_err(|error| SetupError::Key(error.to_string()))
    }

    /// Whether it is worth a caller's while to wait for a worker.
    pub(super) fn admits(&self) -> Result<(), HsmError> {
        match lock(&self.breaker).standing() {
            _ if self.has_ended() => Err(shut_down()),
            Standing::Up(_) | Standing::Wait => Ok(()),
            Standing::Refused(cause) => Err(HsmError::Down(cause)),
        }
    }

    /// The connection, if it is in service.
    pub(super) fn in_service(&self) -> Option<Arc<Connection>> {
        match lock(&self.breaker).standing() {
            Standing::Up(connection) => Some(connection),
            Standing::Wait | Standing::Refused(_) => None,
        }
    }

    /// Notes whether the worker at `desk` has a session, or is not counted on any more.
    pub(super) fn note_seat(&self, desk: &Desk, seated: bool) {
        if desk.note_seat(seated) {
            return;
        }
        if seated {
            self.seats.fetch_add(1, Ordering::Relaxed);
        } else {
            self.seats.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Whether any worker has a session.
    pub(super) fn has_seats(&self) -> bool {
        self.seats.load(Ordering::Relaxed) > 0
    }

    /// Whether a new login waits for somebody to close a session.
    pub(super) fn wants_a_session(&self) -> bool {
        self.wants_a_session.load(Ordering::Relaxed)
    }

    /// The connection. Waits for the first attempt to mend it, and for none after that.
    pub(super) fn connection(&self) -> Result<Arc<Connection>, HsmError> {
        let deadline = Instant::now() + self.patience;
        let mut breaker = lock(&self.breaker);
        loop {
            match breaker.standing() {
                Standing::Up(connection) => return Ok(connection),
                Standing::Refused(cause) => return Err(HsmError::Down(cause)),
                Standing::Wait if self.has_ended() => return Err(shut_down()),
                Standing::Wait => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Err(HsmError::TimedOut);
                    }
                    breaker = self.wait(breaker, left);
                }
            }
        }
    }

    /// An operation on the connection `failed` did not work, on fresh sessions neither.
    pub(super) fn report(&self, failed: u64, fault: &Fault) {
        self.moved(|breaker, now| breaker.fail(Some(failed), fault.class(), &fault.to_string(), now));
    }

    /// A call does not come back: whether the connection is any good is for the mender to find out.
    pub(super) fn distrust(&self, cause: &str) {
        self.moved(|breaker, now| breaker.fail(None, Class::Login, cause, now));
    }

    /// The mender takes longer than a caller is to wait.
    pub(super) fn outlast(&self) {
        self.moved(|breaker, _| breaker.outlast());
    }

    /// The mender does not come back.
    pub(super) fn abandon(&self, cause: &str) {
        self.moved(|breaker, now| breaker.miss(None, cause, now));
    }

    /// Lets nobody through until [`Link::release`].
    pub(super) fn hold(&self, cause: &str) {
        self.moved(|breaker, now| breaker.hold(cause, now));
    }

    pub(super) fn release(&self) {
        self.moved(|breaker, now| {
            breaker.release(now);
            None
        });
    }

    /// Ends the mender, and lets no new work in. What is queued is still done if the connection is good.
    pub(super) fn end(&self) {
        let _breaker = lock(&self.breaker);
        self.ended.store(true, Ordering::Relaxed);
        self.moved.notify_all();
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// `C_Finalize`: some modules crash in `atexit` handlers if this is left out.
    pub(super) fn finalize(&self) {
        match self.module.finalize(EMPTY_PATIENCE) {
            Ok(true) => {}
            Ok(false) => tracing::warn!("the PKCS#11 module is in use and was not finalized"),
            Err(error) => tracing::warn!(error = told(&error), "the PKCS#11 module did not finalize"),
        }
    }

    /// The mender's work, until the link ends or the mender is written off.
    pub(super) fn mend(&self, desk: &Desk) {
        let mut breaker = lock(&self.breaker);
        while !desk.is_written_off() && !self.has_ended() {
            let (task, retired) = breaker.task(Instant::now());
            breaker = match task {
                Task::Wait(time) if retired.is_empty() => self.wait(breaker, time.unwrap_or(LONG)),
                task => {
                    drop(breaker);
                    desk.watched(|| drop(retired));
                    if let Task::Attempt { ticket, depth } = task {
                        let mut made = desk.watched(|| self.attempt(ticket, depth));
                        while let Some(behind) = self.settle(ticket, made) {
                            made = desk.watched(|| self.catch_up(behind));
                        }
                    }
                    lock(&self.breaker)
                }
            };
        }
    }

    fn attempt(&self, ticket: u64, depth: Depth) -> Result<Connection, SetupError> {
        if depth == Depth::Module && !self.module.reinitialize(EMPTY_PATIENCE)? {
            tracing::debug!("a call is under way: the module is not initialised anew");
        }
        beat();
        // A mender that was written off may still be in there.
        let _visit = self.module.visit().ok_or_else(module::away)?;
        let held = lock(&self.held).clone();
        let wanted = |name| match &held {
            Some(held) => held.recorded.iter().any(|(is, _)| *is == name),
            None => !self.access.unfinished.contains(&name),
        };
        let connection = Connection::open(&self.module, &self.access, ticket, &wanted)?;
        if self.copies && !connection.copies {
            // Without them it would work, but so slowly that nobody would call it well again.
            return Err(SetupError::Key("the token makes no working copies of keys any more".to_owned()));
        }
        held.map_or(Ok(()), |held| connection.compare(&held))?;
        Ok(connection)
    }

    /// Has `connection` find the keys that were made while it was made.
    fn catch_up(&self, connection: Connection) -> Result<Connection, SetupError> {
        let visit = connection.visit()?;
        // Not locked during calls, of which one may not come back.
        let held = lock(&self.held).clone();
        if let Some(held) = held {
            for name in connection.lacks(&held) {
                connection.adopt(&self.access.key_prefix, name)?;
            }
            connection.compare(&held)?;
        }
        drop(visit);
        Ok(connection)
    }

    /// Ends the attempt `ticket`; gives a connection back that has to catch up first.
    fn settle(&self, ticket: u64, made: Result<Connection, SetupError>) -> Option<Connection> {
        // No key can be expected of it between the look and its being in force.
        let held = lock(&self.held);
        if let (Ok(connection), Some(held)) = (&made, held.as_ref())
            && !connection.lacks(held).is_empty()
        {
            return made.ok();
        }
        let wants_a_session = made.as_ref().is_err_and(SetupError::wants_a_session);
        self.wants_a_session.store(wants_a_session, Ordering::Relaxed);
        self.moved(|breaker, now| match made {
            Ok(connection) => breaker.succeed(ticket, Arc::new(connection), now),
            Err(error @ (SetupError::Pin { .. } | SetupError::LastTry)) => breaker.close(&error.to_string()),
            Err(error) => breaker.miss(Some(ticket), &error.to_string(), now),
        });
        None
    }

    /// Makes a move, tells whoever waits for one, and logs what an operator wants to know.
    fn moved(&self, make: impl FnOnce(&mut Breaker<Arc<Connection>>, Instant) -> Option<Event>) {
        let event = make(&mut lock(&self.breaker), Instant::now());
        self.moved.notify_all();
        match event {
            None => {}
            Some(Event::Down { cause }) => tracing::error!(
                cause,
                "the HSM is down: callers get 503 hsm_unavailable; it is tried again until it is back"
            ),
            Some(Event::Closed { cause }) => {
                tracing::error!(
                    cause,
                    "the HSM is down and not tried again: correct this and restart vaultd"
                );
            }
            Some(Event::Back { cause, after }) => {
                self.stats.reconnected();
                tracing::warn!(cause, down_ms = after.as_millis(), "the HSM is back");
            }
        }
    }

    fn wait<'b>(
        &self,
        breaker: MutexGuard<'b, Breaker<Arc<Connection>>>,
        time: Duration,
    ) -> MutexGuard<'b, Breaker<Arc<Connection>>> {
        self.moved.wait_timeout(breaker, time).unwrap_or_else(PoisonError::into_inner).0
    }
}

fn shut_down() -> HsmError {
    HsmError::Unavailable("shut down".to_owned())
}
