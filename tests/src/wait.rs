//! Waiting for what has no set time, and telling a slow daemon from a host that stood still.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Between two looks.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the pulse sleeps.
const BEAT: Duration = Duration::from_millis(5);

/// Waits until `is_so`, and at most for `patience`.
///
/// # Panics
/// If it is not so by then; `what` should have been.
#[track_caller]
pub fn until(patience: Duration, what: &str, mut is_so: impl FnMut() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < patience, "not within {patience:?}: {what}");
        thread::sleep(PAUSE);
    }
}

/// A thread that sleeps for a moment again and again: where that lasts much longer, nobody on this host did anything.
/// It ends when this is dropped.
#[derive(Debug)]
pub struct Pulse {
    longest_ms: Arc<AtomicU64>,
}

impl Pulse {
    /// Begins.
    pub fn start() -> Self {
        let longest_ms = Arc::<AtomicU64>::default();
        let noted = Arc::downgrade(&longest_ms);
        thread::spawn(move || {
            let mut last = Instant::now();
            while let Some(longest) = noted.upgrade() {
                thread::sleep(BEAT);
                let gap = u64::try_from(last.elapsed().as_millis()).unwrap();
                last = Instant::now();
                longest.fetch_max(gap, Ordering::Relaxed);
            }
        });
        Self { longest_ms }
    }

    /// The longest time without a beat since the last call.
    pub fn longest_gap(&self) -> Duration {
        // One that is about to be noted counts, too.
        thread::sleep(BEAT * 4);
        Duration::from_millis(self.longest_ms.swap(0, Ordering::Relaxed))
    }
}
