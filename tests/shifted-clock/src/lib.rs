//! A library for `LD_PRELOAD` that shifts the wall clock of a program while it runs.
//!
//! The environment variable `SHIFTED_CLOCK` names a file of eight bytes: by how many seconds the clock is wrong, as a
//! signed number, least significant byte first. The file is mapped, so that what is written to it counts at once, and in a
//! program that may open no more files. A program without the variable, or with a file that cannot be mapped, has the true
//! time. Clocks that count from the start of the machine go on as they are.
#![expect(unsafe_code, reason = "it takes the place of a function of the C library")]

use std::{
    fs::File,
    os::fd::AsRawFd,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicI64, Ordering},
    },
};

use nix::libc::{
    self, CLOCK_REALTIME, CLOCK_REALTIME_COARSE, MAP_FAILED, MAP_SHARED, PROT_READ, c_int, c_long, clockid_t,
    timespec,
};

/// Bytes of the file.
const LENGTH: usize = size_of::<AtomicI64>();

/// The system's clock `clock`, shifted if it is the wall clock (POSIX.1-2017, `clock_gettime`).
///
/// # Safety
/// `time` must point to room for a `timespec`, or be one of what the system refuses.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    // SAFETY: the system call takes what this function takes, and refuses what is not mapped.
    let done = unsafe { libc::syscall(libc::SYS_clock_gettime, c_long::from(clock), time) };
    if done == 0 && [CLOCK_REALTIME, CLOCK_REALTIME_COARSE].contains(&clock) {
        // SAFETY: the call has just written there.
        unsafe { (*time).tv_sec += shift_s() };
    }
    if done == 0 { 0 } else { -1 }
}

fn shift_s() -> i64 {
    static SHIFT: OnceLock<Option<&'static AtomicI64>> = OnceLock::new();
    SHIFT.get_or_init(map).map_or(0, |shift| i64::from_le(shift.load(Ordering::Relaxed)))
}

fn map() -> Option<&'static AtomicI64> {
    let file = File::open(std::env::var_os("SHIFTED_CLOCK")?).ok()?;
    if file.metadata().ok()?.len() < u64::try_from(LENGTH).ok()? {
        return None;
    }
    // SAFETY: a new mapping, of a file that is as long.
    let mapped = unsafe { libc::mmap(ptr::null_mut(), LENGTH, PROT_READ, MAP_SHARED, file.as_raw_fd(), 0) };
    if mapped == MAP_FAILED {
        return None;
    }
    // SAFETY: it is as long as the number, aligned as pages are, and never unmapped; whoever else writes to it does so
    // with all bytes at once.
    Some(unsafe { &*mapped.cast::<AtomicI64>() })
}
