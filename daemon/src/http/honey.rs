//! Honey tokens: planted and removed on the admin socket, noticed on the API's.

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{Request, Response, StatusCode},
};
use vault_api::{Code, HoneyToken, HoneyTokens, PlantRequest, Problem, Scope};

use super::{
    app::App, problem::Failure, reply::private_json, reveals::known, tokenize::timestamp_ms,
    tokens::no_content, trail::Call,
};
use crate::{
    auth::is_tenant_name,
    vault::{HoneyView, Token, VaultError},
};

impl App {
    /// Notices a caller that uses one of the tokens that no honest caller uses: it is locked from its next request on.
    ///
    /// Nothing here takes time that the caller could see; the answer is that of an unknown token.
    pub(super) fn notice_honey<'t>(&self, call: &Call, tokens: impl IntoIterator<Item = &'t Token>) {
        let mut honey =
            tokens.into_iter().filter(|token| self.vault().is_honey(call.tenant(), token)).peekable();
        if honey.peek().is_none() {
            return;
        }
        honey.for_each(|token| call.trail().known(token));
        drop(self.guards().lock(&known(call), "used a honey token"));
        self.note_lock(call, "it used a honey token");
        self.guards().stats().honey_token_revealed();
        let [issuer, subject, tenant] = [call.issuer(), call.subject(), call.tenant()].map(ToOwned::to_owned);
        let (uid, pid) = (call.peer.uid, call.peer.pid);
        tokio::spawn(async move {
            tracing::error!(issuer, subject, tenant, uid, pid, "ALARM: a honey token was used");
        });
    }
}

/// Plant a token that no honest caller would ever use.
#[utoipa::path(
    post,
    path = "/v1/honey",
    tag = "admin",
    security(("jwt" = ["honey:plant"])),
    request_body = PlantRequest,
    responses(
        (status = 201, description = "The token", body = HoneyToken),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn plant(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::HoneyPlant]).await?;
    let PlantRequest { tenant, template, note } = app.json(request).await?;
    if !is_tenant_name(&tenant) {
        let detail = "tenant must be 1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`";
        return Err(Failure::new(Code::InvalidRequest, detail));
    }
    let planted = app.vault().plant(&tenant, template.as_deref(), note).await?;
    caller.trail().token(&planted.token);
    tracing::info!(tenant, by = caller.subject(), "planted a honey token");
    Ok(private_json(StatusCode::CREATED, &answer(planted)))
}

/// See every honey token.
#[utoipa::path(
    get,
    path = "/v1/honey",
    operation_id = "list_honey",
    tag = "admin",
    security(("jwt" = ["honey:read"])),
    responses(
        (status = 200, description = "The tokens", body = HoneyTokens),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    app.authorize(&request, &[Scope::HoneyRead]).await?;
    let tokens: Vec<_> = app.vault().honey().await?.into_iter().map(answer).collect();
    Ok(private_json(StatusCode::OK, &HoneyTokens { tokens }))
}

/// Remove a honey token.
#[utoipa::path(
    delete,
    path = "/v1/honey/{tenant}/{token}",
    tag = "admin",
    security(("jwt" = ["honey:plant"])),
    params(
        ("tenant" = String, Path, description = "Its tenant"),
        ("token" = String, Path, description = "The token")
    ),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn dig_up(
    State(app): State<App>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::HoneyPlant]).await?;
    let Path((tenant, text)) = path.map_err(|_| VaultError::MalformedToken)?;
    let token = Token::parse(&text)?;
    caller.trail().token(&token);
    app.no_body(request).await?;
    app.vault().dig_up(&tenant, token).await?;
    tracing::info!(tenant, by = caller.subject(), "removed a honey token");
    Ok(no_content())
}

fn answer(honey: HoneyView) -> HoneyToken {
    let HoneyView { token, tenant, template, note, planted_at_ms } = honey;
    HoneyToken { token: token.to_string(), tenant, template, note, planted_at: timestamp_ms(planted_at_ms) }
}
