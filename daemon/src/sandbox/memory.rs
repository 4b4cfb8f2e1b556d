//! Memory that holds card data: in no core dump, in no other process' sight, on no swap device.

use std::{fs, io};

use nix::{
    libc,
    sys::{
        prctl,
        resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit},
    },
};

/// Keeps memory out of core dumps, and other processes out of it.
///
/// # Errors
/// The system call that failed.
pub(super) fn hide() -> nix::Result<()> {
    // Card data may be anywhere in memory that is no file's, so that all of it is kept out of a dump that somebody
    // forces (core(5), coredump_filter). Before the file is root's, as those of processes are that cannot be dumped.
    let _ = fs::write("/proc/self/coredump_filter", "0");
    // Where systemd has done it already (LimitCORE=0), its filter may forbid to do it again.
    if getrlimit(Resource::RLIMIT_CORE)? != (0, 0) {
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    }
    prctl::set_dumpable(false)
}

/// Lets the process lock as much memory as it has, if that is its to say: root can, whoever it becomes later.
pub fn allow_locked_memory() {
    // What comes of it is seen when memory is locked.
    let _ = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY);
}

/// Locks all memory, also what is to come, so that none of it is swapped out. Pages are locked when they are used, not
/// before.
///
/// # Errors
/// What is to be done about it.
#[expect(unsafe_code, reason = "nix knows no MCL_ONFAULT")]
pub fn lock_memory() -> Result<(), String> {
    let limit = getrlimit(Resource::RLIMIT_MEMLOCK).map_err(|error| error.to_string())?.0;
    // With less, an allocation would fail one day, far from here.
    if limit != RLIM_INFINITY {
        return Err(format!(
            "{} KiB may be locked: set LimitMEMLOCK=infinity (ulimit -l unlimited)",
            limit / 1_024
        ));
    }
    // SAFETY: the call takes flags alone, and changes nothing about what memory holds.
    let status = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if status == 0 { Ok(()) } else { Err(format!("mlockall: {}", io::Error::last_os_error())) }
}
