//! `vaultd manual`: man pages and completion scripts, made from the command line's own description.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use clap_complete::Shell;

/// Writes `vaultd.1` with a page for each command, and `vaultd.bash`, `_vaultd` and `vaultd.fish`, into `dir`.
///
/// # Errors
/// The file system's.
pub(crate) fn write(program: &mut clap::Command, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(program.clone(), dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = File::create(dir.join(clap_complete::Generator::file_name(&shell, "vaultd")))?;
        clap_complete::generate(shell, program, "vaultd", &mut script);
    }
    Ok(())
}
