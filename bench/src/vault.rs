//! The process under test: the real `vaultd serve` on a development vault that is thrown away.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use ::redb::Database;
use anyhow::{Context as _, Result, anyhow, bail, ensure};
use vault_api::{BatchAnswer, LoginAnswer, TokenizeAnswer};

use crate::{
    connection::Target,
    load::{Load, Route},
    payload::{self, BATCH, Pans},
    process::{READY, terminate},
};

/// A running vault.
#[derive(Debug)]
pub(crate) struct Vault {
    child: Child,
    dir: PathBuf,
    log: PathBuf,
}

/// How much disk a store took, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StoreSize {
    /// As the vault left it.
    pub(crate) closed: u64,
    /// After redb has compacted it.
    pub(crate) compacted: u64,
}

impl Vault {
    /// Makes a vault with `program` in the new directory `name` in `dir`, starts it with what `change` makes of its
    /// configuration, and waits until it serves.
    pub(crate) fn start(
        program: &Path,
        dir: &Path,
        name: &str,
        change: impl FnOnce(String) -> Result<String>,
    ) -> Result<Self> {
        Self::start_as(program, program, dir, name, change)
    }

    /// As [`Vault::start`], but `server` serves what `program` has made.
    pub(crate) fn start_as(
        program: &Path,
        server: &Path,
        dir: &Path,
        name: &str,
        change: impl FnOnce(String) -> Result<String>,
    ) -> Result<Self> {
        ensure!(server.exists(), "{} is missing: `cargo build --release -p vault-bench`", server.display());
        ensure!(program.exists(), "{} is missing: build it, or give --vaultd", program.display());
        let (dir, log) = (dir.join(name), dir.join(format!("{name}.log")));
        let socket = dir.join("vaultd.sock");
        ensure!(
            socket.as_os_str().len() <= MAX_SOCKET_PATH,
            "{} is too long for a Unix socket: give a shorter --out",
            socket.display()
        );
        let mut made =
            Self::spawn(program, &["dev".as_ref(), "--dir".as_ref(), dir.as_os_str()], &dir, &log)?;
        terminate(&mut made.child)?;
        let config = dir.join("vaultd.toml");
        let text = fs::read_to_string(&config).context("reading vaultd.toml")?;
        fs::write(&config, change(text)?).context("writing vaultd.toml")?;
        Self::spawn(server, &["serve".as_ref(), "--config".as_ref(), config.as_os_str()], &dir, &log)
    }

    fn spawn(program: &Path, arguments: &[&OsStr], dir: &Path, log: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(File::create(log).context("making the daemon's log")?)
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let stdout = child.stdout.take().context("a daemon without stdout")?;
        let vault = Self { child, dir: dir.to_owned(), log: log.to_owned() };
        // From here on a failure drops `vault`, which ends the process.
        wait_until_ready(stdout).map_err(|error| vault.explain(error))?;
        Ok(vault)
    }

    /// Its socket, and the JWT that may do everything.
    pub(crate) fn target(&self) -> Result<Target> {
        let jwt = fs::read_to_string(self.dir.join("token.jwt")).context("reading token.jwt")?;
        Ok(Target { socket: self.dir.join("vaultd.sock"), jwt: Some(jwt.trim().to_owned()) })
    }

    /// Its admin socket, and the same JWT.
    pub(crate) fn admin(&self) -> Result<Target> {
        Ok(Target { socket: self.dir.join("admin.sock"), ..self.target()? })
    }

    /// Its socket, and the JWT of a tenant that has no tokens.
    pub(crate) fn stranger(&self, load: &Load) -> Result<Target> {
        let socket = self.dir.join("vaultd.sock");
        let target = Target { socket: socket.clone(), jwt: None };
        let mut jwt = None;
        let body = |buffer: &mut Vec<u8>| buffer.extend_from_slice(br#"{"client":"stranger"}"#);
        load.post_each(&target, LOGIN, 1, body, |answer| {
            let answer: LoginAnswer =
                serde_json::from_slice(answer).context("reading the answer of a login")?;
            jwt = Some(answer.access_token.expose().to_owned());
            Ok(())
        })?;
        Ok(Target { socket, jwt })
    }

    /// Makes `records` tokens, and gives them.
    pub(crate) fn fill(&self, load: &Load, pans: &Arc<Pans>, records: u64) -> Result<Vec<String>> {
        let mut tokens = Vec::new();
        let body = payload::tokenize_batch(pans);
        load.post_each(&self.target()?, TOKENIZE_BATCH, records.div_ceil(BATCH), body, |answer| {
            let answer: BatchAnswer<TokenizeAnswer> =
                serde_json::from_slice(answer).context("reading the answer of a batch")?;
            let made: Result<Vec<_>, _> =
                answer.results.into_iter().map(vault_api::BatchItem::into_result).collect();
            let made = made.map_err(|error| anyhow!("an item of a batch failed: {}", error.code))?;
            ensure!(made.iter().all(|item| item.created), "the vault takes a new PAN for one it knows");
            tokens.extend(made.into_iter().map(|item| item.token));
            Ok(())
        })?;
        Ok(tokens)
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in bytes.
    pub(crate) fn resident(&self) -> Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .context("reading the daemon's memory")?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: u64 = line.trim().trim_end_matches(" kB").parse().context("parsing VmRSS")?;
        Ok(kibibytes * 1024)
    }

    /// Ends the daemon, which must leave with 0, and measures what it left on the disk.
    pub(crate) fn stop(mut self) -> Result<StoreSize> {
        let status = terminate(&mut self.child)?;
        if !status.success() {
            return Err(self.explain(anyhow!("vaultd ended with {status} after SIGTERM")));
        }
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

    /// `error`, followed by the end of the daemon's log.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n  ");
        if tail.is_empty() { error } else { anyhow!("{error:#}\nthe daemon's log ends with\n  {tail}") }
    }
}

impl Drop for Vault {
    fn drop(&mut self) {
        // There is nobody left to tell; `terminate` has killed what would not end.
        let _ = terminate(&mut self.child);
    }
}

/// Waits for the line that says so, and reads the rest of the output for ever: the daemon must never wait for
/// a reader.
fn wait_until_ready(stdout: impl Read + Send + 'static) -> Result<()> {
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        // To the end of the output, so that the daemon never waits for a reader.
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with(READY) {
                // Nobody listens any more when the wait was given up.
                let _ = ready.send(());
            }
        }
    });
    match is_ready.recv_timeout(START_PATIENCE) {
        Ok(()) => Ok(()),
        Err(mpsc::RecvTimeoutError::Timeout) => bail!("vaultd was not ready within {START_PATIENCE:?}"),
        Err(mpsc::RecvTimeoutError::Disconnected) => bail!("vaultd ended before it was ready"),
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

/// Batches of new PANs.
pub(crate) const TOKENIZE_BATCH: Route = Route { path: "/v1/tokenize/batch", expected: 200, connections: 1 };
const LOGIN: Route = Route { path: "/v1/login", expected: 200, connections: 1 };
/// `sun_path` of unix(7), without the zero at its end.
const MAX_SOCKET_PATH: usize = 107;
/// Making a token and an issuer's key pair takes a second or two.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// How much of the log an error shows.
const LOG_LINES: usize = 15;
