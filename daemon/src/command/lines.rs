//! Lines for a reader who may have stopped: whoever has something to say does not wait for him.

use std::{
    io::{self, Write},
    os::fd::AsFd,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// How long a reader who is slow is waited for, in milliseconds. One who has stopped is waited for once.
const PATIENCE_MS: u8 = 100;

/// A line with each `write`, whole or not at all; how many were left out is told in a line of its own as soon as there is
/// room.
pub(super) struct Lines<W> {
    to: W,
    /// What says how many are lost.
    told: fn(u64) -> String,
    lost: u64,
}

impl<W> Lines<W> {
    pub(super) fn new(to: W, told: fn(u64) -> String) -> Self {
        Self { to, told, lost: 0 }
    }
}

impl<W: Write + AsFd> Lines<W> {
    /// A pipe has room if it takes 4,096 bytes without waiting (pipe(7), `PIPE_BUF`), a file always.
    fn has_room(&self) -> bool {
        let patience = if self.lost == 0 { PollTimeout::from(PATIENCE_MS) } else { PollTimeout::ZERO };
        poll(&mut [PollFd::new(self.to.as_fd(), PollFlags::POLLOUT)], patience) != Ok(0)
    }
}

impl<W: Write + AsFd> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if !self.has_room() {
            self.lost += 1;
            return Ok(line.len());
        }
        if self.lost > 0 {
            let told = (self.told)(std::mem::take(&mut self.lost));
            writeln!(self.to, "{told}")?;
        }
        self.to.write_all(line)?;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn nobody_waits_for_a_reader_who_has_stopped() {
        let (mut reader, writer) = io::pipe().unwrap();
        let mut lines = Lines::new(writer, |lost| format!("{lost} lost"));
        let line = format!("{}\n", "n".repeat(999));
        while lines.lost < 3 {
            lines.write_all(line.as_bytes()).unwrap();
        }
        reader.read_exact(&mut [0; 10_000]).unwrap();
        lines.write_all(b"again\n").unwrap();
        drop(lines);
        let mut rest = String::new();
        reader.read_to_string(&mut rest).unwrap();
        assert!(rest.ends_with("n\n3 lost\nagain\n"), "{rest}");
    }
}
