//! The functions of the C library that change files. Each makes the system call of its name.

use std::{
    ffi::{CStr, OsStr, c_char, c_int, c_long, c_uint, c_void},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    slice,
};

use crate::record::Record;

/// What a system call gave, as the C library's functions give it; `errno` is set already.
fn result(value: c_long) -> c_int {
    c_int::try_from(value).unwrap_or(-1)
}

/// # Safety
/// `path` must be null or a C string that lives for `'p`.
unsafe fn path_at<'p>(path: *const c_char) -> Option<&'p Path> {
    if path.is_null() {
        return None;
    }
    // SAFETY: it is not null, and the caller promises the rest.
    let path = unsafe { CStr::from_ptr(path) };
    Some(Path::new(OsStr::from_bytes(path.to_bytes())))
}

/// # Safety
/// Those of `openat(2)`.
unsafe fn open_at(dir: c_int, path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller keeps the promises of this very call.
    let open = || result(unsafe { libc::syscall(libc::SYS_openat, dir, path, flags, mode) });
    // SAFETY: the caller promises a C string.
    let Some(name) = (unsafe { path_at(path) }) else { return open() };
    let Some(mut record) = Record::lock().filter(|record| record.covers(name)) else { return open() };
    let was_there = name.symlink_metadata().is_ok();
    let fd = open();
    if fd >= 0 {
        record.opened(fd, name, !was_there);
        if was_there
            && flags & libc::O_TRUNC != 0
            && let Some(ino) = record.inode(fd)
        {
            record.resized(ino, 0);
        }
    }
    fd
}

/// # Safety
/// Those of `open(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: the caller's promises. A caller that gives no mode leaves one that is not used.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// # Safety
/// Those of `open(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: c_uint) -> c_int {
    // SAFETY: as above.
    unsafe { open_at(libc::AT_FDCWD, path, flags, mode) }
}

/// # Safety
/// Those of `openat(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn openat64(
    dir: c_int,
    path: *const c_char,
    flags: c_int,
    mode: c_uint,
) -> c_int {
    // SAFETY: as above.
    unsafe { open_at(dir, path, flags, mode) }
}

/// # Safety
/// Those of `write(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn write(fd: c_int, bytes: *const c_void, len: usize) -> isize {
    let recorded = Record::lock().and_then(|record| Some((record.inode(fd)?, record)));
    // SAFETY: the caller keeps the promises of this very call.
    let write = || unsafe { libc::syscall(libc::SYS_write, fd, bytes, len) };
    // A write to a socket or a pipe may wait, and must not hold the lock.
    let Some((ino, mut record)) = recorded else { return isize::try_from(write()).unwrap_or(-1) };
    let written = isize::try_from(write()).unwrap_or(-1);
    if let Ok(count) = usize::try_from(written) {
        // SAFETY: asks for the position only.
        let end = unsafe { libc::lseek(fd, 0, libc::SEEK_CUR) };
        let start =
            u64::try_from(end).unwrap_or_default().saturating_sub(count.try_into().unwrap_or_default());
        // SAFETY: the kernel has read as many bytes from there.
        record.written(ino, start, unsafe { slice::from_raw_parts(bytes.cast(), count) });
    }
    written
}

/// # Safety
/// Those of `pwrite(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn pwrite64(fd: c_int, bytes: *const c_void, len: usize, offset: i64) -> isize {
    let recorded = Record::lock().and_then(|record| Some((record.inode(fd)?, record)));
    // SAFETY: the caller keeps the promises of this very call.
    let written = unsafe { libc::syscall(libc::SYS_pwrite64, fd, bytes, len, offset) };
    let written = isize::try_from(written).unwrap_or(-1);
    if let (Some((ino, mut record)), Ok(count), Ok(offset)) =
        (recorded, usize::try_from(written), u64::try_from(offset))
    {
        // SAFETY: the kernel has read as many bytes from there.
        record.written(ino, offset, unsafe { slice::from_raw_parts(bytes.cast(), count) });
    }
    written
}

/// # Safety
/// Those of `ftruncate(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn ftruncate64(fd: c_int, len: i64) -> c_int {
    let recorded = Record::lock().and_then(|record| Some((record.inode(fd)?, record)));
    // SAFETY: the caller keeps the promises of this very call.
    let done = result(unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) });
    if let (Some((ino, mut record)), 0, Ok(len)) = (recorded, done, u64::try_from(len)) {
        record.resized(ino, len);
    }
    done
}

/// Waits for the disk by the system call `number`, without the lock.
fn sync(number: c_long, fd: c_int) -> c_int {
    let begun = Record::lock().and_then(|mut record| {
        let ino = record.inode(fd)?;
        Some((ino, record.sync_begins(ino)))
    });
    // SAFETY: it takes a descriptor and nothing else.
    let done = result(unsafe { libc::syscall(number, fd) });
    if let (Some((ino, sync)), 0) = (begun, done)
        && let Some(mut record) = Record::lock()
    {
        record.synced(ino, sync);
    }
    done
}

/// Waits for the disk, as `fsync(2)`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn fsync(fd: c_int) -> c_int {
    sync(libc::SYS_fsync, fd)
}

/// Waits for the disk, as `fdatasync(2)`.
#[unsafe(no_mangle)]
pub(crate) extern "C" fn fdatasync(fd: c_int) -> c_int {
    sync(libc::SYS_fdatasync, fd)
}

/// # Safety
/// Those of `rename(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promises.
    unsafe { renameat2(libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) }
}

/// # Safety
/// Those of `renameat2(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn renameat2(
    from_dir: c_int,
    from: *const c_char,
    to_dir: c_int,
    to: *const c_char,
    flags: c_uint,
) -> c_int {
    let record = Record::lock();
    // SAFETY: the caller keeps the promises of this very call.
    let done = result(unsafe { libc::syscall(libc::SYS_renameat2, from_dir, from, to_dir, to, flags) });
    // SAFETY: the caller promises C strings.
    let paths = unsafe { (path_at(from), path_at(to)) };
    if let (Some(mut record), 0, (Some(from), Some(to))) = (record, done, paths)
        && (record.covers(from) || record.covers(to))
    {
        record.renamed(from, to);
    }
    done
}

/// # Safety
/// Those of `unlink(2)`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    let record = Record::lock();
    // SAFETY: the caller keeps the promises of this very call.
    let done = result(unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) });
    // SAFETY: the caller promises a C string.
    if let (Some(mut record), 0, Some(path)) = (record, done, unsafe { path_at(path) })
        && record.covers(path)
    {
        record.removed(path);
    }
    done
}
