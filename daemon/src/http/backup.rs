//! `POST /v1/backup`, on the admin socket.

use std::io;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderValue, Request, Response, header},
};
use futures_util::stream;
use nix::unistd::geteuid;
use vault_api::{Code, Problem};

use super::{app::App, problem::Failure, trail::Trail};
use crate::{
    auth::Peer,
    backup::{Sealing, begin},
};

/// Pieces that are made at a time, so that a change of threads is small beside the work.
const PIECES_AT_ONCE: usize = 4;

/// A backup of the store: what `vaultd backup` writes to its file.
///
/// Not by JWT: whoever is root or the daemon's own user by the kernel's word could copy the files as well.
#[utoipa::path(
    post,
    path = "/v1/backup",
    tag = "admin",
    responses(
        (status = 200, description = "The backup, sealed", content_type = "application/octet-stream"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn backup(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let uid = request.extensions().get::<Peer>().map(|peer| peer.uid);
    let trail = request.extensions().get::<Trail>().cloned().unwrap_or_default();
    if !uid.is_some_and(|uid| uid == 0 || uid == geteuid().as_raw()) {
        let detail = "only root and the user that vaultd runs as may back it up";
        return Err(Failure::new(Code::SenderMismatch, detail));
    }
    trail.admitted();
    app.no_body(request).await?;
    let sealing = begin(app.vault().keys(), app.audit()).await?;
    trail.key(&sealing.header().sealed_by_name());
    trail.detail(sealing.header().summary());
    tracing::info!(uid, what = sealing.header().summary(), "backing up");
    let pieces = stream::try_unfold(sealing, |sealing| async {
        let made = tokio::task::spawn_blocking(move || some(sealing)).await;
        made.map_err(io::Error::other)
            .flatten()
            .inspect_err(|error| tracing::error!(%error, "a backup is broken off"))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    let octets = HeaderValue::from_static("application/octet-stream");
    response.headers_mut().insert(header::CONTENT_TYPE, octets);
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// The next pieces of a backup, as one, and what is left of it; nothing at its end.
fn some(mut sealing: Sealing) -> io::Result<Option<(Bytes, Sealing)>> {
    let mut bytes = Vec::new();
    for piece in sealing.by_ref().take(PIECES_AT_ONCE) {
        bytes.extend(piece.map_err(io::Error::other)?);
    }
    Ok(if bytes.is_empty() { None } else { Some((bytes.into(), sealing)) })
}
