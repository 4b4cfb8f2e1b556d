//! What is recorded. Each entry is: kind u8, three numbers u64, length u32 and as many bytes; integers are little-endian.

use std::{
    collections::HashSet,
    ffi::{CString, c_int},
    mem::MaybeUninit,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

/// A file or directory was opened: inode, whether it is new, whether it is a directory; path.
const OPENED: u8 = 1;
/// Bytes were written: inode, offset; the bytes.
const WRITTEN: u8 = 2;
/// A file was cut or extended: inode, length.
const RESIZED: u8 = 3;
/// A wait for the disk begins: inode, its number.
const SYNC_BEGINS: u8 = 4;
/// It is over: inode, its number.
const SYNCED: u8 = 5;
/// A name was changed: length of the first path; both paths.
const RENAMED: u8 = 6;
/// A name was removed; path.
const REMOVED: u8 = 7;

struct Recorder {
    dirs: Vec<PathBuf>,
    state: Mutex<State>,
}

struct State {
    out: c_int,
    /// Device and inode of whatever is recorded.
    known: HashSet<(u64, u64)>,
    syncs: u64,
}

/// The record, locked: whoever has it may change the files and note that.
pub(crate) struct Record {
    dirs: &'static [PathBuf],
    state: MutexGuard<'static, State>,
}

static RECORDER: OnceLock<Option<Recorder>> = OnceLock::new();

impl Recorder {
    fn start() -> Option<Self> {
        let dirs = std::env::split_paths(&std::env::var_os("POWER_RECORDER_DIRS")?).collect();
        let path = CString::new(std::env::var_os("POWER_RECORDER_TRACE")?.as_bytes()).ok()?;
        let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_APPEND | libc::O_CLOEXEC;
        // The functions of the library would lead back here.
        // SAFETY: `path` ends with a zero byte and lives longer than the call.
        let out = unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600) };
        let out = c_int::try_from(out).ok().filter(|fd| *fd >= 0)?;
        Some(Self { dirs, state: Mutex::new(State { out, known: HashSet::new(), syncs: 0 }) })
    }
}

impl Record {
    /// The record; `None` where none is wanted.
    pub(crate) fn lock() -> Option<Self> {
        let Recorder { dirs, state } = RECORDER.get_or_init(Recorder::start).as_ref()?;
        Some(Self { dirs, state: state.lock().unwrap_or_else(PoisonError::into_inner) })
    }

    /// Whether `path` is one of the directories, or in one.
    pub(crate) fn covers(&self, path: &Path) -> bool {
        let is_one = |path| self.dirs.iter().any(|dir| dir == path);
        is_one(path) || path.parent().is_some_and(is_one)
    }

    /// The inode of an open file that is recorded.
    pub(crate) fn inode(&self, fd: c_int) -> Option<u64> {
        let status = status(fd)?;
        self.state.known.contains(&(status.st_dev, status.st_ino)).then_some(status.st_ino)
    }

    pub(crate) fn opened(&mut self, fd: c_int, path: &Path, is_new: bool) {
        let Some(status) = status(fd) else { return };
        self.state.known.insert((status.st_dev, status.st_ino));
        let is_dir = status.st_mode & libc::S_IFMT == libc::S_IFDIR;
        let numbers = [status.st_ino, u64::from(is_new), u64::from(is_dir)];
        self.note(OPENED, numbers, path.as_os_str().as_bytes());
    }

    pub(crate) fn written(&mut self, ino: u64, offset: u64, bytes: &[u8]) {
        self.note(WRITTEN, [ino, offset, 0], bytes);
    }

    pub(crate) fn resized(&mut self, ino: u64, len: u64) {
        self.note(RESIZED, [ino, len, 0], &[]);
    }

    /// Notes that a wait for the disk begins, and gives its number.
    pub(crate) fn sync_begins(&mut self, ino: u64) -> u64 {
        self.state.syncs += 1;
        let number = self.state.syncs;
        self.note(SYNC_BEGINS, [ino, number, 0], &[]);
        number
    }

    pub(crate) fn synced(&mut self, ino: u64, number: u64) {
        self.note(SYNCED, [ino, number, 0], &[]);
    }

    pub(crate) fn renamed(&mut self, from: &Path, to: &Path) {
        let (from, to) = (from.as_os_str().as_bytes(), to.as_os_str().as_bytes());
        let len = u64::try_from(from.len()).unwrap_or_default();
        self.note(RENAMED, [len, 0, 0], &[from, to].concat());
    }

    pub(crate) fn removed(&mut self, path: &Path) {
        self.note(REMOVED, [0; 3], path.as_os_str().as_bytes());
    }

    fn note(&mut self, kind: u8, numbers: [u64; 3], bytes: &[u8]) {
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let [a, b, c] = numbers.map(u64::to_le_bytes);
        let entry = [&[kind], a.as_slice(), &b, &c, &len.to_le_bytes(), bytes].concat();
        // In one go: whoever looks at the length of the file finds whole entries.
        // SAFETY: the pointer and the length are those of a slice that lives longer than the call.
        let written = unsafe { libc::syscall(libc::SYS_write, self.state.out, entry.as_ptr(), entry.len()) };
        if usize::try_from(written) != Ok(entry.len()) {
            // A record with a gap would be worse than none.
            std::process::abort();
        }
    }
}

fn status(fd: c_int) -> Option<libc::stat> {
    let mut status = MaybeUninit::uninit();
    // SAFETY: there is room for a status.
    if unsafe { libc::fstat(fd, status.as_mut_ptr()) } != 0 {
        return None;
    }
    // SAFETY: the call has succeeded, and so filled it in.
    Some(unsafe { status.assume_init() })
}
