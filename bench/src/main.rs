//! `bench`: how close vaultd comes to what the machine can do.
//!
//! One run starts the real daemon and, beside it, each of its parts alone (an empty handler, bare redb, bare
//! PKCS#11 calls), samples all of them in turn and prints one table of ratios. [`run`] is the plan; each
//! module says what its figures mean.
#![forbid(unsafe_code)]

mod ceiling;
mod connection;
mod cpu;
mod goal;
mod load;
mod machine;
mod number;
mod oha;
mod payload;
mod process;
mod report;
mod rotation;
mod run;
mod slow;
mod vault;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::{
    ceiling::{empty_handler, hsm},
    run::Side,
};

/// Measures vaultd against its ceilings and prints one table of ratios.
#[derive(Debug, Parser)]
#[command(name = "bench", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(flatten)]
    options: Options,
    #[command(subcommand)]
    helper: Option<HelperCommand>,
}

/// What a run can be told.
#[derive(Debug, clap::Args)]
struct Options {
    /// The daemon; `vaultd` beside this program if left out.
    #[arg(long, value_name = "PATH")]
    vaultd: Option<PathBuf>,
    /// SoftHSM2's PKCS#11 module, for the raw HSM rates; looked for in the usual places if left out.
    #[arg(long, value_name = "PATH")]
    module: Option<PathBuf>,
    /// Where results go, and the data during the run; on a disk, not in memory.
    #[arg(long, value_name = "DIR", default_value = "bench/out")]
    out: PathBuf,
    /// Tokens in the store (and records in the redb beside it) before the samples; the final goal wants
    /// 1000000.
    #[arg(long, value_name = "N", default_value_t = 500_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1_000..))]
    records: u64,
    /// The vault's page cache (`store.cache_mib`): the redb beside it has its default, which is more.
    #[arg(long, value_name = "N", default_value_t = 256)]
    cache_mib: u64,
    /// Length of a sample: 0.5, or 0.2 with --quick.
    #[arg(long, value_parser = seconds, value_name = "S")]
    seconds: Option<Duration>,
    /// Samples of each side, of which the median counts: 9, or 5 with --quick.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// Fewer and shorter samples: a look, not a result.
    #[arg(long)]
    quick: bool,
    /// Seed of card numbers and choices; from the clock if left out.
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Measure these sides only, and start nothing else: for comparing two builds.
    #[arg(long, value_name = "SIDE", value_delimiter = ',')]
    only: Vec<Side>,
    /// Have oha (from PATH or target/tools/bin) measure detokenize as well.
    #[arg(long)]
    oha: bool,
}

/// What this program runs itself as.
#[derive(Debug, Subcommand)]
enum HelperCommand {
    /// The empty axum handler.
    #[command(name = empty_handler::SUBCOMMAND, hide = true)]
    EmptyHandler {
        #[arg(long)]
        socket: PathBuf,
    },
    /// Bare PKCS#11 calls.
    #[command(name = hsm::SUBCOMMAND, hide = true)]
    Hsm {
        #[arg(long)]
        module: PathBuf,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.helper {
        Some(HelperCommand::EmptyHandler { socket }) => empty_handler::serve(&socket),
        Some(HelperCommand::Hsm { module }) => hsm::serve(&module),
        None => bench(&cli.options),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If stderr is gone, the exit status still says it.
            let _ = writeln!(io::stderr(), "bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn bench(options: &Options) -> Result<()> {
    let seed = match options.seed {
        Some(seed) => seed,
        None => SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs(),
    };
    let findings = run::run(options, seed)?;
    let report = report::Report::new(&findings, options, seed);
    report.print(&mut io::stdout().lock()).context("printing the table")?;
    let file = report.save(&options.out)?;
    writeln!(io::stdout(), "\nall samples: {}", file.display()).context("printing the table")
}

impl Options {
    fn vaultd(&self) -> Result<PathBuf> {
        match &self.vaultd {
            Some(path) => std::path::absolute(path).context("the path of --vaultd"),
            None => Ok(std::env::current_exe().context("finding this program")?.with_file_name("vaultd")),
        }
    }

    fn time(&self) -> Duration {
        self.seconds.unwrap_or(if self.quick {
            Duration::from_millis(200)
        } else {
            Duration::from_millis(500)
        })
    }

    /// Whether `side` is to be measured.
    fn wants(&self, side: Side) -> bool {
        self.only.is_empty() || self.only.contains(&side)
    }

    fn samples(&self) -> u32 {
        self.samples.unwrap_or(if self.quick { 5 } else { 9 })
    }
}

/// Tenths of a second to minutes: shorter samples are noise, longer ones are no samples.
fn seconds(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    time.filter(|time| (Duration::from_millis(100)..=Duration::from_mins(10)).contains(time))
        .ok_or_else(|| "0.1 to 600 seconds".to_owned())
}
