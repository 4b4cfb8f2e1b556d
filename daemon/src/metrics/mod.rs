//! Counting: numbers that any thread may change without waiting, and how they are written for Prometheus.
//!
//! Each room counts what it does in a struct of its own, which also names its series ([`Page`]); nothing is global. The
//! page of `GET /metrics` is put together in `http`. Labels are words of the code or names that are bounded elsewhere,
//! never text of a caller.

mod by_name;
mod guards;
mod histogram;
mod page;
mod process;

use std::sync::atomic::{AtomicU64, Ordering};

pub use by_name::ByName;
pub use guards::GuardStats;
pub use histogram::{Buckets, Histogram};
pub use page::{Family, Page};
pub use process::write_process;

/// A number that only grows, until the process ends.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Counts one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Counts `more`.
    pub fn add(&self, more: u64) {
        self.0.fetch_add(more, Ordering::Relaxed);
    }

    /// What was counted.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// It is `value` now.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// What it is.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
