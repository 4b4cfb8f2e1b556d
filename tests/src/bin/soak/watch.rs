//! Memory and descriptors of the daemon, and whether they grow.

use std::time::{Duration, Instant};

use vault_tests::Vault;

/// A look at the daemon while nothing happened to it.
#[derive(Clone, Copy, Debug)]
struct Sample {
    minutes: f64,
    kib: f64,
    descriptors: usize,
}

/// What was seen of the process that runs now.
#[derive(Default)]
pub(crate) struct Watch {
    since: Option<Instant>,
    samples: Vec<Sample>,
}

/// Caches fill in this part of a process's life.
const SETTLING: f64 = 0.25;
/// What memory may grow by in the rest of it: what the allocator keeps differs from one minute to the next.
const MOST_GROWTH_KIB: f64 = 8.0 * 1_024.0;
/// Sessions in place of those that hang, and files that are being changed.
const MOST_DESCRIPTORS: usize = 8;

impl Watch {
    /// What was seen so far was another process.
    pub(crate) fn new_process(&mut self) {
        *self = Self { since: Some(Instant::now()), samples: Vec::new() };
    }

    pub(crate) fn look(&mut self, vault: &Vault) {
        let minutes = self.since.map_or(Duration::ZERO, |since| since.elapsed()).as_secs_f64() / 60.0;
        let kib = f64::from(u32::try_from(vault.status_kib("VmRSS")).unwrap());
        self.samples.push(Sample { minutes, kib, descriptors: vault.descriptors() });
    }

    /// Resident KiB and open descriptors when it was last looked at.
    pub(crate) fn last(&self) -> (f64, usize) {
        self.samples.last().map_or((0.0, 0), |sample| (sample.kib, sample.descriptors))
    }

    /// Prints how memory and descriptors went, and gives what of it is wrong.
    pub(crate) fn verdict(&self) -> Vec<String> {
        let Some(end) = self.samples.last().map(|sample| sample.minutes) else {
            return vec!["nobody looked at the daemon".to_owned()];
        };
        let settled: Vec<_> =
            self.samples.iter().copied().filter(|sample| sample.minutes >= end * SETTLING).collect();
        let (slope, mean) = line(&settled);
        let growth = slope * end * (1.0 - SETTLING);
        println!(
            "memory from minute {:.1} to {end:.1} of the last process: {mean:.0} KiB on average, {:+.0} KiB an hour by least \
             squares over {} looks, {growth:+.0} KiB in all",
            end * SETTLING,
            slope * 60.0,
            settled.len()
        );
        let half = settled.len() / 2;
        let least = |samples: &[Sample]| samples.iter().map(|sample| sample.descriptors).min().unwrap_or(0);
        let (early, late) = (least(&settled[..half]), least(&settled[half..]));
        println!("descriptors: {early} at least in the first half of it, {late} in the second");
        let mut wrong = Vec::new();
        if growth > MOST_GROWTH_KIB {
            wrong.push(format!("memory grew by {growth:.0} KiB"));
        }
        if late > early + MOST_DESCRIPTORS {
            wrong.push(format!("there were {early} descriptors, and then {late}"));
        }
        wrong
    }
}

/// The slope in KiB a minute by least squares, and the mean in KiB.
fn line(samples: &[Sample]) -> (f64, f64) {
    let count = f64::from(u32::try_from(samples.len()).unwrap());
    let mean = |of: fn(&Sample) -> f64| samples.iter().map(of).sum::<f64>() / count;
    let (minutes, kib) = (mean(|sample| sample.minutes), mean(|sample| sample.kib));
    let squares: f64 = samples.iter().map(|sample| (sample.minutes - minutes).powi(2)).sum();
    let products: f64 = samples.iter().map(|sample| (sample.minutes - minutes) * (sample.kib - kib)).sum();
    (if squares > 0.0 { products / squares } else { 0.0 }, kib)
}
