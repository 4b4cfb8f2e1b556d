//! The end of patience. A call into the module, or the disk, may not come back, and no thread can be stopped but with its
//! process: nothing is lost by that which a power failure would not take, too.

use std::{
    io::{self, Write},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use crate::sandbox::exit_without_handlers;

/// How long the log has for the line that says why: whoever reads it may have stopped, too.
const LAST_LINE: Duration = Duration::from_secs(1);

/// A limit, and what has to be over by then.
type Limit = Option<(Instant, &'static str)>;

/// Ends the process with 1 where it does not come to an end itself. Its thread ends when this is dropped.
pub(super) struct Deadline(Sender<Limit>);

impl Deadline {
    /// Starts its thread.
    ///
    /// # Errors
    /// That of the system, if it has no thread.
    pub(super) fn new() -> io::Result<Self> {
        let (limits, changes) = mpsc::channel();
        thread::Builder::new().name("deadline".to_owned()).spawn(move || {
            if let Some(what) = passed(&changes) {
                thread::spawn(move || tell(what));
                thread::sleep(LAST_LINE);
                exit_without_handlers(1);
            }
        })?;
        Ok(Self(limits))
    }

    /// `what` has to be over in `time`, in place of whatever had to be before.
    pub(super) fn set(&self, what: &'static str, time: Duration) {
        let _ = self.0.send(Instant::now().checked_add(time).map(|limit| (limit, what)));
    }

    /// What had to be over is.
    pub(super) fn lift(&self) {
        let _ = self.0.send(None);
    }
}

fn tell(what: &str) {
    if tracing::event_enabled!(tracing::Level::ERROR) {
        tracing::error!(what, "this does not come to an end; the process ends without it");
    } else {
        // Commands without a daemon have no log.
        let _ = writeln!(io::stderr(), "vaultd: {what} does not come to an end; the process ends without it");
    }
}

/// Waits until a limit has passed, and gives what was not over; `None` if there will be no more limits.
fn passed(changes: &Receiver<Limit>) -> Option<&'static str> {
    let mut limit = None;
    loop {
        limit = match limit {
            None => changes.recv().ok()?,
            Some((at, what)) => match changes.recv_timeout(at.saturating_duration_since(Instant::now())) {
                Ok(change) => change,
                Err(RecvTimeoutError::Timeout) => return Some(what),
                Err(RecvTimeoutError::Disconnected) => return None,
            },
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_limit_is_the_one_that_passes() {
        let now = Instant::now();
        let later = now + Duration::from_mins(1);
        let (limits, changes) = mpsc::channel();
        for limit in [Some((later, "starting")), None, Some((now, "stopping"))] {
            limits.send(limit).unwrap();
        }
        assert_eq!(passed(&changes), Some("stopping"));
    }

    #[test]
    fn nothing_passes_once_it_is_over() {
        let (limits, changes) = mpsc::channel();
        limits.send(Some((Instant::now() + Duration::from_mins(1), "stopping"))).unwrap();
        drop(limits);
        assert_eq!(passed(&changes), None);
    }
}
