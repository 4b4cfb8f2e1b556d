//! `GET /healthz` and `GET /readyz`, on both sockets.

use std::collections::BTreeMap;

use axum::{
    body::Body,
    extract::State,
    http::{Response, StatusCode},
};
use vault_api::{Check, Health, Readiness};

use super::{app::App, reply::public_json};

/// Is the process alive?
///
/// On both sockets.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "about",
    responses((status = 200, description = "It answers", body = Health))
)]
pub(super) async fn healthz() -> Response<Body> {
    public_json(StatusCode::OK, &Health { status: "ok".to_owned() })
}

/// Can it do its work?
///
/// Each of `hsm`, `store` and `audit` is tried. On both sockets.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "about",
    responses(
        (status = 200, description = "It can", body = Readiness),
        (status = 503, description = "It cannot; the checks say why", body = Readiness)
    )
)]
pub(super) async fn readyz(State(app): State<App>) -> Response<Body> {
    let readiness = readiness(&app).await;
    let status = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    public_json(status, &readiness)
}

/// What each part of the vault says when it is tried.
pub(super) async fn readiness(app: &App) -> Readiness {
    let checks = BTreeMap::from([
        ("hsm".to_owned(), check(app.vault().probe_hsm().await)),
        ("store".to_owned(), check(app.vault().probe_store())),
        ("audit".to_owned(), check(app.audit().probe().await)),
    ]);
    let ready = checks.values().all(|check| check.ok);
    Readiness { ready, checks }
}

fn check<E: ToString>(result: Result<(), E>) -> Check {
    Check { ok: result.is_ok(), detail: result.err().map(|error| error.to_string()) }
}
