//! `vaultctl completions` and `man`: made from the command line's own description.

use std::path::PathBuf;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use crate::{arguments::Arguments, complaint::Complaint, output::Output};

const COMPLETION_EXAMPLES: &str = "\
Examples:
  source <(vaultctl completions bash)
  vaultctl completions zsh > ~/.zfunc/_vaultctl";

/// Options of `completions`.
#[derive(Args)]
#[command(after_help = COMPLETION_EXAMPLES)]
pub(crate) struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> Result<(), Complaint> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Arguments::command(), "vaultctl", &mut script);
        Output::new(false)?.bytes(&script)
    }
}

/// Options of `man`.
#[derive(Args)]
pub(crate) struct Man {
    /// The directory; made if it does not exist
    dir: PathBuf,
}

impl Man {
    pub(crate) fn run(self) -> Result<(), Complaint> {
        let failed = |error| Complaint::file("write", &self.dir, &error);
        std::fs::create_dir_all(&self.dir).map_err(failed)?;
        clap_mangen::generate_to(Arguments::command(), &self.dir).map_err(failed)
    }
}
