//! Reading the log while it is written: forward from an entry, or the last ones.

use std::{borrow::Cow, collections::VecDeque, io, ops::Range, path::Path};

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use vault_api::{AuditAnswer, AuditQuery};

use super::{
    dir::{self, LogFile, Met},
    line::Head,
};

/// How much of the log one request may look through, in bytes.
const MOST_READ_BYTES: usize = 128 * 1_048_576;
/// The most bytes of entries in an answer.
const MOST_ANSWERED_BYTES: usize = 4 * 1_048_576;
/// How much of a file is read at once from its end, and left to be read through in search of a line.
const PIECE_BYTES: u64 = 1_048_576;
/// Entries of an answer where the query does not say.
const USUAL_LIMIT: usize = 100;

/// What the query asks of the log in `dir`, as far as it is durable: up to the line `end`.
pub(super) fn read(dir: &Path, query: &AuditQuery, end: u64) -> io::Result<AuditAnswer> {
    let files = dir::files(dir)?;
    match query.last {
        Some(last) => newest(&files, query, last, end),
        None => forward(&files, query, end),
    }
}

fn forward(files: &[LogFile], query: &AuditQuery, end: u64) -> io::Result<AuditAnswer> {
    let after = query.after.unwrap_or(0);
    let limit = query.limit.unwrap_or(USUAL_LIMIT);
    let mut answer = AuditAnswer { entries: Vec::new(), next: after.min(end), more: false };
    let (mut read, mut answered) = (0, 0);
    for file in from(files, after)? {
        let mut lines = file.lines(start(file, after)?)?;
        while let Met::Line(line, _) = lines.next()? {
            // Without a look at the rest: of a compressed file there may be many.
            if Head::seq_of(line).is_some_and(|seq| seq <= after) {
                continue;
            }
            let Some(seen) = Seen::parse(line) else { continue };
            if seen.seq <= after {
                continue;
            }
            if seen.seq > end {
                return Ok(answer);
            }
            read += line.len();
            answer.next = seen.seq;
            if seen.fits(query) {
                answered += line.len();
                answer.entries.extend(raw(line));
            }
            if answer.entries.len() >= limit || answered >= MOST_ANSWERED_BYTES || read >= MOST_READ_BYTES {
                answer.more = seen.seq < end;
                return Ok(answer);
            }
        }
    }
    Ok(answer)
}

/// The last `most` entries that fit, as far back as one request may look.
fn newest(files: &[LogFile], query: &AuditQuery, most: usize, end: u64) -> io::Result<AuditAnswer> {
    let mut found: VecDeque<Box<RawValue>> = VecDeque::new();
    let (mut read, mut answered, mut is_cut) = (0, 0, false);
    for Piece { file, bytes } in pieces_back(files) {
        if found.len() >= most || answered >= MOST_ANSWERED_BYTES || read >= MOST_READ_BYTES {
            is_cut = true;
            break;
        }
        let mut of_piece: VecDeque<Box<RawValue>> = VecDeque::new();
        let mut lines = file.lines_after(bytes.start)?;
        while lines.offset() < bytes.end
            && let Met::Line(line, _) = lines.next()?
        {
            read += line.len();
            let Some(seen) = Seen::parse(line) else { continue };
            if seen.seq <= end && seen.fits(query) {
                answered += line.len();
                of_piece.extend(raw(line));
            }
            while found.len() + of_piece.len() > most || answered > MOST_ANSWERED_BYTES {
                is_cut |= answered > MOST_ANSWERED_BYTES;
                let Some(dropped) = of_piece.pop_front() else { break };
                answered -= dropped.get().len();
            }
        }
        of_piece.append(&mut found);
        found = of_piece;
    }
    let more = is_cut && found.len() < most;
    Ok(AuditAnswer { entries: found.into(), next: end, more })
}

/// The lines of `file` that start in `bytes`.
struct Piece<'f> {
    file: &'f LogFile,
    bytes: Range<u64>,
}

/// What `files` hold, the end first: who asks for the last lines is not to wait for whole files to be read.
fn pieces_back(files: &[LogFile]) -> impl Iterator<Item = Piece<'_>> {
    files.iter().rev().flat_map(|file| {
        let (last, bytes) = match file.plain_bytes() {
            Some(bytes) => (bytes / PIECE_BYTES, PIECE_BYTES),
            None => (0, u64::MAX),
        };
        (0..=last)
            .rev()
            .map(move |piece| Piece { file, bytes: piece * bytes..(piece + 1).saturating_mul(bytes) })
    })
}

/// The files that hold what comes after the line `after`.
fn from(files: &[LogFile], after: u64) -> io::Result<&[LogFile]> {
    let (mut start, mut end) = (0, files.len());
    while end - start > 1 {
        let middle = usize::midpoint(start, end);
        let Some(file) = files.get(middle) else { break };
        match file.lines(0)?.next()? {
            Met::Line(line, _) if Head::parse(line).is_some_and(|head| head.seq <= after) => start = middle,
            Met::Line(..) | Met::Rest(..) | Met::End => end = middle,
        }
    }
    Ok(files.get(start..).unwrap_or_default())
}

/// Where a line of `file` starts before which there is none that comes after the line `after`: of whoever follows the
/// log, most of a file is behind.
fn start(file: &LogFile, after: u64) -> io::Result<u64> {
    let (mut start, mut end) = (0, file.plain_bytes().unwrap_or(0));
    while end - start > PIECE_BYTES {
        let middle = u64::midpoint(start, end);
        match file.lines_after(middle)?.next()? {
            Met::Line(line, at) if at < end && Head::seq_of(line).is_some_and(|seq| seq <= after) => {
                start = at;
            }
            Met::Line(..) | Met::Rest(..) | Met::End => end = middle,
        }
    }
    Ok(start)
}

fn raw(line: &[u8]) -> Option<Box<RawValue>> {
    serde_json::from_slice(line).ok()
}

/// What a query can ask about.
#[derive(Deserialize)]
struct Seen<'l> {
    seq: u64,
    time: Timestamp,
    #[serde(rename = "type", borrow)]
    kind: Cow<'l, str>,
    #[serde(default, borrow)]
    subject: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    issuer: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    tenant: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    op: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    outcome: Option<Cow<'l, str>>,
    #[serde(default, borrow)]
    tokens: Vec<Cow<'l, str>>,
    #[serde(default, borrow)]
    failed: Vec<SeenFailed<'l>>,
}

#[derive(Deserialize)]
struct SeenFailed<'l> {
    #[serde(default, borrow)]
    token: Option<Cow<'l, str>>,
}

impl<'l> Seen<'l> {
    fn parse(line: &'l [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    fn fits(&self, query: &AuditQuery) -> bool {
        let is = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| found == Some(wanted))
        };
        let has_token = |wanted: &str| {
            let failed = self.failed.iter().filter_map(|failed| failed.token.as_deref());
            self.tokens.iter().map(AsRef::as_ref).chain(failed).any(|token| token == wanted)
        };
        is(&query.kind, Some(&self.kind))
            && is(&query.subject, self.subject.as_deref())
            && is(&query.issuer, self.issuer.as_deref())
            && is(&query.tenant, self.tenant.as_deref())
            && is(&query.op, self.op.as_deref())
            && is(&query.outcome, self.outcome.as_deref())
            && query.token.as_deref().is_none_or(has_token)
            && query.since.is_none_or(|since| self.time >= since)
            && query.until.is_none_or(|until| self.time < until)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn what_is_asked_for_is_found_in_whatever_file_it_is() {
        const LINES: u64 = 24;
        let dir = tempfile::tempdir().unwrap();
        let rare = |seq: &u64| seq.is_multiple_of(7);
        let line = |seq: u64, bytes: usize| {
            let (op, token) = (if rare(&seq) { "rare" } else { "usual" }, "t".repeat(bytes));
            format!(
                r#"{{"v":1,"seq":{seq},"time":"2026-01-01T00:00:00Z","type":"access","op":"{op}","tokens":["{token}"]}}"#
            ) + "\n"
        };
        let sizes = [10, 300_000, 40_000, 10, 10, 700_000].into_iter().cycle();
        let lines: Vec<_> = (1..=LINES).zip(sizes).map(|(seq, bytes)| line(seq, bytes)).collect();
        let mut compressed = GzEncoder::new(Vec::new(), Compression::fast());
        compressed.write_all(lines[..6].concat().as_bytes()).unwrap();
        let path = |number| LogFile::new(dir.path(), number).path;
        fs::write(path(1).with_extension("jsonl.gz"), compressed.finish().unwrap()).unwrap();
        for (number, held) in [(2, 6..7), (3, 7..14), (4, 14..24)] {
            fs::write(path(number), lines[held].concat()).unwrap();
        }
        let found = |query: &AuditQuery, end| seqs(&read(dir.path(), query, end).unwrap());
        for (op, end, most) in
            [(None, LINES, 1), (None, 22, 3), (Some("rare"), LINES, 1), (Some("rare"), 22, 2)]
        {
            let fits = |seq: &u64| op.is_none() || rare(seq);
            for at in 0..=LINES {
                let query = AuditQuery { op: op.map(str::to_owned), ..AuditQuery::default() };
                let next: Vec<_> = (at + 1..=end).filter(fits).take(most).collect();
                let after = AuditQuery { after: Some(at), limit: Some(most), ..query.clone() };
                assert_eq!(found(&after, end), next, "{most} of {op:?} after {at} up to {end}");
                let mut newest: Vec<_> = (1..=at).rev().filter(fits).take(most).collect();
                newest.reverse();
                let last = AuditQuery { last: Some(most), ..query };
                assert_eq!(found(&last, at), newest, "the last {most} of {op:?} up to {at}");
            }
        }
    }

    fn seqs(answer: &AuditAnswer) -> Vec<u64> {
        let seq = |entry: &RawValue| serde_json::from_str::<Seen<'_>>(entry.get()).unwrap().seq;
        answer.entries.iter().map(|entry| seq(entry)).collect()
    }

    #[test]
    fn the_last_entries_are_cut_short_with_a_word_about_it() {
        let dir = tempfile::tempdir().unwrap();
        let line = |seq: u64, bytes: usize| {
            let token = "t".repeat(bytes);
            format!(
                "{{\"seq\":{seq},\"time\":\"2026-01-01T00:00:00Z\",\"type\":\"access\",\"tokens\":[\"{token}\"]}}\n"
            )
        };
        let last = |most: usize, lines: &[String]| {
            fs::write(LogFile::new(dir.path(), 1).path, lines.concat()).unwrap();
            let query = AuditQuery { last: Some(most), ..AuditQuery::default() };
            let answer = read(dir.path(), &query, 200).unwrap();
            (answer.entries.len(), answer.more)
        };
        let large: Vec<_> = (1..=200).map(|seq| line(seq, 40_000)).collect();
        assert_eq!(last(200, &large), (104, true));
        assert_eq!(last(100, &large), (100, false), "as many as were asked for");
        let small: Vec<_> = (1..=200).map(|seq| line(seq, if seq > 100 { 1 } else { 50_000 })).collect();
        assert_eq!(last(100, &small), (100, false), "what was too much comes before them");
        assert_eq!(last(200, &small[100..]), (100, false));
    }
}
