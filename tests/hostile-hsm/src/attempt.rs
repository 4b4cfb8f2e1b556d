//! Everything that can be tried, by name.

use std::{
    ffi::{CStr, CString, c_int},
    io, thread,
};

use crate::{files, kernel, memory, network, processes};

/// Whether it came off, or else the system's reason.
pub(crate) type Outcome = Result<(), c_int>;

/// Makes a system call: its number and its arguments.
macro_rules! system_call {
    ($number:expr $(, $argument:expr)* $(,)?) => {
        // SAFETY: the arguments are what this call wants, and what they point to outlives it.
        crate::attempt::said(unsafe { libc::syscall($number $(, $argument)*) })
    };
}
pub(crate) use system_call;

/// What a system call gave back, or the error.
pub(crate) fn said(value: libc::c_long) -> Result<libc::c_long, c_int> {
    if value >= 0 { Ok(value) } else { Err(io::Error::last_os_error().raw_os_error().unwrap_or_default()) }
}

/// Carries out the order, if there is one for `moment`.
pub(crate) fn attempt_at(moment: &str) -> Outcome {
    let order = std::env::var_os("HOSTILE_HSM_ORDER").and_then(|path| std::fs::read_to_string(path).ok());
    let words: Vec<_> = order.as_deref().unwrap_or_default().split_whitespace().collect();
    match words.split_first() {
        Some((when, words)) if *when == moment => attempt(words),
        _ => Ok(()),
    }
}

/// What is tried, and with what.
fn attempt(words: &[&str]) -> Outcome {
    let Some((name, with)) = words.split_first() else { return Err(libc::EINVAL) };
    match *name {
        // In a thread that is new.
        "thread" => {
            let words: Vec<String> = with.iter().map(|&word| word.to_owned()).collect();
            let tried = thread::spawn(move || attempt(&words.iter().map(String::as_str).collect::<Vec<_>>()));
            tried.join().unwrap_or(Err(libc::EIO))
        }
        // Once nobody can hear of it any more.
        "in-silence" => kernel::block_sigsys().and_then(|()| attempt(with)),
        name => {
            let with: Vec<_> = with.iter().map(|&word| CString::new(word).unwrap_or_default()).collect();
            let with: Vec<_> = with.iter().map(CString::as_c_str).collect();
            one(name, &With(&with))
        }
    }
}

/// What an attempt is made with.
pub(crate) struct With<'a>(&'a [&'a CStr]);

impl<'a> With<'a> {
    /// The word at `place`; empty if there is none.
    pub(crate) fn word(&self, place: usize) -> &'a CStr {
        self.0.get(place).copied().unwrap_or_default()
    }

    /// The number at `place`; 0 if there is none.
    pub(crate) fn number(&self, place: usize) -> usize {
        self.word(place).to_str().ok().and_then(|text| text.parse().ok()).unwrap_or_default()
    }
}

fn one(name: &str, with: &With<'_>) -> Outcome {
    match name {
        "socket-inet" => network::socket(libc::AF_INET, libc::SOCK_STREAM),
        "socket-inet6" => network::socket(libc::AF_INET6, libc::SOCK_DGRAM),
        "socket-netlink" => network::socket(libc::AF_NETLINK, libc::SOCK_RAW),
        "socket-packet" => network::socket(libc::AF_PACKET, libc::SOCK_RAW),
        "bind-abstract" => network::bind_abstract(),
        "connect" => network::connect(with.word(0)),

        "read" => files::read(with.word(0)),
        "read-openat2" => files::read_openat2(with.word(0)),
        "read-by-handle" => files::read_by_handle(with.word(0)),
        "read-reopened" => files::read_reopened(with.word(0)),
        "read-by-link" => files::read_by_link(with.word(0), with.word(1)),
        "hard-link" => files::hard_link(with.word(0), with.word(1)),
        "list" => files::list(with.word(0)),
        "write" => files::write(with.word(0)),
        "write-own-memory" => files::write_own_memory(),
        "truncate" => files::truncate(with.word(0)),
        "remove" => files::remove(with.word(0)),
        "rename" => files::rename(with.word(0), with.word(1)),
        "make-directory" => files::make_directory(with.word(0)),
        "make-device" => files::make_device(with.word(0)),
        "change-mode" => files::change_mode(with.word(0)),
        "change-owner" => files::change_owner(with.word(0)),
        "give-away" => files::give_away(with.word(0)),
        "change-times" => files::change_times(with.word(0)),
        "change-attribute" => files::change_attribute(with.word(0)),

        "clone" => processes::clone(),
        "clone3" => processes::clone3(),
        "exec" => processes::execute(with.word(0), with.word(1)),
        "execveat" => processes::execute_at(with.word(0), with.word(1)),
        "trace-me" => processes::trace_me(),
        "trace" => processes::trace(with.number(0)),
        "read-memory" => processes::read_memory(with.number(0), with.number(1)),
        "write-memory" => processes::write_memory(with.number(0), with.number(1)),
        "kill" => processes::kill(with.number(0)),
        "kill-by-descriptor" => processes::kill_by_descriptor(with.number(0)),
        "take-descriptor" => processes::take_descriptor(with.number(0)),
        "limit-another" => processes::limit_another(with.number(0)),

        "map-writable-code" => memory::map_writable_code(),
        "make-executable" => memory::make_executable(),
        "map-memory-file-as-code" => memory::map_memory_file_as_code(),
        "map-file-as-code" => memory::map_file_as_code(with.word(0)),
        "dumpable" => memory::make_dumpable(),
        "core-limit" => memory::raise_core_limit(),
        "abort" => memory::abort(),
        "write-to-nowhere" => {
            memory::write_to_nowhere();
            Ok(())
        }

        "setuid" => kernel::set_uid(),
        "setresuid" => kernel::set_all_uids(),
        "setgid" => kernel::set_gid(),
        "setgroups" => kernel::set_groups(),
        "capset" => kernel::set_capabilities(),
        "mount" => kernel::mount(with.word(0)),
        "chroot" => kernel::change_root(with.word(0)),
        "unshare" => kernel::unshare(),
        "setns" => kernel::enter_namespace(),
        "bpf" => kernel::load_bpf(),
        "keyctl" => kernel::use_keyring(),
        "io-uring" => kernel::use_io_uring(),
        "perf-event" => kernel::count_events(),
        "userfaultfd" => kernel::handle_faults(),
        "shared-memory" => kernel::share_memory(),
        "kernel-log" => kernel::read_kernel_log(),
        "clock" => kernel::set_clock(),
        "default-sigsys" => kernel::default_sigsys(),

        #[cfg(target_arch = "x86_64")]
        "fork" => crate::legacy::fork(),
        #[cfg(target_arch = "x86_64")]
        "vfork" => crate::legacy::vfork(),
        #[cfg(target_arch = "x86_64")]
        "32-bit-socket" => crate::legacy::socket_by_32_bit_call(),
        #[cfg(target_arch = "x86_64")]
        "x32-socket" => crate::legacy::socket_by_x32_call(),
        _ => Err(libc::ENOSYS),
    }
}
