//! To gain rights, and to use parts of the kernel that have been good for gaining them.

use std::{
    ffi::{CStr, c_int},
    mem, ptr,
};

use crate::attempt::{Outcome, system_call};

pub(crate) fn set_uid() -> Outcome {
    system_call!(libc::SYS_setuid, 0).map(drop)
}

pub(crate) fn set_all_uids() -> Outcome {
    system_call!(libc::SYS_setresuid, 0, 0, 0).map(drop)
}

pub(crate) fn set_gid() -> Outcome {
    system_call!(libc::SYS_setgid, 0).map(drop)
}

pub(crate) fn set_groups() -> Outcome {
    system_call!(libc::SYS_setgroups, 1_usize, (&raw const ROOT).cast::<libc::gid_t>()).map(drop)
}

static ROOT: libc::gid_t = 0;

/// To none: enough to find out whether it may ask.
pub(crate) fn set_capabilities() -> Outcome {
    // _LINUX_CAPABILITY_VERSION_3 (linux/capability.h), and two times effective, permitted and inheritable.
    let (header, sets) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    system_call!(libc::SYS_capset, header.as_ptr(), sets.as_ptr()).map(drop)
}

/// A file system over `path`.
pub(crate) fn mount(path: &CStr) -> Outcome {
    let (kind, none) = (c"tmpfs", ptr::null::<u8>());
    system_call!(libc::SYS_mount, kind.as_ptr(), path.as_ptr(), kind.as_ptr(), 0_usize, none)?;
    system_call!(libc::SYS_umount2, path.as_ptr(), libc::MNT_DETACH).map(drop)
}

pub(crate) fn change_root(path: &CStr) -> Outcome {
    system_call!(libc::SYS_chroot, path.as_ptr()).map(drop)
}

/// With a user namespace come all capabilities in it.
pub(crate) fn unshare() -> Outcome {
    // Refused to a process of more than one thread by the kernel itself: a clone is not.
    let flags = libc::CLONE_NEWUSER | libc::SIGCHLD;
    let none = ptr::null_mut::<c_int>();
    system_call!(libc::SYS_unshare, libc::CLONE_NEWUTS)?;
    system_call!(libc::SYS_clone, i64::from(flags), none, none, none, none)
        .and_then(crate::processes::end_of_child)
}

pub(crate) fn enter_namespace() -> Outcome {
    let path = c"/proc/self/ns/net";
    let flags = libc::O_RDONLY | libc::O_CLOEXEC;
    let namespace = system_call!(libc::SYS_openat, libc::AT_FDCWD, path.as_ptr(), flags)?;
    let entered = system_call!(libc::SYS_setns, namespace, libc::CLONE_NEWNET).map(drop);
    system_call!(libc::SYS_close, namespace)?;
    entered
}

/// A map of one entry.
pub(crate) fn load_bpf() -> Outcome {
    const BPF_MAP_CREATE: c_int = 0;
    const BPF_MAP_TYPE_ARRAY: u32 = 2;
    // Type, bytes of a key, bytes of a value, entries (union bpf_attr of linux/bpf.h).
    let mut attributes = [0_u32; 18];
    attributes[..4].copy_from_slice(&[BPF_MAP_TYPE_ARRAY, 4, 4, 1]);
    let size = size_of_val(&attributes);
    let map = system_call!(libc::SYS_bpf, BPF_MAP_CREATE, attributes.as_ptr(), size)?;
    system_call!(libc::SYS_close, map).map(drop)
}

pub(crate) fn use_keyring() -> Outcome {
    // KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING (linux/keyctl.h).
    system_call!(libc::SYS_keyctl, 0, -2, 1).map(drop)
}

pub(crate) fn use_io_uring() -> Outcome {
    // struct io_uring_params has 120 bytes.
    let mut parameters = [0_u64; 15];
    let ring = system_call!(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr())?;
    system_call!(libc::SYS_close, ring).map(drop)
}

/// A counter of the kernel's own software.
pub(crate) fn count_events() -> Outcome {
    const PERF_TYPE_SOFTWARE: u32 = 1;
    const PERF_ATTR_SIZE_VER0: u32 = 64;
    let mut attributes = [0_u32; 16];
    attributes[..2].copy_from_slice(&[PERF_TYPE_SOFTWARE, PERF_ATTR_SIZE_VER0]);
    let counter = system_call!(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 0_usize)?;
    system_call!(libc::SYS_close, counter).map(drop)
}

pub(crate) fn handle_faults() -> Outcome {
    const UFFD_USER_MODE_ONLY: c_int = 1;
    let handler = system_call!(libc::SYS_userfaultfd, libc::O_CLOEXEC | UFFD_USER_MODE_ONLY)?;
    system_call!(libc::SYS_close, handler).map(drop)
}

pub(crate) fn share_memory() -> Outcome {
    let none = ptr::null_mut::<libc::shmid_ds>();
    let memory = system_call!(libc::SYS_shmget, libc::IPC_PRIVATE, 4_096_usize, 0o600)?;
    system_call!(libc::SYS_shmctl, memory, libc::IPC_RMID, none).map(drop)
}

pub(crate) fn read_kernel_log() -> Outcome {
    const SYSLOG_ACTION_SIZE_BUFFER: c_int = 10;
    system_call!(libc::SYS_syslog, SYSLOG_ACTION_SIZE_BUFFER, ptr::null_mut::<u8>(), 0).map(drop)
}

/// To no time at all: enough to find out whether it may ask.
pub(crate) fn set_clock() -> Outcome {
    let (time, zone) = (ptr::null::<libc::timeval>(), ptr::null::<u8>());
    system_call!(libc::SYS_settimeofday, time, zone).map(drop)
}

/// So that nobody hears of what is refused.
pub(crate) fn default_sigsys() -> Outcome {
    // struct sigaction of the kernel: handler, flags, restorer, mask; all zero is SIG_DFL.
    let (action, old) = ([0_u64; 4], ptr::null_mut::<u64>());
    system_call!(libc::SYS_rt_sigaction, libc::SIGSYS, action.as_ptr(), old, 8_usize).map(drop)
}

/// The same, for this thread.
pub(crate) fn block_sigsys() -> Outcome {
    let signal = u32::try_from(libc::SIGSYS - 1).unwrap_or_default();
    let (mask, old) = (1_u64 << signal, ptr::null_mut::<u64>());
    let size = mem::size_of::<u64>();
    system_call!(libc::SYS_rt_sigprocmask, libc::SIG_BLOCK, &raw const mask, old, size).map(drop)
}
