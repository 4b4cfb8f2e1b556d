//! The file that is being written, and whether it is still the one it was.

use std::{
    fs::{self, File, Metadata, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::{
        fd::AsRawFd as _,
        unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::OFlag,
    unistd::{AccessFlags, access},
};
use sha2::{Digest as _, Sha256};

use super::{
    dir::{LogFile, Met},
    line::{Chain, Hash, Head},
};

/// The file at the end of the log.
#[derive(Debug)]
pub(super) struct CurrentFile {
    pub(super) number: u64,
    /// How much of it is durable, in bytes: all that it should hold.
    pub(super) bytes: u64,
    path: PathBuf,
    file: File,
    id: (u64, u64),
    /// What a write that failed had left, until it is told.
    cut_off: Option<CutOff>,
}

/// Bytes that were cut off because they were not ours, or half ours.
#[derive(Debug)]
pub(super) struct CutOff {
    pub(super) bytes: u64,
    pub(super) sha256: Hash,
}

impl CurrentFile {
    /// Makes the file with this number, which must not be there.
    pub(super) fn create(dir: &Path, number: u64) -> io::Result<Self> {
        Self::new(dir, number, options().create_new(true).mode(0o600))
    }

    /// Opens the file with this number.
    pub(super) fn open(dir: &Path, number: u64) -> io::Result<Self> {
        Self::new(dir, number, &mut options())
    }

    fn new(dir: &Path, number: u64, options: &mut OpenOptions) -> io::Result<Self> {
        let path = LogFile::new(dir, number).path;
        let file = options.open(&path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "is not a file"));
        }
        Ok(Self { number, bytes: metadata.len(), path, file, id: id(&metadata), cut_off: None })
    }

    /// Whether directory and file are as they were left. Says what is wrong, and what to do.
    pub(super) fn check(&self, dir: &Path) -> Result<(), String> {
        check_dir(dir)?;
        let name = self.name();
        let metadata = match fs::symlink_metadata(&self.path) {
            Ok(metadata) => metadata,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let (pid, fd) = (std::process::id(), self.file.as_raw_fd());
                return Err(format!(
                    "{name} was removed: put it back; while vaultd runs, /proc/{pid}/fd/{fd} still has its content"
                ));
            }
            Err(error) => return Err(format!("{name}: {error}")),
        };
        if id(&metadata) != self.id {
            return Err(format!("{name} was replaced by another file: put back the one that was there"));
        }
        match metadata.len() {
            bytes if bytes < self.bytes => {
                Err(format!("{name} was cut from {} to {bytes} bytes: put back what was there", self.bytes))
            }
            bytes if bytes > self.bytes => Err(format!("{name} was written to by another program")),
            _ => Ok(()),
        }
    }

    /// Appends `bytes` and waits for the disk.
    pub(super) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.file.write_all(bytes).and_then(|()| self.file.sync_data()) {
            // Whole lines of it would count as told if vaultd ended now.
            if let Ok(Some(cut_off)) = self.cut_to(self.bytes) {
                self.cut_off = Some(cut_off);
            }
            return Err(error);
        }
        self.bytes += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        Ok(())
    }

    /// Whether it still has a name.
    pub(super) fn is_linked(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.nlink() > 0)
    }

    /// Takes the file up again after trouble: it must be there and hold what it held, up to `chain`'s end. What is behind
    /// that is cut off.
    pub(super) fn reclaim(&mut self, dir: &Path, chain: &Chain) -> Result<Option<CutOff>, String> {
        check_dir(dir)?;
        let fresh = match Self::open(dir, self.number) {
            Ok(fresh) => fresh,
            // It says more of a file that is not there.
            Err(error) => return Err(self.check(dir).err().unwrap_or_else(|| error.to_string())),
        };
        let name = self.name();
        let holds = holds(&LogFile::new(dir, self.number), self.bytes, chain);
        if !holds.map_err(|error| format!("{name}: {error}"))? {
            let otherwise = || format!("{name} does not hold what was written to it: put that back");
            return Err(self.check(dir).err().unwrap_or_else(otherwise));
        }
        let (bytes, cut_off) = (self.bytes, self.cut_off.take());
        *self = fresh;
        let rest = self.cut_to(bytes).map_err(|error| format!("{name}: {error}"))?;
        Ok(rest.or(cut_off))
    }

    /// Cuts off what is behind the first `bytes`.
    pub(super) fn cut_to(&mut self, bytes: u64) -> io::Result<Option<CutOff>> {
        let rest = self.file.metadata()?.len().saturating_sub(bytes);
        self.bytes = bytes;
        if rest == 0 {
            return Ok(None);
        }
        self.file.seek(SeekFrom::Start(bytes))?;
        let mut sha256 = Sha256::new();
        let mut reader = (&self.file).take(rest);
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            match reader.read(&mut buffer)? {
                0 => break,
                read => sha256.update(buffer.get(..read).unwrap_or_default()),
            }
        }
        self.file.set_len(bytes)?;
        self.file.sync_all()?;
        Ok(Some(CutOff { bytes: rest, sha256: sha256.finalize().into() }))
    }

    fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// Whether entries could be written to `dir`.
pub(super) fn check_dir(dir: &Path) -> Result<(), String> {
    let metadata = fs::metadata(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    // Root may write wherever the disk lets it, but whoever took this right away meant something.
    if metadata.mode() & OWNER_MAY_WRITE == 0 {
        return Err(format!("{} is read-only: give vaultd back the right to write there", dir.display()));
    }
    access(dir, AccessFlags::W_OK | AccessFlags::X_OK).map_err(|error| format!("{}: {error}", dir.display()))
}

/// Whether the first `bytes` of `file` are a chain that ends where `chain` does.
fn holds(file: &LogFile, bytes: u64, chain: &Chain) -> io::Result<bool> {
    let mut lines = file.lines(0)?;
    let mut found = Chain::new(chain.vault().to_owned());
    let mut first = true;
    loop {
        let end = lines.offset();
        if end >= bytes {
            return Ok(end == bytes && (found.seq, found.hash) == (chain.seq, chain.hash));
        }
        let Met::Line(line, _) = lines.next()? else { return Ok(false) };
        if std::mem::take(&mut first) {
            let Some(head) = Head::parse(line) else { return Ok(false) };
            found.adopt(&head, line);
        } else if found.follow(line).is_err() {
            return Ok(false);
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).append(true).custom_flags(OFlag::O_NOFOLLOW.bits());
    options
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

const OWNER_MAY_WRITE: u32 = 0o200;
const COPY_BYTES: usize = 64 * 1_024;
