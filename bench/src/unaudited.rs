//! `vaultd-unaudited`: `vaultd serve` without an audit log, to measure what the log costs. Never to be shipped.
#![forbid(unsafe_code)]

use std::{
    io::{self, Write as _},
    path::PathBuf,
};

use anyhow::Result;
use clap::Parser;
use mimalloc::MiMalloc;
use vaultd::{
    command::serve_unaudited,
    sandbox::{exit_without_handlers, make_files_private},
};
use zeroizing_alloc::ZeroAlloc;

/// As in `vaultd`: it would be faster without.
#[global_allocator]
static ALLOCATOR: ZeroAlloc<MiMalloc> = ZeroAlloc(MiMalloc);

/// The vault without its audit log, for the bench.
#[derive(Debug, Parser)]
struct Cli {
    /// `serve`, as `vaultd` has it.
    command: String,
    #[arg(long)]
    config: PathBuf,
}

fn main() -> Result<()> {
    make_files_private();
    let cli = Cli::parse();
    anyhow::ensure!(cli.command == "serve", "it serves and nothing else");
    let served = serve_unaudited(&cli.config);
    if let Err(error) = &served {
        // If stderr is gone, the exit status still says it.
        let _ = writeln!(io::stderr(), "vaultd-unaudited: {error}");
    }
    exit_without_handlers(i32::from(served.is_err()))
}
