//! Who else may read what the daemon keeps.

use std::{
    fs::{self, DirBuilder, Metadata},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::unistd::geteuid;

const OTHERS: u32 = 0o077;

/// Why a file or directory cannot be trusted. Each message says what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum PermissionError {
    /// It is not there or cannot be looked at.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It is of another kind.
    #[error("{0} is not a {1}")]
    Kind(PathBuf, &'static str),
    /// Others may use it.
    #[error("{path} has mode {mode:04o}, so that others may use it: chmod {wanted:04o} {path}")]
    Open {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// What they should be.
        wanted: u32,
    },
    /// It belongs to another user.
    #[error(
        "{path} belongs to user id {owner}, vaultd runs as {me}: run it as that user, or give the file to this one"
    )]
    Owner {
        /// Which.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who asks.
        me: u32,
    },
}

impl PermissionError {
    /// Whether there is nothing at the path.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// A file whose content decides who may do what: nobody else may change it.
///
/// # Errors
/// [`PermissionError`].
pub fn check_unalterable_file(path: &Path) -> Result<(), PermissionError> {
    let metadata = look_at(path)?;
    if !metadata.is_file() {
        return Err(PermissionError::Kind(path.to_owned(), "regular file"));
    }
    check(path, &metadata, metadata.mode() & 0o755, OTHERS & 0o022)
}

/// A directory that is the daemon's alone.
///
/// # Errors
/// [`PermissionError`].
pub fn check_private_dir(path: &Path) -> Result<(), PermissionError> {
    let metadata = look_at(path)?;
    if !metadata.is_dir() {
        return Err(PermissionError::Kind(path.to_owned(), "directory"));
    }
    check(path, &metadata, 0o700, OTHERS)
}

/// A regular file that is the daemon's alone, or root's.
///
/// systemd shows a credential as mode 0440 of root: it lets the service in by an ACL, whose mask the group bits show,
/// on a file system that nobody else may enter (systemd.exec(5), `LoadCredential=`).
///
/// # Errors
/// [`PermissionError`].
pub fn check_private_file(path: &Path) -> Result<(), PermissionError> {
    let metadata = look_at(path)?;
    if !metadata.is_file() {
        return Err(PermissionError::Kind(path.to_owned(), "regular file"));
    }
    let is_credential = metadata.uid() == 0 && metadata.gid() == 0 && is_credential(path);
    let bits = if is_credential { OTHERS & !0o040 } else { OTHERS };
    check(path, &metadata, 0o600, bits)
}

fn is_credential(path: &Path) -> bool {
    std::env::var_os("CREDENTIALS_DIRECTORY").is_some_and(|dir| path.parent() == Some(Path::new(&dir)))
}

/// Makes the directory if it is missing, so that it outlasts a power failure, and checks it.
///
/// # Errors
/// [`PermissionError`].
pub fn make_private_dir(path: &Path) -> Result<(), PermissionError> {
    let failed = |source| PermissionError::Unreadable { path: path.to_owned(), source };
    let missing: Vec<_> = path.ancestors().take_while(|dir| !dir.exists()).collect();
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
    for parent in missing.into_iter().filter_map(Path::parent) {
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        fs::File::open(parent).and_then(|dir| dir.sync_all()).map_err(failed)?;
    }
    check_private_dir(path)
}

fn look_at(path: &Path) -> Result<Metadata, PermissionError> {
    fs::metadata(path).map_err(|source| PermissionError::Unreadable { path: path.to_owned(), source })
}

fn check(path: &Path, metadata: &Metadata, wanted: u32, forbidden: u32) -> Result<(), PermissionError> {
    let (mode, owner, me) = (metadata.mode() & 0o7777, metadata.uid(), geteuid().as_raw());
    if mode & forbidden != 0 {
        return Err(PermissionError::Open { path: path.to_owned(), mode, wanted });
    }
    if owner != me && owner != 0 {
        return Err(PermissionError::Owner { path: path.to_owned(), owner, me });
    }
    Ok(())
}
