//! SIGHUP, SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::CommandError;

/// What a signal asks for.
#[derive(PartialEq, Eq)]
pub(super) enum Wish {
    /// To read issuers and peers anew.
    Reload,
    /// To end what has begun, and then itself.
    Stop,
}

/// The signals that the daemon heeds.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Listens for them.
    ///
    /// # Errors
    /// [`CommandError`] if the system does not hand them over.
    pub(super) fn new() -> Result<Self, CommandError> {
        let listen =
            |kind| signal(kind).map_err(|error| CommandError::new("cannot listen for signals", error));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    /// Waits for the next.
    pub(super) async fn next(&mut self) -> Wish {
        tokio::select! {
            _ = self.terminate.recv() => Wish::Stop,
            _ = self.interrupt.recv() => Wish::Stop,
            _ = self.hangup.recv() => Wish::Reload,
        }
    }
}
