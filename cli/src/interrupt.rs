//! Ctrl-C while many are at work: nothing further is read, and what was read is seen through.

use std::{
    fs::File,
    io::{self, PipeReader, Read},
    os::fd::AsFd,
    sync::Arc,
    thread,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal},
};

use crate::complaint::Complaint;

/// Whether SIGINT or SIGTERM came.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<PipeReader>);

impl Interrupt {
    /// Waits for the first of them; a second one ends the program at once. To be called before there are other threads.
    pub(crate) fn watch() -> Result<Self, Complaint> {
        let failed = |error: io::Error| Complaint::failed("cannot wait for Ctrl-C", error);
        // Its other end is closed by the first signal.
        let (reader, writer) = io::pipe().map_err(failed)?;
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        signals.thread_block().map_err(|error| failed(error.into()))?;
        let wait = move || {
            let _ = signals.wait();
            drop(writer);
            let _ = signals.thread_unblock();
            loop {
                thread::park();
            }
        };
        thread::Builder::new().spawn(wait).map_err(failed)?;
        Ok(Self(Arc::new(reader)))
    }

    pub(crate) fn has_come(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

/// A file that is read until the interrupt comes.
pub(crate) struct Interruptible {
    pub(crate) file: File,
    pub(crate) interrupt: Interrupt,
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut fds = [
            PollFd::new(self.file.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.interrupt.0.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => return Err(io::ErrorKind::Interrupted.into()),
            outcome => outcome?,
        };
        if self.interrupt.has_come() { Err(io::Error::other("interrupted")) } else { self.file.read(buffer) }
    }
}
