//! The clock of the domain: Unix time from the system.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Now, in whole seconds of Unix time. A clock before 1970 counts as 1970.
pub fn now_s() -> u64 {
    since_epoch().as_secs()
}

/// Now, in milliseconds of Unix time.
pub fn now_ms() -> u64 {
    u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX)
}

fn since_epoch() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
