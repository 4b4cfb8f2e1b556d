//! PostgreSQL with pgcrypto, asked by its own pgbench.

use std::{
    fs::{self, File},
    os::unix::{fs::chown, process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use nix::unistd::{User, geteuid};
use tempfile::TempDir;

use super::{Guarded, Rival, What, find, text};
use crate::{load::Load, run::say, side::CONNECTIONS};

/// A cluster of its own on a Unix socket, with every commit on the disk.
#[derive(Debug)]
pub(crate) struct Postgres {
    programs: Programs,
    records: u64,
    /// Ends before its directory is removed.
    _server: Guarded,
    dir: TempDir,
}

#[derive(Debug)]
struct Programs {
    initdb: PathBuf,
    postgres: PathBuf,
    psql: PathBuf,
    pgbench: PathBuf,
    /// Who runs them: PostgreSQL refuses root.
    user: Option<User>,
}

impl Postgres {
    /// Starts it with `records` tokens; none if it is not installed.
    pub(crate) fn start(records: u64) -> Result<Option<Self>> {
        let Some(programs) = Programs::find()? else { return Ok(None) };
        say(&format!("filling PostgreSQL with {records} tokens"))?;
        // Not below the results: the user who runs it may not see those. A disk, unlike /tmp.
        let dir = tempfile::Builder::new().prefix("vault-bench-").tempdir_in("/var/tmp")?;
        if let Some(user) = &programs.user {
            chown(dir.path(), Some(user.uid.as_raw()), Some(user.gid.as_raw()))?;
        }
        for (name, script) in SCRIPTS {
            fs::write(dir.path().join(name), script).with_context(|| format!("writing {name}"))?;
        }
        let data = text(&dir.path().join("data"));
        let made = programs.run(&programs.initdb, dir.path(), &["-D", &data, "-A", "trust", "-U", USER]);
        made.context("making a cluster")?;
        let mut server = programs.command(&programs.postgres, dir.path());
        server.args(["-D", &data, "-k", &text(dir.path()), "-c", "listen_addresses="]);
        server.args(["-c", "shared_buffers=256MB", "-c", "max_wal_size=4GB", "-c", "max_connections=200"]);
        let log = File::create(dir.path().join("log"))?;
        let server = server.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn();
        let server = Guarded(server.context("starting PostgreSQL")?);
        let postgres = Self { programs, records, _server: server, dir };
        postgres.wait()?;
        let records = format!("records={records}");
        postgres.psql(&[
            "-v",
            &records,
            "-v",
            &format!("mac={MAC}"),
            "-v",
            &format!("aes={AES}"),
            "-f",
            SETUP,
        ])?;
        Ok(Some(postgres))
    }

    /// Until it answers.
    fn wait(&self) -> Result<()> {
        let begin = Instant::now();
        while let Err(error) = self.psql(&["-c", "SELECT 1"]) {
            if begin.elapsed() > PATIENCE {
                return Err(error.context("PostgreSQL does not answer"));
            }
            sleep(POLL);
        }
        Ok(())
    }

    fn psql(&self, arguments: &[&str]) -> Result<()> {
        let host = text(self.dir.path());
        let mut all = vec!["-h", &host, "-U", USER, "-X", "-q", "-v", "ON_ERROR_STOP=1"];
        all.extend(arguments);
        self.programs.run(&self.programs.psql, self.dir.path(), &all).map(drop)
    }
}

impl Rival for Postgres {
    fn sample(&mut self, load: &Load, what: What, time: Duration) -> Result<f64> {
        load.check_interrupt()?;
        let (script, host) = (what.script(), text(self.dir.path()));
        // It knows whole seconds only.
        let seconds = time.as_secs().max(1).to_string();
        let (clients, records) = (CONNECTIONS.to_string(), format!("records={}", self.records));
        let arguments = [
            "-h",
            &host,
            "-U",
            USER,
            "-n",
            "-M",
            "prepared",
            "-c",
            &clients,
            "-j",
            "2",
            "-T",
            &seconds,
            "-D",
            &records,
            "-D",
            &format!("mac={MAC}"),
            "-D",
            &format!("aes={AES}"),
            "-f",
            script,
            "postgres",
        ];
        let output = self.programs.run(&self.programs.pgbench, self.dir.path(), &arguments)?;
        let output = String::from_utf8(output.stdout).context("pgbench's words")?;
        let rate =
            output.lines().find_map(|line| line.strip_prefix("tps = ")?.split(' ').next()?.parse().ok());
        rate.with_context(|| format!("pgbench said no rate: {output}"))
    }
}

impl What {
    fn script(self) -> &'static str {
        match self {
            Self::New => "new.sql",
            Self::Known => "seen.sql",
            Self::Read => "read.sql",
        }
    }
}

impl Programs {
    /// All of them, or none.
    fn find() -> Result<Option<Self>> {
        let find = |name| find(name, installed());
        let (Some(initdb), Some(postgres), Some(psql), Some(pgbench)) =
            (find("initdb"), find("postgres"), find("psql"), find("pgbench"))
        else {
            return Ok(None);
        };
        let mut user = None;
        if geteuid().is_root() {
            user = User::from_name(USER)?.or(User::from_name("nobody")?);
            ensure!(user.is_some(), "there is no user for PostgreSQL");
        }
        Ok(Some(Self { initdb, postgres, psql, pgbench, user }))
    }

    fn command(&self, program: &Path, dir: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(dir).env("LC_ALL", "C");
        if let Some(user) = &self.user {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }

    fn run(&self, program: &Path, dir: &Path, arguments: &[&str]) -> Result<Output> {
        let output = self.command(program, dir).args(arguments).stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("starting {}", program.display()))?;
        if !output.status.success() {
            bail!(
                "{} ended with {}: {}",
                program.display(),
                output.status,
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output)
    }
}

/// Where Debian puts what is not for users' paths, the newest first.
fn installed() -> Vec<PathBuf> {
    let mut versions: Vec<_> = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten().collect();
    versions.sort_by_key(|entry| std::cmp::Reverse(entry.file_name()));
    versions.into_iter().map(|entry| entry.path().join("bin")).collect()
}

const SETUP: &str = "setup.sql";
const SCRIPTS: [(&str, &str); 4] = [
    (SETUP, include_str!("../../alternatives/pgcrypto.sql")),
    ("new.sql", include_str!("../../alternatives/pgbench_new.sql")),
    ("seen.sql", include_str!("../../alternatives/pgbench_seen.sql")),
    ("read.sql", include_str!("../../alternatives/pgbench_read.sql")),
];
/// Its administrator, and the system's user if there is one.
const USER: &str = "postgres";
/// Keys of a cluster that is thrown away: 32 bytes each, as text.
const MAC: &str = "a_key_for_fingerprints__32_bytes";
const AES: &str = "a_key_for_ciphertexts___32_bytes";
const PATIENCE: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(100);
