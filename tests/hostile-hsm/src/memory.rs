//! To make code of data, and to have memory written to a file.

use std::{
    ffi::{CStr, c_int, c_long},
    hint, ptr,
};

use crate::attempt::{Outcome, system_call};

const PAGE: usize = 4_096;
const ANYWHERE: *mut u8 = ptr::null_mut();
const READ_WRITE: c_int = libc::PROT_READ | libc::PROT_WRITE;

/// Maps a page, of `file` or of none if that is -1, and gives its address.
fn map(protection: c_int, flags: c_int, file: c_long) -> Result<c_long, c_int> {
    system_call!(libc::SYS_mmap, ANYWHERE, PAGE, protection, flags, file, 0_usize)
}

fn unmap(page: c_long) -> Outcome {
    system_call!(libc::SYS_munmap, page, PAGE).map(drop)
}

pub(crate) fn map_writable_code() -> Outcome {
    map(READ_WRITE | libc::PROT_EXEC, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1).and_then(unmap)
}

/// A page that was written to.
pub(crate) fn make_executable() -> Outcome {
    let page = map(READ_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1)?;
    let changed = system_call!(libc::SYS_mprotect, page, PAGE, libc::PROT_READ | libc::PROT_EXEC).map(drop);
    unmap(page)?;
    changed
}

pub(crate) fn map_memory_file_as_code() -> Outcome {
    let file = system_call!(libc::SYS_memfd_create, c"hostile".as_ptr(), libc::MFD_CLOEXEC)?;
    map_as_code(file)
}

/// What the module has written to a file where it may.
pub(crate) fn map_file_as_code(path: &CStr) -> Outcome {
    let flags = libc::O_RDWR | libc::O_CREAT | libc::O_CLOEXEC;
    map_as_code(system_call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags, 0o600)?)
}

fn map_as_code(file: c_long) -> Outcome {
    system_call!(libc::SYS_ftruncate, file, i64::try_from(PAGE).unwrap_or_default())?;
    let mapped = map(libc::PROT_READ | libc::PROT_EXEC, libc::MAP_PRIVATE, file).and_then(unmap);
    system_call!(libc::SYS_close, file)?;
    mapped
}

pub(crate) fn make_dumpable() -> Outcome {
    system_call!(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 1_usize, 0_usize, 0_usize, 0_usize).map(drop)
}

pub(crate) fn raise_core_limit() -> Outcome {
    let any = libc::rlimit64 { rlim_cur: libc::RLIM64_INFINITY, rlim_max: libc::RLIM64_INFINITY };
    let old = ptr::null_mut::<libc::rlimit64>();
    system_call!(libc::SYS_prlimit64, 0_usize, libc::RLIMIT_CORE, &raw const any, old).map(drop)
}

/// Ends the process in a way that leaves a core behind.
pub(crate) fn abort() -> Outcome {
    let (process, thread) = (system_call!(libc::SYS_getpid)?, system_call!(libc::SYS_gettid)?);
    system_call!(libc::SYS_tgkill, process, thread, libc::SIGABRT).map(drop)
}

/// Does so by accident.
pub(crate) fn write_to_nowhere() {
    let nowhere = hint::black_box(ptr::without_provenance_mut::<u8>(1));
    // SAFETY: none; the process must die of it.
    unsafe { nowhere.write_volatile(1) };
}
