//! The directory of a vault, whether it runs or not.

use std::{
    ffi::OsStr,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use ::redb::Database;
use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use super::Vault;
use crate::{
    fill::{Fill, read_tokens},
    process::terminate,
};

/// The directory, and the program that made it.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    program: PathBuf,
    dir: PathBuf,
}

/// How much disk a store took, in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct StoreSize {
    /// As the vault left it.
    pub(crate) closed: u64,
    /// After redb has compacted it.
    pub(crate) compacted: u64,
}

impl Place {
    /// Makes a vault with `program` in the new directory `name` in `dir`, with what `change` makes of its configuration.
    pub(crate) fn make(
        program: &Path,
        dir: &Path,
        name: &str,
        change: impl FnOnce(String) -> Result<String>,
    ) -> Result<Self> {
        let place = Self::at(program, &dir.join(name))?;
        place.make_with_dev()?;
        let text = fs::read_to_string(place.config()).context("reading vaultd.toml")?;
        fs::write(place.config(), change(text)?).context("writing vaultd.toml")?;
        Ok(place)
    }

    /// What is, or will be, in `dir`.
    pub(super) fn at(program: &Path, dir: &Path) -> Result<Self> {
        ensure!(program.exists(), "{} is missing: build it, or give --vaultd", program.display());
        let place = Self { program: program.to_owned(), dir: dir.to_owned() };
        let socket = place.socket();
        ensure!(
            socket.as_os_str().len() <= MAX_SOCKET_PATH,
            "{} is too long for a Unix socket: give a shorter --out",
            socket.display()
        );
        Ok(place)
    }

    /// Has `vaultd dev` make what is missing: everything at first, and always a JWT that is valid for a week.
    pub(super) fn make_with_dev(&self) -> Result<()> {
        let arguments = ["dev".as_ref(), "--dir".as_ref(), self.dir.as_os_str()];
        let mut made = self.spawn(&self.program, &arguments)?.wait_until_ready()?;
        terminate(&mut made.child).map(drop)
    }

    /// Its directory.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The socket of its API.
    pub(super) fn socket(&self) -> PathBuf {
        self.dir.join("vaultd.sock")
    }

    /// The daemon's log, beside the directory.
    pub(super) fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    fn config(&self) -> PathBuf {
        self.dir.join("vaultd.toml")
    }

    /// Gives it the first `records` PANs of the deck of `seed`, while it does not run: every `every`th token.
    pub(crate) fn fill(&self, seed: u64, records: u64, every: u64) -> Result<Vec<String>> {
        let tokens = self.dir.join("tokens");
        Fill { config: self.config(), seed, records, tokens: tokens.clone(), every }.in_child()?;
        read_tokens(&tokens)
    }

    /// Starts it, and waits until it serves.
    pub(crate) fn serve(&self) -> Result<Vault> {
        self.launch()?.wait_until_ready()
    }

    /// As [`Place::serve`], with another `server` than `vaultd`.
    pub(crate) fn serve_with(&self, server: &Path) -> Result<Vault> {
        ensure!(server.exists(), "{} is missing: `cargo build --release -p vault-bench`", server.display());
        self.spawn_server(server)?.wait_until_ready()
    }

    /// Starts it, and does not wait.
    pub(crate) fn launch(&self) -> Result<Vault> {
        self.spawn_server(&self.program)
    }

    fn spawn_server(&self, server: &Path) -> Result<Vault> {
        self.spawn(server, &["serve".as_ref(), "--config".as_ref(), self.config().as_os_str()])
    }

    fn spawn(&self, program: &Path, arguments: &[&OsStr]) -> Result<Vault> {
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(self.log()).context("making the daemon's log")?)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        Vault::new(child, self.clone())
    }

    /// Compacts the store of a vault that does not run.
    pub(crate) fn compact(&self) -> Result<StoreSize> {
        let store = self.dir.join("store");
        let closed = size(&store)?;
        for entry in fs::read_dir(&store)? {
            let path = entry?.path();
            if path.extension() != Some("redb".as_ref()) {
                continue;
            }
            let mut database =
                Database::open(&path).with_context(|| format!("opening {} to compact it", path.display()))?;
            while database.compact()? {}
        }
        Ok(StoreSize { closed, compacted: size(&store)? })
    }
}

/// Bytes of the files in `dir`.
fn size(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(dir).with_context(|| format!("measuring {}", dir.display()))? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() { size(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(bytes)
}

/// `sun_path` of unix(7), without the zero at its end.
const MAX_SOCKET_PATH: usize = 107;
