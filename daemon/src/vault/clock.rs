//! The clock of the domain: Unix time from the system.

use std::{
    sync::{LazyLock, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Now, in whole seconds of Unix time. A clock before 1970 counts as 1970.
pub fn now_s() -> u64 {
    since_epoch().as_secs()
}

/// Now, in milliseconds of Unix time.
pub fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

/// Now, in whole seconds of Unix time, for what cannot be undone: it follows a leap forward only once that has lasted. What
/// the time was when this was asked first is believed.
///
/// A clock that is wrong for a while must not cost a record that has years to live, nor the memory of what was used once.
pub fn settled_s() -> u64 {
    static CLOCK: LazyLock<Mutex<SettledClock>> =
        LazyLock::new(|| Mutex::new(SettledClock { at: Instant::now(), was_s: now_s(), ahead_since: None }));
    CLOCK.lock().unwrap_or_else(PoisonError::into_inner).look(now_s(), Instant::now())
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

struct SettledClock {
    /// When it was last looked at, and what the time was then.
    at: Instant,
    was_s: u64,
    /// Since when the system's clock is ahead.
    ahead_since: Option<Instant>,
}

/// How long the system's clock has to be ahead to be believed.
const BELIEVED_AFTER: Duration = Duration::from_hours(1);
/// How far it may be ahead without having leapt: it is slewed, and whole seconds are rounded.
const NO_LEAP_S: u64 = 60;

impl SettledClock {
    fn look(&mut self, system_s: u64, now: Instant) -> u64 {
        let due_s = self.was_s.saturating_add(now.duration_since(self.at).as_secs());
        if system_s > due_s.saturating_add(NO_LEAP_S) {
            let since = *self.ahead_since.get_or_insert(now);
            if now.duration_since(since) < BELIEVED_AFTER {
                return due_s;
            }
        }
        (self.at, self.was_s, self.ahead_since) = (now, system_s, None);
        system_s
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leap_forward_counts_once_it_has_lasted() {
        let start = Instant::now();
        let mut clock = SettledClock { at: start, was_s: 1_000, ahead_since: None };
        let mut look = |system_s, after_s| clock.look(system_s, start + Duration::from_secs(after_s));
        assert_eq!(look(1_070, 60), 1_070, "it is slewed");
        assert_eq!(look(9_000_000, 120), 1_130);
        assert_eq!(look(1_190, 180), 1_190, "it was wrong for a minute");
        assert_eq!(look(9_000_000, 240), 1_250);
        assert_eq!(look(9_003_599, 240 + 3_599), 1_250 + 3_599);
        assert_eq!(look(9_003_600, 240 + 3_600), 9_003_600, "it stays so");
        assert_eq!(look(1_000, 4_000), 1_000, "back is safe");
    }
}
