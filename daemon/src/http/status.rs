//! `GET /v1/status` and `POST /v1/reload`, on the admin socket.

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
};
use vault_api::{Code, Problem, Reloaded, Scope, Status};

use super::{app::App, health, keys, problem::Failure, reply::public_json, rewrap};

/// See how the vault is: its checks, its keys, its records, the rewrap job.
#[utoipa::path(
    get,
    path = "/v1/status",
    tag = "admin",
    security(("jwt" = ["keys:read"])),
    responses(
        (status = 200, description = "The status", body = Status),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn status(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    app.authorize(&request, &[Scope::KeysRead]).await?;
    let readiness = health::readiness(&app).await;
    let status = Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        uptime: app.uptime().as_secs(),
        ready: readiness.ready,
        checks: readiness.checks,
        records: app.vault().records()?,
        keys: keys::keys(&app)?,
        rewrap: rewrap::answer(&app.vault().rewrap_report()?),
    };
    Ok(public_json(StatusCode::OK, &status))
}

/// Read issuers and peers anew, as on SIGHUP.
#[utoipa::path(
    post,
    path = "/v1/reload",
    tag = "admin",
    security(("jwt" = ["config:reload"])),
    responses(
        (status = 200, description = "What is in force now", body = Reloaded),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn reload(
    State(app): State<App>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    app.authorize(&request, &[Scope::ConfigReload]).await?;
    app.no_body(request).await?;
    let reloaded = app.reload().await.map_err(|why| Failure::new(Code::ConfigInvalid, why))?;
    Ok(public_json(StatusCode::OK, &reloaded))
}
