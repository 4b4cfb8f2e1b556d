//! Files that get their name when they are whole.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
};

/// A file on its way, under another name in the same directory. Goes when it is dropped.
pub(super) struct Draft {
    path: PathBuf,
    name_so_far: PathBuf,
    file: File,
}

impl Draft {
    /// Begins the file that will be `path`, which must not be there; only its owner may read it.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        if fs::symlink_metadata(path).is_ok() {
            return Err(io::Error::from(io::ErrorKind::AlreadyExists));
        }
        let Some(name) = path.file_name() else {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it names no file"));
        };
        let name = format!(".{}.{}.part", name.to_string_lossy(), std::process::id());
        let name_so_far = path.with_file_name(name);
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name_so_far)?;
        Ok(Self { path: path.to_owned(), name_so_far, file })
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
