//! To read, write and change files that are none of the module's business.

use std::{
    ffi::{CStr, CString, c_int, c_long},
    mem, ptr,
};

use crate::attempt::{Outcome, system_call};

const HERE: c_int = libc::AT_FDCWD;

fn open(path: &CStr, flags: c_int) -> Result<c_long, c_int> {
    system_call!(libc::SYS_openat, HERE, path.as_ptr(), flags | libc::O_CLOEXEC, 0o600)
}

fn close(descriptor: c_long) -> Outcome {
    system_call!(libc::SYS_close, descriptor).map(drop)
}

pub(crate) fn read(path: &CStr) -> Outcome {
    open(path, libc::O_RDONLY).and_then(close)
}

/// By the younger of the calls that open files.
pub(crate) fn read_openat2(path: &CStr) -> Outcome {
    // SAFETY: it is made of numbers, for which zero is a value.
    let how: libc::open_how = unsafe { mem::zeroed() };
    let size = size_of::<libc::open_how>();
    system_call!(libc::SYS_openat2, HERE, path.as_ptr(), &raw const how, size).and_then(close)
}

/// Past every directory (`open_by_handle_at(2)`).
pub(crate) fn read_by_handle(path: &CStr) -> Outcome {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: c_int,
        opaque: [u8; 128],
    }
    let mut handle = Handle { bytes: 128, kind: 0, opaque: [0; 128] };
    let mut mount: c_int = 0;
    let to = &raw mut handle;
    system_call!(libc::SYS_name_to_handle_at, HERE, path.as_ptr(), to, &raw mut mount, 0)?;
    let root = open(c"/", libc::O_RDONLY | libc::O_DIRECTORY)?;
    let opened = system_call!(libc::SYS_open_by_handle_at, root, to, libc::O_RDONLY).and_then(close);
    close(root)?;
    opened
}

/// First only as a place, which needs no permission, then that again for reading.
pub(crate) fn read_reopened(path: &CStr) -> Outcome {
    let place = open(path, libc::O_PATH)?;
    let again = CString::new(format!("/proc/self/fd/{place}")).unwrap_or_default();
    let opened = read(&again);
    close(place)?;
    opened
}

/// By a symbolic link that is made at `link`.
pub(crate) fn read_by_link(path: &CStr, link: &CStr) -> Outcome {
    system_call!(libc::SYS_symlinkat, path.as_ptr(), HERE, link.as_ptr())?;
    let opened = read(link);
    remove(link)?;
    opened
}

/// Another name for the file, at `link`.
pub(crate) fn hard_link(path: &CStr, link: &CStr) -> Outcome {
    system_call!(libc::SYS_linkat, HERE, path.as_ptr(), HERE, link.as_ptr(), 0)?;
    let opened = read(link);
    remove(link)?;
    opened
}

pub(crate) fn list(path: &CStr) -> Outcome {
    open(path, libc::O_RDONLY | libc::O_DIRECTORY).and_then(close)
}

pub(crate) fn write(path: &CStr) -> Outcome {
    let file = open(path, libc::O_WRONLY | libc::O_CREAT)?;
    let written = system_call!(libc::SYS_write, file, b"hostile".as_ptr(), 7_usize).map(drop);
    close(file)?;
    written
}

/// The memory of its own process, past what the memory is protected by.
pub(crate) fn write_own_memory() -> Outcome {
    static CONSTANT: u8 = 1;
    let memory = open(c"/proc/self/mem", libc::O_RDWR)?;
    let place = i64::try_from((&raw const CONSTANT).addr()).unwrap_or_default();
    let written = system_call!(libc::SYS_pwrite64, memory, &raw const CONSTANT, 1_usize, place).map(drop);
    close(memory)?;
    written
}

pub(crate) fn truncate(path: &CStr) -> Outcome {
    system_call!(libc::SYS_truncate, path.as_ptr(), 0_i64).map(drop)
}

pub(crate) fn remove(path: &CStr) -> Outcome {
    system_call!(libc::SYS_unlinkat, HERE, path.as_ptr(), 0).map(drop)
}

pub(crate) fn rename(from: &CStr, to: &CStr) -> Outcome {
    system_call!(libc::SYS_renameat2, HERE, from.as_ptr(), HERE, to.as_ptr(), 0).map(drop)
}

pub(crate) fn make_directory(path: &CStr) -> Outcome {
    system_call!(libc::SYS_mkdirat, HERE, path.as_ptr(), 0o700).map(drop)
}

/// The kernel's memory, as a file.
pub(crate) fn make_device(path: &CStr) -> Outcome {
    let memory = libc::makedev(1, 1);
    system_call!(libc::SYS_mknodat, HERE, path.as_ptr(), libc::S_IFCHR | 0o600, memory).map(drop)
}

pub(crate) fn change_mode(path: &CStr) -> Outcome {
    system_call!(libc::SYS_fchmodat, HERE, path.as_ptr(), 0o777).map(drop)
}

/// To whoever tries it: no more than `root` may give.
pub(crate) fn change_owner(path: &CStr) -> Outcome {
    let group = system_call!(libc::SYS_getegid)?;
    system_call!(libc::SYS_fchownat, HERE, path.as_ptr(), u32::MAX, group, 0).map(drop)
}

/// Of a file of its own: SQLite does that, and so do tokens that keep their objects with it, if they are root.
pub(crate) fn give_away(path: &CStr) -> Outcome {
    let file = open(path, libc::O_WRONLY | libc::O_CREAT)?;
    let group = system_call!(libc::SYS_getegid)?;
    let given = system_call!(libc::SYS_fchown, file, u32::MAX, group).map(drop);
    close(file)?;
    remove(path)?;
    given
}

pub(crate) fn change_times(path: &CStr) -> Outcome {
    let now = ptr::null::<libc::timespec>();
    system_call!(libc::SYS_utimensat, HERE, path.as_ptr(), now, 0).map(drop)
}

pub(crate) fn change_attribute(path: &CStr) -> Outcome {
    let (name, value) = (c"user.hostile", b"1");
    system_call!(libc::SYS_setxattr, path.as_ptr(), name.as_ptr(), value.as_ptr(), 1_usize, 0).map(drop)
}
