//! The system calls that the daemon makes, by what it makes them for. Whatever is not here ends it.
//!
//! `docs/sandbox.md` lists them; a test holds the two together, so that the list does not grow unnoticed.

use std::collections::BTreeMap;

use nix::libc::{self, c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

/// Files: the store, the audit log, the token's directory, libraries and keys that are read anew.
const FILES: &[c_long] = &[
    libc::SYS_openat,
    libc::SYS_close,
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ftruncate,
    libc::SYS_fallocate,
    libc::SYS_fadvise64,
    libc::SYS_flock,
    libc::SYS_fcntl,
    libc::SYS_statx,
    libc::SYS_newfstatat,
    libc::SYS_fstat,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_getcwd,
    libc::SYS_umask,
];

/// The same by their older names, which the C library still uses on this architecture, or modules do.
#[cfg(target_arch = "x86_64")]
const OLDER: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_chmod,
    libc::SYS_poll,
    libc::SYS_epoll_wait,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER: &[c_long] = &[];

/// Connections that were accepted on the sockets that are open, and those of libraries to the journal and to local
/// databases of users.
const CONNECTIONS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_connect,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_shutdown,
    libc::SYS_getsockopt,
    libc::SYS_setsockopt,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_eventfd2,
];

/// Memory.
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_mlock,
    libc::SYS_munlock,
];

/// Threads, signals and time.
const THREADS: &[c_long] = &[
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_set_tid_address,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_restart_syscall,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
];

/// Questions about the process and the system.
const QUESTIONS: &[c_long] = &[
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getgroups,
    libc::SYS_getrusage,
    libc::SYS_getcpu,
    libc::SYS_sysinfo,
    libc::SYS_uname,
];

/// What a module needs beside [`CONNECTIONS`] that reaches its HSM over the network.
const NETWORK: &[c_long] = &[libc::SYS_bind, libc::SYS_sendmmsg, libc::SYS_recvmmsg];

/// Calls that are answered with an error instead of being made, which whoever makes them takes for an answer.
const ANSWERED: [(c_long, c_int); 2] = [
    // Its arguments are out of a filter's sight: the C library takes `clone` instead.
    (libc::SYS_clone3, libc::ENOSYS),
    // As root, SQLite gives its journal to whoever owns the database. Tokens keep their objects with it.
    (libc::SYS_fchown, libc::EPERM),
];

/// Sockets that do not block or are not inherited, how much there is to read, and whether a stream is a terminal: FIONBIO,
/// FIOCLEX, FIONREAD, TCGETS (`asm-generic/ioctls.h`).
const IOCTLS: [u64; 4] = [0x5421, 0x5451, 0x541b, 0x5401];
/// Names of threads, and of mappings, which allocators give, and a look at the capabilities, which nss-systemd takes when a
/// user is looked up: `PR_SET_NAME`, `PR_SET_VMA`, `PR_CAPBSET_READ` (`linux/prctl.h`).
const PRCTLS: [u64; 3] = [15, 0x5356_4d41, 23];
const WRITE: u64 = 2;
const EXECUTE: u64 = 4;

/// A call of which an argument, counted from 0, must fit one of these.
type Choice = (c_long, u8, Vec<(SeccompCmpOp, u64)>);

/// What becomes of a system call that is not allowed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnViolation {
    /// The process ends.
    #[default]
    End,
    /// The kernel logs it and goes on.
    Log,
}

/// Calls that are allowed with some values of an argument only.
fn choices(network: bool) -> Vec<Choice> {
    use SeccompCmpOp::{Eq, MaskedEq, Ne};
    let number = |value: c_int| u64::from(value.unsigned_abs());
    let is_any_of = |values: &[u64]| values.iter().map(|value| (Eq, *value)).collect::<Vec<_>>();
    let ourselves = u64::from(std::process::id());
    let thread = number(libc::CLONE_THREAD);
    let mut families = vec![number(libc::AF_UNIX)];
    if network {
        // Name lookups ask the kernel for its addresses by netlink.
        families.extend([libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK].map(number));
    }
    vec![
        (libc::SYS_socket, 0, is_any_of(&families)),
        (libc::SYS_socketpair, 0, is_any_of(&[number(libc::AF_UNIX)])),
        // Threads, never processes.
        (libc::SYS_clone, 0, vec![(MaskedEq(thread), thread)]),
        // Memory is writable or executable, never both, and never becomes executable.
        (libc::SYS_mmap, 2, [0, WRITE, EXECUTE].map(|mode| (MaskedEq(WRITE | EXECUTE), mode)).to_vec()),
        (libc::SYS_mprotect, 2, vec![(MaskedEq(EXECUTE), 0)]),
        (libc::SYS_ioctl, 1, is_any_of(&IOCTLS)),
        (libc::SYS_prctl, 0, is_any_of(&PRCTLS)),
        // Limits may be read, not set.
        (libc::SYS_prlimit64, 2, is_any_of(&[0])),
        (libc::SYS_kill, 0, is_any_of(&[ourselves])),
        (libc::SYS_tgkill, 0, is_any_of(&[ourselves])),
        // Nobody takes away the handler that tells of violations.
        (libc::SYS_rt_sigaction, 0, vec![(Ne, number(libc::SIGSYS))]),
    ]
}

/// The filters, in the order in which they are to be installed.
pub(super) fn filters(network: bool, on_violation: OnViolation) -> Result<Vec<BpfProgram>, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let answered = ANSWERED.map(|(call, error)| {
        let call = BTreeMap::from([(call, Vec::new())]);
        SeccompFilter::new(call, SeccompAction::Allow, SeccompAction::Errno(error.unsigned_abs()), arch)
    });
    let otherwise = match on_violation {
        OnViolation::End => SeccompAction::Trap,
        OnViolation::Log => SeccompAction::Log,
    };
    let allowed = SeccompFilter::new(rules(network)?, otherwise, SeccompAction::Allow, arch);
    answered.into_iter().chain([allowed]).map(|filter| filter?.try_into()).collect()
}

fn rules(network: bool) -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        unconditional(network).map(|call| (call, Vec::new())).collect();
    for (call, place, alternatives) in choices(network) {
        // A pointer has 64 bits that count, the others are of type int.
        let is_pointer = call == libc::SYS_prlimit64;
        let len = if is_pointer { SeccompCmpArgLen::Qword } else { SeccompCmpArgLen::Dword };
        for (operator, value) in alternatives {
            let condition = SeccompCondition::new(place, len.clone(), operator, value)?;
            rules.entry(call).or_default().push(SeccompRule::new(vec![condition])?);
        }
    }
    Ok(rules)
}

fn unconditional(network: bool) -> impl Iterator<Item = c_long> {
    let network = if network { NETWORK } else { &[] };
    let always = [FILES, OLDER, CONNECTIONS, MEMORY, THREADS, QUESTIONS, network];
    always.into_iter().flatten().copied().chain(ANSWERED.map(|(call, _)| call))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LIST: &str = include_str!("../../../docs/sandbox.md");

    /// The names that stand in the section `title` of the list, in backquotes at the start of a row.
    fn listed(title: &str) -> BTreeSet<&'static str> {
        let section = LIST.split("\n## ").find(|section| section.starts_with(title)).unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
        rows.flat_map(|cell| cell.split([',', ' ', '`']).filter(|name| !name.is_empty())).collect()
    }

    fn named(network: bool) -> BTreeSet<&'static str> {
        let name = |call| syscall_numbers::native::sys_call_name(call).unwrap();
        rules(network).unwrap().into_keys().map(name).collect()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_list_does_not_grow_unnoticed() {
        let (always, network) = (listed("System calls"), listed("With `network"));
        assert_eq!(named(false), always);
        assert_eq!(named(true), &always | &network);
    }

    #[test]
    fn nothing_dangerous_is_on_the_list() {
        for call in [
            "execve",
            "execveat",
            "fork",
            "vfork",
            "ptrace",
            "mount",
            "unshare",
            "setuid",
            "bpf",
            "io_uring_setup",
        ] {
            assert!(!named(true).contains(call), "{call}");
        }
    }
}
