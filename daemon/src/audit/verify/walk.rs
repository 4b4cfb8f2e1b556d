//! The walk along the chain: each line is held against the one before it and the one after it.

use super::{
    finding::{Damage, Finding, Findings},
    head::Head,
    history::History,
    keys::Keys,
    line::{Hash, Kind, Line, hash, hex},
    runs::{Place, Run, Runs},
};

/// Missing lines that one unreadable line explains: a line feed that was taken out makes one of two.
const HOLES_OF_UNREADABLE: u64 = 2;

/// A line that was read.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) seq: u64,
    pub(super) hash: Hash,
    prev: Hash,
    pub(super) place: Place,
    time: String,
    /// Whether a finding names it already, so that its hash need not fit.
    pub(super) is_blamed: bool,
    /// Whether it is a good checkpoint that ends the log.
    pub(super) is_final: bool,
}

/// What was counted on the way.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) lines: u64,
    pub(super) first_seq: Option<u64>,
    pub(super) last_seq: u64,
    pub(super) from: Option<String>,
    pub(super) checkpoints: u64,
    pub(super) checkpoint_lines: u64,
    pub(super) signed_upto: u64,
    pub(super) signed_hash: Hash,
    pub(super) repairs: u64,
    pub(super) resumptions: u64,
    /// Whether the checkpoint in `head.json` was among the lines.
    pub(super) is_head_checkpoint_met: bool,
    /// Whether the newest file has no line yet.
    pub(super) is_unbegun: bool,
    /// Bytes of a last line that is being written.
    pub(super) unfinished: usize,
}

/// The line that `head.json` says is the last.
#[derive(Debug)]
pub(super) struct HeadLine {
    pub(super) hash: Hash,
    pub(super) place: Place,
    /// Whether the line after it names its hash.
    pub(super) is_confirmed: bool,
}

/// A walk along a log. Takes its lines one after the other and keeps a bounded number of things about them.
pub struct Walk {
    pub(super) keys: Option<Keys>,
    pub(super) head: Option<Head>,
    pub(super) is_partial: bool,
    pub(super) vault: Option<String>,
    pub(super) names: Vec<String>,
    /// The numbers of the files by their names.
    pub(super) numbers: Vec<u64>,
    pub(super) findings: Findings,
    pub(super) runs: Runs,
    pub(super) last: Option<Seen>,
    /// The line before `last`, if `last` does not name its hash: one of the two was altered.
    broken: Option<Seen>,
    holes: u64,
    pub(super) history: History,
    pub(super) tally: Tally,
    pub(super) head_line: Option<HeadLine>,
}

impl Walk {
    pub(super) fn new(
        keys: Option<Keys>,
        head: Option<Head>,
        vault: Option<String>,
        is_partial: bool,
    ) -> Self {
        Self {
            keys,
            head,
            is_partial,
            vault,
            names: Vec::new(),
            numbers: Vec::new(),
            findings: Findings::default(),
            runs: Runs::default(),
            last: None,
            broken: None,
            holes: 0,
            history: History::default(),
            tally: Tally::default(),
            head_line: None,
        }
    }

    /// A walk without any key, in which nothing can turn out to be signed.
    pub fn without_keys(head: Option<Head>) -> Self {
        Self::new(None, head, None, false)
    }

    /// Lines of the file with this number come next.
    pub fn file(&mut self, number: u64, name: &str) {
        self.numbers.push(number);
        self.names.push(name.to_owned());
    }

    /// The next line, without its line feed; `number` counts from 1 in each file.
    pub fn line(&mut self, bytes: &[u8], number: u64) {
        let place = self.place(number);
        match Line::parse(bytes) {
            Ok(line) => self.parsed(&line, hash(bytes), place),
            Err(why) => self.unreadable(place, why),
        }
    }

    /// Something that is no line.
    pub(super) fn unreadable(&mut self, place: Place, why: &str) {
        self.findings.of_stranger(Damage::Unreadable, at(&self.names, place), why);
        self.holes = self.holes.saturating_add(HOLES_OF_UNREADABLE);
    }

    /// A line that is longer than any can be.
    pub(super) fn too_long(&mut self, line: u64) {
        self.unreadable(self.place(line), "is longer than a line can be");
    }

    /// Bytes that are no whole line.
    pub(super) fn half_line(&mut self) {
        self.holes = self.holes.saturating_add(HOLES_OF_UNREADABLE);
    }

    /// The number of the file that is read.
    pub(super) fn number(&self) -> Option<u64> {
        self.numbers.last().copied()
    }

    /// The line with this number in the file that is read.
    pub(super) fn place(&self, line: u64) -> Place {
        Place { file: self.names.len().saturating_sub(1), line }
    }

    /// Whether it will turn out whether the line `seq` was altered.
    pub(super) fn is_suspect(&self, seq: u64) -> bool {
        self.broken.as_ref().is_some_and(|broken| broken.seq == seq)
    }

    /// The rest of the file cannot be read, whatever is in it.
    pub(super) fn lost(&mut self, line: u64, why: &str) {
        let place = self.place(line);
        self.findings.of_stranger(Damage::Unreadable, at(&self.names, place), why);
        self.holes = u64::MAX;
    }

    /// Findings about what has been walked, and how many more there were.
    pub fn finish(mut self) -> (Vec<Finding>, u64) {
        self.end();
        self.findings.into_parts()
    }

    fn parsed(&mut self, line: &Line<'_>, hash: Hash, place: Place) {
        let follows = self.last.as_ref().is_some_and(|last| last.hash == line.prev);
        let vault = self.vault.get_or_insert_with(|| line.vault.to_owned());
        let is_foreign = line.vault != vault;
        if is_foreign && !follows {
            let what = format!("belongs to vault {}, this log to {vault}", line.vault);
            self.findings.of_stranger(Damage::Foreign, at(&self.names, place), &what);
            self.holes = self.holes.saturating_add(1);
            return;
        }
        let next = self.last.as_ref().and_then(|last| last.seq.checked_add(1));
        let is_over_holes = next.is_some_and(|next| line.seq > next && line.seq - next < self.holes);
        let goes_on = next == Some(line.seq) || follows || is_over_holes;
        let seq =
            if is_over_holes && !follows { line.seq } else { next.filter(|_| goes_on).unwrap_or(line.seq) };
        let (prev, time) = (line.prev, line.time.to_owned());
        let mut seen = Seen { seq, hash, prev, place, time, is_blamed: false, is_final: false };
        if is_foreign || seq != line.seq {
            let what = if is_foreign {
                "names another vault, though it continues this log".to_owned()
            } else {
                format!("says that it is seq {}", line.seq)
            };
            self.blame(&mut seen, &what);
        }
        match self.last.take() {
            Some(last) if goes_on => self.follow(last, &seen, line, is_over_holes && !follows),
            last => self.leap(last, &seen, line),
        }
        self.holes = 0;
        self.count(line, &seen);
        self.content(line, &mut seen, goes_on);
        self.last = Some(seen);
    }

    /// `seen` comes after `last`, and its number says so.
    fn follow(&mut self, mut last: Seen, seen: &Seen, line: &Line<'_>, is_over_holes: bool) {
        let links = line.prev == last.hash;
        self.resolve(&mut last, links);
        if is_over_holes {
            self.history.interrupt();
        } else if links {
            if line.time < last.time.as_str() {
                let what = format!("its time is before {}, that of the line before", last.time);
                self.findings.of_line(Damage::Altered, at(&self.names, seen.place), seen.seq, what);
            }
            if last.is_final && !matches!(line.kind, Kind::Event | Kind::Begin) {
                let what =
                    "follows the final checkpoint, though the vault was not started in between".to_owned();
                self.findings.of_line(Damage::Inserted, at(&self.names, seen.place), seen.seq, what);
            }
            if let Some(head_line) = self.head_line.as_mut().filter(|head| head.place == last.place) {
                head_line.is_confirmed = true;
            }
        } else if !last.is_blamed {
            self.broken = Some(last);
        }
        self.runs.extend(seen.seq, seen.hash, seen.place);
    }

    /// `seen` is the first line, or its number does not follow.
    fn leap(&mut self, last: Option<Seen>, seen: &Seen, line: &Line<'_>) {
        let is_first = last.is_none();
        if let Some(mut last) = last {
            self.resolve(&mut last, true);
        }
        if is_first {
            let is_start = !self.is_partial || self.number() == Some(1);
            self.runs.begin(is_start.then(|| (0, Hash::default())));
            if seen.seq == 1 && line.prev != Hash::default() {
                let what = "is the first line, but names a line before it".to_owned();
                self.findings.of_line(Damage::Altered, at(&self.names, seen.place), 1, what);
            }
        }
        self.history.interrupt();
        let &Seen { seq, prev, hash, place, .. } = seen;
        let run = Run { first: seq, last: seq, prev, hash, start: place, end: place, holes: self.holes };
        self.runs.push(run, &self.names, &mut self.findings);
    }

    /// Of two lines that do not fit one was altered. `last`, if the line after it does not fit either, else the other.
    fn resolve(&mut self, last: &mut Seen, is_confirmed: bool) {
        let Some(mut before) = self.broken.take() else { return };
        if is_confirmed {
            let (file, line) = at(&self.names, last.place);
            let what = format!(
                "its SHA-256 is {}, but {file}:{line}, written after it, names {}",
                hex(&before.hash),
                hex(&last.prev)
            );
            self.blame(&mut before, &what);
        } else {
            let what = format!(
                "names {} as the SHA-256 of the line before, which is {}, and its own is not the one that the line \
                 after it names",
                hex(&last.prev),
                hex(&before.hash)
            );
            self.blame(last, &what);
        }
    }

    /// Judges the last line once it is clear that none follows.
    pub(super) fn close(&mut self) {
        if let Some(mut last) = self.last.take() {
            let head = self.head.as_ref().filter(|head| head.seq == last.seq);
            let is_confirmed = head.is_none_or(|head| head.hash == last.hash);
            self.resolve(&mut last, is_confirmed);
            self.last = Some(last);
        }
        let end = self.head.as_ref().map(|head| (head.seq, head.hash));
        self.runs.settle(end, &self.names, &mut self.findings);
    }

    /// Says that a line was altered, once.
    pub(super) fn blame(&mut self, seen: &mut Seen, what: &str) {
        if !seen.is_blamed && !self.findings.names(seen.seq) {
            self.findings.of_line(Damage::Altered, at(&self.names, seen.place), seen.seq, what.to_owned());
        }
        seen.is_blamed = true;
    }

    fn count(&mut self, line: &Line<'_>, seen: &Seen) {
        self.tally.lines += 1;
        self.tally.first_seq.get_or_insert(seen.seq);
        self.tally.last_seq = self.tally.last_seq.max(seen.seq);
        if self.tally.from.is_none() {
            self.tally.from = Some(line.time.to_owned());
        }
        self.history.push(seen.seq, seen.hash, line.kind == Kind::Checkpoint);
        let is_new = self
            .head_line
            .as_ref()
            .is_none_or(|known| Some(known.hash) != self.head.as_ref().map(|head| head.hash));
        if is_new && self.head.as_ref().is_some_and(|head| head.seq == seen.seq) {
            self.head_line = Some(HeadLine { hash: seen.hash, place: seen.place, is_confirmed: false });
        }
    }

    /// The time of the last line.
    pub(super) fn last_time(&self) -> Option<&str> {
        self.last.as_ref().map(|last| last.time.as_str())
    }
}

/// The file's name and the line's number.
pub(super) fn at(names: &[String], place: Place) -> (&str, u64) {
    (names.get(place.file).map_or("", String::as_str), place.line)
}
