//! To talk to others.

use std::{ffi::CStr, mem};

use libc::{c_int, sa_family_t, sockaddr_un};

use crate::attempt::{Outcome, system_call};

/// The socket of a family that reaches beyond the machine, or into the kernel.
pub(crate) fn socket(family: c_int, kind: c_int) -> Outcome {
    let socket = system_call!(libc::SYS_socket, family, kind | libc::SOCK_CLOEXEC, 0)?;
    system_call!(libc::SYS_close, socket).map(drop)
}

/// A socket that no file permission guards (unix(7), "abstract").
pub(crate) fn bind_abstract() -> Outcome {
    let socket = unix_socket()?;
    let (address, size) = address(b"\0hostile-hsm");
    let bound = system_call!(libc::SYS_bind, socket, &raw const address, size).map(drop);
    system_call!(libc::SYS_close, socket)?;
    bound
}

/// The socket of another daemon, to have it do what is forbidden here.
pub(crate) fn connect(path: &CStr) -> Outcome {
    let socket = unix_socket()?;
    let (address, size) = address(path.to_bytes());
    let connected = system_call!(libc::SYS_connect, socket, &raw const address, size).map(drop);
    system_call!(libc::SYS_close, socket)?;
    connected
}

fn unix_socket() -> Result<libc::c_long, c_int> {
    system_call!(libc::SYS_socket, libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0)
}

fn address(name: &[u8]) -> (sockaddr_un, usize) {
    // SAFETY: it is made of numbers, for which zero is a value.
    let mut address: sockaddr_un = unsafe { mem::zeroed() };
    address.sun_family = sa_family_t::try_from(libc::AF_UNIX).unwrap_or_default();
    for (to, from) in address.sun_path.iter_mut().zip(name) {
        *to = from.cast_signed();
    }
    (address, mem::offset_of!(sockaddr_un, sun_path) + name.len())
}
