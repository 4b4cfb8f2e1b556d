//! What is counted of the audit log.

use std::time::Duration;

use crate::metrics::{Counter, Gauge, Histogram, Page};

/// Lines, groups and checkpoints. Filled by the one thread that writes the log, read by a scrape.
#[derive(Debug)]
pub struct AuditStats {
    lines: Counter,
    group_lines: Histogram,
    write_time: Histogram,
    failures: Counter,
    last_seq: Gauge,
    checkpoints: Counter,
    checkpoint_seq: Gauge,
    checkpoint_at_s: Gauge,
    usable: Gauge,
}

impl Default for AuditStats {
    fn default() -> Self {
        Self {
            lines: Counter::default(),
            group_lines: Histogram::of_sizes(),
            write_time: Histogram::default(),
            failures: Counter::default(),
            last_seq: Gauge::default(),
            checkpoints: Counter::default(),
            checkpoint_seq: Gauge::default(),
            checkpoint_at_s: Gauge::default(),
            usable: Gauge::default(),
        }
    }
}

impl AuditStats {
    /// The log was opened and ends with line `last_seq`. Its last checkpoint is line `checkpoint_seq` and was made at
    /// `checkpoint_at_s`, in seconds of Unix time; both zero if there is none.
    pub fn opened(&self, last_seq: u64, checkpoint_seq: u64, checkpoint_at_s: u64) {
        self.last_seq.set(last_seq);
        self.checkpoint_seq.set(checkpoint_seq);
        self.checkpoint_at_s.set(checkpoint_at_s);
    }

    /// A group of `lines`, the last of them `last_seq`, is on the disk; to write and sync it took `time`.
    pub fn group(&self, lines: usize, last_seq: u64, time: Duration) {
        self.lines.add(u64::try_from(lines).unwrap_or(u64::MAX));
        self.group_lines.size(lines);
        self.write_time.took(time);
        self.last_seq.set(last_seq);
    }

    /// A checkpoint that signs the log up to line `upto` is on the disk. `at_s` is when it was made, in seconds of Unix
    /// time.
    pub fn checkpoint(&self, upto: u64, at_s: u64) {
        self.checkpoints.increment();
        // Its own line, too: of a log that rests, nothing must seem unsigned.
        self.checkpoint_seq.set(upto.saturating_add(1));
        self.checkpoint_at_s.set(at_s);
    }

    /// A group could not be written.
    pub fn failed(&self) {
        self.failures.increment();
    }

    /// Whether lines can be written now.
    pub fn usable(&self, usable: bool) {
        self.usable.set(u64::from(usable));
    }

    /// Writes the series.
    pub fn write(&self, page: &mut Page) {
        page.gauge("vaultd_audit_usable", "1 if the audit log can be written, else 0.", &self.usable);
        page.counter("vaultd_audit_entries_total", "Lines of the audit log that are durable.", &self.lines);
        page.histogram("vaultd_audit_group_entries", "Lines written and synced together.", &self.group_lines);
        page.histogram(
            "vaultd_audit_write_seconds",
            "How long it took to write and sync a group of lines.",
            &self.write_time,
        );
        page.counter("vaultd_audit_failures_total", "Groups that could not be written.", &self.failures);
        page.counter("vaultd_audit_checkpoints_total", "Signed checkpoints.", &self.checkpoints);
        // Read before the last line is: a checkpoint in between must not be ahead of it.
        let signed = self.checkpoint_seq.value();
        page.gauges("vaultd_audit_unsigned_entries", "Lines since the last signed checkpoint.")
            .sample(&[], self.last_seq.value().saturating_sub(signed));
        page.gauge(
            "vaultd_audit_checkpoint_timestamp_seconds",
            "When the last signed checkpoint was made, in Unix time; 0 if there is none.",
            &self.checkpoint_at_s,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_since_the_checkpoint_are_the_lag() {
        let stats = AuditStats::default();
        stats.opened(100, 90, 1_000);
        stats.group(5, 105, Duration::from_millis(2));
        let text = |stats: &AuditStats| {
            let mut page = Page::default();
            stats.write(&mut page);
            page.into_text()
        };
        assert!(text(&stats).contains("vaultd_audit_unsigned_entries 15\n"));
        stats.group(1, 106, Duration::from_millis(2));
        stats.checkpoint(105, 2_000);
        stats.usable(true);
        let text = text(&stats);
        for line in [
            "vaultd_audit_unsigned_entries 0\n",
            "vaultd_audit_checkpoint_timestamp_seconds 2000\n",
            "vaultd_audit_group_entries_bucket{le=\"8\"} 2\n",
            "vaultd_audit_usable 1\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
