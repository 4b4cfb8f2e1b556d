//! `POST /v1/envelopes` and `/v1/envelopes/open`.

use axum::{
    body::Body,
    extract::State,
    http::{Request, Response, StatusCode},
};
use vault_api::{
    OpenEnvelopeAnswer, OpenEnvelopeRequest, Problem, Scope, SealEnvelopeAnswer, SealEnvelopeRequest,
};

use super::{app::App, problem::Failure, reply::private_json, tokenize::timestamp_s};
use crate::vault::EnvelopeWish;

/// Seal card data into a signed JWT; nothing is stored.
#[utoipa::path(
    post,
    path = "/v1/envelopes",
    tag = "envelopes",
    security(("jwt" = ["envelopes:seal"])),
    request_body = SealEnvelopeRequest,
    responses(
        (status = 200, description = "The envelope", body = SealEnvelopeAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn seal(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::EnvelopesSeal]).await?;
    let SealEnvelopeRequest { meta_data, audience, expires_in, single_use } = app.json(request).await?;
    let wish =
        EnvelopeWish { audience, expires_in_s: expires_in, single_use: single_use.unwrap_or_default() };
    let (jwt, claims) = app.vault().seal_envelope(caller.tenant(), &meta_data, wish).await?;
    caller.trail().jti(&claims.jti);
    let expires_at = timestamp_s(claims.exp);
    Ok(private_json(StatusCode::OK, &SealEnvelopeAnswer { jwt, jti: claims.jti, expires_at }))
}

/// Verify an envelope and open its card data.
#[utoipa::path(
    post,
    path = "/v1/envelopes/open",
    tag = "envelopes",
    security(("jwt" = ["envelopes:open"])),
    request_body = OpenEnvelopeRequest,
    responses(
        (status = 200, description = "The card data and the JWT's other claims", body = OpenEnvelopeAnswer),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn open(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::EnvelopesOpen]).await?;
    let OpenEnvelopeRequest { jwt } = app.json(request).await?;
    let admitted = app.admit(&caller, &[app.guards().card(caller.tenant(), jwt.as_bytes())]).await?;
    let known = |jti: &str| caller.trail().jti(jti);
    let (meta_data, claims) = app.vault().open_envelope(caller.tenant(), &jwt, known).await?;
    app.guards().stats().revealed(1);
    let response = private_json(StatusCode::OK, &OpenEnvelopeAnswer { meta_data, claims });
    Ok(app.with_quota(response, admitted.quota))
}
