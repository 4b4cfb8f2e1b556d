//! Child processes that end when the bench does.

use std::{
    ffi::OsStr,
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// The line with which a child says that it is ready.
pub(crate) const READY: &str = "ready";

/// This program again, as one of its hidden subcommands: it says [`READY`] on stdout, answers the lines it
/// gets on stdin, and leaves when stdin ends, which also happens if the bench dies.
#[derive(Debug)]
pub(crate) struct Helper {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Helper {
    /// Starts `subcommand` with `option value` and the environment `variables`, and waits until it is ready.
    pub(crate) fn start(
        subcommand: &str,
        option: (&str, &Path),
        variables: &[(&str, &OsStr)],
    ) -> Result<Self> {
        let program = std::env::current_exe().context("finding this program")?;
        let mut child = Command::new(program)
            .arg(subcommand)
            .arg(option.0)
            .arg(option.1)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {subcommand}"))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().context("a child without stdout")?);
        let mut helper = Self { child, stdin, stdout };
        let line = helper.line().with_context(|| format!("waiting for {subcommand}"))?;
        if line != READY {
            bail!("{subcommand} said {line:?} where {READY:?} is right");
        }
        Ok(helper)
    }

    /// Sends `question` and waits for the answer, one line each.
    pub(crate) fn ask(&mut self, question: &str) -> Result<String> {
        let stdin = self.stdin.as_mut().context("the helper was ended")?;
        writeln!(stdin, "{question}").context("asking a helper")?;
        self.line()
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line).context("listening to a helper")? == 0 {
            bail!("the helper ended; its reason is above");
        }
        line.truncate(line.trim_end().len());
        Ok(line)
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        self.stdin = None;
        if !matches!(wait(&mut self.child), Ok(Some(_))) {
            kill_now(&mut self.child);
        }
    }
}

/// Asks `child` to end with SIGTERM and waits for it; kills it if it takes too long.
pub(crate) fn terminate(child: &mut Child) -> Result<ExitStatus> {
    if let Some(status) = child.try_wait()? {
        return Ok(status);
    }
    let pid = Pid::from_raw(i32::try_from(child.id()).context("a process id out of range")?);
    kill(pid, Signal::SIGTERM).context("sending SIGTERM")?;
    if let Some(status) = wait(child)? {
        return Ok(status);
    }
    kill_now(child);
    bail!("process {pid} did not end within {PATIENCE:?} of SIGTERM and was killed");
}

/// Waits for the end of `child`, but not for ever.
fn wait(child: &mut Child) -> Result<Option<ExitStatus>> {
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("waiting for a child")? {
            return Ok(Some(status));
        }
        sleep(POLL);
    }
    Ok(None)
}

fn kill_now(child: &mut Child) {
    // Both fail only if the child is gone, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// How long a child may take to end: a store of many gigabytes needs a moment to close.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often a child that ends is looked at.
const POLL: Duration = Duration::from_millis(5);
