//! The file with the faults, under a running program.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;

use crate::{say, script::Script};

/// A file and the script that was last read from it.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    current: ArcSwap<Current>,
    /// Held by whoever reads the file.
    reading: Mutex<()>,
}

#[derive(Debug)]
struct Current {
    state: State,
    /// Whether a later change would certainly show in `state`.
    settled: bool,
    /// What stood there; `None` if it could not be read.
    text: Option<String>,
    script: Arc<Script>,
}

/// What a look at the file, but not into it, shows.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Missing,
    Unreadable(io::ErrorKind),
    Present { device: u64, inode: u64, size: u64, modified: SystemTime, changed: (i64, i64) },
}

impl Watch {
    /// Watches `path`; nothing is read before the first [`Watch::script`].
    pub(crate) fn new(path: PathBuf) -> Self {
        let none = Current { state: State::Missing, settled: true, text: None, script: Arc::default() };
        Self { path, current: ArcSwap::from_pointee(none), reading: Mutex::new(()) }
    }

    /// What is in force now; reads the file if it has changed. One `stat` if it has not.
    pub(crate) fn script(&self) -> Arc<Script> {
        let current = self.current.load();
        if current.settled && current.state == self.look() {
            return Arc::clone(&current.script);
        }
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody else may have read it meanwhile.
        let current = self.current.load();
        // Before the file is read: a change after this look shows at the next one.
        let state = self.look();
        if current.settled && current.state == state {
            return Arc::clone(&current.script);
        }
        let read = self.read(state, &current);
        let script = Arc::clone(&read.script);
        self.current.store(Arc::new(read));
        script
    }

    /// What was in force at the last [`Watch::script`].
    pub(crate) fn last(&self) -> Arc<Script> {
        Arc::clone(&self.current.load().script)
    }

    fn look(&self) -> State {
        match fs::metadata(&self.path) {
            Ok(file) => State::Present {
                device: file.dev(),
                inode: file.ino(),
                size: file.size(),
                modified: file.modified().unwrap_or(SystemTime::UNIX_EPOCH),
                changed: (file.ctime(), file.ctime_nsec()),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::Missing,
            Err(error) => State::Unreadable(error.kind()),
        }
    }

    fn read(&self, state: State, before: &Current) -> Current {
        let settled = match state {
            State::Present { modified, .. } => modified.elapsed().is_ok_and(|age| age > CLOCK_TICK),
            State::Missing | State::Unreadable(_) => true,
        };
        let text = if state == State::Missing { Ok(String::new()) } else { self.text() };
        let same = before.state == state && before.text.as_ref() == text.as_ref().ok();
        let known = text.as_ref().ok().cloned();
        let script = match text.and_then(|text| Script::parse(&text)) {
            _ if same => Arc::clone(&before.script),
            Ok(script) => {
                say(format_args!("{} rules in force from {}", script.rules.len(), self.path.display()));
                Arc::new(script)
            }
            Err(reason) => {
                say(format_args!("{}: {reason}; the faults stay as they were", self.path.display()));
                Arc::clone(&before.script)
            }
        };
        Current { state, settled, text: known, script }
    }

    fn text(&self) -> Result<String, String> {
        // Opening a pipe would wait for somebody to write.
        let file = fs::metadata(&self.path).map_err(|error| error.to_string())?;
        if !file.is_file() || file.len() > MAX_BYTES {
            return Err(format!("not a file of at most {MAX_BYTES} bytes"));
        }
        let mut text = String::new();
        let file = fs::File::open(&self.path).map_err(|error| error.to_string())?;
        file.take(MAX_BYTES).read_to_string(&mut text).map_err(|error| error.to_string())?;
        Ok(text)
    }
}

/// Two changes within a tick of the file system's clock (1/100 s at most) can carry the same time.
const CLOCK_TICK: Duration = Duration::from_millis(20);
/// Far more than anybody writes by hand.
const MAX_BYTES: u64 = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(watch: &Watch) -> usize {
        watch.script().rules.len()
    }

    #[test]
    fn a_file_comes_changes_is_wrong_and_goes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fault");
        let watch = Watch::new(path.clone());
        assert_eq!(rules(&watch), 0);
        fs::write(&path, "* error 5").unwrap();
        assert_eq!(rules(&watch), 1);
        fs::write(&path, "* error 5\n* error 6").unwrap();
        assert_eq!(rules(&watch), 2);
        fs::write(&path, "* explode").unwrap();
        assert_eq!(rules(&watch), 2, "it stays as it was");
        fs::write(&path, "").unwrap();
        assert_eq!(rules(&watch), 0);
        fs::write(&path, "5").unwrap();
        assert_eq!(rules(&watch), 1);
        fs::remove_file(&path).unwrap();
        assert_eq!(rules(&watch), 0);
        fs::create_dir(&path).unwrap();
        assert_eq!(rules(&watch), 0, "a directory is refused, not read");
    }

    #[test]
    fn a_change_within_a_tick_of_the_clock_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fault");
        let watch = Watch::new(path.clone());
        for round in 0..200 {
            fs::write(&path, if round % 2 == 0 { "* error 5" } else { "* error 6" }).unwrap();
            let wanted = crate::rule::Fault::Error(5 + round % 2);
            assert_eq!(watch.script().rules[0].order.fault, wanted, "round {round}");
        }
    }

    #[test]
    fn counts_go_on_until_the_file_is_changed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fault");
        let watch = Watch::new(path.clone());
        fs::write(&path, "* error 5 count=1").unwrap();
        let strikes = || watch.script().rules[0].strikes(crate::forward::FUNCTIONS[2]).is_some();
        assert!(strikes());
        let end = SystemTime::now() + 3 * CLOCK_TICK;
        while SystemTime::now() < end {
            assert!(!strikes(), "it is spent, and stays so while the file settles");
        }
        fs::write(&path, "* error 5 count=1").unwrap();
        assert!(strikes(), "written anew, it counts anew");
    }
}
