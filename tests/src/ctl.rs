//! The real `vaultctl`, as an operator or a script runs it.

use std::{
    io::{Read, Write},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc::{self, RecvTimeoutError, Sender},
    time::Duration,
};

use serde_json::Value;

use crate::{
    Vault,
    vault::{built, signal},
};

const PATIENCE: Duration = Duration::from_mins(1);

/// One run of `vaultctl` to its end.
#[derive(Debug)]
pub struct Ran {
    /// The exit status; none if a signal ended it.
    pub status: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl Ran {
    /// Standard output of a run that succeeded and said nothing else.
    pub fn out(&self) -> &str {
        assert_eq!((self.status, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }

    /// The JSON on standard output of a run that succeeded.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.out()).unwrap()
    }

    /// The one line on standard error of a run that failed with `status`.
    pub fn complaint(&self, status: i32) -> &str {
        assert_eq!(self.status, Some(status), "{self:?}");
        assert!(self.stderr.starts_with("vaultctl: ") && self.stderr.lines().count() == 1, "{self:?}");
        &self.stderr
    }
}

impl Vault {
    /// Runs `vaultctl` on this vault with the words of `line` and `input` on standard input; it has no token.
    pub fn ctl(&self, line: &str, input: &str) -> Ran {
        finish(self.ctl_command().args(line.split_whitespace()), input)
    }

    /// Such a `vaultctl`, not yet started and without arguments.
    pub fn ctl_command(&self) -> Command {
        let mut command = Command::new(built("vaultctl"));
        for name in ["VAULT_TOKEN", "VAULT_TOKEN_FILE", "VAULT_ADMIN_SOCKET", "VAULT_APPROVAL"] {
            command.env_remove(name);
        }
        command.env("VAULT_SOCKET", self.socket());
        command
    }
}

/// Starts `command`, feeds it `input` and waits. One that hangs is killed after a minute.
pub fn finish(command: &mut Command, input: &str) -> Ran {
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_owned());
    // In a thread of its own, for a child that writes before it has read everything. One that reads nothing closes.
    std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let Output { status, stdout, stderr } = to_the_end(child, &format!("{command:?}"));
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { status: status.code(), stdout: text(stdout), stderr: text(stderr) }
}

/// Has a child killed after a minute: what it writes then ends, and whoever reads that does not wait for ever.
///
/// To be dropped when the child was waited for: another process may have its number one day.
#[derive(Debug)]
pub struct Limit {
    _end: Sender<()>,
}

impl Limit {
    /// For `child`, from now on.
    pub fn on(child: &Child) -> Self {
        let (pid, (end, is_over)) = (child.id(), mpsc::channel());
        std::thread::spawn(move || {
            if is_over.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                signal(pid, "KILL");
            }
        });
        Self { _end: end }
    }
}

/// Waits for `child` to end and gives back what it wrote. One that hangs is killed after a minute.
pub(crate) fn to_the_end(mut child: Child, name: &str) -> Output {
    let mut streams = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (done, is_done) = mpsc::channel();
    std::thread::spawn(move || {
        let stderr = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let _ = streams.1.read_to_end(&mut bytes);
            bytes
        });
        let mut stdout = Vec::new();
        let _ = streams.0.read_to_end(&mut stdout);
        let _ = done.send((stdout, stderr.join().unwrap_or_default()));
    });
    let Ok((stdout, stderr)) = is_done.recv_timeout(PATIENCE) else {
        let _ = child.kill();
        panic!("{name} does not end");
    };
    let status = child.wait().unwrap_or_else(|_| ExitStatus::from_raw(1));
    Output { status, stdout, stderr }
}
