//! The audit log's place.
//!
//! Entries, chain and checkpoints are to live here. What exists is the directory they will be written to, which is
//! vetted at start-up and probed by readiness, so that a vault never goes into service without a place for them.

mod stats;

use std::{
    io,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access};

pub use stats::AuditStats;

/// The directory of the audit log.
#[derive(Clone, Debug)]
pub struct AuditDir {
    path: PathBuf,
}

impl AuditDir {
    /// The directory at `path`.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Whether entries could be written now.
    ///
    /// # Errors
    /// Why not.
    pub fn probe(&self) -> io::Result<()> {
        Ok(access(&self.path, AccessFlags::W_OK | AccessFlags::X_OK)?)
    }
}
