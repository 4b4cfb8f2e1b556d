//! `vaultd backup`: asks the daemon that serves for a backup, or makes one itself where none does.

use std::{
    io::{self, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt, Collected, Empty, Limited};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use nix::unistd::getuid;
use tokio::time::timeout;
use vault_api::Problem;

use super::{
    CommandError,
    boot::{module_environment, one_thread, open_audit},
    deadline::Deadline,
    draft::Draft,
    progress::bytes_counter,
    serve::Engines,
};
use crate::{
    audit::{AuditError, Event},
    backup::{Head, begin},
    config::Config,
    sandbox::harden,
    vault::{Keys, Notary},
};

/// How long the daemon may be silent: longer than it works on any request, and than its HSM may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// The most of a problem that is read.
const MAX_PROBLEM_BYTES: usize = 65_536;

/// Writes a backup of the vault that the file at `path` describes to `out`, where there must be nothing; `say` is told what
/// is in it.
///
/// # Errors
/// [`CommandError`]; then there is no `out`.
pub fn backup(path: &Path, out: &Path, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    let config = Config::load(path)?;
    harden().map_err(|error| CommandError::new("cannot restrict the process", error))?;
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => CommandError::Failed(format!(
            "{} is there already, and a backup replaces nothing: choose another name",
            out.display()
        )),
        io::ErrorKind::ResourceBusy => CommandError::Failed(format!(
            "another vaultd writes a backup to {}: wait for it, or choose another name",
            out.display()
        )),
        _ => CommandError::new(&out.display().to_string(), error),
    };
    let mut draft = Draft::create(out).map_err(failed)?;
    let bar = bytes_counter();
    let socket = &config.server.admin_socket.path;
    let made = match UnixStream::connect(socket) {
        Ok(stream) => ask(stream, &mut bar.wrap_write(&mut draft)),
        Err(error) if is_nobody(&error) => make(&config, &mut bar.wrap_write(&mut draft), say),
        Err(error) => Err(CommandError::Failed(format!(
            "{}: {error}: run this as root or as the user that vaultd runs as",
            socket.display()
        ))),
    };
    bar.finish_and_clear();
    made?;
    let head = Head::read(&mut BufReader::new(draft.reader().map_err(failed)?));
    let header = head.map_err(|error| CommandError::new("what serves there gave no backup", error))?.header;
    draft.finish().map_err(failed)?;
    say(&format!("backed up to {}: {}", out.display(), header.summary()));
    say(&format!(
        "{} bytes, sealed by {}; keep it apart from the token",
        bar.position(),
        header.sealed_by_name()
    ));
    Ok(())
}

/// Whether nobody serves, by what connecting to its socket came to.
pub(super) fn is_nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

/// Has the daemon at the other end of `stream` make the backup.
fn ask(stream: UnixStream, out: &mut impl Write) -> Result<(), CommandError> {
    one_thread()?.block_on(async {
        let lost = |error: &dyn std::fmt::Display| {
            CommandError::Failed(format!(
                "vaultd broke off the backup: {error}; its log says more, try again"
            ))
        };
        stream.set_nonblocking(true).map_err(|error| lost(&error))?;
        let stream = tokio::net::UnixStream::from_std(stream).map_err(|error| lost(&error))?;
        let handshake = http1::handshake::<_, Empty<Bytes>>(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| lost(&error))?;
        // What goes wrong with it is told where the answer is read.
        tokio::spawn(connection);
        let request = Request::post("/v1/backup").header(header::HOST, "vault").body(Empty::new());
        let request = request.map_err(|error| lost(&error))?;
        let answer = timeout(PATIENCE, sender.send_request(request)).await;
        let answer = answer.map_err(|error| lost(&error))?.map_err(|error| lost(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(refused(answer.status(), answer.into_body()).await);
        }
        let mut body = answer.into_body();
        loop {
            let frame = timeout(PATIENCE, body.frame()).await.map_err(|error| lost(&error))?;
            let Some(frame) = frame else { return Ok(()) };
            let frame = frame.map_err(|error| lost(&error))?;
            if let Ok(bytes) = frame.into_data() {
                out.write_all(&bytes)
                    .map_err(|error| CommandError::new("the backup cannot be written", error))?;
            }
        }
    })
}

async fn refused(status: StatusCode, body: Incoming) -> CommandError {
    let read = timeout(PATIENCE, Limited::new(body, MAX_PROBLEM_BYTES).collect()).await;
    let bytes = read.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default();
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => CommandError::Failed(format!("vaultd refused: {} ({})", problem.detail, problem.code)),
        Err(_) => CommandError::Failed(format!("what serves there answered {status}: is it this vaultd?")),
    }
}

/// Makes the backup with the store, the token and the audit log in hand.
fn make(config: &Config, out: &mut impl Write, say: &mut dyn FnMut(&str)) -> Result<(), CommandError> {
    module_environment(config)?;
    let deadline = Deadline::new().map_err(|error| CommandError::new("cannot start a thread", error))?;
    let engines = Engines::open(config, open_audit, &deadline)?;
    let (Some(hsm), Some(audit)) = (&engines.hsm, &engines.audit) else {
        return Err(CommandError::Failed("the token or the audit log is not open".to_owned()));
    };
    one_thread()?.block_on(async {
        let keys = Keys::new(hsm.clone(), engines.store.clone(), audit.clone(), config.keys.clone())?;
        let sealing = begin(&keys, audit).await?;
        let header = sealing.header();
        let detail = format!("without a daemon, by user id {}: {}", getuid(), header.summary());
        let (key, detail) = (Some(header.sealed_by_name()), Some(detail.as_str()));
        audit.event(&Event { event: "backup", key, detail, ..Event::default() });
        let told = |error: AuditError| CommandError::new("the audit log", error);
        audit.probe().await.map_err(told)?;
        for piece in sealing {
            out.write_all(&piece?)
                .map_err(|error| CommandError::new("the backup cannot be written", error))?;
        }
        if let Err(error) = Notary::new(keys, audit.clone()).finish().await {
            say(&format!("the end of the audit log is not signed: {error}"));
        }
        Ok(())
    })
}
