//! The watchdog: systemd hears from the daemon for as long as the daemon proves to itself that it works (`sd_notify(3)`,
//! `WATCHDOG=1`). An HSM that is away, a full disk or too many callers are not its business: those heal without a restart.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use sd_notify::NotifyState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    time::{sleep, timeout},
};

use crate::{audit::Audit, store::Store};

/// The least of a request to which there is an answer without any right.
const REQUEST: &[u8] = b"GET /healthz HTTP/1.1\r\nHost: vault\r\nConnection: close\r\n\r\n";
/// Whatever its status, it comes from the HTTP server.
const ANSWER: &[u8] = b"HTTP/1.1 ";
/// Between two knocks at a socket where there is no place to wait.
const PAUSE: Duration = Duration::from_millis(10);

/// What has to work.
pub(super) struct Watchdog {
    /// The paths of the sockets.
    pub(super) doors: Vec<PathBuf>,
    pub(super) store: Store,
    pub(super) audit: Audit,
}

impl Watchdog {
    /// Checks and tells until it is dropped; ends at once if systemd does not ask for it (`WatchdogSec=`).
    pub(super) async fn serve(self) {
        let Some(patience) = sd_notify::watchdog_enabled() else { return };
        loop {
            match self.check(patience / 2).await {
                Ok(()) => drop(sd_notify::notify(&[NotifyState::Watchdog])),
                Err(what) => tracing::error!(what, "the vault does not work: systemd will restart it"),
            }
            sleep(patience / 4).await;
        }
    }

    /// What does not answer within `patience`.
    async fn check(&self, patience: Duration) -> Result<(), &'static str> {
        let doors = async {
            for door in &self.doors {
                answers(door).await?;
            }
            Ok::<_, io::Error>(())
        };
        let (doors, store, audit) = tokio::join!(
            timeout(patience, doors),
            timeout(patience, self.store.writer_lives()),
            timeout(patience, self.audit.writer_lives()),
        );
        match (doors, store, audit) {
            (Ok(Ok(())), Ok(true), Ok(true)) => Ok(()),
            (Ok(Ok(())), Ok(true), _) => Err("the audit log's thread"),
            (Ok(Ok(())), _, _) => Err("the store's writer"),
            _ => Err("the sockets"),
        }
    }
}

/// Whether the HTTP server answers at the socket `door`, as any caller would find out.
///
/// # Errors
/// It does not. A path that leads nowhere, or where the daemon may not knock, proves nothing against it.
async fn answers(door: &Path) -> io::Result<()> {
    let connected = loop {
        match UnixStream::connect(door).await {
            // Too many callers knock.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(PAUSE).await,
            other => break other,
        }
    };
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {
            tracing::warn!(door = %door.display(), %error, "the vault cannot knock at its own socket");
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    if answer.starts_with(ANSWER) { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        os::unix::net::UnixListener,
        thread,
    };

    use nix::sys::socket::{Backlog, listen};

    use super::*;

    #[tokio::test]
    async fn a_socket_at_which_nobody_answers_is_found_out() {
        let dir = tempfile::tempdir().unwrap();
        let door = dir.path().join("door.sock");
        assert!(answers(&door).await.is_ok(), "nothing is there");
        let listener = UnixListener::bind(&door).unwrap();
        assert!(timeout(Duration::from_millis(50), answers(&door)).await.is_err(), "nobody accepts");
        drop(listener);
        assert!(answers(&door).await.is_err(), "nobody listens");
    }

    #[tokio::test]
    async fn a_socket_at_which_too_many_knock_is_knocked_at_again() {
        let dir = tempfile::tempdir().unwrap();
        let door = dir.path().join("door.sock");
        let listener = UnixListener::bind(&door).unwrap();
        // One may wait.
        listen(&listener, Backlog::new(0).unwrap()).unwrap();
        let first = UnixStream::connect(&door).await.unwrap();
        let full = UnixStream::connect(&door).await.unwrap_err();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let answering = thread::spawn(move || {
            thread::sleep(3 * PAUSE);
            drop(first);
            for _ in 0..2 {
                let (mut stream, _) = listener.accept().unwrap();
                let _ = stream.read(&mut [0; REQUEST.len()]);
                let _ = stream.write_all(ANSWER);
            }
        });
        assert!(answers(&door).await.is_ok());
        answering.join().unwrap();
    }
}
