//! A worker: one thread with one session, and what it does when that breaks under it.

use std::{sync::Arc, time::Instant};

use crossbeam_channel::Receiver;

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
    /// A worker that takes its seat with its first job.
    pub(super) fn new(link: Arc<Link>, desk: Arc<Desk>) -> Self {
        Self { link, desk, seat: None }
    }

    /// Works until it is told to stop or written off.
    pub(super) fn serve(&mut self, jobs: &Receiver<Job>) {
        while let Ok(Job::Run(job)) = jobs.recv() {
            job(self);
            if self.desk.is_written_off() {
                break;
            }
        }
        // The session must be closed before the module is finalized.
        let seat = self.seat.take();
        self.desk.watched(|| drop(seat));
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
            && fault.class() != Class::Request
        {
            tracing::debug!(%fault, "an HSM operation failed: trying again on a new connection");
            self.link.report(*generation, fault);
            miss = self.attempt(name, operation);
            if let Err(Miss::Failed(fault, generation)) = &miss
                && fault.class() != Class::Request
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
        let connection = self.link.connection().map_err(Miss::Away)?;
        if self.desk.is_written_off() {
            return Err(Miss::Away(HsmError::TimedOut));
        }
        let desk = Arc::clone(&self.desk);
        let generation = connection.generation;
        let (link, began) = (Arc::clone(&self.link), Instant::now());
        let result = desk.watched(move || {
            let result = self.on_session(&connection, operation);
            if result.is_err() {
                // An operation may be left half done in it.
                self.seat = None;
            }
            // To let the last hand on a connection go is a call, too.
            drop(connection);
            result
        });
        link.stats().called(name, began.elapsed(), result.as_ref().err().map(Fault::class));
        result.map_err(|fault| Miss::Failed(fault, generation))
    }

    fn on_session<R>(
        &mut self,
        connection: &Arc<Connection>,
        operation: &impl Fn(&Operator<'_>) -> Result<R, Fault>,
    ) -> Result<R, Fault> {
        let visit = connection.visit()?;
        let seat = match self.seat.take() {
            Some(seat) if seat.1.generation == connection.generation && visit.fits(&seat.0) => seat,
            other => {
                drop(other);
                beat();
                (connection.session()?, Arc::clone(connection))
            }
        };
        beat();
        let (session, connection) = self.seat.insert(seat);
        operation(&Operator { session, keys: &connection.keys.load() })
    }
}
