//! `GET /v1/audit`, on the admin socket.

use axum::{
    body::Body,
    extract::{Query, State, rejection::QueryRejection},
    http::{Request, Response, StatusCode},
};
use vault_api::{AuditAnswer, AuditQuery, Code, MAX_AUDIT_LIMIT, MAX_AUDIT_WAIT_S, Problem, Scope};

use super::{app::App, problem::Failure, reply::private_json};

/// Read the audit log, and wait for what is written to it.
#[utoipa::path(
    get,
    path = "/v1/audit",
    operation_id = "read_audit",
    tag = "admin",
    security(("jwt" = ["audit:read"])),
    params(AuditQuery),
    responses(
        (status = 200, description = "Entries", body = AuditAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn read(
    State(app): State<App>,
    query: Result<Query<AuditQuery>, QueryRejection>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    app.authorize(&request, &[Scope::AuditRead]).await?;
    // Not repeated: it may hold anything.
    let refused = || Failure::new(Code::InvalidRequest, "the query is not what this endpoint takes");
    let Query(mut query) = query.map_err(|_| refused())?;
    let counts = [query.last, query.limit];
    if counts.into_iter().flatten().any(|count| !(1..=MAX_AUDIT_LIMIT).contains(&count)) {
        let detail = format!("`last` and `limit` must be 1 to {MAX_AUDIT_LIMIT}");
        return Err(Failure::new(Code::InvalidRequest, detail));
    }
    if query.wait.is_some_and(|seconds| seconds > MAX_AUDIT_WAIT_S) {
        let detail = format!("`wait` must be 0 to {MAX_AUDIT_WAIT_S} seconds");
        return Err(Failure::new(Code::InvalidRequest, detail));
    }
    if query.last.is_some() && query.after.is_some() {
        return Err(Failure::new(Code::InvalidRequest, "give `last` or `after`, not both"));
    }
    // The request's own time must not be over before.
    let longest_s = app.limits().request_timeout.as_secs() / 2;
    query.wait = query.wait.map(|wait_s| wait_s.min(longest_s));
    let answer: AuditAnswer =
        app.audit().read(&query).await.map_err(|error| Failure::unreadable_log(&error))?;
    Ok(private_json(StatusCode::OK, &answer))
}
