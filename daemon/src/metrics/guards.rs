//! What is counted of the limits on callers.

use super::{ByName, Counter, Gauge, Page};

/// Reveals, refusals, locks and alarms. Filled by the guards, read by a scrape.
#[derive(Debug, Default)]
pub struct GuardStats {
    reveals: Counter,
    rate_limited: ByName<Counter>,
    locked_callers: Gauge,
    honey_tokens_revealed: Counter,
}

impl GuardStats {
    /// `pans` whole card numbers were given out.
    pub fn revealed(&self, pans: usize) {
        self.reveals.add(u64::try_from(pans).unwrap_or(u64::MAX));
    }

    /// A request was refused because of `limit`, a word of the code such as `requests` or `pans_per_hour`.
    pub fn rate_limited(&self, limit: &'static str) {
        self.rate_limited.with(limit, Counter::increment);
    }

    /// So many subjects are locked now.
    pub fn locked(&self, callers: usize) {
        self.locked_callers.set(u64::try_from(callers).unwrap_or(u64::MAX));
    }

    /// Somebody asked for a token that no honest caller uses.
    pub fn honey_token_revealed(&self) {
        self.honey_tokens_revealed.increment();
    }

    /// Writes the series.
    pub fn write(&self, page: &mut Page) {
        page.counter("vaultd_reveals_total", "Whole card numbers that were given out.", &self.reveals);
        let mut limited = page.counters("vaultd_rate_limited_total", "Requests that a limit has refused.");
        for (limit, count) in self.rate_limited.sorted() {
            limited.sample(&[("limit", limit)], count.value());
        }
        page.gauge(
            "vaultd_locked_callers",
            "Subjects that are locked until an operator unlocks them.",
            &self.locked_callers,
        );
        page.counter(
            "vaultd_honey_tokens_revealed_total",
            "Requests for tokens that no honest caller uses.",
            &self.honey_tokens_revealed,
        );
    }
}
