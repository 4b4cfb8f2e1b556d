//! The process as a whole.

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
    signal::{SigHandler, Signal, signal},
    stat::{Mode, umask},
};

use super::memory;

/// Lets nobody but the owner into files that are made from now on.
pub fn make_files_private() {
    umask(Mode::from_bits_truncate(0o077));
}

/// Forbids core dumps and other processes' looks into memory, and gives up every way to gain
/// privileges (`PR_SET_NO_NEW_PRIVS`). To be called first, while there is one thread.
///
/// # Errors
/// The system call that failed.
pub fn harden() -> nix::Result<()> {
    memory::hide()?;
    // A file that may not grow must be an error that callers hear of, not a death (setrlimit(2), RLIMIT_FSIZE).
    ignore(Signal::SIGXFSZ)?;
    prctl::set_no_new_privs()
}

/// Passes over SIGHUP until somebody listens to it: a reload that comes too early must not end the daemon.
///
/// # Errors
/// The system call that failed.
pub fn ignore_hangups() -> nix::Result<()> {
    ignore(Signal::SIGHUP)
}

#[expect(unsafe_code, reason = "nix marks every change of a signal's action as unsafe")]
fn ignore(ignored: Signal) -> nix::Result<()> {
    // SAFETY: no handler is installed, so nothing can run in a signal's context.
    unsafe { signal(ignored, SigHandler::SigIgn) }.map(drop)
}

/// Raises the limit of open files as far as the system allows, and says how many that is.
///
/// # Errors
/// The system call that failed.
pub fn raise_open_files() -> nix::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

/// Ends the process at once, without `atexit` handlers.
///
/// Some PKCS#11 modules crash in handlers that OpenSSL 3 has run before theirs. Everything must be flushed before.
#[expect(unsafe_code, reason = "the standard library has no exit that leaves out the handlers")]
pub fn exit_without_handlers(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return (POSIX.1-2017, _exit).
    unsafe { nix::libc::_exit(status) }
}
