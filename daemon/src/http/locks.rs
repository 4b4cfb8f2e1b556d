//! Locked subjects, on the admin socket.

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
};
use vault_api::{Lock, Locks, Problem, Scope, UnlockRequest, Unlocked};

use super::{app::App, problem::Failure, reply::public_json, tokenize::timestamp_ms};
use crate::{store::StoredLock, vault::VaultError};

/// See which subjects are locked.
#[utoipa::path(
    get,
    path = "/v1/locks",
    operation_id = "list_locks",
    tag = "admin",
    security(("jwt" = ["locks:read"])),
    responses(
        (status = 200, description = "The locks", body = Locks),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    app.authorize(&request, &[Scope::LocksRead]).await?;
    let locks = app.guards().locks().into_iter().map(answer).collect();
    Ok(public_json(StatusCode::OK, &Locks { locks }))
}

/// Unlock a subject.
#[utoipa::path(
    post,
    path = "/v1/locks/unlock",
    tag = "admin",
    security(("jwt" = ["locks:remove"])),
    request_body = UnlockRequest,
    responses(
        (status = 200, description = "Whether it was locked", body = Unlocked),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn unlock(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::LocksRemove]).await?;
    let UnlockRequest { issuer, subject } = app.json(request).await?;
    caller.trail().about(&issuer, &subject);
    let unlocked = app.guards().unlock(&issuer, &subject).await.map_err(VaultError::Store)?;
    tracing::warn!(issuer, subject, unlocked, by = caller.subject(), "unlocked on request");
    Ok(public_json(StatusCode::OK, &Unlocked { unlocked }))
}

fn answer(lock: StoredLock) -> Lock {
    let StoredLock { issuer, subject, tenant, reason, locked_at_ms } = lock;
    Lock { issuer, subject, tenant, reason, locked_at: timestamp_ms(locked_at_ms) }
}
