//! A worker: one thread with one session, and what it does when the connection breaks under it.

use std::sync::Arc;

use crossbeam_channel::Receiver;
use cryptoki::session::Session;

use super::{HsmError, class::Class, connection::Connection, error::Fault, link::Link, operations::Operator};

/// What a worker is given to do.
pub(super) enum Job {
    Run(Box<dyn FnOnce(&mut Worker) + Send>),
    Stop,
}

/// One thread's place: its session, and the connection the session belongs to.
pub(super) struct Worker {
    link: Arc<Link>,
    seat: Option<(Session, Arc<Connection>)>,
}

impl Worker {
    /// A worker that takes its seat with its first job.
    pub(super) fn new(link: Arc<Link>) -> Self {
        Self { link, seat: None }
    }

    pub(super) fn serve(&mut self, jobs: &Receiver<Job>) {
        while let Ok(Job::Run(job)) = jobs.recv() {
            job(self);
        }
        // The session must be closed before the module is finalized.
        self.seat = None;
    }

    /// Runs `operation`, once more on a new connection if the first one has broken.
    pub(super) fn run<R>(
        &mut self,
        operation: &impl Fn(&Operator<'_>) -> Result<R, Fault>,
    ) -> Result<R, HsmError> {
        match self.attempt(operation)? {
            Err((error, generation)) if error.class() != Class::Request => {
                tracing::warn!(%error, "an HSM operation failed: trying once more on a new connection");
                self.seat = None;
                self.link.replace(generation)?;
            }
            other => return other.map_err(|(fault, _)| fault.into()),
        }
        match self.attempt(operation)? {
            Err((error, generation)) if error.class() != Class::Request => {
                self.seat = None;
                self.link.fail(generation, &error.to_string());
                Err(HsmError::Unavailable(error.to_string()))
            }
            other => other.map_err(|(fault, _)| fault.into()),
        }
    }

    /// The outer error: there is no session to try on. The inner one names the connection that failed.
    fn attempt<R>(
        &mut self,
        operation: &impl Fn(&Operator<'_>) -> Result<R, Fault>,
    ) -> Result<Result<R, (Fault, u64)>, HsmError> {
        if self.seat.is_none() {
            let connection = self.link.connection()?;
            match connection.session() {
                Ok(session) => self.seat = Some((session, connection)),
                Err(error) => return Ok(Err((Fault::Call(error), connection.generation))),
            }
        }
        let Some((session, connection)) = &self.seat else {
            return Err(HsmError::Unavailable("no session".to_owned()));
        };
        let operator = Operator { session, keys: &connection.keys };
        Ok(operation(&operator).map_err(|fault| (fault, connection.generation)))
    }
}
