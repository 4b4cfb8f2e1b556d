//! A worker: one thread with one session, and what it does when that breaks under it.

use std::{
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    HsmError,
    class::Class,
    connection::Connection,
    error::Fault,
    link::Link,
    module::Lease,
    operations::Operator,
    watch::{Desk, beat},
};

/// How often a worker without a job, or without a session, looks whether it is to have another session.
const LOOK: Duration = Duration::from_millis(500);

/// What a worker is given to do.
pub(super) enum Job {
    Run(Box<dyn FnOnce(&mut Worker) + Send>),
    Stop,
}

/// One thread's place: its session, and the connection the session belongs to.
pub(super) struct Worker {
    link: Arc<Link>,
    desk: Arc<Desk>,
    seat: Option<(Lease, Arc<Connection>)>,
}

/// Why an attempt came to nothing.
enum Miss {
    /// There is no connection to try on.
    Away(HsmError),
    /// The connection of this generation failed.
    Failed(Fault, u64),
}

impl Worker {
    /// A worker without a session.
    pub(super) fn new(link: Arc<Link>, desk: Arc<Desk>) -> Self {
        Self { link, desk, seat: None }
    }

    /// Works until it is told to stop or written off. While the token has no session for it, others take its jobs.
    pub(super) fn serve(&mut self, jobs: &Receiver<Job>) {
        while !self.desk.is_written_off() {
            if !self.is_ready() {
                if self.link.has_ended() {
                    break;
                }
                thread::sleep(LOOK);
                continue;
            }
            match jobs.recv_timeout(LOOK) {
                Ok(Job::Run(job)) => job(self),
                Ok(Job::Stop) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => self.keep_up(),
            }
        }
        // The session must be closed before the module is finalized.
        self.watched(Self::stand_up);
    }

    /// Whether it is to take a job: not if it has no session yet, or the token has none for it, and others have theirs.
    fn is_ready(&mut self) -> bool {
        if self.seat.is_some() {
            return true;
        }
        let Some(connection) = self.link.in_service() else { return !self.link.has_seats() };
        let seated = self.watched(|worker| {
            let seated = worker.seat_on(&connection).map(drop);
            drop(connection);
            seated
        });
        seated.err().is_none_or(|fault| !self.is_crowded_out(&fault))
    }

    /// Lets a session go that nobody needs any more, or that others need more.
    fn keep_up(&mut self) {
        let Some((_, seat)) = &self.seat else { return };
        let is_old = match self.link.in_service() {
            Some(connection) => connection.generation != seat.generation,
            None => self.link.wants_a_session(),
        };
        if is_old {
            self.watched(Self::stand_up);
        }
    }

    /// Runs `operation`, which is counted under `name`. What can be mended is: first by a fresh session, then by a new
    /// connection.
    pub(super) fn run<R>(
        &mut self,
        name: &'static str,
        operation: &impl Fn(&Operator<'_>) -> Result<R, Fault>,
    ) -> Result<R, HsmError> {
        let mut miss = match self.attempt(name, operation) {
            Err(Miss::Failed(fault, _)) if matches!(fault.class(), Class::Session | Class::Module) => {
                tracing::debug!(%fault, "an HSM operation failed: trying again on a fresh session");
                self.attempt(name, operation)
            }
            other => other,
        };
        if let Err(Miss::Failed(fault, generation)) = &miss
            && self.is_of_the_connection(fault)
        {
            tracing::debug!(%fault, "an HSM operation failed: trying again on a new connection");
            self.link.report(*generation, fault);
            miss = self.attempt(name, operation);
            if let Err(Miss::Failed(fault, generation)) = &miss
                && self.is_of_the_connection(fault)
            {
                self.link.report(*generation, fault);
            }
        }
        miss.map_err(|miss| match miss {
            Miss::Away(error) => error,
            Miss::Failed(fault, _) => fault.into(),
        })
    }

    fn attempt<R>(
        &mut self,
        name: &'static str,
        operation: &impl Fn(&Operator<'_>) -> Result<R, Fault>,
    ) -> Result<R, Miss> {
        let connection = self.link.connection().map_err(|error| {
            self.keep_up();
            Miss::Away(error)
        })?;
        if self.desk.is_written_off() {
            return Err(Miss::Away(HsmError::TimedOut));
        }
        let generation = connection.generation;
        let began = Instant::now();
        let result = self.watched(|worker| {
            let result = worker.on_session(&connection, operation);
            if result.is_err() {
                // An operation may be left half done in it.
                worker.stand_up();
            }
            // To let the last hand on a connection go is a call, too.
            drop(connection);
            result
        });
        self.link.stats().called(name, began.elapsed(), result.as_ref().err().map(Fault::class));
        result.map_err(|fault| Miss::Failed(fault, generation))
    }

    fn on_session<R>(
        &mut self,
        connection: &Arc<Connection>,
        operation: &impl Fn(&Operator<'_>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let _visit = connection.visit()?;
        let session = self.seat_on(connection)?;
        beat();
        operation(&Operator { session, keys: &connection.keys.load() })
    }

    /// Its session of `connection`, a new one if it has none.
    fn seat_on(&mut self, connection: &Arc<Connection>) -> Result<&Lease, Fault> {
        let visit = connection.visit()?;
        let seat = match self.seat.take() {
            Some(seat) if seat.1.generation == connection.generation && visit.fits(&seat.0) => seat,
            other => {
                drop(other);
                self.stand_up();
                beat();
                (connection.session()?, Arc::clone(connection))
            }
        };
        self.link.note_seat(&self.desk, true);
        Ok(&self.seat.insert(seat).0)
    }

    /// Gives its session back.
    fn stand_up(&mut self) {
        self.seat = None;
        self.link.note_seat(&self.desk, false);
    }

    /// Whether the token has no session for this worker, and others have theirs: they can go on.
    fn is_crowded_out(&self, fault: &Fault) -> bool {
        fault.wants_a_session() && self.link.has_seats()
    }

    /// Whether another connection may help against `fault`.
    fn is_of_the_connection(&self, fault: &Fault) -> bool {
        fault.class() != Class::Request && !self.is_crowded_out(fault)
    }

    fn watched<R>(&mut self, work: impl FnOnce(&mut Self) -> R) -> R {
        let desk = Arc::clone(&self.desk);
        desk.watched(|| work(self))
    }
}
