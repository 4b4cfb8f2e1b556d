//! Who is at the other end of a socket, in a way that a reused process id cannot fool.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

/// `SO_PEERPIDFD` (Linux 6.5, `include/uapi/asm-generic/socket.h`).
const SO_PEERPIDFD: libc::c_int = 77;

/// A handle on the process that connected.
///
/// # Errors
/// `ENOPROTOOPT` before Linux 6.5; `ESRCH`-like errors if the process has gone.
#[expect(unsafe_code, reason = "no library wraps this socket option yet")]
pub fn peer_process(socket: impl AsFd) -> io::Result<OwnedFd> {
    let mut fd: libc::c_int = -1;
    let mut len = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: the option writes one int into `fd`, whose size `len` gives; both live until the call returns.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PEERPIDFD,
            (&raw mut fd).cast(),
            &raw mut len,
        )
    };
    if status != 0 || fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The system's systemd unit that `process` runs in, as in `checkout.service`; `None` if it runs in none.
///
/// # Errors
/// An error of kind `NotFound` if the process has gone; else what the system says, or that `/proc` hides the process.
pub fn unit_of(process: BorrowedFd<'_>) -> io::Result<Option<String>> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd()))?;
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).map(str::trim);
    let pid: u32 = pid.and_then(|pid| pid.parse().ok()).ok_or(io::ErrorKind::NotFound)?;
    let path = format!("/proc/{pid}/cgroup");
    let cgroup = fs::read_to_string(&path);
    // Whoever had the number until now still has it if the process has not ended (pidfd_open(2)).
    let ended = poll(&mut [PollFd::new(process, PollFlags::POLLIN)], PollTimeout::ZERO)? != 0;
    match cgroup {
        _ if ended => Err(io::ErrorKind::NotFound.into()),
        // As with ProtectProc=invisible (hidepid, proc(5)).
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(io::Error::other(format!("{path} is hidden")))
        }
        cgroup => Ok(unit_in(&cgroup?)),
    }
}

/// The unit in the text of `/proc/PID/cgroup` (cgroups(7)): in the hierarchy of version 2, or in the one that systemd
/// keeps for itself where version 1 is still in use. Only root puts processes into either.
fn unit_in(cgroup: &str) -> Option<String> {
    let paths = |hierarchy: &'static str| {
        cgroup.lines().filter_map(move |line| line.split_once(':')?.1.strip_prefix(hierarchy))
    };
    paths(":").chain(paths("name=systemd:")).find_map(unit_of_path)
}

/// Only units of the system count: below `user.slice` every user starts units with any name.
fn unit_of_path(path: &str) -> Option<String> {
    let below = path.strip_prefix("/system.slice/")?;
    let unit = below.split('/').find(|part| part.strip_suffix(".slice").is_none())?;
    unit.strip_suffix(".service").map(|_| unit.to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn only_services_of_the_system_are_units() {
        for (path, unit) in [
            ("0::/system.slice/checkout.service\n", Some("checkout.service")),
            ("12:cpu:/x\n0::/system.slice/pay.slice/checkout.service/sub\n", Some("checkout.service")),
            ("0::/user.slice/user-7.slice/user@7.service/app.slice/checkout.service\n", None),
            ("0::/system.slice/docker-1.scope\n", None),
            ("0::/system.slice/x.scope/checkout.service\n", None),
            ("9:name=systemd:/system.slice/checkout.service\n1:cpu:/\n0::/\n", Some("checkout.service")),
            ("9:name=other:/system.slice/checkout.service\n0::/\n", None),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit_in(path).as_deref(), unit, "{path}");
        }
    }

    #[test]
    fn the_process_at_the_other_end_is_known_while_it_lives() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        match peer_process(&ours) {
            Ok(process) => drop(unit_of(process.as_fd()).unwrap()),
            Err(error) => assert_eq!(error.raw_os_error(), Some(libc::ENOPROTOOPT)),
        }
    }
}
