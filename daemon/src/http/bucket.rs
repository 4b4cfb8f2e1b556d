//! A token bucket.

use std::time::Instant;

/// What is left of an allowance that comes back with time.
pub(super) struct Bucket {
    left: f64,
    at: Instant,
}

impl Bucket {
    /// A bucket that holds `most` at `now`.
    pub(super) fn full(most: f64, now: Instant) -> Self {
        Self { left: most, at: now }
    }

    /// Takes one at `now`, if there is one; `per_second` come back, up to `most`.
    pub(super) fn take(&mut self, per_second: f64, most: f64, now: Instant) -> bool {
        let earned = now.duration_since(self.at).as_secs_f64() * per_second;
        (self.left, self.at) = ((self.left + earned).min(most), now);
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }
}
