//! A token bucket.

use std::time::Instant;

/// What is left of an allowance that comes back with time.
#[derive(Debug)]
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
        (self.left, self.at) = (self.left_at(per_second, most, now), now);
        let has_one = self.left >= 1.0;
        if has_one {
            self.left -= 1.0;
        }
        has_one
    }

    /// Whether it is what a new one would be.
    pub(super) fn is_full(&self, per_second: f64, most: f64, now: Instant) -> bool {
        self.left_at(per_second, most, now) >= most
    }

    fn left_at(&self, per_second: f64, most: f64, now: Instant) -> f64 {
        (self.left + now.duration_since(self.at).as_secs_f64() * per_second).min(most)
    }
}
