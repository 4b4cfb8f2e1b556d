//! How long the call lasts that a thread is in.

use std::{
    cell::OnceCell,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use super::connection::lock;

thread_local! {
    /// The desk of this thread. A thread that nobody watches has none.
    static DESK: OnceCell<Arc<Desk>> = const { OnceCell::new() };
}

/// What a call is, as far as it matters how long it may last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// It starts or ends the module: some connect to their HSM meanwhile, or test themselves.
    Start,
    /// Any other.
    Plain,
}

/// What others can see of a thread that calls the module.
#[derive(Default)]
pub(super) struct Desk {
    /// When the call began that it is in, and what it is.
    call: Mutex<Option<(Instant, Call)>>,
    written_off: AtomicBool,
    /// It has a session to work in.
    seated: AtomicBool,
}

impl Desk {
    /// Makes this the desk of the thread that asks.
    pub(super) fn sit_down(self: &Arc<Self>) {
        DESK.with(|desk| {
            let _ = desk.set(Arc::clone(self));
        });
    }

    /// Does something that calls the module.
    pub(super) fn watched<R>(&self, work: impl FnOnce() -> R) -> R {
        *lock(&self.call) = Some((Instant::now(), Call::Plain));
        let result = work();
        *lock(&self.call) = None;
        result
    }

    /// How long the call lasts by now, and what it is; `None` between calls.
    pub(super) fn calling_for(&self) -> Option<(Duration, Call)> {
        lock(&self.call).map(|(began, call)| (began.elapsed(), call))
    }

    /// Nobody waits for the thread any more. It ends when its call comes back.
    pub(super) fn write_off(&self) {
        self.written_off.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_written_off(&self) -> bool {
        self.written_off.load(Ordering::Relaxed)
    }

    /// Notes whether the thread has a session to work in; says whether that was known.
    pub(super) fn note_seat(&self, seated: bool) -> bool {
        self.seated.swap(seated, Ordering::Relaxed) == seated
    }
}

/// This thread is about to make another call, so the one before has come back.
pub(super) fn beat() {
    beat_for(Call::Plain);
}

/// The same; the other call is a `next`.
pub(super) fn beat_for(next: Call) {
    DESK.with(|desk| {
        if let Some(call) = desk.get().map(|desk| lock(&desk.call)).as_mut().and_then(|call| call.as_mut()) {
            *call = (Instant::now(), next);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_is_timed_for_itself() {
        let desk = Arc::new(Desk::default());
        desk.sit_down();
        beat();
        assert_eq!(desk.calling_for(), None, "no call has begun");
        desk.watched(|| {
            std::thread::sleep(Duration::from_millis(20));
            let (first, call) = desk.calling_for().unwrap();
            assert!(first >= Duration::from_millis(20) && call == Call::Plain);
            beat_for(Call::Start);
            let (second, call) = desk.calling_for().unwrap();
            assert!(second < first && call == Call::Start);
            beat();
            assert_eq!(desk.calling_for().unwrap().1, Call::Plain);
        });
        assert_eq!(desk.calling_for(), None);
    }
}
