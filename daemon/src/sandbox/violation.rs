//! What happens when a system call is not allowed: one line says which, and the process ends.

use nix::{
    libc::{self, c_int, c_long, c_void},
    sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
};

const BEFORE: &[u8] = b"vaultd: event=sandbox: the system call ";
const AFTER: &[u8] =
    b") is not allowed, and vaultd ends here. Was the PKCS#11 module changed? docs/sandbox.md\n";
const LINE_BYTES: usize = 256;

/// The part of `siginfo_t` that SIGSYS has (sigaction(2), `_sigsys` in the kernel's `siginfo.h`).
#[repr(C)]
struct Refused {
    signal: c_int,
    errno: c_int,
    code: c_int,
    #[cfg(target_pointer_width = "64")]
    padding: c_int,
    address: *mut c_void,
    number: c_int,
}

/// Has SIGSYS say what was refused. To be called before the filter is installed, which lets nobody change it back.
///
/// # Errors
/// The system's.
#[expect(unsafe_code, reason = "nix marks every change of a signal's action as unsafe")]
pub(super) fn explain() -> nix::Result<()> {
    // The next one ends the process without a word, so that the handler can end it with the very signal.
    let flags = SaFlags::SA_SIGINFO | SaFlags::SA_RESETHAND | SaFlags::SA_NODEFER;
    // Nobody's other handler comes between the line and the end.
    let mut others = SigSet::all();
    others.remove(Signal::SIGSYS);
    let action = SigAction::new(SigHandler::SigAction(report), flags, others);
    // SAFETY: the handler calls nothing but what is safe in a signal's context (signal-safety(7)): write, getpid, gettid
    // and tgkill.
    unsafe { sigaction(Signal::SIGSYS, &action) }.map(drop)
}

#[expect(unsafe_code, reason = "system calls, in a signal's context")]
extern "C" fn report(_: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    // SAFETY: with SA_SIGINFO the kernel passes a `siginfo_t`, which for SIGSYS begins as `Refused` does.
    let number = c_long::from(unsafe { (*info.cast::<Refused>()).number });
    let mut line = Line { bytes: [0; LINE_BYTES], len: 0 };
    line.add(BEFORE);
    line.add(syscall_numbers::native::sys_call_name(number).unwrap_or("?").as_bytes());
    line.add(b" (");
    line.number(number.unsigned_abs());
    line.add(AFTER);
    // SAFETY: `bytes` has `len` initialised bytes; the last call takes numbers alone and, the action being reset, ends
    // the process.
    unsafe {
        libc::write(libc::STDERR_FILENO, line.bytes.as_ptr().cast(), line.len);
        libc::syscall(libc::SYS_tgkill, libc::getpid(), libc::gettid(), libc::SIGSYS);
    }
}

/// Text that is put together without an allocation.
struct Line {
    bytes: [u8; LINE_BYTES],
    len: usize,
}

impl Line {
    fn add(&mut self, text: &[u8]) {
        for (place, byte) in self.bytes.iter_mut().skip(self.len).zip(text) {
            *place = *byte;
            self.len += 1;
        }
    }

    fn number(&mut self, number: u64) {
        if number >= 10 {
            self.number(number / 10);
        }
        self.add(&[b'0' + u8::try_from(number % 10).unwrap_or_default()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_put_together() {
        let mut line = Line { bytes: [0; LINE_BYTES], len: 0 };
        line.add(b"socket (");
        line.number(41);
        line.add(&[b')'; LINE_BYTES]);
        assert!(line.bytes.starts_with(b"socket (41))"));
        assert_eq!(line.len, LINE_BYTES);
    }

    #[test]
    fn what_was_refused_is_where_the_kernel_puts_it() {
        assert_eq!(std::mem::offset_of!(Refused, number), 24);
    }
}
