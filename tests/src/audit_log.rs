//! The audit log as somebody else reads it: from its description, not with the daemon's code.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::Vault;

/// A reader that follows the log as it grows, from file to file.
pub struct AuditLog {
    dir: PathBuf,
    file: u32,
    path: PathBuf,
    offset: u64,
    seq: u64,
    hash: String,
}

impl AuditLog {
    /// The log of `vault`, from its first line on.
    pub fn of(vault: &Vault) -> Self {
        let dir = vault.path("audit");
        Self { path: file(&dir, 1), file: 1, dir, offset: 0, seq: 0, hash: "0".repeat(64) }
    }

    /// The lines that were written since the last time, each the next link of the chain.
    ///
    /// # Panics
    /// If one is not, or is not whole.
    pub fn follow(&mut self) -> Vec<Value> {
        let mut entries = self.follow_live();
        // The daemon may be writing: a line that is half now is whole soon.
        for _ in 0..100 {
            if fs::metadata(&self.path).unwrap().len() == self.offset {
                return entries;
            }
            thread::sleep(Duration::from_millis(10));
            entries.append(&mut self.follow_live());
        }
        panic!("half a line at {} of {}", self.offset, self.path.display());
    }

    /// The same, while the log is being written: half a line is left for the next time.
    ///
    /// # Panics
    /// If a line is not the next link of the chain.
    pub fn follow_live(&mut self) -> Vec<Value> {
        let mut entries = Vec::new();
        loop {
            // Asked for first: once there is a next file, this one does not grow any more.
            let next = file(&self.dir, self.file + 1);
            let is_finished = next.exists();
            self.read_on(&mut entries);
            if !is_finished {
                return entries;
            }
            (self.file, self.path, self.offset) = (self.file + 1, next, 0);
        }
    }

    fn read_on(&mut self, entries: &mut Vec<Value>) {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let end = memchr::memrchr(b'\n', &bytes).map_or(0, |last| last + 1);
        self.offset += u64::try_from(end).unwrap();
        let text = std::str::from_utf8(&bytes[..end]).unwrap();
        for line in text.lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
            self.seq += 1;
            assert_eq!(
                (&entry["seq"], &entry["prev"]),
                (&self.seq.into(), &self.hash.as_str().into()),
                "{line}"
            );
            self.hash = hex(&Sha256::digest(line));
            entries.push(entry);
        }
    }

    /// The number of the file that is read.
    pub fn file(&self) -> u32 {
        self.file
    }

    /// Its file.
    pub fn path(&self) -> &PathBuf {
        &self.path
    }

    /// Everything that is in the log's directory, as one text.
    pub fn everything(vault: &Vault) -> String {
        let files = fs::read_dir(vault.path("audit")).unwrap();
        files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect()
    }
}

fn file(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("audit-{number:08}.jsonl"))
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
