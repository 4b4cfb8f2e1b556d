//! What is counted of the token's work.

use std::time::Duration;

use super::{HsmError, class::Class};
use crate::metrics::{ByName, Counter, Histogram, Page};

/// Operations, calls and faults of every worker.
#[derive(Debug, Default)]
pub(super) struct HsmStats {
    operations: ByName<Operation>,
    faults: ByName<Counter>,
    reconnections: Counter,
}

#[derive(Debug, Default)]
struct Operation {
    done: Counter,
    errors: ByName<Counter>,
    calls: Histogram,
}

/// How the pool stands at the moment of a scrape.
pub(super) struct Snapshot {
    /// How the link stands, one of [`Snapshot::STATES`].
    pub(super) state: &'static str,
    pub(super) sessions: usize,
    pub(super) written_off: usize,
    pub(super) most_written_off: usize,
    pub(super) queued: usize,
    pub(super) most_queued: usize,
}

impl Snapshot {
    pub(super) const STATES: [&'static str; 3] = ["up", "mending", "down"];
}

impl HsmStats {
    /// `items` were asked of `operation`, and this is what the caller is told.
    pub(super) fn told<T>(&self, operation: &'static str, items: usize, result: &Result<T, HsmError>) {
        self.operations.with(operation, |operation| match result {
            Ok(_) => operation.done.add(u64::try_from(items).unwrap_or(u64::MAX)),
            Err(error) => operation.errors.with(error.word(), Counter::increment),
        });
    }

    /// A worker was in the module for `time`, with up to 64 items of a batch; what failed is of a class.
    pub(super) fn called(&self, operation: &'static str, time: Duration, fault: Option<Class>) {
        self.operations.with(operation, |operation| operation.calls.took(time));
        if let Some(class) = fault {
            self.faults.with(class.word(), Counter::increment);
        }
    }

    /// There is a new connection.
    pub(super) fn reconnected(&self) {
        self.reconnections.increment();
    }

    pub(super) fn write(&self, page: &mut Page, now: &Snapshot) {
        let mut states =
            page.gauges("vaultd_hsm_state", "1 for the state that the link to the HSM is in, else 0.");
        for state in Snapshot::STATES {
            states.sample(&[("state", state)], u8::from(state == now.state));
        }
        let operations = self.operations.sorted();
        let mut done = page.counters("vaultd_hsm_operations_total", "Operations that the HSM has done.");
        for (name, operation) in &operations {
            done.sample(&[("operation", name)], operation.done.value());
        }
        let mut errors =
            page.counters("vaultd_hsm_errors_total", "Failures that callers of the HSM were told.");
        for (name, operation) in &operations {
            for (error, count) in operation.errors.sorted() {
                errors.sample(&[("operation", name), ("error", error)], count.value());
            }
        }
        let mut calls = page.histograms(
            "vaultd_hsm_call_seconds",
            "How long an HSM thread was in the module, for one operation or a chunk of a batch.",
        );
        for (name, operation) in operations.iter().filter(|(_, operation)| !operation.calls.is_empty()) {
            calls.distribution(&[("operation", name)], &operation.calls);
        }
        let mut faults = page.counters(
            "vaultd_hsm_faults_total",
            "Calls that failed, mended or not, by what it takes to mend.",
        );
        for class in Class::ALL {
            let counted = self.faults.get(class.word()).map_or(0, Counter::value);
            faults.sample(&[("class", class.word())], counted);
        }
        page.counter("vaultd_hsm_reconnections_total", "Connections made anew.", &self.reconnections);
        for (name, help, value) in [
            ("vaultd_hsm_sessions", "Sessions, each with a thread.", now.sessions),
            ("vaultd_hsm_written_off_threads", "Threads whose call does not come back.", now.written_off),
            ("vaultd_hsm_written_off_threads_max", "The most that are replaced.", now.most_written_off),
            ("vaultd_hsm_queue_depth", "Operations that wait for a session.", now.queued),
            ("vaultd_hsm_queue_capacity", "The most operations that may wait.", now.most_queued),
        ] {
            page.gauges(name, help).sample(&[], value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_and_what_was_called_are_counted_apart() {
        let stats = HsmStats::default();
        stats.called("seal", Duration::from_micros(40), Some(Class::Session));
        stats.called("seal", Duration::from_micros(40), None);
        stats.told("seal", 3, &Ok(()));
        stats.told::<()>("open", 1, &Err(HsmError::Busy));
        let mut page = Page::default();
        let now = Snapshot {
            state: "up",
            sessions: 1,
            written_off: 0,
            most_written_off: 8,
            queued: 2,
            most_queued: 9,
        };
        stats.write(&mut page, &now);
        let text = page.into_text();
        for line in [
            "vaultd_hsm_state{state=\"up\"} 1\n",
            "vaultd_hsm_state{state=\"down\"} 0\n",
            "vaultd_hsm_operations_total{operation=\"seal\"} 3\n",
            "vaultd_hsm_errors_total{operation=\"open\",error=\"busy\"} 1\n",
            "vaultd_hsm_call_seconds_count{operation=\"seal\"} 2\n",
            "vaultd_hsm_faults_total{class=\"session\"} 1\n",
            "vaultd_hsm_queue_depth 2\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
    }
}
