//! What is counted of the store.

use std::{fs, time::Duration};

use super::Store;
use crate::metrics::{Counter, Histogram, Page};

/// Commits. Filled by the writer, read by a scrape.
#[derive(Debug)]
pub(super) struct StoreStats {
    commit_records: Histogram,
    commit_time: Histogram,
    failures: Counter,
}

impl Default for StoreStats {
    fn default() -> Self {
        Self {
            commit_records: Histogram::of_sizes(),
            commit_time: Histogram::default(),
            failures: Counter::default(),
        }
    }
}

impl StoreStats {
    /// A transaction with changes to so many records took `time`, its sync included.
    pub(super) fn committed(&self, records: usize, time: Duration) {
        self.commit_records.size(records);
        self.commit_time.took(time);
    }

    /// A transaction failed.
    pub(super) fn failed(&self) {
        self.failures.increment();
    }
}

impl Store {
    /// Writes how much was committed, and how the store stands.
    pub fn write_metrics(&self, page: &mut Page) {
        let (handle, queue) = (&self.inner.handle, &self.inner.queue);
        let stats = handle.stats();
        page.gauges("vaultd_store_failing", "1 from a commit that failed to the next that does not, else 0.")
            .sample(&[], u8::from(handle.failing()));
        page.histogram(
            "vaultd_store_commit_records",
            "Records that one durable commit is about; a change of another kind counts as one.",
            &stats.commit_records,
        );
        page.histogram(
            "vaultd_store_commit_seconds",
            "How long a commit took, its sync included.",
            &stats.commit_time,
        );
        page.counter("vaultd_store_failures_total", "Commits that failed.", &stats.failures);
        for (name, help, value) in [
            ("vaultd_store_queue_depth", "Changes that wait for a commit.", queue.len()),
            ("vaultd_store_queue_capacity", "The most changes that may wait.", queue.capacity().unwrap_or(0)),
        ] {
            page.gauges(name, help).sample(&[], value);
        }
        // What cannot be read is left out: a zero would look like a loss.
        let file_bytes = fs::metadata(handle.path()).map(|file| file.len());
        for (name, help, value) in [
            ("vaultd_store_records", "Records in the store.", self.records().ok()),
            ("vaultd_store_file_bytes", "Size of the database's file.", file_bytes.ok()),
        ] {
            if let Some(value) = value {
                page.gauges(name, help).sample(&[], value);
            }
        }
    }
}
