//! Sockets that systemd has opened for the daemon (`sd_listen_fds(3)`).

use std::{
    io,
    os::{fd::FromRawFd, unix::net::UnixListener},
};

/// The names the sockets have in `FileDescriptorName=`.
const API: &str = "vaultd.socket";
const ADMIN: &str = "vaultd-admin.socket";

/// Sockets that were handed over.
#[derive(Debug, Default)]
pub struct InheritedSockets {
    /// The API's.
    pub api: Option<UnixListener>,
    /// The admin socket.
    pub admin: Option<UnixListener>,
}

/// Takes what systemd handed over; empty when it handed over nothing. To be called once.
///
/// # Errors
/// The environment names descriptors that cannot be used.
#[expect(unsafe_code, reason = "a descriptor number becomes a socket by assertion only")]
pub fn inherited_sockets() -> io::Result<InheritedSockets> {
    let mut sockets = InheritedSockets::default();
    if std::env::var_os("LISTEN_FDS").is_none() {
        return Ok(sockets);
    }
    for (descriptor, name) in sd_notify::listen_fds_with_names()? {
        let place = match name.as_str() {
            ADMIN => &mut sockets.admin,
            API => &mut sockets.api,
            other => {
                return Err(io::Error::other(format!(
                    "systemd handed over a socket of unknown name {other:?}"
                )));
            }
        };
        // SAFETY: systemd has opened the descriptor for this process alone, and nobody else here takes it: this
        // function is called once, and `listen_fds_with_names` gives each descriptor once.
        *place = Some(unsafe { UnixListener::from_raw_fd(descriptor) });
    }
    Ok(sockets)
}
