//! Who had the processor: the daemon, this load generator, others, nobody.

use std::{fs, ops::AddAssign};

use anyhow::{Context as _, Result};
use serde::Serialize;

use crate::number::{float, grouped};

/// Processor time in clock ticks, up to now or over a while.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Ticks {
    daemon: u64,
    load_generator: u64,
    /// Everything that was not idle, of all cores.
    busy: u64,
    /// Idle or not, of all cores.
    all: u64,
}

impl Ticks {
    /// What the process `daemon`, this one and the machine have used since they started.
    pub(crate) fn now(daemon: u32) -> Result<Self> {
        let machine = fs::read_to_string("/proc/stat").context("reading /proc/stat")?;
        let (busy, all) = of_machine(&machine).context("parsing /proc/stat")?;
        Ok(Self { daemon: of_process(&daemon.to_string())?, load_generator: of_process("self")?, busy, all })
    }

    /// What was used since `begin`.
    pub(crate) fn since(self, begin: Self) -> Self {
        Self {
            daemon: self.daemon.saturating_sub(begin.daemon),
            load_generator: self.load_generator.saturating_sub(begin.load_generator),
            busy: self.busy.saturating_sub(begin.busy),
            all: self.all.saturating_sub(begin.all),
        }
    }

    /// The rate at which all of the processor's time would be used up, if `rate` was reached with these shares
    /// (the utilisation law; Denning and Buzen, "The Operational Analysis of Queueing Network Models", 1978).
    pub(crate) fn allows(self, rate: f64) -> f64 {
        rate / self.share(self.busy)
    }

    /// The shares in words, and what they mean for the `rate` that was reached with them beside the `ceiling` of others:
    /// the narrower of the two is the limit.
    pub(crate) fn text(self, rate: f64, ceiling: f64) -> String {
        let percent = |ticks| 100.0 * self.share(ticks);
        let ours = self.daemon + self.load_generator;
        let allows = self.allows(rate);
        format!(
            "{:.0} % (vaultd {:.0}, load generator {:.0}, others {:.0}), allows {}/s: {}",
            percent(self.busy),
            percent(self.daemon),
            percent(self.load_generator),
            percent(self.busy.saturating_sub(ours)),
            grouped(allows),
            if allows < ceiling { "the limit" } else { "not the limit" },
        )
    }

    fn share(self, ticks: u64) -> f64 {
        float(ticks) / float(self.all)
    }
}

impl AddAssign for Ticks {
    fn add_assign(&mut self, other: Self) {
        self.daemon += other.daemon;
        self.load_generator += other.load_generator;
        self.busy += other.busy;
        self.all += other.all;
    }
}

/// User and system time of a process with all its threads (proc(5), `/proc/pid/stat`, fields 14 and 15).
fn of_process(pid: &str) -> Result<u64> {
    let file = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&file).with_context(|| format!("reading {file}"))?;
    // The name, field 2, may hold anything but ends with the last bracket.
    let fields = stat.rsplit_once(") ").map(|(_, fields)| numbers(fields));
    let fields = fields.and_then(|mut fields| Some(fields.nth(11)?? + fields.next()??));
    fields.with_context(|| format!("parsing {file}"))
}

/// Busy and all time of the machine: guests (fields 9 and 10) are in the user's time already.
fn of_machine(stat: &str) -> Option<(u64, u64)> {
    let fields: Vec<u64> =
        numbers(stat.lines().next()?.strip_prefix("cpu ")?).take(8).collect::<Option<_>>()?;
    let [_, _, _, idle, waiting, ..] = fields.as_slice() else { return None };
    let all = fields.iter().sum::<u64>();
    Some((all - idle - waiting, all))
}

fn numbers(fields: &str) -> impl Iterator<Item = Option<u64>> {
    fields.split_whitespace().map(|field| field.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machines_time_is_read() {
        let stat = "cpu  100 1 20 870 5 0 3 1 7 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n";
        assert_eq!(of_machine(stat), Some((125, 1_000)));
        assert_eq!(of_machine("intr 1 2 3"), None);
    }

    #[test]
    fn time_passes() {
        let begin = Ticks::now(std::process::id()).unwrap();
        let end = std::time::Instant::now() + std::time::Duration::from_millis(200);
        while std::time::Instant::now() < end {}
        let used = Ticks::now(std::process::id()).unwrap().since(begin);
        assert!(used.daemon > 0 && used.load_generator > 0 && used.busy > 0 && used.all >= used.busy);
    }

    #[test]
    fn the_narrower_one_is_the_limit() {
        let used = Ticks { daemon: 60, load_generator: 30, busy: 90, all: 100 };
        let shares = "90 % (vaultd 60, load generator 30, others 0), allows 10,000/s";
        assert_eq!(used.text(9_000.0, 10_001.0), format!("{shares}: the limit"));
        assert_eq!(used.text(9_000.0, 9_999.0), format!("{shares}: not the limit"));
    }
}
