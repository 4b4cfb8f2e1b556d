//! Ctrl-C, or a line that goes dead, while many are at work: nothing further is read, and what was read is seen through.

use std::{
    fs::{self, File},
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

/// Whether SIGINT, SIGTERM or SIGHUP came.
#[derive(Clone)]
pub(crate) struct Interrupt(Arc<PipeReader>);

impl Interrupt {
    /// Waits for the first of them; a second one ends the program at once. To be called before there are other threads.
    pub(crate) fn watch() -> Result<Self, Complaint> {
        let failed = |error: io::Error| Complaint::failed("cannot wait for Ctrl-C", error);
        // Its other end is closed by the first signal.
        let (reader, writer) = io::pipe().map_err(failed)?;
        let mut signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        // One that is ignored would come all the same while it is waited for.
        if !ignores_hangups() {
            signals.add(Signal::SIGHUP);
        }
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

/// Whether SIGHUP is ignored, as under nohup(1). By `SigIgn` in proc(5): sigaction(2) is unsafe to call.
fn ignores_hangups() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    // The first bit is that of signal 1, which SIGHUP is everywhere.
    ignored.is_none_or(|mask| mask & 1 == 1)
}

/// A file that is read until the interrupt comes.
pub(crate) struct Interruptible {
    pub(crate) file: File,
    pub(crate) interrupt: Interrupt,
}

impl Read for Interruptible {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if end_comes_first(&self.file, &*self.interrupt.0)? {
            return Err(io::Error::other("interrupted"));
        }
        self.file.read(buffer)
    }
}

/// Waits until something can be read of `file` or of `end`, and says whether it is `end`.
pub(crate) fn end_comes_first(file: &impl AsFd, end: &impl AsFd) -> io::Result<bool> {
    let mut fds = [file.as_fd(), end.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
    while let Err(error) = poll(&mut fds, PollTimeout::NONE) {
        if error != Errno::EINTR {
            return Err(error.into());
        }
    }
    let [_, end] = fds;
    Ok(end.any() == Some(true))
}
