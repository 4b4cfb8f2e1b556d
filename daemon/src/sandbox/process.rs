//! The process as a whole.

use nix::sys::{
    prctl,
    resource::{Resource, getrlimit, setrlimit},
    stat::{Mode, umask},
};

/// Makes new files private, forbids core dumps and other processes' looks into memory, and gives up every way to gain
/// privileges (`PR_SET_NO_NEW_PRIVS`). To be called first, while there is one thread.
///
/// # Errors
/// The system call that failed.
pub fn harden() -> nix::Result<()> {
    umask(Mode::from_bits_truncate(0o077));
    // Where systemd has done it already (LimitCORE=0), its filter may forbid to do it again.
    if getrlimit(Resource::RLIMIT_CORE)? != (0, 0) {
        setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    }
    prctl::set_dumpable(false)?;
    prctl::set_no_new_privs()
}

/// Ends the process at once, without `atexit` handlers.
///
/// Some PKCS#11 modules crash in handlers that OpenSSL 3 has run before theirs. Everything must be flushed before.
#[expect(unsafe_code, reason = "the standard library has no exit that leaves out the handlers")]
pub fn exit_without_handlers(status: i32) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return (POSIX.1-2017, _exit).
    unsafe { nix::libc::_exit(status) }
}
