//! What a run can be told.

use std::{path::PathBuf, time::Duration};

use anyhow::{Context as _, Result};

use crate::side::Side;

/// The command line.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The daemon; `vaultd` beside this program if left out.
    #[arg(long, value_name = "PATH")]
    vaultd: Option<PathBuf>,
    /// SoftHSM2's PKCS#11 module, for the raw HSM rates; looked for in the usual places if left out.
    #[arg(long, value_name = "PATH")]
    pub(crate) module: Option<PathBuf>,
    /// Where results go, and the data during the run; on a disk, not in memory.
    #[arg(long, value_name = "DIR", default_value = "bench/out")]
    pub(crate) out: PathBuf,
    /// Where the vault with ten million tokens (2.2 GB) is kept for later runs.
    #[arg(long, value_name = "DIR", default_value = "target/bench-store")]
    pub(crate) kept: PathBuf,
    /// Tokens in the store (and records in the redb beside it) before the samples: 1000000, or 100000 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..))]
    records: Option<u64>,
    /// The vault's page cache (`store.cache_mib`): the redb beside it has its default, which is more.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub(crate) cache_mib: u64,
    /// Length of a sample: 0.5, or 0.2 with --quick.
    #[arg(long, value_parser = seconds, value_name = "S")]
    seconds: Option<Duration>,
    /// Samples of each side, of which the median counts: 9, or 5 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    #[command(flatten)]
    depth: Depth,
    /// Measure these only, and start nothing else: for comparing two builds.
    #[arg(long, value_name = "SIDE", value_delimiter = ',')]
    only: Vec<Side>,
    /// Seed of card numbers and choices; from the clock if left out.
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
    /// Have oha (from PATH or target/tools/bin) measure detokenize as well.
    #[arg(long)]
    pub(crate) oha: bool,
}

/// How much is measured.
#[derive(Debug, clap::Args)]
struct Depth {
    /// Fewer and shorter samples, and no ten million tokens: a look, not a result.
    #[arg(long, conflicts_with = "full")]
    quick: bool,
    /// Everything: more samples, and the alternatives.
    #[arg(long)]
    full: bool,
    /// Measure the alternatives as well: a Flask server with SQLite, PostgreSQL with pgcrypto.
    #[arg(long)]
    alternatives: bool,
}

impl Options {
    /// The daemon's program.
    pub(crate) fn vaultd(&self) -> Result<PathBuf> {
        match &self.vaultd {
            Some(path) => std::path::absolute(path).context("the path of --vaultd"),
            None => Ok(std::env::current_exe().context("finding this program")?.with_file_name("vaultd")),
        }
    }

    /// Whether `side` is to be measured.
    pub(crate) fn wants(&self, side: Side) -> bool {
        if !self.only.is_empty() {
            return self.only.contains(&side);
        }
        match side {
            Side::Alternatives => self.depth.alternatives || self.depth.full,
            Side::Restarts => !self.depth.quick,
            _ => true,
        }
    }

    /// Tokens in the store before the samples.
    pub(crate) fn records(&self) -> u64 {
        self.records.unwrap_or(if self.depth.quick { 100_000 } else { 1_000_000 })
    }

    /// How long a sample takes.
    pub(crate) fn time(&self) -> Duration {
        self.seconds.unwrap_or(Duration::from_millis(if self.depth.quick { 200 } else { 500 }))
    }

    /// Samples of each side.
    pub(crate) fn samples(&self) -> u32 {
        self.samples.unwrap_or(self.pick(5, 9, 15))
    }

    /// Samples of what is not a line of the budget but a point of a curve.
    pub(crate) fn samples_of_curves(&self) -> u32 {
        self.pick(1, 3, 5)
    }

    /// One of the three, as deep as the run is.
    pub(crate) fn pick<T>(&self, quick: T, usual: T, full: T) -> T {
        match (self.depth.quick, self.depth.full) {
            (true, _) => quick,
            (_, true) => full,
            _ => usual,
        }
    }
}

/// Tenths of a second to minutes: shorter samples are noise, longer ones are no samples.
fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| (Duration::from_millis(100)..=Duration::from_mins(10)).contains(time))
        .ok_or_else(|| "0.1 to 600 seconds".to_owned())
}
