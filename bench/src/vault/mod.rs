//! The process under test: the real `vaultd serve` on a development vault that is thrown away.

mod kept;
mod place;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read},
    process::Child,
    sync::mpsc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use vault_api::LoginAnswer;

pub(crate) use self::{
    kept::Kept,
    place::{Place, StoreSize},
};
use crate::{
    connection::Target,
    load::{Load, Route},
    process::{READY, terminate},
};

/// A running vault.
#[derive(Debug)]
pub(crate) struct Vault {
    child: Child,
    place: Place,
    ready: mpsc::Receiver<()>,
}

impl Vault {
    /// The daemon that was started as `child` a moment ago.
    fn new(mut child: Child, place: Place) -> Result<Self> {
        let ready = watch_for_ready(child.stdout.take().context("a daemon without stdout")?);
        Ok(Self { child, place, ready })
    }

    /// Waits until it serves.
    fn wait_until_ready(self) -> Result<Self> {
        let why = match self.ready.recv_timeout(START_PATIENCE) {
            Ok(()) => return Ok(self),
            Err(mpsc::RecvTimeoutError::Timeout) => anyhow!("vaultd was not ready within {START_PATIENCE:?}"),
            Err(mpsc::RecvTimeoutError::Disconnected) => anyhow!("vaultd ended before it was ready"),
        };
        // A failure drops the vault, which ends the process.
        Err(self.explain(why))
    }

    /// Its socket, and the JWT that may do everything.
    pub(crate) fn target(&self) -> Result<Target> {
        let jwt = fs::read_to_string(self.place.dir().join("token.jwt")).context("reading token.jwt")?;
        Ok(Target { socket: self.place.socket(), jwt: Some(jwt.trim().to_owned()) })
    }

    /// Its admin socket, and the same JWT.
    pub(crate) fn admin(&self) -> Result<Target> {
        Ok(Target { socket: self.place.dir().join("admin.sock"), ..self.target()? })
    }

    /// Its socket, and the JWT of a tenant that has no tokens.
    pub(crate) fn stranger(&self, load: &Load) -> Result<Target> {
        let socket = self.place.socket();
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

    /// Ends the daemon, which must leave with 0.
    pub(crate) fn stop(mut self) -> Result<Place> {
        let status = terminate(&mut self.child)?;
        if !status.success() {
            return Err(self.explain(anyhow!("vaultd ended with {status} after SIGTERM")));
        }
        Ok(self.place.clone())
    }

    /// Kills the daemon, as a power cut does, and does not wait.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("killing vaultd")
    }

    /// `error`, followed by the end of the daemon's log.
    pub(crate) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        let log = fs::read_to_string(self.place.log()).unwrap_or_default();
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

/// Reads the output for ever, so that the daemon never waits for a reader, and tells of the line that says it serves.
fn watch_for_ready(stdout: impl Read + Send + 'static) -> mpsc::Receiver<()> {
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            if line.starts_with(READY) {
                // Nobody listens any more when the wait was given up.
                let _ = ready.send(());
            }
        }
    });
    is_ready
}

const LOGIN: Route = Route { path: "/v1/login", expected: 200, connections: 1 };
/// Making a token and an issuer's key pair takes a second or two.
const START_PATIENCE: Duration = Duration::from_mins(1);
/// How much of the log an error shows.
const LOG_LINES: usize = 15;
