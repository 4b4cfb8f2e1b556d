//! Files that get their name when they are whole.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
};

/// A file on its way, under another name in the same directory, and locked. Goes when it is dropped.
pub(super) struct Draft {
    path: PathBuf,
    name_so_far: PathBuf,
    file: File,
}

impl Draft {
    /// Begins the file that will be `path`, which must not be there; only its owner may read it. What is left of one that
    /// was cut short goes; [`ResourceBusy`](io::ErrorKind::ResourceBusy) if another process makes the same file.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        };
        let name_so_far = path.with_file_name(format!(".{}.part", name.to_string_lossy()));
        remove_left_over(&name_so_far)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name_so_far)?;
        lock(&file, &name_so_far)?;
        Ok(Self { path: path.to_owned(), name_so_far, file })
    }

    /// The file so far, to be read from its start.
    pub(super) fn reader(&self) -> io::Result<File> {
        File::open(&self.name_so_far)
    }

    /// Gives the file its name, once all of it is on the disk.
    pub(super) fn finish(self) -> io::Result<()> {
        self.file.sync_all()?;
        move_into_place(&self.name_so_far, &self.path)
    }
}

impl Write for Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // Where it has its name by now there is none to remove.
        let _ = fs::remove_file(&self.name_so_far);
    }
}

/// Removes a draft that nobody makes any more.
fn remove_left_over(path: &Path) -> io::Result<()> {
    match OpenOptions::new().read(true).custom_flags(OFlag::O_NOFOLLOW.bits()).open(path) {
        Ok(file) => {
            lock(&file, path)?;
            fs::remove_file(path)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// Locks `file`, and sees that it still is what is at `path`: nobody else has taken it for a left-over before it was locked.
fn lock(file: &File, path: &Path) -> io::Result<()> {
    let busy = || io::Error::from(io::ErrorKind::ResourceBusy);
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(busy()),
        // A file system without locks: two at once would be told by the second's new file.
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
        Err(TryLockError::Error(error)) => return Err(error),
    }
    let (ours, there) = (file.metadata()?, fs::symlink_metadata(path)?);
    if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) { Ok(()) } else { Err(busy()) }
}

/// Renames `from` to `to`, where there must be nothing, and makes that durable.
pub(super) fn move_into_place(from: &Path, to: &Path) -> io::Result<()> {
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => {}
        // Not every file system can.
        Err(Errno::EINVAL | Errno::ENOSYS) if fs::symlink_metadata(to).is_err() => fs::rename(from, to)?,
        Err(Errno::EINVAL | Errno::ENOSYS) => return Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        Err(error) => return Err(error.into()),
    }
    sync_names_beside(to)
}

/// Renames `from` to `to`, whatever is there, and makes that durable.
pub(super) fn move_over(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_names_beside(to)
}

fn sync_names_beside(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cut_short_goes_and_what_is_under_way_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let mut draft = Draft::create(&path).unwrap();
        draft.write_all(b"begun").unwrap();
        assert_eq!(Draft::create(&path).err().unwrap().kind(), io::ErrorKind::ResourceBusy);
        let left = draft.name_so_far.clone();
        draft.finish().unwrap();
        fs::rename(&path, &left).unwrap();
        Draft::create(&path).unwrap().finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), left.exists()), (Vec::new(), false));
        fs::rename(&path, dir.path().join("other")).unwrap();
        std::os::unix::fs::symlink("other", &left).unwrap();
        assert!(Draft::create(&path).is_err(), "nobody makes such a draft");
    }

    #[test]
    fn a_file_has_its_name_when_it_is_whole_and_replaces_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        let names = || fs::read_dir(dir.path()).unwrap().count();
        let mut draft = Draft::create(&path).unwrap();
        draft.write_all(b"text").unwrap();
        assert!(!path.exists());
        drop(draft);
        assert_eq!(names(), 0, "what is given up leaves nothing");

        let (mut first, second) = (Draft::create(&path).unwrap(), dir.path().join("second"));
        first.write_all(b"text").unwrap();
        first.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"text".to_vec(), 1));
        assert_eq!(Draft::create(&path).err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        fs::write(&second, "other").unwrap();
        assert_eq!(move_into_place(&second, &path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read(&path).unwrap(), b"text");
        move_over(&second, &path).unwrap();
        assert_eq!((fs::read(&path).unwrap(), names()), (b"other".to_vec(), 1));
    }
}
