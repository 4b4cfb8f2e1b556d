//! Reading what `power-recorder` wrote. The format is described there.

use std::{
    collections::HashMap,
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// Bytes of an entry before those that it brings.
const HEAD_BYTES: usize = 1 + 3 * 8 + 4;

/// Something that was done to the files. Files and directories are told apart by their inodes.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// A file or directory was opened, and perhaps made.
    Opened { ino: u64, is_new: bool, is_dir: bool, path: PathBuf },
    /// Bytes were written to a file.
    Written { ino: u64, offset: usize, bytes: Vec<u8> },
    /// A file was cut or extended.
    Resized { ino: u64, len: usize },
    /// A wait for the disk began.
    SyncBegins { ino: u64, number: u64 },
    /// It ended.
    Synced { ino: u64, number: u64 },
    /// A file got another name.
    Renamed { from: PathBuf, to: PathBuf },
    /// A file lost its name.
    Removed { path: PathBuf },
}

/// What was done, in order.
#[derive(Debug, Default)]
pub struct Trace {
    /// The changes, and where in the record each ends: an answer that somebody had when the record was so long came after
    /// all changes up to there.
    pub(super) changes: Vec<(u64, Change)>,
}

impl Trace {
    /// Reads the record at `path`.
    pub fn read(path: &Path) -> Self {
        let bytes = fs::read(path).unwrap();
        let (mut rest, mut changes) = (bytes.as_slice(), Vec::new());
        while let Some((change, after)) = parse(rest) {
            rest = after;
            changes.push((u64::try_from(bytes.len() - rest.len()).unwrap(), change));
        }
        assert!(rest.is_empty(), "the record ends with half an entry");
        Self { changes }
    }

    /// How many changes there are.
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    /// How often a file was extended, and how often it was cut.
    pub fn resizes(&self) -> (usize, usize) {
        let (mut lens, mut longer, mut shorter) = (HashMap::new(), 0, 0);
        for (_, change) in &self.changes {
            if let Change::Resized { ino, len } = change {
                let before = lens.insert(ino, len).unwrap_or(&0);
                longer += usize::from(len > before);
                shorter += usize::from(len < before);
            }
        }
        (longer, shorter)
    }

    /// How long the record was after the first `count` changes.
    pub fn end_of(&self, count: usize) -> u64 {
        count.checked_sub(1).map_or(0, |last| self.changes[last].0)
    }

    /// How many changes were made before the record was `bytes` long.
    pub fn changes_before(&self, bytes: u64) -> usize {
        self.changes.partition_point(|(end, _)| *end <= bytes)
    }
}

fn parse(bytes: &[u8]) -> Option<(Change, &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let number = |at: usize| u64::from_le_bytes(head[at..at + 8].try_into().unwrap());
    let [a, b, c] = [1, 9, 17].map(number);
    let len = u32::from_le_bytes(head[25..].try_into().unwrap());
    let (bytes, rest) = rest.split_at_checked(usize::try_from(len).unwrap())?;
    let size = |number: u64| usize::try_from(number).unwrap();
    let path = |bytes| PathBuf::from(OsStr::from_bytes(bytes));
    let change = match head[0] {
        1 => Change::Opened { ino: a, is_new: b == 1, is_dir: c == 1, path: path(bytes) },
        2 => Change::Written { ino: a, offset: size(b), bytes: bytes.to_vec() },
        3 => Change::Resized { ino: a, len: size(b) },
        4 => Change::SyncBegins { ino: a, number: b },
        5 => Change::Synced { ino: a, number: b },
        6 => {
            let (from, to) = bytes.split_at(size(a));
            Change::Renamed { from: path(from), to: path(to) }
        }
        7 => Change::Removed { path: path(bytes) },
        kind => panic!("an entry of kind {kind}"),
    };
    Some((change, rest))
}
