//! The files of a log, opened and read with bounds.

use std::{
    cell::Cell,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    rc::Rc,
};

use flate2::bufread::MultiGzDecoder;
use nix::fcntl::OFlag;

use super::{super::dir::open_listed, line::MAX_LINE_BYTES};

/// Bytes that are read at once.
const READ_BYTES: usize = 256 * 1_024;

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogFile {
    pub(super) number: u64,
    pub(super) name: String,
    pub(super) bytes: u64,
    path: PathBuf,
}

impl LogFile {
    fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_owned();
        let stem = name.strip_suffix(".gz").unwrap_or(&name);
        let number = stem.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()?;
        if stem != Self::name_of(number) {
            return None;
        }
        let bytes = fs::symlink_metadata(&path).map(|file| file.len()).unwrap_or_default();
        Some(Self { number, name, bytes, path })
    }

    /// The name that the file with this number has while it is not compressed.
    pub(super) fn name_of(number: u64) -> String {
        format!("audit-{number:08}.jsonl")
    }

    /// Its lines. Bytes are added to `done` as they are read from the disk.
    pub(super) fn lines(&self, done: Rc<Cell<u64>>) -> io::Result<Lines> {
        let is_compressed = self.path.extension().is_some_and(|extension| extension == "gz");
        let (file, is_compressed) = open_listed(&self.path, is_compressed, open)?;
        Ok(Lines::of(file, is_compressed, done))
    }
}

/// Opens a regular file: nothing that a link or a pipe of that name might lead to.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// What a directory holds.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The files of the log, by number.
    pub(super) files: Vec<LogFile>,
    /// Names that look as if they were of the log, and were passed over.
    pub(super) others: Vec<String>,
}

/// Lists the files of the log in `dir`.
pub(super) fn list(dir: &Path) -> io::Result<Listing> {
    let mut listing = Listing::default();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match LogFile::parse(path) {
            Some(file) => listing.files.push(file),
            None if name.starts_with("audit-") => listing.others.push(name.escape_default().to_string()),
            None => {}
        }
    }
    listing.files.sort_unstable();
    let others = &mut listing.others;
    listing.files.dedup_by(|later, earlier| {
        let is_double = later.number == earlier.number;
        if is_double {
            others.push(later.name.clone());
        }
        is_double
    });
    others.sort_unstable();
    Ok(listing)
}

/// What [`Lines::next`] met.
pub(super) enum Met<'l> {
    /// A line, without its line feed.
    Line(&'l [u8]),
    /// A line that is longer than any can be.
    TooLong,
    /// Bytes without a line feed at the end of the file.
    Rest(&'l [u8]),
    /// The end of the file.
    End,
}

/// The lines of a file, one after the other in one buffer.
pub(super) struct Lines {
    reader: Box<dyn BufRead>,
    line: Vec<u8>,
}

impl Lines {
    fn of(file: File, is_compressed: bool, done: Rc<Cell<u64>>) -> Self {
        let file = BufReader::with_capacity(READ_BYTES, Counted { file, done });
        let reader: Box<dyn BufRead> = if is_compressed {
            Box::new(BufReader::with_capacity(READ_BYTES, MultiGzDecoder::new(file)))
        } else {
            Box::new(file)
        };
        Self { reader, line: Vec::new() }
    }

    /// The next line.
    pub(super) fn next(&mut self) -> io::Result<Met<'_>> {
        self.line.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        self.reader.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        match self.line.split_last() {
            None => Ok(Met::End),
            Some((b'\n', line)) => Ok(Met::Line(line)),
            Some(_) if self.line.len() == MAX_LINE_BYTES => {
                self.reader.skip_until(b'\n')?;
                Ok(Met::TooLong)
            }
            Some(_) => {
                // Whoever writes the log may go on meanwhile, with what would not begin a line.
                self.reader = Box::new(io::empty());
                Ok(Met::Rest(&self.line))
            }
        }
    }
}

struct Counted {
    file: File,
    done: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let bytes = self.file.read(buffer)?;
        self.done.set(self.done.get().saturating_add(u64::try_from(bytes).unwrap_or_default()));
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_is_written_after_the_end_was_met_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(LogFile::name_of(1));
        fs::write(&path, "whole\nha").unwrap();
        let mut lines = LogFile::parse(path.clone()).unwrap().lines(Rc::default()).unwrap();
        assert!(matches!(lines.next().unwrap(), Met::Line(b"whole")));
        assert!(matches!(lines.next().unwrap(), Met::Rest(b"ha")));
        OpenOptions::new().append(true).open(path).unwrap().write_all(b"lf\nnext\n").unwrap();
        assert!(matches!(lines.next().unwrap(), Met::End));
    }
}
