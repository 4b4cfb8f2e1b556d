//! Questions on a terminal whose answers are not shown.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
};

use nix::sys::{
    signal::{SigSet, Signal},
    signalfd::{SfdFlags, SignalFd},
    termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr},
};
use vault_client::Sensitive;
use zeroize::Zeroizing;

use crate::interrupt::end_comes_first;

/// No secret is longer.
const MAX_ANSWER_BYTES: usize = 256;

const CTRL_C: u8 = 0x03;
const CTRL_D: u8 = 0x04;
const BACKSPACE: u8 = 0x08;
const CTRL_U: u8 = 0x15;
const DELETE: u8 = 0x7f;

/// The terminal without echo, for as long as this lives and not only while an answer is awaited: what is typed or pasted
/// ahead is not shown either. A signal ends the process after the echo is back.
pub(crate) struct Terminal {
    tty: File,
    before: Termios,
    arrived: SignalFd,
}

impl Terminal {
    /// The terminal that the process belongs to. To be called before there are other threads, which would take the signals.
    pub(crate) fn open() -> io::Result<Self> {
        let tty = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
        let before = tcgetattr(&tty)?;
        let arrived = SignalFd::with_flags(&signals(), SfdFlags::SFD_CLOEXEC)?;
        signals().thread_block()?;
        let terminal = Self { tty, before, arrived };
        // Without the signals of keys too, which is what Ctrl-C is read for.
        let mut hidden = terminal.before.clone();
        cfmakeraw(&mut hidden);
        hidden.output_flags = terminal.before.output_flags;
        tcsetattr(&terminal.tty, SetArg::TCSAFLUSH, &hidden)?;
        Ok(terminal)
    }

    /// The answer to `question`; `Interrupted` after Ctrl-C or a signal.
    pub(crate) fn ask(&mut self, question: &str) -> io::Result<Sensitive> {
        write!(self.tty, "{question}: ")?;
        let answer = self.line();
        self.tty.write_all(b"\n")?;
        let answer = Zeroizing::new(String::from_utf8_lossy(&answer?).into_owned());
        Ok(answer.trim().into())
    }

    /// What is typed up to Enter, with the usual corrections.
    fn line(&mut self) -> io::Result<Zeroizing<Vec<u8>>> {
        // Never grows, so no copy is left behind.
        let mut line = Zeroizing::new(Vec::with_capacity(MAX_ANSWER_BYTES));
        let mut byte = Zeroizing::new([0]);
        loop {
            if end_comes_first(&self.tty, &self.arrived)? {
                return Err(io::ErrorKind::Interrupted.into());
            }
            if self.tty.read(&mut *byte)? == 0 {
                return Ok(line);
            }
            match byte[0] {
                b'\r' | b'\n' | CTRL_D => return Ok(line),
                CTRL_C => return Err(io::ErrorKind::Interrupted.into()),
                BACKSPACE | DELETE => {
                    line.pop();
                }
                CTRL_U => line.clear(),
                control if control.is_ascii_control() => {}
                _ if line.len() == MAX_ANSWER_BYTES => {
                    return Err(io::Error::other("the answer is too long"));
                }
                other => line.push(other),
            }
        }
    }
}

/// Those that end the process.
fn signals() -> SigSet {
    [Signal::SIGHUP, Signal::SIGINT, Signal::SIGTERM].into_iter().collect()
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // What was pasted beyond the last answer is no command line.
        let _ = tcsetattr(&self.tty, SetArg::TCSAFLUSH, &self.before);
        // One that came ends the process here.
        let _ = signals().thread_unblock();
    }
}
