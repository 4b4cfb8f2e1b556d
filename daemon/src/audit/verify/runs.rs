//! Runs of lines that follow one another, and what their order tells.
//!
//! A log that nobody touched is one run. Each edit that takes lines away or puts some in starts another, and which run
//! goes on where, by numbers and hashes, says what was done.

use super::{
    finding::{Damage, Findings},
    line::Hash,
};

/// Runs that are compared with each other; a log in more pieces is judged piecewise.
const MAX_RUNS: usize = 256;

/// Where a line stands: which of the files that were read, and the line's number in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: usize,
    pub(super) line: u64,
}

/// Lines with consecutive numbers.
#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) first: u64,
    pub(super) last: u64,
    /// The hash that the first names.
    pub(super) prev: Hash,
    /// The hash of the last.
    pub(super) hash: Hash,
    pub(super) start: Place,
    pub(super) end: Place,
    /// Missing lines that are explained by what stands before the first and is no line of this log.
    pub(super) holes: u64,
}

/// Where a log has to begin or to end: the number and hash of the line there.
pub(super) type Anchor = Option<(u64, Hash)>;

/// The runs so far.
#[derive(Debug, Default)]
pub(super) struct Runs {
    list: Vec<Run>,
    /// What the first run has to continue.
    start: Anchor,
    started: bool,
}

impl Runs {
    /// Says what the first line has to continue.
    pub(super) fn begin(&mut self, start: Anchor) {
        if !self.started {
            (self.start, self.started) = (start, true);
        }
    }

    /// A line that goes on with the current run.
    pub(super) fn extend(&mut self, last: u64, hash: Hash, end: Place) {
        if let Some(run) = self.list.last_mut() {
            (run.last, run.hash, run.end) = (last, hash, end);
        }
    }

    /// A line that does not.
    pub(super) fn push(&mut self, run: Run, names: &[String], findings: &mut Findings) {
        if self.list.len() >= MAX_RUNS {
            self.settle(None, names, findings);
            self.start = None;
            self.list.drain(..self.list.len() - 1);
        }
        self.list.push(run);
    }

    /// Says what the order of the runs tells. `end` is how far the log has to go.
    pub(super) fn settle(&self, end: Anchor, names: &[String], findings: &mut Findings) {
        let mut runs: Vec<Option<&Run>> = Vec::with_capacity(self.list.len() + 2);
        let start = self.start.map(|(last, hash)| edge(last, Hash::default(), hash));
        let furthest = self.list.iter().map(|run| run.last).max().unwrap_or_default();
        let end = end
            .filter(|(seq, _)| *seq > furthest)
            .and_then(|(seq, hash)| Some(edge(seq.checked_add(1)?, hash, Hash::default())));
        runs.extend(start.as_ref().map(Some));
        runs.extend(self.list.iter().map(Some));
        runs.extend(end.as_ref().map(Some));
        let runs: Vec<&Run> = runs.into_iter().flatten().collect();
        let judge = Judge { runs: &runs, at_start: start.is_some(), at_end: end.is_some(), names };
        judge.judge(findings);
    }
}

/// A run of no lines at the edge of the log.
fn edge(seq: u64, prev: Hash, hash: Hash) -> Run {
    let at = Place::default();
    Run { first: seq, last: seq, prev, hash, start: at, end: at, holes: 0 }
}

/// Lines `from` to `to` that are missing between two runs, given by their index.
struct Gap {
    from: u64,
    to: u64,
    after: usize,
    before: usize,
}

struct Judge<'r> {
    runs: &'r [&'r Run],
    at_start: bool,
    at_end: bool,
    names: &'r [String],
}

impl Judge<'_> {
    fn judge(&self, findings: &mut Findings) {
        let spine = self.spine();
        let mut gaps = Vec::new();
        for pair in spine.windows(2) {
            let [after, before] = pair else { continue };
            let (Some(a), Some(b)) = (self.runs.get(*after), self.runs.get(*before)) else { continue };
            if b.first <= a.last {
                let what = if b.first == a.last {
                    "is there a second time".to_owned()
                } else {
                    format!("seq {} to {} are there a second time", b.first, a.last)
                };
                findings.of_line(Damage::Inserted, self.place(b.start), b.first, what);
            } else if b.first - a.last > 1 {
                gaps.push(Gap { from: a.last + 1, to: b.first - 1, after: *after, before: *before });
            }
        }
        for (index, run) in self.runs.iter().enumerate().filter(|(index, _)| !spine.contains(index)) {
            self.stray(index, run, &mut gaps, findings);
        }
        for gap in gaps {
            self.gap(&gap, findings);
        }
    }

    /// The runs that are taken to be where they belong, in their order: those that keep the most lines.
    fn spine(&self) -> Vec<usize> {
        let mut best: Vec<(u64, Option<usize>)> = Vec::with_capacity(self.runs.len());
        for (index, run) in self.runs.iter().enumerate() {
            let mut reached = ((run.last - run.first).saturating_add(1), None);
            for (earlier, (before, (lines, _))) in self.runs.iter().zip(&best).enumerate().take(index) {
                if before.first < run.first && before.last < run.last {
                    let new = run.last - before.last.max(run.first - 1);
                    let lines = lines.saturating_add(new);
                    if lines > reached.0 || (lines == reached.0 && reached.1.is_none()) {
                        reached = (lines, Some(earlier));
                    }
                }
            }
            best.push(reached);
        }
        let furthest = best.iter().enumerate().rev().max_by_key(|(_, (lines, _))| *lines);
        let mut next = furthest.map(|(index, _)| index);
        let mut spine = Vec::new();
        while let Some(index) = next {
            spine.push(index);
            next = best.get(index).and_then(|(_, before)| *before);
        }
        spine.reverse();
        spine
    }

    /// Says why a run stands where it does not belong.
    fn stray(&self, index: usize, run: &Run, gaps: &mut Vec<Gap>, findings: &mut Findings) {
        let home = gaps.iter().position(|gap| gap.from <= run.first && run.last <= gap.to);
        let is_proven = home.and_then(|home| gaps.get(home)).is_some_and(|gap| {
            let fits = |other: usize, fits: fn(&Run, &Run) -> bool| {
                self.runs.get(other).is_some_and(|other| fits(other, run))
            };
            gap.from == run.first && fits(gap.after, |after, run| after.hash == run.prev)
                || gap.to == run.last && fits(gap.before, |before, run| before.prev == run.hash)
        });
        let neighbours =
            index.checked_sub(1).and_then(|before| self.runs.get(before)).zip(self.runs.get(index + 1));
        let replaced = neighbours
            .filter(|(before, after)| run.first == run.last && after.first == before.last.saturating_add(2))
            .and_then(|(before, _)| {
                gaps.iter().position(|gap| gap.from == before.last + 1 && gap.from == gap.to)
            });
        let place = self.place(run.start);
        match (home, replaced) {
            (_, Some(replaced)) if !is_proven => {
                let belongs = gaps.remove(replaced).from;
                let what =
                    format!("stands where seq {belongs} belongs: its number was changed, or it was replaced");
                findings.of_line(Damage::Altered, place, run.first, what);
            }
            (Some(home), _) => {
                let gap = gaps.remove(home);
                let what = match run.last - run.first {
                    0 => format!("does not belong here, but after seq {}", run.first - 1),
                    _ => format!(
                        "seq {} to {} do not belong here, but after seq {}",
                        run.first,
                        run.last,
                        run.first - 1
                    ),
                };
                findings.of_line(Damage::Reordered, place, run.first, what);
                if gap.from < run.first {
                    gaps.push(Gap { to: run.first - 1, ..gap });
                }
                if run.last < gap.to {
                    gaps.push(Gap { from: run.last + 1, ..gap });
                }
            }
            (None, _) => {
                let what = match run.last - run.first {
                    0 => "does not belong here".to_owned(),
                    _ => format!("seq {} to {} do not belong here", run.first, run.last),
                };
                findings.of_line(Damage::Inserted, place, run.first, what);
            }
        }
    }

    fn gap(&self, gap: &Gap, findings: &mut Findings) {
        let (Some(after), Some(before)) = (self.runs.get(gap.after), self.runs.get(gap.before)) else {
            return;
        };
        if gap.to - gap.from < before.holes {
            return;
        }
        let is_first = self.at_start && gap.after == 0;
        let is_last = self.at_end && gap.before == self.runs.len() - 1;
        if is_last {
            let what =
                if is_first { "there is no line".to_owned() } else { "this is the last line".to_owned() };
            let place = self.place(after.end);
            let what = format!("{what}, but head.json says that the log goes to seq {}", gap.to);
            return findings.of_line(Damage::CutOff, place, gap.from - 1, what);
        }
        let missing = match gap.to - gap.from {
            0 => format!("seq {} is missing", gap.from),
            _ => format!("seq {} to {} are missing", gap.from, gap.to),
        };
        let (file, line) = self.place(after.end);
        let what = if is_first {
            format!("{missing} before this line")
        } else {
            format!("{missing} between {file}:{line} and this line")
        };
        findings.of_line(Damage::Removed, self.place(before.start), before.first, what);
    }

    fn place(&self, place: Place) -> (&str, u64) {
        (self.names.get(place.file).map_or("", String::as_str), place.line)
    }
}
