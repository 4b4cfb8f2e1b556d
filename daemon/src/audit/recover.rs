//! Reading the log at start-up: whether it goes as far as it must, and where it ends.

use std::path::Path;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::{
    dir::{self, HeadRecord, LogFile, Mark, Met},
    error::{OpenError, io_error},
    line::{Chain, Head, Kind},
};

/// Where the log ends.
pub(super) struct Ending {
    pub(super) chain: Chain,
    pub(super) last: Mark,
    /// Bytes of the last file that are whole lines.
    pub(super) end: u64,
    /// When the last file was begun, and its first line.
    pub(super) begun: (Timestamp, u64),
    pub(super) checkpoint: Option<Box<RawValue>>,
    /// Whether nothing can be appended to the last file.
    pub(super) is_finished: bool,
}

/// Follows the log in `dir` from `mark` on, or from its beginning. `None` if there is no log yet.
///
/// What is before the mark was signed, and is not read: `vaultd audit verify` does that.
pub(super) fn read(dir: &Path, vault: &str, mark: Option<Mark>) -> Result<Option<Ending>, OpenError> {
    let mut files = dir::files(dir).map_err(io_error(dir))?;
    if let Some(newest) = files.last()
        && !is_begun(newest)?
    {
        files.pop();
    }
    let Some(newest) = files.last().map(|file| file.number) else {
        return match mark {
            None => Ok(None),
            Some(mark) => Err(damaged(format!("the audit log is gone: entry {} was signed", mark.seq))),
        };
    };
    let head = HeadRecord::read(dir).filter(|head| head.vault == vault);
    let from = mark.map_or(1, |mark| mark.file);
    let mut walk =
        Walk { chain: Chain::new(vault.to_owned()), head: head.as_ref(), last: None, checkpoint: None };
    let mut mark = mark;
    let mut end = 0;
    for (expected, file) in (from..).zip(files.iter().filter(|file| file.number >= from)) {
        if file.number != expected {
            return Err(damaged(format!("file {expected} of the audit log is missing")));
        }
        end = walk.read(file, mark.take(), file.number == newest)?;
    }
    let Some(last) = walk.last else {
        return Err(damaged(format!("file {from} of the audit log is missing")));
    };
    if let Some(head) = walk.head.filter(|head| head.seq > last.seq) {
        return Err(damaged(format!(
            "the audit log ends at entry {}, but entry {} was written: entries were cut off",
            last.seq, head.seq
        )));
    }
    let begun = begin_of(files.last())?;
    // What `head.json` repeats may be of two checkpoints after a power failure: nobody waited for it.
    let checkpoint = walk.checkpoint.or_else(|| head.as_ref()?.checkpoint.clone());
    let is_finished = files.last().is_some_and(|file| file.compressed);
    Ok(Some(Ending { chain: walk.chain, last, end, begun, checkpoint, is_finished }))
}

/// The furthest end of the log that anything tells of, and the number of the next file.
pub(super) fn best_known(dir: &Path, vault: &str, mark: Option<Mark>) -> Result<(Chain, u64), OpenError> {
    // Numbers that nobody has counted up to were made up, so that none could follow.
    const MOST: u64 = 1 << 62;
    let mut files = dir::files(dir).map_err(io_error(dir))?;
    files.retain(|file| file.number < MOST);
    let mut best = Chain::new(vault.to_owned());
    let mut newest = files.last().map_or(0, |file| file.number);
    for file in &files {
        let mut lines = file.lines(0).map_err(io_error(&file.path))?;
        while let Ok(Met::Line(line, _)) = lines.next() {
            let is_later = |head: &Head| head.is_of(vault) && (best.seq + 1..MOST).contains(&head.seq);
            if let Some(head) = Head::parse(line).filter(is_later) {
                best.adopt(&head, line);
            }
        }
    }
    let is_ours = |head: &HeadRecord| head.vault == vault && head.seq < MOST && head.file < MOST;
    let head = HeadRecord::read(dir).filter(is_ours);
    let told = head.and_then(|head| Some((head.seq, head.hash()?, head.file)));
    for (seq, hash, file) in mark.map(|mark| (mark.seq, mark.hash, mark.file)).into_iter().chain(told) {
        newest = newest.max(file);
        if seq > best.seq {
            best.jump(seq, hash);
        }
    }
    Ok((best, newest + 1))
}

/// Removes a file that ends before its first line: it was begun when the daemon was killed.
pub(super) fn remove_unbegun(dir: &Path) -> Result<(), OpenError> {
    let files = dir::files(dir).map_err(io_error(dir))?;
    let Some(newest) = files.last() else { return Ok(()) };
    if !is_begun(newest)? {
        tracing::warn!(file = %newest.path.display(), "a file of the audit log was never begun, and is removed");
        std::fs::remove_file(&newest.path).map_err(io_error(&newest.path))?;
    }
    Ok(())
}

fn is_begun(file: &LogFile) -> Result<bool, OpenError> {
    let begun =
        file.lines(0).and_then(|mut lines| Ok(matches!(lines.next()?, Met::Line(line, _) if !is_torn(line))));
    begun.map_err(io_error(&file.path))
}

/// Whether some of `line` never came to the disk. After a power failure a file may be as long as it was going to be, with
/// zeros where nothing was written yet; no line that was written holds any. Whoever puts zeros there himself has
/// the end cut off, as if he had cut it off.
fn is_torn(line: &[u8]) -> bool {
    line.contains(&0)
}

struct Walk<'h> {
    chain: Chain,
    head: Option<&'h HeadRecord>,
    last: Option<Mark>,
    checkpoint: Option<Box<RawValue>>,
}

impl Walk<'_> {
    /// Follows `file`, from `mark` on if there is one. Says where its whole lines end.
    fn read(&mut self, file: &LogFile, mark: Option<Mark>, is_newest: bool) -> Result<u64, OpenError> {
        let offset = mark.map_or(0, |mark| mark.offset);
        let mut lines = file.lines(offset).map_err(io_error(&file.path))?;
        let name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let mut mark = mark;
        loop {
            match lines.next().map_err(io_error(&file.path))? {
                Met::Line(line, offset) if is_newest && mark.is_none() && is_torn(line) => return Ok(offset),
                Met::Line(line, offset) => {
                    if let Some(mark) = mark.take() {
                        self.begin_at(&mark, line, &name)?;
                    } else {
                        let wrong = |why| damaged(format!("{name}: the entry at byte {offset} {why}"));
                        let head = self.chain.follow(line).map_err(wrong)?;
                        if head.kind == Kind::Checkpoint {
                            self.checkpoint = signed(line);
                        }
                    }
                    let (seq, hash) = (self.chain.seq, self.chain.hash);
                    self.last = Some(Mark { seq, hash, file: file.number, offset });
                    if self.head.is_some_and(|head| head.seq == seq && head.hash() != Some(hash)) {
                        return Err(damaged(format!("{name}: entry {seq} is not the one that was written")));
                    }
                }
                Met::Rest(offset) if is_newest && mark.is_none() => return Ok(offset),
                Met::End if mark.is_none() => return Ok(lines.offset()),
                Met::Rest(..) | Met::End => {
                    let seq = mark.map_or(self.chain.seq, |mark| mark.seq);
                    return Err(damaged(format!("{name} ends too soon: entry {seq} was signed")));
                }
            }
        }
    }

    /// Begins at the line that was signed.
    fn begin_at(&mut self, mark: &Mark, line: &[u8], name: &str) -> Result<(), OpenError> {
        if let Some(head) = Head::parse(line) {
            self.chain.adopt(&head, line);
        }
        if (self.chain.seq, self.chain.hash) == (mark.seq, mark.hash) {
            return Ok(());
        }
        Err(damaged(format!("{name}: entry {} is not the one that was signed", mark.seq)))
    }
}

/// What a checkpoint's line has after the six fields of every line, as an object.
fn signed(line: &[u8]) -> Option<Box<RawValue>> {
    let line = std::str::from_utf8(line).ok()?;
    let members = line.get(line.find(r#""statement":"#)?..)?;
    RawValue::from_string(format!("{{{members}")).ok()
}

/// When `file` was begun, and the number of its first line.
fn begin_of(file: Option<&LogFile>) -> Result<(Timestamp, u64), OpenError> {
    let Some(file) = file else { return Ok((Timestamp::now(), 0)) };
    let mut lines = file.lines(0).map_err(io_error(&file.path))?;
    match lines.next().map_err(io_error(&file.path))? {
        Met::Line(line, _) => match Head::parse(line) {
            Some(head) if head.kind == Kind::Begin => Ok((head.time, head.seq)),
            _ => Err(damaged(format!("{} does not begin as it must", file.path.display()))),
        },
        Met::Rest(..) | Met::End => Err(damaged(format!("{} is empty", file.path.display()))),
    }
}

fn damaged(why: String) -> OpenError {
    OpenError::Damaged(why)
}
