//! The log as its one writer sees it: lines are appended in groups, files follow one another, trouble is mended.

use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};
use serde_json::value::RawValue;

use super::{
    current::{CurrentFile, CutOff, check_dir},
    dir::{self, HeadFile, HeadRecord, LogFile, Mark},
    entry::{Begin, Event, tail},
    error::{OpenError, io_error},
    line::{Chain, Kind, hex, vault_name},
    recover::{self, Ending},
};

/// How often `head.json` is written at most while the log grows.
const HEAD_EVERY: Duration = Duration::from_millis(100);
/// How far a clock may go back without a word: it is slewed.
const CLOCK_MAY_DIFFER: SignedDuration = SignedDuration::from_mins(1);

/// When a file is finished and the next one begun.
#[derive(Clone, Copy, Debug)]
pub struct Rotation {
    /// Bytes of a file.
    pub bytes: u64,
    /// Lines of a file.
    pub lines: u64,
    /// Age of a file.
    pub age: Duration,
}

/// The log, open for writing.
#[derive(Debug)]
pub(super) struct Log {
    dir: PathBuf,
    rotation: Rotation,
    chain: Chain,
    file: CurrentFile,
    head: HeadFile,
    /// What `head.json` says, and since when.
    head_seq: u64,
    head_at: Instant,
    last: Mark,
    /// When the file was begun, and with which line.
    begun: (Timestamp, u64),
    checkpoint: Option<Box<RawValue>>,
    /// What is wrong, since the last group.
    trouble: Option<String>,
    /// A file that could not be begun, and is in the way of the next try.
    half_made: Option<u64>,
    /// Whether it says that the clock has gone back.
    is_clock_told: bool,
}

/// A line that is to be written: the fields after the first six.
pub(super) struct Line {
    pub(super) kind: Kind,
    pub(super) tail: Vec<u8>,
}

impl Log {
    /// Opens the log in `dir` of the vault `vault_id`, which must go at least as far as `mark`, the last checkpoint that the
    /// store remembers.
    pub(super) fn open(
        dir: &Path,
        vault_id: &[u8; 16],
        mark: Option<Mark>,
        rotation: Rotation,
    ) -> Result<Self, OpenError> {
        check_dir(dir).map_err(|why| io_error(dir)(io::Error::other(why)))?;
        let vault = vault_name(vault_id);
        let ending = recover::read(dir, &vault, mark)?;
        recover::remove_unbegun(dir)?;
        match ending {
            // It was compressed while the daemon was down.
            Some(Ending { chain, last, is_finished: true, .. }) => {
                Self::begin(dir, chain, last.file + 1, None, rotation)
            }
            Some(ending) => Self::take_up(dir, rotation, ending),
            None => Self::begin(dir, Chain::new(vault), 1, None, rotation),
        }
    }

    /// Begins a new file after whatever there is, on the word of somebody who says why.
    pub(super) fn resume(
        dir: &Path,
        vault_id: &[u8; 16],
        mark: Option<Mark>,
        reason: &str,
        rotation: Rotation,
    ) -> Result<Self, OpenError> {
        let (chain, number) = recover::best_known(dir, &vault_name(vault_id), mark)?;
        Self::begin(dir, chain, number, Some(reason), rotation)
    }

    fn begin(
        dir: &Path,
        mut chain: Chain,
        number: u64,
        resumed: Option<&str>,
        rotation: Rotation,
    ) -> Result<Self, OpenError> {
        let wrong = |error| io_error(&LogFile::new(dir, number).path)(error);
        let now = Timestamp::now();
        let file = begin_file(dir, &mut chain, number, resumed, now).map_err(wrong)?;
        let last = Mark { seq: chain.seq, hash: chain.hash, file: number, offset: 0 };
        let mut log = Self::new(dir, rotation, chain, file, last, (now, last.seq))?;
        log.write_head();
        Ok(log)
    }

    fn take_up(dir: &Path, rotation: Rotation, ending: Ending) -> Result<Self, OpenError> {
        let Ending { chain, last, end, begun, checkpoint, is_finished: _ } = ending;
        let wrong = |error| io_error(&LogFile::new(dir, last.file).path)(error);
        let mut file = CurrentFile::open(dir, last.file).map_err(wrong)?;
        let cut_off = file.cut_to(end).map_err(wrong)?;
        let mut log = Self::new(dir, rotation, chain, file, last, begun)?;
        log.checkpoint = checkpoint;
        if let Some(cut_off) = cut_off {
            tracing::warn!(bytes = cut_off.bytes, "the audit log ended with half a line, which is cut off");
            let line = Self::told("repair", "the log ended with half a line", Some(&cut_off));
            log.append(&[line]).map_err(|why| io_error(dir)(io::Error::other(why)))?;
        }
        log.write_head();
        Ok(log)
    }

    /// A log that ends with `last` in `file`, which was begun at `begun`.
    fn new(
        dir: &Path,
        rotation: Rotation,
        chain: Chain,
        file: CurrentFile,
        last: Mark,
        begun: (Timestamp, u64),
    ) -> Result<Self, OpenError> {
        Ok(Self {
            dir: dir.to_owned(),
            rotation,
            chain,
            file,
            head: HeadFile::open(dir).map_err(io_error(dir))?,
            head_seq: 0,
            head_at: Instant::now(),
            last,
            begun,
            checkpoint: None,
            trouble: None,
            half_made: None,
            is_clock_told: false,
        })
    }

    /// The last line that is durable.
    pub(super) fn last(&self) -> Mark {
        self.last
    }

    /// What is wrong at the moment.
    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether everything is as it was left; notes what is not.
    pub(super) fn check(&mut self) -> Result<(), String> {
        let checked = match &self.trouble {
            Some(why) => Err(why.clone()),
            None => self.file.check(&self.dir),
        };
        self.noting(checked)
    }

    /// Writes `lines` and waits for the disk. Either all of them are durable or none is.
    ///
    /// # Errors
    /// What is wrong; from then on nothing is written until [`Log::mend`] succeeds.
    pub(super) fn append(&mut self, lines: &[Line]) -> Result<(), String> {
        self.check()?;
        // A checkpoint alone begins no file: the final one has to be the very next line.
        let is_due = lines.iter().any(|line| line.kind != Kind::Checkpoint);
        let begun = if is_due { self.turn_over().and_then(|()| self.tell_clock()) } else { Ok(()) };
        let written = begun.and_then(|()| self.write(lines));
        self.noting(written)
    }

    /// Tries to take the log up again after trouble.
    pub(super) fn mend(&mut self) -> Result<(), String> {
        let Some(why) = self.trouble.take() else { return Ok(()) };
        let reclaimed = self.remove_half_made().and_then(|()| self.file.reclaim(&self.dir, &self.chain));
        let mended = reclaimed.and_then(|cut_off| {
            // It is not mended as long as the next group would fail.
            self.turn_over()?;
            let line = Self::told("recovered", &why, cut_off.as_ref());
            self.write(&[line])
        });
        self.noting(mended)
    }

    fn write(&mut self, lines: &[Line]) -> Result<(), String> {
        let (mut chain, mut bytes, mut last_at) = (self.chain.clone(), Vec::new(), 0);
        let time = chain.stamp(Timestamp::now());
        for Line { kind, tail } in lines {
            last_at = bytes.len();
            chain.append(&mut bytes, *kind, &time, tail);
        }
        let offset = self.file.bytes + u64::try_from(last_at).unwrap_or(u64::MAX);
        let before = self.file.bytes;
        self.file.append(&bytes).map_err(|error| format!("the audit log cannot be written: {error}"))?;
        // What was written to a file that was just removed is nowhere.
        if !self.file.is_linked() {
            self.file.bytes = before;
            return Err("the file of the audit log was removed".to_owned());
        }
        self.chain = chain;
        self.last = Mark { seq: self.chain.seq, hash: self.chain.hash, file: self.file.number, offset };
        let checkpoint = lines.iter().rfind(|line| line.kind == Kind::Checkpoint);
        if let Some(Line { tail, .. }) = checkpoint {
            self.keep_checkpoint(tail);
            self.write_head();
        } else if self.head_at.elapsed() >= HEAD_EVERY {
            self.write_head();
        }
        Ok(())
    }

    /// Remembers a checkpoint that was written.
    fn keep_checkpoint(&mut self, tail: &[u8]) {
        // As it stands in the log, without the six fields of its line.
        let object = [b"{", tail.get(1..).unwrap_or_default()].concat();
        self.checkpoint = serde_json::from_slice(&object).ok();
        // It may have been removed meanwhile.
        if let Ok(head) = HeadFile::open(&self.dir) {
            self.head = head;
        }
    }

    /// Finishes a file that is full or old.
    fn turn_over(&mut self) -> Result<(), String> {
        let now = Timestamp::now();
        let age = now.duration_since(self.begun.0).unsigned_abs();
        let lines = self.chain.seq - self.begun.1;
        if self.file.bytes < self.rotation.bytes && lines < self.rotation.lines && age < self.rotation.age {
            return Ok(());
        }
        let number = self.file.number + 1;
        let mut chain = self.chain.clone();
        match begin_file(&self.dir, &mut chain, number, None, now) {
            Ok(file) => self.file = file,
            Err(error) => {
                if error.kind() != io::ErrorKind::AlreadyExists {
                    self.half_made = Some(number);
                }
                return Err(format!("the next file of the audit log cannot be begun: {error}"));
            }
        }
        self.chain = chain;
        self.begun = (now, self.chain.seq);
        self.last = Mark { seq: self.chain.seq, hash: self.chain.hash, file: number, offset: 0 };
        Ok(())
    }

    /// Writes down that the clock has gone back, once: from there on times say only what came before what.
    fn tell_clock(&mut self) -> Result<(), String> {
        let now = Timestamp::now();
        let is_behind = self.chain.ahead_of(now) > CLOCK_MAY_DIFFER;
        if is_behind && !self.is_clock_told {
            let why = format!(
                "the clock says {now}; until it is as late as this entry, its time is that of all others"
            );
            self.write(&[Self::told("clock.behind", &why, None)])?;
        }
        self.is_clock_told = is_behind;
        Ok(())
    }

    /// Removes a file that could not be begun: it may have its first line all the same, and the file before it goes on.
    fn remove_half_made(&mut self) -> Result<(), String> {
        let Some(number) = self.half_made else { return Ok(()) };
        let path = LogFile::new(&self.dir, number).path;
        let removed = std::fs::remove_file(&path).or_else(missing).and_then(|()| dir::sync(&self.dir));
        removed.map_err(|error| format!("{} cannot be removed: {error}", path.display()))?;
        self.half_made = None;
        Ok(())
    }

    /// Says how far the log goes, if that is not said yet.
    pub(super) fn tell_end(&mut self) {
        if self.head_seq != self.last.seq {
            self.write_head();
        }
    }

    /// Says how far the log goes. It is an aid to whoever verifies the log: that it cannot be written stops nobody.
    fn write_head(&mut self) {
        let record = HeadRecord::new(self.chain.vault(), self.last, self.checkpoint.clone());
        (self.head_seq, self.head_at) = (self.last.seq, Instant::now());
        if let Err(error) = self.head.write(&record) {
            tracing::warn!(%error, "head.json of the audit log cannot be written");
        }
    }

    fn told(event: &str, why: &str, cut_off: Option<&CutOff>) -> Line {
        let sha256 = cut_off.map(|cut_off| hex(&cut_off.sha256));
        let event = Event {
            event,
            detail: Some(why),
            bytes: cut_off.map(|cut_off| cut_off.bytes),
            sha256: sha256.as_deref(),
            ..Event::default()
        };
        Line { kind: Kind::Event, tail: tail(&event) }
    }

    fn noting(&mut self, result: Result<(), String>) -> Result<(), String> {
        self.trouble = result.as_ref().err().cloned();
        result
    }
}

/// Makes the file `number` with its first line.
fn begin_file(
    dir: &Path,
    chain: &mut Chain,
    number: u64,
    resumed: Option<&str>,
    now: Timestamp,
) -> io::Result<CurrentFile> {
    let mut file = CurrentFile::create(dir, number)?;
    let mut line = Vec::new();
    let time = chain.stamp(now);
    let begin = Begin { file: number, vaultd: env!("CARGO_PKG_VERSION"), resumed };
    chain.append(&mut line, Kind::Begin, &time, &tail(&begin));
    file.append(&line)?;
    dir::sync(dir)?;
    Ok(file)
}

fn missing(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}
