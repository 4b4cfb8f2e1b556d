//! Whether a log is what its vault wrote: found out from its directory and public keys, and nothing else.
//!
//! The door is [`verify`]. It streams: what is kept of a log does not grow with it. Nothing that is read is trusted,
//! and nothing of it gets into a message that is not known to be harmless. After a damage it goes on where lines fit
//! again. It shares no code with the writer, so that a mistake there is not repeated here.
//! `docs/audit-log.md` has the format and says what each finding means.
#![deny(clippy::indexing_slicing)]

mod content;
mod ending;
mod files;
mod finding;
mod head;
mod history;
mod keys;
mod line;
mod report;
mod runs;
mod walk;

use std::{
    cell::Cell,
    io,
    path::{Path, PathBuf},
    rc::Rc,
};

pub use finding::{Damage, Finding};
pub use head::Head;
pub use line::{Kind, Line};
pub use report::{KeyUse, Report};
pub use walk::Walk;

use files::{Listing, LogFile, Met};
use head::HEAD_FILE;
use keys::{Keys, Verdict};

/// The public keys in a log's own directory.
const KEYS_FILE: &str = "keys.json";

/// Lines between two calls of the progress.
const LINES_PER_STEP: u64 = 1_024;

/// How a log is verified.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// A JWK set or PEM with the public keys, instead of the log's own `keys.json`.
    pub keys: Option<PathBuf>,
    /// Whether earlier files of the log are kept elsewhere.
    pub is_partial: bool,
}

/// Why there is nothing to verify.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The directory cannot be listed.
    #[error("{}: {error}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It holds neither files of a log nor `head.json`.
    #[error("{}: there is no audit log", .0.display())]
    NoLog(PathBuf),
    /// The keys that were given cannot be used.
    #[error("{} {why}", path.display())]
    Keys {
        /// Which file.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

/// Verifies the log in `dir`. `progress` is told now and then how many bytes have been read, and of how many.
///
/// # Errors
/// [`VerifyError`] if there is nothing to verify. Whatever is wrong with a log is in the report.
pub fn verify(
    dir: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Report, VerifyError> {
    // The head first: whatever it names is in the files by then, even while somebody writes.
    let head = Head::read(dir);
    let mut keys = load_keys(dir, options)?;
    let listing = files::list(dir).map_err(|error| VerifyError::Directory { path: dir.to_owned(), error })?;
    if listing.files.is_empty() && head.is_err() {
        return Err(VerifyError::NoLog(dir.to_owned()));
    }
    let whole_head = head.as_ref().ok().and_then(|head| head.as_ref().ok());
    let vault = whole_head.map(|head| vault_of(head, keys.as_mut().ok()));
    let (known_keys, keys_objection) = match keys {
        Ok(keys) => (Some(keys), None),
        Err(objection) => (None, Some(objection)),
    };
    let mut walk = Walk::new(known_keys, whole_head.cloned(), vault, options.is_partial);
    if let Some(why) = keys_objection {
        let what = format!("{why}: no checkpoint can be verified");
        walk.findings.of_file(Damage::Unreadable, KEYS_FILE, what);
    }
    match &head {
        Ok(Ok(_)) => {}
        Ok(Err(why)) => walk.findings.of_file(Damage::Altered, HEAD_FILE, (*why).to_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            walk.findings.of_file(Damage::Removed, HEAD_FILE, "is missing".to_owned());
        }
        Err(error) => walk.findings.of_file(Damage::Unreadable, HEAD_FILE, error.to_string()),
    }
    missing_files(&listing, options.is_partial, &mut walk);
    let bytes = walk_files(dir, &listing, &mut walk, progress);
    walk.end();
    Ok(report(walk, &listing, dir, options, bytes))
}

/// The keys, or what the log's own lack. The name of the file that is meant goes with it.
fn load_keys(dir: &Path, options: &Options) -> Result<Result<Keys, String>, VerifyError> {
    match &options.keys {
        Some(path) => match Keys::load(path, false) {
            Ok(keys) => Ok(Ok(keys)),
            Err(why) => Err(VerifyError::Keys { path: path.clone(), why }),
        },
        None => Ok(Keys::load(&dir.join(KEYS_FILE), true)),
    }
}

/// Which vault's log it is: what is signed counts more than what is not.
fn vault_of(head: &Head, keys: Option<&mut Keys>) -> String {
    let signed = head.checkpoint().and_then(|checkpoint| {
        let fields = &checkpoint.fields;
        let verdict = keys?.check(&fields.kid, checkpoint.statement, checkpoint.signature);
        (verdict == Verdict::Good).then(|| fields.vault.clone())
    });
    signed.unwrap_or_else(|| head.vault.clone())
}

/// Files whose numbers are left out.
fn missing_files(listing: &Listing, is_partial: bool, walk: &mut Walk) {
    let mut expected = if is_partial { None } else { Some(1) };
    for file in &listing.files {
        if let Some(first) = expected.filter(|expected| *expected < file.number) {
            let missing = LogFile::name_of(first);
            let what = match file.number - first {
                1 => "the file is missing".to_owned(),
                _ => format!("the files from here to {} are missing", LogFile::name_of(file.number - 1)),
            };
            walk.findings.of_file(Damage::Removed, &missing, what);
        }
        expected = file.number.checked_add(1);
    }
}

/// Walks through all files and says how many bytes they have.
fn walk_files(dir: &Path, listing: &Listing, walk: &mut Walk, progress: &mut dyn FnMut(u64, u64)) -> u64 {
    let total = listing.files.iter().map(|file| file.bytes).sum();
    let done = Rc::new(Cell::new(0));
    for (index, file) in listing.files.iter().enumerate() {
        let is_newest = index + 1 == listing.files.len();
        walk.file(file.number, &file.name);
        let mut number = 0;
        let mut lines = match file.lines(Rc::clone(&done)) {
            Ok(lines) => lines,
            Err(error) => {
                walk.lost(1, &format!("cannot be opened: {error}"));
                continue;
            }
        };
        loop {
            number += 1;
            match lines.next() {
                Ok(Met::Line(line)) => walk.line(line, number),
                Ok(Met::TooLong) => walk.too_long(number),
                Ok(Met::Rest(rest)) => {
                    let known = walk.head.clone();
                    walk.rest(rest, number, is_newest, || Head::read(dir).ok().and_then(Result::ok) != known);
                }
                Ok(Met::End) => {
                    if number == 1 {
                        walk.empty(is_newest);
                    }
                    break;
                }
                Err(error) => {
                    walk.lost(number, &format!("cannot be read from here on: {error}"));
                    break;
                }
            }
            if number.is_multiple_of(LINES_PER_STEP) {
                progress(done.get(), total);
            }
        }
        progress(done.get(), total);
    }
    done.get()
}

fn report(walk: Walk, listing: &Listing, dir: &Path, options: &Options, bytes: u64) -> Report {
    let own = dir.join(KEYS_FILE);
    let last = walk.last_time().map(str::to_owned);
    let is_final = walk.last.as_ref().is_some_and(|last| last.is_final);
    let notes = notes(&walk, listing, is_final);
    let used = walk.keys.map(|keys| keys.used).unwrap_or_default();
    let (findings, more_findings) = walk.findings.into_parts();
    let tally = walk.tally;
    Report {
        intact: findings.is_empty(),
        vault: walk.vault,
        files: u64::try_from(listing.files.len()).unwrap_or(u64::MAX),
        bytes,
        lines: tally.lines,
        first_seq: tally.first_seq,
        last_seq: tally.first_seq.map(|_| tally.last_seq),
        from: tally.from,
        to: last,
        checkpoints: tally.checkpoints,
        signed_upto: (tally.checkpoints > 0).then_some(tally.signed_upto),
        unsigned: walk.history.unsigned(),
        is_final,
        repairs: tally.repairs,
        resumptions: tally.resumptions,
        key_file: options.keys.as_ref().unwrap_or(&own).display().to_string(),
        key_file_is_of_the_log: options.keys.is_none(),
        keys: used.into_iter().map(|(thumbprint, checkpoints)| KeyUse { thumbprint, checkpoints }).collect(),
        notes,
        findings,
        more_findings,
    }
}

fn notes(walk: &Walk, listing: &Listing, is_final: bool) -> Vec<String> {
    let mut notes = Vec::new();
    let tally = &walk.tally;
    match walk.history.unsigned() {
        0 => {}
        n if tally.checkpoints == 0 => notes.push(format!("no checkpoint signs any of the {n} lines")),
        n => notes.push(format!(
            "{n} lines after the last checkpoint are not signed: they can be proven no more than by head.json. If that is \
             more than the vault has written without its HSM, checkpoints were taken out: `vaultd check` knows the last one"
        )),
    }
    if !is_final && tally.checkpoints > 0 {
        notes.push(
            "the last line is not a final checkpoint: the vault runs, or was not stopped in good order"
                .to_owned(),
        );
    }
    if let Some(head) = walk.head.as_ref().filter(|head| tally.last_seq > head.seq) {
        let ahead = tally.last_seq - head.seq;
        notes.push(format!(
            "the log goes on {ahead} lines after head.json: the vault runs, or lost its power"
        ));
    }
    if tally.is_unbegun {
        notes.push("the newest file is empty: the vault begins it, or was ended while it did".to_owned());
    }
    if tally.unfinished > 0 {
        notes.push(format!(
            "the last line is not whole yet ({} bytes): the vault writes it, or was ended while it did",
            tally.unfinished
        ));
    }
    if tally.repairs > 0 {
        notes.push(format!("half-written lines were cut off at a start: {} events `repair`", tally.repairs));
    }
    if tally.resumptions > 0 {
        notes.push(format!(
            "somebody accepted the loss of lines and let the log go on: {} times",
            tally.resumptions
        ));
    }
    for other in listing.others.iter().take(MAX_OTHERS) {
        notes.push(format!(
            "{other} was not looked at: it is not called like a file of the log, or is there twice"
        ));
    }
    notes
}

const MAX_OTHERS: usize = 10;
