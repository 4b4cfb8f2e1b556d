//! The doors of x86-64 that stand beside the usual one.

use std::{arch::asm, ffi::c_long};

use crate::attempt::{Outcome, said, system_call};

/// What is added to the number of a system call of the x32 ABI (`__X32_SYSCALL_BIT`, asm/unistd.h).
const X32: c_long = 0x4000_0000;

pub(crate) fn fork() -> Outcome {
    system_call!(libc::SYS_fork).and_then(crate::processes::end_of_child)
}

/// The child ends where it begins: it runs on its parent's stack.
pub(crate) fn vfork() -> Outcome {
    let pid: c_long;
    // SAFETY: the child makes one more system call, which does not return, and touches neither stack nor memory.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor edi, edi",
            "mov eax, {exit}",
            "syscall",
            "2:",
            exit = const libc::SYS_exit_group,
            inlateout("rax") libc::SYS_vfork => pid,
            out("rdi") _,
            out("rcx") _,
            out("r11") _,
        );
    }
    known(pid).and_then(crate::processes::end_of_child)
}

/// `int 0x80`, where numbers mean other calls.
pub(crate) fn socket_by_32_bit_call() -> Outcome {
    const SOCKET: c_long = 359;
    let socket: c_long;
    // SAFETY: the call reads no memory. LLVM keeps rbx for itself, so it is put back.
    unsafe {
        asm!(
            "xchg rbx, {family}",
            "int 0x80",
            "mov rbx, {family}",
            family = inout(reg) c_long::from(libc::AF_INET) => _,
            inlateout("rax") SOCKET => socket,
            in("rcx") c_long::from(libc::SOCK_STREAM),
            in("rdx") 0_i64,
            out("r8") _,
            out("r9") _,
            out("r10") _,
            out("r11") _,
        );
    }
    known(socket).map(drop)
}

pub(crate) fn socket_by_x32_call() -> Outcome {
    system_call!(X32 | libc::SYS_socket, libc::AF_INET, libc::SOCK_STREAM, 0).map(drop)
}

/// The kernel's own way to say what went wrong: the error's number below zero.
fn known(value: c_long) -> Result<c_long, i32> {
    if value < 0 { Err(i32::try_from(-value).unwrap_or_default()) } else { said(value) }
}
