//! Standard output: tables or JSON.

use std::{
    fs::File,
    io::{self, Write},
    os::fd::AsFd,
};

use serde::Serialize;
use zeroize::Zeroizing;

use crate::complaint::Complaint;

/// Where a command says what it has found.
pub(crate) struct Output {
    json: bool,
    /// Not `io::stdout()`: its buffer keeps what went through it.
    stdout: File,
}

impl Output {
    /// Standard output, in JSON or for people.
    pub(crate) fn new(json: bool) -> Result<Self, Complaint> {
        let stdout = io::stdout().as_fd().try_clone_to_owned();
        let stdout = stdout.map_err(|error| Complaint::failed("cannot use standard output", error))?;
        Ok(Self { json, stdout: stdout.into() })
    }

    /// Whether JSON is wanted.
    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Writes `answer` in JSON, or what `for_people` makes of it.
    pub(crate) fn answer<T: Serialize>(
        &self,
        answer: &T,
        for_people: impl FnOnce(&T) -> Zeroizing<String>,
    ) -> Result<(), Complaint> {
        if self.json { self.text(&json(answer)?) } else { self.text(&for_people(answer)) }
    }

    /// Writes `text` as it is.
    pub(crate) fn text(&self, text: &str) -> Result<(), Complaint> {
        self.bytes(text.as_bytes())
    }

    /// Writes `bytes` as they are.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> Result<(), Complaint> {
        let mut stdout = &self.stdout;
        match stdout.write_all(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Complaint::ReaderGone),
            outcome => outcome.map_err(|error| Complaint::failed("cannot write to standard output", error)),
        }
    }
}

/// `value` as one line of JSON.
pub(crate) fn json(value: &impl Serialize) -> Result<Zeroizing<String>, Complaint> {
    let text = serde_json::to_string(value);
    // serde's message is dropped: it may repeat a value.
    let mut text = text.map(Zeroizing::new).map_err(|_| Complaint::Failed("cannot write JSON".to_owned()))?;
    text.push('\n');
    Ok(text)
}
