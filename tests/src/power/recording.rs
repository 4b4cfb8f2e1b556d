//! Running a program so that what it writes is recorded.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use super::{Disk, Left, Trace};
use crate::built;

/// A record that is being written.
pub struct Recording {
    dirs: Vec<PathBuf>,
    trace: TempDir,
}

impl Recording {
    /// A record of what will be written to the files of `dirs`, which are empty or not there yet.
    pub fn of(dirs: Vec<PathBuf>) -> Self {
        Self { dirs, trace: memory_dir() }
    }

    /// Has `command` be recorded.
    pub fn instrument(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", built("libpower_recorder.so"))
            .env("POWER_RECORDER_DIRS", std::env::join_paths(&self.dirs).unwrap())
            .env("POWER_RECORDER_TRACE", self.path());
    }

    /// How long the record is now. Whatever somebody knows to have happened is before that.
    pub fn position(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |file| file.len())
    }

    /// What was recorded.
    pub fn trace(&self) -> Trace {
        Trace::read(&self.path())
    }

    /// Holds the record against the directories as they are now.
    ///
    /// # Panics
    /// If they are not what was recorded.
    pub fn assert_whole(&self, trace: &Trace) {
        let mut disk = Disk::default();
        disk.advance(trace, trace.len());
        let mut recorded = disk.left(Left::All, &mut fastrand::Rng::with_seed(0));
        for entry in self.dirs.iter().flat_map(|dir| fs::read_dir(dir).unwrap()) {
            let path = entry.unwrap().path();
            let is = recorded.remove(&path).unwrap_or_else(|| panic!("{} was not recorded", path.display()));
            assert!(is == fs::read(&path).unwrap(), "{} is not what was recorded", path.display());
        }
        assert!(recorded.is_empty(), "{:?} are not there", recorded.keys());
    }

    fn path(&self) -> PathBuf {
        self.trace.path().join("trace")
    }
}

/// A directory that goes when it is dropped, in memory if that is possible: what is durable is a matter of the record, and
/// a real disk would only be waited for.
pub fn memory_dir() -> TempDir {
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::Builder::new().prefix("vt").tempdir_in(place).unwrap()
}
