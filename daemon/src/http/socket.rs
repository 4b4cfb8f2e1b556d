//! Unix sockets: taking a path that is free, and no other.
//!
//! A lock file beside the socket says whose it is. What a killed daemon of the same path left behind is replaced; a
//! socket that somebody listens on, or that somebody else left, stops the start.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::{
        fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, fchown, lchown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg, OFlag},
    libc,
    sys::stat::{Mode, umask},
    unistd::Group,
};

use crate::config::SocketPlace;

/// Why a socket cannot be opened. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A daemon runs there.
    #[error("the socket {0} is in use by a running daemon: stop it, or choose another path")]
    InUse(PathBuf),
    /// Nobody listens on it, but it is not certain whose it is.
    #[error(
        "{0} is a stale socket that this vaultd did not leave: make sure that nobody needs it, then remove it"
    )]
    Stale(PathBuf),
    /// Something else has the name.
    #[error("{0} exists and is not a socket: move it away, or choose another path")]
    NotASocket(PathBuf),
    /// Something else has the name of the lock.
    #[error("{0} is not a file of its own, as a lock has to be: remove it")]
    NotALock(PathBuf),
    /// The group does not exist.
    #[error("there is no group {0:?} to own the socket: create it, or correct this")]
    NoGroup(String),
    /// The system refused.
    #[error("cannot open the socket {path}: {source}")]
    Failed {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What a lock file says from when the path was found free until the socket's identity is known: a socket there that
/// nobody listens on is that of a daemon that was killed in between.
const OPENING: &str = "opening\n";

/// A listening socket. If the daemon opened it, it is removed when this is dropped.
pub struct BoundSocket {
    listener: UnixListener,
    own: Option<Own>,
}

struct Own {
    path: PathBuf,
    // Held for as long as the socket is ours.
    lock: Flock<File>,
}

impl BoundSocket {
    /// Takes a socket that systemd has opened.
    pub fn inherited(listener: UnixListener) -> Self {
        Self { listener, own: None }
    }

    /// Opens a socket at `place`, for the user and group with the ids `owner` if another one is to serve.
    ///
    /// # Errors
    /// [`SocketError`].
    pub fn bind(place: &SocketPlace, owner: Option<(u32, u32)>) -> Result<Self, SocketError> {
        let path = &place.path;
        let failed = |source| SocketError::Failed { path: path.clone(), source };
        let group = place.group.as_deref().map(group_id).transpose()?;
        let mut lock = lock(path)?;
        clear(path, &mut lock)?;
        write(&lock, OPENING).map_err(failed)?;
        let listener = bind(path, place.mode).map_err(failed)?;
        // From here on a failure drops the socket, and so removes it.
        let own = Own { path: path.clone(), lock };
        let prepared = own.prepare(group, owner).map_err(failed);
        let socket = Self { listener, own: Some(own) };
        prepared.map(|()| socket)
    }

    /// Whether it stays open when this daemon ends: then a successor accepts who connects meanwhile.
    pub(super) fn outlives_us(&self) -> bool {
        self.own.is_none()
    }

    /// Where it is in the file system.
    pub fn path(&self) -> Option<PathBuf> {
        self.listener.local_addr().ok()?.as_pathname().map(Path::to_owned)
    }

    /// The listener, for one accept loop.
    ///
    /// # Errors
    /// The system's.
    pub fn listener(&self) -> io::Result<UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        Ok(listener)
    }
}

impl Own {
    /// Lets others in, and notes which socket is ours.
    fn prepare(&self, group: Option<u32>, owner: Option<(u32, u32)>) -> io::Result<()> {
        if let Some((uid, gid)) = owner {
            fchown(&*self.lock, Some(uid), Some(gid))?;
        }
        let (user, group) = (owner.map(|(uid, _)| uid), group.or(owner.map(|(_, gid)| gid)));
        if user.is_some() || group.is_some() {
            lchown(&self.path, user, group)?;
        }
        write(&self.lock, &identity(&self.path)?)
    }
}

/// Binds a socket with these permission bits from the beginning: to change those of a path later may change another's.
fn bind(path: &Path, mode: u32) -> io::Result<UnixListener> {
    let usual = umask(Mode::from_bits_truncate(!mode & 0o777));
    let listener = UnixListener::bind(path);
    umask(usual);
    listener
}

fn group_id(name: &str) -> Result<u32, SocketError> {
    let group = Group::from_name(name).ok().flatten();
    group.map(|group| group.gid.as_raw()).ok_or_else(|| SocketError::NoGroup(name.to_owned()))
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        if let Some(own) = &self.own {
            let removed = fs::remove_file(&own.path);
            // What may come to this path later is not ours. A socket that may not be removed still is.
            let is_gone = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
            if removed.as_ref().map_or_else(is_gone, |()| true) {
                let _ = own.lock.set_len(0);
            }
        }
    }
}

fn lock(path: &Path) -> Result<Flock<File>, SocketError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let failed = |source| SocketError::Failed { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    // Root may be led to another's file by whoever the directory belongs to.
    let file = match options.custom_flags(OFlag::O_NOFOLLOW.bits()).open(&name) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
            return Err(SocketError::NotALock(name.into()));
        }
        opened => opened.map_err(failed)?,
    };
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() || metadata.nlink() != 1 {
        return Err(SocketError::NotALock(name.into()));
    }
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| SocketError::InUse(path.to_owned()))
}

/// Replaces what the lock file says. At no moment does it say nothing: a daemon killed then would leave a socket that
/// seems to be another's.
fn write(lock: &File, text: &str) -> io::Result<()> {
    lock.write_all_at(text.as_bytes(), 0)?;
    lock.set_len(u64::try_from(text.len()).unwrap_or(u64::MAX))
}

/// Makes the path free, if that is ours to do.
fn clear(path: &Path, lock: &mut Flock<File>) -> Result<(), SocketError> {
    let failed = |source| SocketError::Failed { path: path.to_owned(), source };
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(found) => found,
    };
    if !found.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    if UnixStream::connect(path).is_ok() {
        return Err(SocketError::InUse(path.to_owned()));
    }
    let mut left = String::new();
    lock.read_to_string(&mut left).map_err(failed)?;
    if left != OPENING && left != identity(path).map_err(failed)? {
        return Err(SocketError::Stale(path.to_owned()));
    }
    tracing::warn!(path = %path.display(), "replacing the socket that a killed vaultd left");
    fs::remove_file(path).map_err(failed)
}

/// What tells a socket file from another one that had the same name later.
fn identity(path: &Path) -> io::Result<String> {
    let found = fs::symlink_metadata(path)?;
    Ok(format!("{}:{}:{}.{}\n", found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}
