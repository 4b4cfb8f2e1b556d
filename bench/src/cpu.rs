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

    /// Whether there was nothing left to be had: rounding and the start of a sample leave some of it idle.
    pub(crate) fn is_limit(self) -> bool {
        self.share(self.busy) >= NEARLY_ALL
    }

    /// The shares in words, and what they mean for the `rate` that was reached with them: `alone` is what the CPU would
    /// allow if nobody else used it.
    pub(crate) fn text(self, rate: f64) -> String {
        let percent = |ticks| 100.0 * self.share(ticks);
        let ours = self.daemon + self.load_generator;
        let verdict = if self.is_limit() {
            format!("the limit, alone {}/s", grouped(rate / self.share(ours)))
        } else {
            "not the limit".to_owned()
        };
        format!(
            "{:.0} % (vaultd {:.0}, load generator {:.0}, others {:.0}): {verdict}",
            percent(self.busy),
            percent(self.daemon),
            percent(self.load_generator),
            percent(self.busy.saturating_sub(ours)),
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

const NEARLY_ALL: f64 = 0.95;

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
    fn the_limit_is_where_nothing_is_left() {
        let used = Ticks { daemon: 60, load_generator: 30, busy: 97, all: 100 };
        let shares = "97 % (vaultd 60, load generator 30, others 7)";
        let limit = "the limit, alone 10,000/s";
        assert_eq!(used.text(9_000.0), format!("{shares}: {limit}"));
        assert!(Ticks { busy: 90, ..used }.text(9_000.0).ends_with("others 0): not the limit"));
    }
}
