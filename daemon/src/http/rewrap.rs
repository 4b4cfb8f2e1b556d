//! `GET` and `POST /v1/rewrap`, on the admin socket.

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
};
use vault_api::{Problem, Rewrap, RewrapState, Scope};

use super::{app::App, problem::Failure, reply::public_json, tokenize::timestamp_ms};
use crate::vault::RewrapReport;

/// See how the rewrap job stands.
#[utoipa::path(
    get,
    path = "/v1/rewrap",
    operation_id = "read_rewrap",
    tag = "admin",
    security(("jwt" = ["keys:read"])),
    responses(
        (status = 200, description = "How it stands", body = Rewrap),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn read(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    app.authorize(&request, &[Scope::KeysRead]).await?;
    Ok(public_json(StatusCode::OK, &answer(&app.vault().rewrap_report()?)))
}

/// Bring every record to the active keys, in the background.
///
/// A job that is on its way goes on.
#[utoipa::path(
    post,
    path = "/v1/rewrap",
    operation_id = "start_rewrap",
    tag = "admin",
    security(("jwt" = ["keys:rotate"])),
    responses(
        (status = 202, description = "How it stands", body = Rewrap),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn start(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::KeysRotate]).await?;
    app.no_body(request).await?;
    let report = app.vault().start_rewrap().await?;
    tracing::info!(caller = caller.subject(), left = report.left, "rewrap asked for");
    Ok(public_json(StatusCode::ACCEPTED, &answer(&report)))
}

pub(super) fn answer(report: &RewrapReport) -> Rewrap {
    let state = match report {
        RewrapReport { running: true, waiting: true, .. } => RewrapState::Waiting,
        RewrapReport { running: true, .. } => RewrapState::Running,
        RewrapReport { started_at_ms: None, .. } => RewrapState::Idle,
        RewrapReport { failed: 0, .. } => RewrapState::Done,
        RewrapReport { .. } => RewrapState::Incomplete,
    };
    Rewrap {
        state,
        started_at: report.started_at_ms.map(timestamp_ms),
        finished_at: report.finished_at_ms.map(timestamp_ms),
        done: report.done,
        left: report.left,
        failed: report.failed,
        rate: report.rate,
        eta: report.eta_s(),
    }
}
