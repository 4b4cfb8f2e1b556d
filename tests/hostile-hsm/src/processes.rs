//! To start processes, and to lay hands on others.

use std::{
    ffi::{CStr, c_int, c_long},
    mem, ptr,
};

use crate::attempt::{Outcome, system_call};

/// Ends the child that `pid` is 0 for; waits for it in its parent.
pub(crate) fn end_of_child(pid: c_long) -> Outcome {
    if pid == 0 {
        let _ = system_call!(libc::SYS_exit_group, 0);
    }
    let status = ptr::null_mut::<c_int>();
    system_call!(libc::SYS_wait4, pid, status, libc::__WALL, ptr::null_mut::<libc::rusage>()).map(drop)
}

pub(crate) fn clone() -> Outcome {
    let none = ptr::null_mut::<c_int>();
    system_call!(libc::SYS_clone, c_long::from(libc::SIGCHLD), none, none, none, none).and_then(end_of_child)
}

pub(crate) fn clone3() -> Outcome {
    // SAFETY: it is made of numbers, for which zero is a value.
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    let size = size_of::<libc::clone_args>();
    system_call!(libc::SYS_clone3, &raw const arguments, size).and_then(end_of_child)
}

pub(crate) fn execute(program: &CStr, argument: &CStr) -> Outcome {
    let (arguments, environment) = ([program.as_ptr(), argument.as_ptr(), ptr::null()], [ptr::null::<u8>()]);
    let call = libc::SYS_execve;
    system_call!(call, program.as_ptr(), arguments.as_ptr(), environment.as_ptr()).map(drop)
}

pub(crate) fn execute_at(program: &CStr, argument: &CStr) -> Outcome {
    let (arguments, environment) = ([program.as_ptr(), argument.as_ptr(), ptr::null()], [ptr::null::<u8>()]);
    let (call, here) = (libc::SYS_execveat, libc::AT_FDCWD);
    system_call!(call, here, program.as_ptr(), arguments.as_ptr(), environment.as_ptr(), 0).map(drop)
}

pub(crate) fn trace_me() -> Outcome {
    system_call!(libc::SYS_ptrace, libc::PTRACE_TRACEME, 0, 0_usize, 0_usize).map(drop)
}

pub(crate) fn trace(pid: usize) -> Outcome {
    system_call!(libc::SYS_ptrace, libc::PTRACE_SEIZE, pid, 0_usize, 0_usize).map(drop)
}

pub(crate) fn read_memory(pid: usize, address: usize) -> Outcome {
    reach_into(libc::SYS_process_vm_readv, pid, address)
}

pub(crate) fn write_memory(pid: usize, address: usize) -> Outcome {
    reach_into(libc::SYS_process_vm_writev, pid, address)
}

/// Moves a byte between this process and the one of `pid`.
fn reach_into(call: c_long, pid: usize, address: usize) -> Outcome {
    let mut byte = 0_u8;
    let here = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let there = libc::iovec { iov_base: ptr::without_provenance_mut(address), iov_len: 1 };
    let flags = 0_usize;
    system_call!(call, pid, &raw const here, 1_usize, &raw const there, 1_usize, flags).map(drop)
}

pub(crate) fn kill(pid: usize) -> Outcome {
    system_call!(libc::SYS_kill, pid, libc::SIGKILL).map(drop)
}

pub(crate) fn kill_by_descriptor(pid: usize) -> Outcome {
    let process = system_call!(libc::SYS_pidfd_open, pid, 0)?;
    let none = ptr::null::<libc::siginfo_t>();
    system_call!(libc::SYS_pidfd_send_signal, process, libc::SIGKILL, none, 0).map(drop)
}

/// Its standard error.
pub(crate) fn take_descriptor(pid: usize) -> Outcome {
    let process = system_call!(libc::SYS_pidfd_open, pid, 0)?;
    system_call!(libc::SYS_pidfd_getfd, process, 2, 0).map(drop)
}

/// Leaves it no file to open.
pub(crate) fn limit_another(pid: usize) -> Outcome {
    let none = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let old = ptr::null_mut::<libc::rlimit64>();
    system_call!(libc::SYS_prlimit64, pid, libc::RLIMIT_NOFILE, &raw const none, old).map(drop)
}
