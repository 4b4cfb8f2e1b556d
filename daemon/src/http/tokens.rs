//! `GET`, `PATCH` and `DELETE /v1/tokens/{token}`.

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{Request, Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use vault_api::{Problem, Scope, TokenPatch, TokenRecord};

use super::{
    app::App,
    problem::Failure,
    reply::private_json,
    tokenize::{timestamp_ms, timestamp_s},
    trail::Call,
};
use crate::vault::{RecordChange, RecordView, Token, VaultError};

/// Read a token's record without the PAN.
#[utoipa::path(
    get,
    path = "/v1/tokens/{token}",
    tag = "tokens",
    security(("jwt" = ["tokens:read"])),
    params(("token" = String, Path, description = "The token")),
    responses(
        (status = 200, description = "The record", body = TokenRecord),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn read(
    State(app): State<App>,
    token: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::TokensRead]).await?;
    let token = parse(token)?;
    caller.trail().token(&token);
    app.notice_honey(&caller, [&token]);
    let record = app.vault().record(caller.tenant(), token).await?;
    Ok(private_json(StatusCode::OK, &answer(record)))
}

/// Change a token's metadata or lifetime.
#[utoipa::path(
    patch,
    path = "/v1/tokens/{token}",
    tag = "tokens",
    security(("jwt" = ["tokens:write"])),
    params(("token" = String, Path, description = "The token")),
    request_body = TokenPatch,
    responses(
        (status = 200, description = "The changed record", body = TokenRecord),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn change(
    State(app): State<App>,
    token: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::TokensWrite]).await?;
    let token = parse(token)?;
    caller.trail().token(&token);
    let TokenPatch { metadata, expires_in } = app.json(request).await?;
    let change = RecordChange { metadata, expires_in_s: expires_in };
    app.notice_honey(&caller, [&token]);
    app.notice_known(&caller, &token);
    let record = app.vault().change(caller.tenant(), token, change).await?;
    Ok(private_json(StatusCode::OK, &answer(record)))
}

/// Forget a token: its ciphertext and every index row.
#[utoipa::path(
    delete,
    path = "/v1/tokens/{token}",
    tag = "tokens",
    security(("jwt" = ["tokens:delete"])),
    params(("token" = String, Path, description = "The token")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn forget(
    State(app): State<App>,
    token: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::TokensDelete]).await?;
    let token = parse(token)?;
    caller.trail().token(&token);
    app.no_body(request).await?;
    app.notice_honey(&caller, [&token]);
    app.notice_known(&caller, &token);
    app.vault().forget(caller.tenant(), token).await?;
    Ok(no_content())
}

impl App {
    /// Notes that `token` is one, before what is asked for is done: that may go on though nobody waits for it any more.
    fn notice_known(&self, call: &Call, token: &Token) {
        if self.vault().has_record(call.tenant(), token) {
            call.trail().known(token);
        }
    }
}

pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// A path that is not UTF-8 names no token either.
fn parse(token: Result<Path<String>, PathRejection>) -> Result<Token, VaultError> {
    let Path(text) = token.map_err(|_| VaultError::MalformedToken)?;
    Token::parse(&text)
}

pub(super) fn answer(record: RecordView) -> TokenRecord {
    TokenRecord {
        token: record.token.to_string(),
        masked_pan: record.masked.text(),
        bin: record.masked.bin(),
        last4: record.masked.last4(),
        brand: record.masked.brand(),
        template: record.template,
        created_at: timestamp_ms(record.created_at_ms),
        expires_at: record.expires_at_s.map(timestamp_s),
        key_version: record.key_version,
        ciphertext_id: URL_SAFE_NO_PAD.encode(record.ciphertext_id),
        fingerprint: URL_SAFE_NO_PAD.encode(record.fingerprint),
        holder: record.holder,
        metadata: record.metadata,
    }
}
