//! When the thread that writes begins a group: a wait for the disk costs the same for one entry as for many.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicUsize, Ordering::SeqCst, fence},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

/// Nobody waits.
const NONE: usize = usize::MAX;

/// Wakes the thread when as many jobs wait as it wants, and not for each of them. Counts the requests that will have an entry.
#[derive(Debug)]
pub(super) struct Bell {
    writer: OnceLock<Thread>,
    wanted: AtomicUsize,
    begun: AtomicUsize,
}

/// A request that will have an entry, until it is dropped.
#[derive(Debug)]
pub struct Begun<'a>(&'a Bell);

impl Bell {
    pub(super) fn new() -> Self {
        Self { writer: OnceLock::new(), wanted: AtomicUsize::new(NONE), begun: AtomicUsize::new(0) }
    }

    pub(super) fn begin(&self) -> Begun<'_> {
        self.begun.fetch_add(1, SeqCst);
        Begun(self)
    }

    /// How many requests have begun.
    pub(super) fn begun(&self) -> usize {
        self.begun.load(SeqCst)
    }

    /// How many entries make a group that is worth a wait for the disk: half of those that are to come. With the other half
    /// there is work to do meanwhile.
    pub(super) fn enough(&self) -> usize {
        self.begun().div_ceil(2).max(1)
    }

    /// To be called after a job is handed over; so many wait now.
    pub(super) fn ring(&self, waiting: usize) {
        // The job is in the queue before `wanted` is read, and in `wait` the other way round: one of the two sees the other.
        fence(SeqCst);
        if waiting >= self.wanted.load(SeqCst)
            && let Some(writer) = self.writer.get()
        {
            self.wanted.store(NONE, SeqCst);
            writer.unpark();
        }
    }

    /// Has this thread, the one that writes, wait until `wanted` jobs are `waiting`, for no longer than `limit`.
    pub(super) fn wait(&self, wanted: usize, limit: Duration, waiting: impl Fn() -> usize) {
        self.writer.get_or_init(thread::current);
        let began = Instant::now();
        loop {
            self.wanted.store(wanted, SeqCst);
            fence(SeqCst);
            let left = limit.saturating_sub(began.elapsed());
            if waiting() >= wanted || left.is_zero() {
                break;
            }
            thread::park_timeout(left);
        }
        self.wanted.store(NONE, SeqCst);
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.0.begun.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn half_of_what_is_to_come_is_enough() {
        let bell = Bell::new();
        assert_eq!(bell.enough(), 1);
        let begun: Vec<_> = (0..5).map(|_| bell.begin()).collect();
        assert_eq!(bell.enough(), 3);
        drop(begun);
        assert_eq!(bell.enough(), 1);
    }

    #[test]
    fn who_waits_is_woken_when_there_is_enough() {
        let (bell, waiting) = (Bell::new(), AtomicUsize::new(0));
        thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                bell.wait(3, LONG, || waiting.load(SeqCst));
                waiting.load(SeqCst)
            });
            for _ in 0..3 {
                assert!(!waiter.is_finished());
                bell.ring(waiting.fetch_add(1, SeqCst) + 1);
            }
            assert_eq!(waiter.join().unwrap(), 3);
        });
    }

    #[test]
    fn nobody_waits_for_longer_than_the_limit() {
        Bell::new().wait(1, Duration::from_millis(1), || 0);
    }
}
