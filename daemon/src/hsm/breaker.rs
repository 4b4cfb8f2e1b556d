//! The circuit breaker: whether callers are let through to the token, and when it is tried again. All of its moves
//! are here; nothing here calls the module.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::{Duration, Instant},
};

use super::class::Class;

/// The pause after the first failed attempt. Each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// How often the pause is doubled: to 400 ms, half a second with jitter. So service is back within 2 s of the fault's
/// end, and soon enough for callers who are told to wait a second.
const MOST_DOUBLINGS: u32 = 2;
/// A connection that lasts as long was a good one: the next fault is a new one, and mended without a pause.
const SETTLED: Duration = Duration::from_secs(1);

/// How deep a mend goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Depth {
    /// A new login on new sessions, and keys looked up anew.
    Login,
    /// The module initialised anew before that.
    Module,
}

/// Where things stand between callers and the token.
enum State<C> {
    /// In service.
    Up { connection: C, generation: u64, since: Instant, failures: u32 },
    /// It failed just now and is being mended for the first time. Callers wait: it takes milliseconds as a rule.
    Mending(Trouble),
    /// At least one attempt to mend it has failed. Callers are refused.
    Down(Trouble),
    /// Not tried again before a restart.
    Closed { cause: String },
}

#[derive(Clone)]
struct Trouble {
    cause: String,
    since: Instant,
    depth: Depth,
    /// Attempts that failed in a row, or brought up a connection that did not last.
    failures: u32,
    next: Next,
}

#[derive(Clone)]
enum Next {
    At(Instant),
    /// The attempt with this number is being made.
    UnderWay(u64),
    /// Not before [`Breaker::release`].
    Held,
}

/// What a caller is told.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Standing<C> {
    Up(C),
    Wait,
    Refused(String),
}

/// What the mender is to do.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// To make a connection whose generation is `ticket`.
    Attempt { ticket: u64, depth: Depth },
    /// To ask again after this time, or when something has moved.
    Wait(Option<Duration>),
}

/// A move that an operator wants to know of.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Callers are refused from now on, or for another reason than before.
    Down { cause: String },
    /// In service again.
    Back { cause: String, after: Duration },
    /// Out of service until a restart.
    Closed { cause: String },
}

/// The breaker over connections `C`.
pub(super) struct Breaker<C> {
    state: State<C>,
    tickets: u64,
    /// Connections that failed, for the mender to drop: closing a session is a call, which may hang.
    retired: Vec<C>,
}

impl<C: Clone> Breaker<C> {
    /// A breaker that begins with a good connection, of generation 0.
    pub(super) fn new(connection: C, now: Instant) -> Self {
        let state = State::Up { connection, generation: 0, since: now, failures: 0 };
        Self { state, tickets: 0, retired: Vec::new() }
    }

    pub(super) fn standing(&self) -> Standing<C> {
        match &self.state {
            State::Up { connection, .. } => Standing::Up(connection.clone()),
            State::Mending(_) => Standing::Wait,
            State::Down(trouble) => Standing::Refused(trouble.cause.clone()),
            State::Closed { cause } => Standing::Refused(cause.clone()),
        }
    }

    /// The connection `failed` does not work, or the current one if that is `None`. Nothing happens if it has been
    /// replaced already.
    pub(super) fn fail(
        &mut self,
        failed: Option<u64>,
        class: Class,
        cause: &str,
        now: Instant,
    ) -> Option<Event> {
        let State::Up { connection, generation, since, failures } = &self.state else { return None };
        if failed.is_some_and(|failed| failed != *generation) {
            return None;
        }
        let again = now.saturating_duration_since(*since) < SETTLED;
        let failures = if again { failures.saturating_add(1) } else { 0 };
        let depth = if again || class == Class::Module { Depth::Module } else { Depth::Login };
        let next = Next::At(if again { now + pause(failures) } else { now });
        self.retired.push(connection.clone());
        let trouble = Trouble { cause: cause.to_owned(), since: now, depth, failures, next };
        self.state = if again { State::Down(trouble) } else { State::Mending(trouble) };
        again.then(|| Event::Down { cause: cause.to_owned() })
    }

    /// What the mender is to do now, and which connections it is to drop before.
    pub(super) fn task(&mut self, now: Instant) -> (Task, Vec<C>) {
        let task = match &mut self.state {
            State::Up { .. } | State::Closed { .. } => Task::Wait(None),
            State::Mending(trouble) | State::Down(trouble) => match trouble.next {
                Next::At(then) if then <= now => {
                    self.tickets += 1;
                    trouble.next = Next::UnderWay(self.tickets);
                    Task::Attempt { ticket: self.tickets, depth: trouble.depth }
                }
                Next::At(then) => Task::Wait(Some(then - now)),
                Next::UnderWay(_) | Next::Held => Task::Wait(None),
            },
        };
        (task, std::mem::take(&mut self.retired))
    }

    /// The attempt `ticket` has succeeded. One that nobody waits for any more is retired.
    pub(super) fn succeed(&mut self, ticket: u64, connection: C, now: Instant) -> Option<Event> {
        match &self.state {
            State::Mending(trouble) | State::Down(trouble) if trouble.is_under_way(ticket) => {
                let after = now.saturating_duration_since(trouble.since);
                let event = Event::Back { cause: trouble.cause.clone(), after };
                let failures = trouble.failures;
                self.state = State::Up { connection, generation: ticket, since: now, failures };
                Some(event)
            }
            _ => {
                self.retired.push(connection);
                None
            }
        }
    }

    /// The attempt that is under way lasts: callers wait for it no more, but what it comes to counts.
    pub(super) fn outlast(&mut self) -> Option<Event> {
        let State::Mending(trouble @ Trouble { next: Next::UnderWay(_), .. }) = &self.state else {
            return None;
        };
        let trouble = trouble.clone();
        let event = Event::Down { cause: trouble.cause.clone() };
        self.state = State::Down(trouble);
        Some(event)
    }

    /// The attempt `ticket` has failed; `None` if it does not come back.
    pub(super) fn miss(&mut self, ticket: Option<u64>, cause: &str, now: Instant) -> Option<Event> {
        let (trouble, known) = match &self.state {
            State::Mending(trouble) => (trouble, None),
            State::Down(trouble) => (trouble, Some(trouble.cause.as_str())),
            State::Up { .. } | State::Closed { .. } => return None,
        };
        let expected = match ticket {
            Some(ticket) => trouble.is_under_way(ticket),
            None => matches!(trouble.next, Next::UnderWay(_)),
        };
        if !expected {
            return None;
        }
        let event = (known != Some(cause)).then(|| Event::Down { cause: cause.to_owned() });
        let failures = trouble.failures.saturating_add(1);
        self.state = State::Down(Trouble {
            cause: cause.to_owned(),
            since: trouble.since,
            depth: Depth::Module,
            failures,
            next: Next::At(now + pause(failures)),
        });
        event
    }

    /// Nothing is tried, and nobody let through, until [`Breaker::release`].
    pub(super) fn hold(&mut self, cause: &str, now: Instant) -> Option<Event> {
        let (since, failures) = match &self.state {
            State::Up { connection, failures, .. } => {
                self.retired.push(connection.clone());
                (now, *failures)
            }
            State::Mending(trouble) | State::Down(trouble) => (trouble.since, trouble.failures),
            State::Closed { .. } => return None,
        };
        let cause = cause.to_owned();
        let trouble =
            Trouble { cause: cause.clone(), since, depth: Depth::Module, failures, next: Next::Held };
        self.state = State::Down(trouble);
        Some(Event::Down { cause })
    }

    /// Tries again what was held.
    pub(super) fn release(&mut self, now: Instant) {
        if let State::Down(trouble @ Trouble { next: Next::Held, .. }) = &mut self.state {
            trouble.next = Next::At(now);
        }
    }

    /// Never tries again.
    pub(super) fn close(&mut self, cause: &str) -> Option<Event> {
        if let State::Closed { .. } = self.state {
            return None;
        }
        if let State::Up { connection, .. } = &self.state {
            self.retired.push(connection.clone());
        }
        self.state = State::Closed { cause: cause.to_owned() };
        Some(Event::Closed { cause: cause.to_owned() })
    }
}

impl Trouble {
    fn is_under_way(&self, ticket: u64) -> bool {
        matches!(self.next, Next::UnderWay(under_way) if under_way == ticket)
    }
}

/// The pause after so many failures, a quarter shorter to a quarter longer by chance: daemons that share an HSM must
/// not all come back to it at the same moment.
fn pause(failures: u32) -> Duration {
    // The seed of hash tables is chance enough: nothing secret depends on it, and Miri can follow it.
    let chance = RandomState::new().hash_one(failures) % 51;
    let percent = 75 + u32::try_from(chance).unwrap_or(0);
    FIRST_PAUSE * 2_u32.pow(failures.saturating_sub(1).min(MOST_DOUBLINGS)) * percent / 100
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than a connection takes to settle, and longer than any pause.
    const LATER: Duration = Duration::from_secs(2);

    fn down(cause: &str) -> Event {
        Event::Down { cause: cause.to_owned() }
    }

    fn attempt(breaker: &mut Breaker<u8>, now: Instant) -> (u64, Depth) {
        match breaker.task(now).0 {
            Task::Attempt { ticket, depth } => (ticket, depth),
            Task::Wait(time) => panic!("waits {time:?}"),
        }
    }

    #[test]
    fn a_first_fault_is_mended_while_callers_wait() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, start);
        let now = start + LATER;
        assert_eq!(breaker.fail(Some(0), Class::Login, "lost", now), None, "nobody has to be told yet");
        assert_eq!(breaker.standing(), Standing::Wait);
        let (task, retired) = breaker.task(now);
        assert_eq!((task, retired), (Task::Attempt { ticket: 1, depth: Depth::Login }, vec![1]));
        assert_eq!(breaker.task(now).0, Task::Wait(None), "it is under way");
        let back = breaker.succeed(1, 2, now + Duration::from_millis(30));
        assert_eq!(back, Some(Event::Back { cause: "lost".to_owned(), after: Duration::from_millis(30) }));
        assert_eq!(breaker.standing(), Standing::Up(2));
    }

    #[test]
    fn an_attempt_that_fails_refuses_callers_and_goes_deeper() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, start);
        let mut now = start + LATER;
        breaker.fail(Some(0), Class::Session, "gone", now);
        let (ticket, depth) = attempt(&mut breaker, now);
        assert_eq!(depth, Depth::Login);
        assert_eq!(breaker.miss(Some(ticket), "still gone", now), Some(down("still gone")));
        assert_eq!(breaker.standing(), Standing::Refused("still gone".to_owned()));
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let Task::Wait(Some(pause)) = breaker.task(now).0 else { panic!("there is no pause") };
            pauses.push(pause);
            now += pause;
            let (ticket, depth) = attempt(&mut breaker, now);
            assert_eq!(depth, Depth::Module);
            assert_eq!(breaker.miss(Some(ticket), "still gone", now), None, "it was said before");
        }
        assert!((75..=125).contains(&pauses[0].as_millis()), "{pauses:?}");
        assert!((300..=500).contains(&pauses[5].as_millis()), "{pauses:?}");
    }

    #[test]
    fn a_connection_that_does_not_last_is_no_way_around_the_pause() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, start);
        let now = start + LATER;
        breaker.fail(Some(0), Class::Session, "gone", now);
        let (ticket, _) = attempt(&mut breaker, now);
        breaker.succeed(ticket, 2, now);
        assert_eq!(breaker.fail(Some(ticket), Class::Session, "gone", now), Some(down("gone")));
        assert!(matches!(breaker.task(now).0, Task::Wait(Some(_))));
    }

    #[test]
    fn what_is_late_changes_nothing() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, start);
        let now = start + LATER;
        assert_eq!(breaker.fail(Some(7), Class::Module, "another's", now), None);
        assert_eq!(breaker.standing(), Standing::Up(1));
        breaker.fail(Some(0), Class::Module, "gone", now);
        let (given_up, depth) = attempt(&mut breaker, now);
        assert_eq!(depth, Depth::Module);
        assert_eq!(breaker.miss(None, "hangs", now), Some(down("hangs")));
        let (ticket, _) = attempt(&mut breaker, now + LATER);
        assert_eq!(breaker.succeed(given_up, 2, now), None);
        assert_eq!(breaker.standing(), Standing::Refused("hangs".to_owned()));
        assert!(breaker.succeed(ticket, 3, now).is_some());
        assert_eq!(breaker.task(now).1, [2], "what came too late is closed");
    }

    #[test]
    fn an_attempt_that_lasts_is_not_waited_for_but_counts() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, start);
        let now = start + LATER;
        breaker.fail(Some(0), Class::Module, "gone", now);
        assert_eq!(breaker.outlast(), None, "it has not begun");
        let (ticket, _) = attempt(&mut breaker, now);
        assert_eq!(breaker.outlast(), Some(down("gone")));
        assert_eq!(breaker.outlast(), None, "it was said before");
        assert_eq!(breaker.standing(), Standing::Refused("gone".to_owned()));
        assert_eq!(breaker.task(now + LATER).0, Task::Wait(None), "it is under way");
        assert!(breaker.succeed(ticket, 2, now + LATER).is_some());
        assert_eq!(breaker.standing(), Standing::Up(2));
        assert_eq!(breaker.outlast(), None, "there is nothing to wait for");
    }

    #[test]
    fn what_is_held_or_closed_is_not_tried() {
        let start = Instant::now();
        let mut breaker = Breaker::new(1, start);
        assert_eq!(breaker.hold("9 calls hang", start), Some(down("9 calls hang")));
        assert_eq!(breaker.task(start + LATER).0, Task::Wait(None));
        breaker.release(start);
        let (ticket, _) = attempt(&mut breaker, start);
        assert_eq!(breaker.close("PIN"), Some(Event::Closed { cause: "PIN".to_owned() }));
        assert_eq!(breaker.succeed(ticket, 2, start), None);
        assert_eq!(breaker.hold("9 calls hang", start), None);
        breaker.release(start);
        assert_eq!(breaker.task(start + LATER).0, Task::Wait(None));
        assert_eq!(breaker.standing(), Standing::Refused("PIN".to_owned()));
    }
}
