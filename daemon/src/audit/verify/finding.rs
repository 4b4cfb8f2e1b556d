//! What the verifier has to say against a log.

use serde::Serialize;

/// The most findings that are kept; the rest is counted.
const MAX_FINDINGS: usize = 100;

/// What happened to a log, as far as what is left of it tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Damage {
    /// Bytes of a line, of a checkpoint or of `head.json` are not those that were written.
    Altered,
    /// Lines or a file are missing from the middle or the beginning.
    Removed,
    /// Lines are there, and not where they belong.
    Reordered,
    /// Lines are there that belong nowhere, or twice.
    Inserted,
    /// The end is missing.
    CutOff,
    /// Lines of another vault, or a checkpoint signed by a key that is not this vault's.
    Foreign,
    /// Not a line of an audit log at all, or a file that cannot be read.
    Unreadable,
    /// The last line of a file does not end.
    HalfWritten,
}

impl Damage {
    /// Its name, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Removed => "removed",
            Self::Reordered => "reordered",
            Self::Inserted => "inserted",
            Self::CutOff => "cut off",
            Self::Foreign => "foreign",
            Self::Unreadable => "unreadable",
            Self::HalfWritten => "half-written",
        }
    }
}

/// One damage. Nothing in it is copied from the log unless it has been checked to be harmless to a terminal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What happened.
    pub damage: Damage,
    /// The file's name.
    pub file: String,
    /// The number of the line in its file, from 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The last line, where several in a row are damaged alike.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_line: Option<u64>,
    /// The sequence number of the line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What was found, and what was expected.
    pub what: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:<12} {}", self.damage.name(), self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(last) = self.last_line {
            write!(f, "-{last}")?;
        }
        if let Some(seq) = self.seq {
            write!(f, " seq {seq}")?;
        }
        write!(f, ": {}", self.what)
    }
}

/// The findings so far: a bounded number of them.
#[derive(Debug, Default)]
pub(super) struct Findings {
    list: Vec<Finding>,
    more: u64,
}

impl Findings {
    /// Adds what concerns a file, or no place in it.
    pub(super) fn of_file(&mut self, damage: Damage, file: &str, what: String) {
        self.add(Finding { damage, file: file.to_owned(), line: None, last_line: None, seq: None, what });
    }

    /// Adds what concerns a line.
    pub(super) fn of_line(&mut self, damage: Damage, (file, line): (&str, u64), seq: u64, what: String) {
        let file = file.to_owned();
        self.add(Finding { damage, file, line: Some(line), last_line: None, seq: Some(seq), what });
    }

    /// Adds what concerns a line that has no number of its own; such lines in a row are one finding.
    pub(super) fn of_stranger(&mut self, damage: Damage, (file, line): (&str, u64), what: &str) {
        if let Some(before) = self.list.last_mut() {
            let end = before.last_line.or(before.line);
            if before.damage == damage
                && before.file == file
                && before.what == what
                && end.and_then(|end| end.checked_add(1)) == Some(line)
            {
                before.last_line = Some(line);
                return;
            }
        }
        let (file, what) = (file.to_owned(), what.to_owned());
        self.add(Finding { damage, file, line: Some(line), last_line: None, seq: None, what });
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether a finding about the line `seq` is there already.
    pub(super) fn names(&self, seq: u64) -> bool {
        self.list.iter().any(|finding| finding.seq == Some(seq))
    }

    /// The findings, and how many more there were.
    pub(super) fn into_parts(self) -> (Vec<Finding>, u64) {
        (self.list, self.more)
    }

    fn add(&mut self, finding: Finding) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push(finding);
        } else {
            self.more += 1;
        }
    }
}
