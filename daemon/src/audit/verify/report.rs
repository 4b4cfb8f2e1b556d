//! What was found, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::Finding;

/// A key that checkpoints were verified with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct KeyUse {
    /// Its RFC 7638 thumbprint, calculated from the key itself.
    pub thumbprint: String,
    /// Checkpoints that it signed.
    pub checkpoints: u64,
}

/// What a verification found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Whether there is no finding.
    pub intact: bool,
    /// The vault's name in its log, if any line gives one.
    pub vault: Option<String>,
    /// Files that were read.
    pub files: u64,
    /// Bytes that were read, as they lie on the disk.
    pub bytes: u64,
    /// Lines of this log.
    pub lines: u64,
    /// Number of the first line.
    pub first_seq: Option<u64>,
    /// Number of the last line.
    pub last_seq: Option<u64>,
    /// Time of the first line.
    pub from: Option<String>,
    /// Time of the last line.
    pub to: Option<String>,
    /// Checkpoints whose signature and hash are right.
    pub checkpoints: u64,
    /// The last line that they sign.
    pub signed_upto: Option<u64>,
    /// Lines after that one, other than checkpoints: nothing proves them yet.
    pub unsigned: u64,
    /// Whether the last line is the final checkpoint of an orderly shutdown.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Half-written lines that were cut off at a start of the vault.
    pub repairs: u64,
    /// Losses that somebody accepted, so that the log goes on after them.
    pub resumptions: u64,
    /// The file with the keys.
    pub key_file: String,
    /// Whether that file is the log's own, which whoever can edit the log can replace.
    pub key_file_is_of_the_log: bool,
    /// The keys in it.
    pub keys: Vec<KeyUse>,
    /// What is worth knowing and no damage.
    pub notes: Vec<String>,
    /// The damage.
    pub findings: Vec<Finding>,
    /// Findings that were not kept.
    pub more_findings: u64,
}

impl Report {
    /// The damage in one line.
    pub fn verdict(&self) -> String {
        match u64::try_from(self.findings.len()).unwrap_or(u64::MAX).saturating_add(self.more_findings) {
            0 => "the log is intact".to_owned(),
            1 => "the log is damaged: 1 finding".to_owned(),
            n => format!("the log is damaged: {n} findings"),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_none = |text: &Option<String>| text.clone().unwrap_or_else(|| "none".to_owned());
        writeln!(f, "vault        {}", or_none(&self.vault))?;
        writeln!(f, "files        {} ({} bytes)", self.files, self.bytes)?;
        match self.first_seq.zip(self.last_seq) {
            Some((first, last)) => writeln!(f, "lines        {} (seq {first} to {last})", self.lines)?,
            None => writeln!(f, "lines        0")?,
        }
        writeln!(f, "time         {} to {}", or_none(&self.from), or_none(&self.to))?;
        write!(f, "checkpoints  {} good", self.checkpoints)?;
        match self.signed_upto {
            Some(upto) if self.is_final => writeln!(f, ", the last signs up to seq {upto} and is final")?,
            Some(upto) => writeln!(f, ", the last signs up to seq {upto}")?,
            None => writeln!(f)?,
        }
        for key in &self.keys {
            writeln!(f, "key          {} ({} checkpoints)", key.thumbprint, key.checkpoints)?;
        }
        if self.key_file_is_of_the_log {
            writeln!(
                f,
                "             of {}: whoever can edit the log can replace it. Compare the\n             thumbprints with \
                 those you noted elsewhere, or give --keys.",
                self.key_file
            )?;
        } else {
            writeln!(f, "             of {}", self.key_file)?;
        }
        for note in &self.notes {
            writeln!(f, "note         {note}")?;
        }
        for finding in &self.findings {
            writeln!(f, "{finding}")?;
        }
        if self.more_findings > 0 {
            writeln!(f, "and {} more", self.more_findings)?;
        }
        write!(f, "{}", self.verdict())
    }
}
