//! `POST /v1/login`.

use std::{io::ErrorKind, os::fd::AsFd};

use axum::{
    body::{Body, HttpBody},
    extract::State,
    http::{Request, Response, StatusCode},
};
use vault_api::{LoginAnswer, LoginRequest, Problem};

use super::{
    app::App, body, problem::Failure, reply::private_json, server::PeerProcess, tenants::TenantOf,
    trail::Trail,
};
use crate::{
    auth::{AuthError, LoginWish, Peer},
    sandbox::unit_of,
    vault::{VaultError, now_s},
};

/// The most bytes of a body that comes without a JWT: many times what a login needs.
const MOST_BODY_BYTES: usize = 16 * 1_024;

/// Log in by the kernel's word about the caller's process; no secret is asked for.
#[utoipa::path(
    post,
    path = "/v1/login",
    tag = "login",
    request_body(content = Option<LoginRequest>, description = "May be left out"),
    responses(
        (status = 200, description = "A JWT bound to the caller's user id", body = LoginAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn login(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let trail = request.extensions().get::<Trail>().cloned().unwrap_or_default();
    let tenant_of = request.extensions().get::<TenantOf>().cloned();
    let peer = request.extensions().get::<Peer>().copied().ok_or(AuthError::Sender)?;
    // There only if a rule asks for units.
    let unit = request.extensions().get::<PeerProcess>().and_then(|process| {
        unit_of(process.0.as_fd())
            .inspect_err(|error| {
                if error.kind() == ErrorKind::NotFound {
                    tracing::debug!("a caller that logs in has gone");
                } else {
                    tracing::warn!(%error, pid = peer.pid, "the unit of a caller is not known: no rule with `unit` fits it");
                }
            })
            .ok()?
    });
    let LoginRequest { client, scopes, expires_in, approves } = if request.body().is_end_stream() {
        LoginRequest::default()
    } else {
        let most = app.limits().body_bytes.min(MOST_BODY_BYTES);
        body::parse(&body::read(request, most, app.limits().body_timeout).await?)?
    };
    let wish = LoginWish { client, scopes, expires_in_s: expires_in, approves };
    let granted = app.login().grant(peer, unit.as_deref(), wish)?;
    trail.login(&granted.subject, &granted.tenant);
    app.refuse_locked(&granted.issuer, &granted.subject)?;
    app.admit_tenant(&granted.tenant, tenant_of.as_ref())?;
    trail.admitted();
    // Not before: nobody who is refused keeps the HSM busy.
    let jwt = app.login().sign(&granted, now_s()).await.map_err(VaultError::Hsm)?;
    tracing::info!(uid = peer.uid, unit, tenant = granted.tenant, scope = granted.scope, "logged in");
    let answer = LoginAnswer {
        access_token: jwt.into(),
        token_type: "Bearer".to_owned(),
        expires_in: granted.expires_in_s,
        scope: granted.scope,
        tenant: granted.tenant,
    };
    Ok(private_json(StatusCode::OK, &answer))
}
