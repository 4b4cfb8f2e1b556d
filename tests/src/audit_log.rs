//! The audit log as somebody else reads it: from its description, not with the daemon's code.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::PathBuf,
};

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::Vault;

/// A reader of the log's first file that follows it as it grows.
pub struct AuditLog {
    path: PathBuf,
    offset: u64,
    seq: u64,
    hash: String,
}

impl AuditLog {
    /// The log of `vault`, from its first line on.
    pub fn of(vault: &Vault) -> Self {
        let path = vault.path("audit/audit-00000001.jsonl");
        Self { path, offset: 0, seq: 0, hash: "0".repeat(64) }
    }

    /// The lines that were written since the last time, each the next link of the chain.
    ///
    /// # Panics
    /// If one is not, or is not whole.
    pub fn follow(&mut self) -> Vec<Value> {
        let mut file = File::open(&self.path).unwrap();
        file.seek(SeekFrom::Start(self.offset)).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        self.offset += u64::try_from(text.len()).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'), "half a line: {:?}", text.lines().last());
        let lines = text.lines();
        lines
            .map(|line| {
                let entry: Value =
                    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
                self.seq += 1;
                assert_eq!(
                    (&entry["seq"], &entry["prev"]),
                    (&self.seq.into(), &self.hash.as_str().into()),
                    "{line}"
                );
                self.hash = hex(&Sha256::digest(line));
                entry
            })
            .collect()
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

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes {
        let _ = write!(text, "{byte:02x}");
    }
    text
}
