//! The log's directory: which files there are, and `head.json`.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use flate2::bufread::MultiGzDecoder;
use nix::fcntl::OFlag;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::line::{Hash, MAX_LINE_BYTES, hex, parse_hash};

/// How far the log goes.
const HEAD_FILE: &str = "head.json";
/// The public keys of checkpoints.
const KEYS_FILE: &str = "keys.json";

/// A file of the log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LogFile {
    pub(super) number: u64,
    pub(super) path: PathBuf,
    pub(super) compressed: bool,
}

impl LogFile {
    /// The file with this number, as it is written.
    pub(super) fn new(dir: &Path, number: u64) -> Self {
        Self { number, path: dir.join(format!("audit-{number:08}.jsonl")), compressed: false }
    }

    fn parse(path: PathBuf) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (stem, compressed) = match name.strip_suffix(".gz") {
            Some(stem) => (stem, true),
            None => (name, false),
        };
        let number = stem.strip_prefix("audit-")?.strip_suffix(".jsonl")?.parse().ok()?;
        let is_named_so = Self::new(Path::new(""), number).path.as_os_str() == stem;
        is_named_so.then_some(Self { number, path, compressed })
    }

    /// Its lines from the byte `offset` of the uncompressed file on.
    pub(super) fn lines(&self, offset: u64) -> io::Result<Lines> {
        let (mut file, compressed) = open_listed(&self.path, self.compressed, open_plain)?;
        let reader: Box<dyn BufRead + Send> = if compressed {
            let file = MultiGzDecoder::new(BufReader::with_capacity(READ_BYTES, file));
            let mut plain = BufReader::with_capacity(READ_BYTES, file);
            io::copy(&mut plain.by_ref().take(offset), &mut io::sink())?;
            Box::new(plain)
        } else {
            file.seek(SeekFrom::Start(offset))?;
            Box::new(BufReader::with_capacity(READ_BYTES, file))
        };
        Ok(Lines { reader, offset, line: Vec::new() })
    }

    /// Its lines from the first one on that starts at the byte `offset` of the uncompressed file or after it.
    pub(super) fn lines_after(&self, offset: u64) -> io::Result<Lines> {
        // The line feed before `offset` ends what is not wanted.
        let mut lines = self.lines(offset.saturating_sub(1))?;
        if offset > 0 {
            lines.next()?;
        }
        Ok(lines)
    }

    /// How long it is, where a place in it can be gone to: not in a compressed one.
    pub(super) fn plain_bytes(&self) -> Option<u64> {
        let plain = (!self.compressed).then(|| fs::metadata(&self.path))?;
        plain.ok().map(|file| file.len())
    }
}

/// The lines of a file, one after the other in one buffer.
pub(super) struct Lines {
    reader: Box<dyn BufRead + Send>,
    offset: u64,
    line: Vec<u8>,
}

/// What [`Lines::next`] met.
pub(super) enum Met<'l> {
    /// A line, without its line feed, and where it starts.
    Line(&'l [u8], u64),
    /// Bytes without a line feed at the end of the file, and where they start.
    Rest(u64),
    End,
}

impl Lines {
    /// Where the next line starts.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn next(&mut self) -> io::Result<Met<'_>> {
        let start = self.offset;
        self.line.clear();
        let most = u64::try_from(MAX_LINE_BYTES).unwrap_or(u64::MAX);
        let bytes = self.reader.by_ref().take(most).read_until(b'\n', &mut self.line)?;
        self.offset = start + u64::try_from(bytes).unwrap_or(u64::MAX);
        Ok(match self.line.split_last() {
            None => Met::End,
            Some((b'\n', line)) => Met::Line(line, start),
            Some(_) => Met::Rest(start),
        })
    }
}

/// The files of the log in `dir`, by number.
pub(super) fn files(dir: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        files.extend(LogFile::parse(entry?.path()));
    }
    files.sort_unstable();
    // Of one that is just being compressed there are two: the finished one is enough.
    files.dedup_by(|later, earlier| later.number == earlier.number);
    Ok(files)
}

/// Makes names in `dir` durable.
pub(super) fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Where a line is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub seq: u64,
    /// Its SHA-256.
    pub hash: Hash,
    /// The number of its file.
    pub file: u64,
    /// Where in the uncompressed file it starts, in bytes.
    pub offset: u64,
}

/// Encoded as JSON, for the store.
#[derive(Deserialize, Serialize)]
struct StoredMark {
    seq: u64,
    hash: String,
    file: u64,
    offset: u64,
}

impl Mark {
    /// The bytes that the store keeps.
    pub fn encode(&self) -> Vec<u8> {
        let Self { seq, hash, file, offset } = *self;
        // A struct with string keys: there is nothing to fail.
        serde_json::to_vec(&StoredMark { seq, hash: hex(&hash), file, offset }).unwrap_or_default()
    }

    /// The mark that [`Mark::encode`] gave these bytes of.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let StoredMark { seq, hash, file, offset } = serde_json::from_slice(bytes).ok()?;
        Some(Self { seq, hash: parse_hash(&hash)?, file, offset })
    }
}

/// The content of `head.json`.
#[derive(Debug, Deserialize, Serialize)]
pub(super) struct HeadRecord {
    v: u8,
    pub(super) vault: String,
    pub(super) file: u64,
    pub(super) seq: u64,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) checkpoint: Option<Box<RawValue>>,
}

impl HeadRecord {
    pub(super) fn new(vault: &str, last: Mark, checkpoint: Option<Box<RawValue>>) -> Self {
        let hash = hex(&last.hash);
        Self { v: 1, vault: vault.to_owned(), file: last.file, seq: last.seq, hash, checkpoint }
    }

    /// The record in `dir`, if there is one that can be read.
    pub(super) fn read(dir: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(dir.join(HEAD_FILE)).ok()?).ok()
    }

    pub(super) fn hash(&self) -> Option<Hash> {
        parse_hash(&self.hash)
    }
}

/// `head.json`, open for writing.
#[derive(Debug)]
pub(super) struct HeadFile {
    file: File,
    longest: usize,
}

impl HeadFile {
    pub(super) fn open(dir: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(OFlag::O_NOFOLLOW.bits());
        let file = options.open(dir.join(HEAD_FILE))?;
        let longest = usize::try_from(file.metadata()?.len()).unwrap_or_default();
        Ok(Self { file, longest })
    }

    /// Writes it in one go, without waiting for the disk: whoever reads meanwhile finds the old or the new one.
    pub(super) fn write(&mut self, record: &HeadRecord) -> io::Result<()> {
        let mut text = serde_json::to_vec(record)?;
        // Blanks instead of a shorter file.
        self.longest = self.longest.max(text.len() + 1);
        text.resize(self.longest - 1, b' ');
        text.push(b'\n');
        self.file.write_all_at(&text, 0)
    }
}

/// Writes `keys`, a JWK set, for whoever verifies the log, unless they are there already.
pub(super) fn write_keys(dir: &Path, keys: &[u8]) -> io::Result<()> {
    let (path, fresh) = (dir.join(KEYS_FILE), dir.join(format!("{KEYS_FILE}.new")));
    if fs::read(&path).is_ok_and(|there| there == keys) {
        return Ok(());
    }
    fs::write(&fresh, keys)?;
    File::open(&fresh)?.sync_all()?;
    fs::rename(&fresh, &path)?;
    sync(dir)
}

/// The file that was at `path` when the directory was listed, opened by `open`, and whether it is compressed: it may have been since.
pub(super) fn open_listed(
    path: &Path,
    compressed: bool,
    open: impl Fn(&Path) -> io::Result<File>,
) -> io::Result<(File, bool)> {
    match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !compressed => {
            Ok((open(&path.with_extension("jsonl.gz"))?, true))
        }
        file => Ok((file?, compressed)),
    }
}

/// Opens a file for reading that is no link.
pub(super) fn open_plain(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path)
}

const READ_BYTES: usize = 256 * 1_024;

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    #[test]
    fn files_are_known_by_their_names() {
        let dir = tempfile::tempdir().unwrap();
        for name in [
            "audit-00000010.jsonl",
            "audit-00000002.jsonl.gz",
            "audit-00000002.jsonl",
            "audit-1.jsonl",
            "audit-00000003.jsonl.bak",
            "head.json",
        ] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        let found = files(dir.path()).unwrap();
        let found: Vec<_> = found.iter().map(|file| (file.number, file.compressed)).collect();
        assert_eq!(found, [(2, false), (10, false)]);
    }

    #[test]
    fn a_file_that_was_compressed_since_it_was_listed_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("audit-00000001.jsonl");
        fs::write(&path, "").unwrap();
        let listed = files(dir.path()).unwrap();
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(b"a line\n").unwrap();
        fs::write(path.with_extension("jsonl.gz"), gz.finish().unwrap()).unwrap();
        fs::remove_file(path).unwrap();
        let mut lines = listed[0].lines(0).unwrap();
        assert!(matches!(lines.next().unwrap(), Met::Line(b"a line", 0)));
    }

    #[test]
    fn a_mark_goes_both_ways() {
        let mark = Mark { seq: 7, hash: [9; 32], file: 2, offset: 400 };
        assert_eq!(Mark::decode(&mark.encode()), Some(mark));
        assert_eq!(Mark::decode(b"{}"), None);
    }

    #[test]
    fn a_shorter_head_leaves_no_rest_of_a_longer_one() {
        let dir = tempfile::tempdir().unwrap();
        let mut file = HeadFile::open(dir.path()).unwrap();
        let checkpoint = RawValue::from_string("{\"long\":\"one\"}".to_owned()).unwrap();
        for (seq, checkpoint) in [(1_000, Some(checkpoint)), (1, None)] {
            let mark = Mark { seq, ..Mark::default() };
            file.write(&HeadRecord::new("ab", mark, checkpoint)).unwrap();
            assert_eq!(HeadRecord::read(dir.path()).unwrap().seq, seq);
        }
    }
}
