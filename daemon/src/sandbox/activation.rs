//! Sockets that systemd has opened for the daemon (`sd_listen_fds(3)`).

use std::{
    io,
    os::{fd::FromRawFd, unix::net::UnixListener},
    path::Path,
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

/// Takes what systemd handed over; empty when it handed over nothing. To be called once. `admin` is where the admin socket is
/// if its name does not say so.
///
/// # Errors
/// The environment names descriptors that cannot be used.
#[expect(unsafe_code, reason = "a descriptor number becomes a socket by assertion only")]
pub fn inherited_sockets(admin: &Path) -> io::Result<InheritedSockets> {
    let mut sockets = Vec::new();
    if std::env::var_os("LISTEN_FDS").is_none() {
        return Ok(InheritedSockets::default());
    }
    for (descriptor, name) in sd_notify::listen_fds_with_names()? {
        // SAFETY: systemd has opened the descriptor for this process alone, and nobody else here takes it: this
        // function is called once, and `listen_fds_with_names` gives each descriptor once.
        sockets.push((unsafe { UnixListener::from_raw_fd(descriptor) }, name));
    }
    assign(sockets, admin)
}

/// Says which socket is which: by its name, or by its place if its name says nothing, as `systemd-socket-activate` gives none.
fn assign(sockets: Vec<(UnixListener, String)>, admin: &Path) -> io::Result<InheritedSockets> {
    let (named, others): (Vec<_>, Vec<_>) =
        sockets.into_iter().partition(|(_, name)| [API, ADMIN].contains(&name.as_str()));
    let [mut of_api, mut of_admin] = [None, None];
    for (socket, name) in named.into_iter().chain(others) {
        let address = socket.local_addr().map_err(|error| {
            io::Error::other(format!("systemd handed over {name:?}, which is no Unix socket: {error}"))
        })?;
        let is_admin = match name.as_str() {
            API => false,
            ADMIN => true,
            _ => address.as_pathname().is_some_and(|path| is_same(path, admin)),
        };
        let place = if is_admin { &mut of_admin } else { &mut of_api };
        if let Some((_, first)) = place {
            let what = if is_admin { "admin" } else { "API" };
            return Err(io::Error::other(format!(
                "systemd handed over two sockets for the {what}, {first:?} and {name:?}: the API's is to be named {API}, the \
                 admin socket {ADMIN} or be at server.admin_socket, and there is no other"
            )));
        }
        *place = Some((socket, name));
    }
    Ok(InheritedSockets { api: of_api.map(|(socket, _)| socket), admin: of_admin.map(|(socket, _)| socket) })
}

/// Whether both lead to the same file, one of them perhaps through a link.
fn is_same(one: &Path, other: &Path) -> bool {
    one == other || matches!((one.canonicalize(), other.canonicalize()), (Ok(one), Ok(other)) if one == other)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// Which of `sockets`, each a name and a file, is the API's and which the admin socket, which is to be at `admin.sock`.
    fn assigned(sockets: &[(&str, &str)]) -> Result<(Option<String>, Option<String>), String> {
        let dir = TempDir::new().unwrap();
        let bind = |file: &str| UnixListener::bind(dir.path().join(file)).unwrap();
        let sockets = sockets.iter().map(|(name, file)| (bind(file), (*name).to_owned())).collect();
        let assigned = assign(sockets, &dir.path().join("admin.sock")).map_err(|error| error.to_string())?;
        let file = |socket: Option<UnixListener>| {
            let address = socket?.local_addr().unwrap();
            Some(address.as_pathname()?.file_name()?.to_str()?.to_owned())
        };
        Ok((file(assigned.api), file(assigned.admin)))
    }

    #[test]
    fn a_socket_is_known_by_its_name_or_else_by_its_place() {
        for (sockets, api, admin) in [
            (&[][..], None, None),
            (&[("unknown", "x.sock")], Some("x.sock"), None),
            (&[("unknown", "admin.sock")], None, Some("admin.sock")),
            (&[("unknown", "admin.sock"), ("unknown", "x.sock")], Some("x.sock"), Some("admin.sock")),
            (&[(ADMIN, "x.sock"), (API, "admin.sock")], Some("admin.sock"), Some("x.sock")),
            (&[("surprise", "x.sock"), (ADMIN, "y.sock")], Some("x.sock"), Some("y.sock")),
        ] {
            let expected = (api.map(str::to_owned), admin.map(str::to_owned));
            assert_eq!(assigned(sockets), Ok(expected), "{sockets:?}");
        }
    }

    #[test]
    fn one_too_many_is_refused_by_name() {
        for (first, second) in [
            (("unknown", "x.sock"), ("surprise", "y.sock")),
            ((API, "x.sock"), ("surprise", "y.sock")),
            (("surprise", "y.sock"), (API, "x.sock")),
            ((ADMIN, "x.sock"), ("surprise", "admin.sock")),
        ] {
            let refused = assigned(&[first, second]).unwrap_err();
            for (name, _) in [first, second] {
                assert!(refused.contains(&format!("{name:?}")), "{refused}");
            }
        }
    }

    #[test]
    fn what_is_no_unix_socket_is_refused() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let listener = UnixListener::from(std::os::fd::OwnedFd::from(tcp));
        let refused = assign(vec![(listener, "unknown".to_owned())], Path::new("/admin.sock")).unwrap_err();
        assert!(refused.to_string().contains("\"unknown\", which is no Unix socket"), "{refused}");
    }
}
