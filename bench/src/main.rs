//! `bench`: how close vaultd comes to what the machine can do.
//!
//! One run starts the real daemon and, beside it, each of its parts alone (an empty handler, bare redb, bare
//! PKCS#11 calls), samples all of them in turn and prints one table of ratios. [`run`] is the plan; each
//! module says what its figures mean.
#![forbid(unsafe_code)]

mod ceiling;
mod connection;
mod cpu;
mod fill;
mod goal;
mod load;
mod machine;
mod number;
mod oha;
mod options;
mod payload;
mod plot;
mod process;
mod report;
mod rival;
mod run;
mod side;
mod slow;
mod stage;
mod subjects;
mod vault;

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

use crate::{
    ceiling::{empty_handler, hsm},
    options::Options,
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
    /// Many tokens, without a daemon.
    #[command(name = fill::SUBCOMMAND, hide = true)]
    Fill(fill::Fill),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.helper {
        Some(HelperCommand::EmptyHandler { socket }) => empty_handler::serve(&socket),
        Some(HelperCommand::Hsm { module }) => hsm::serve(&module),
        Some(HelperCommand::Fill(fill)) => fill.run(),
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
    let dir = report.save(&options.out)?;
    plot::draw(&findings, &dir).context("drawing")?;
    writeln!(io::stdout(), "\nall samples and plots: {}", dir.display()).context("printing the table")
}
