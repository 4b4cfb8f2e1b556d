//! The life of keys, on the admin socket.

use axum::{
    body::Body,
    extract::{Path, State, rejection::PathRejection},
    http::{Request, Response, StatusCode},
};
use vault_api::{Code, Key, KeyState, Keys, Problem, Scope};

use super::{app::App, problem::Failure, reply::public_json, tokenize::timestamp_s};
use crate::{
    hsm::{KeyName, Purpose},
    store,
    vault::{KeyReport, VaultError},
};

/// List every key there is or was.
#[utoipa::path(
    get,
    path = "/v1/keys",
    operation_id = "list_keys",
    tag = "admin",
    security(("jwt" = ["keys:read"])),
    responses(
        (status = 200, description = "The keys", body = Keys),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn list(State(app): State<App>, request: Request<Body>) -> Result<Response<Body>, Failure> {
    app.authorize(&request, &[Scope::KeysRead]).await?;
    Ok(public_json(StatusCode::OK, &Keys { keys: keys(&app)? }))
}

/// Make a new key for a purpose; the one before it is retired.
#[utoipa::path(
    post,
    path = "/v1/keys/{purpose}/rotate",
    operation_id = "rotate_key",
    tag = "admin",
    security(("jwt" = ["keys:rotate"])),
    params(("purpose" = String, Path, description = "The purpose")),
    responses(
        (status = 201, description = "The new key", body = Key),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn rotate(
    State(app): State<App>,
    purpose: Result<Path<String>, PathRejection>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::KeysRotate]).await?;
    let purpose = purpose.ok().and_then(|Path(name)| Purpose::parse(&name)).ok_or_else(no_such_purpose)?;
    caller.trail().key(&purpose);
    app.no_body(request).await?;
    let keys = app.vault().keys().clone();
    let name = to_the_end(async move { keys.rotate(purpose).await }).await?;
    caller.trail().key(&name);
    tracing::info!(key = %name, caller = caller.subject(), "rotated on request");
    key(&app, name).map(|key| public_json(StatusCode::CREATED, &key))
}

/// Destroy a retired key that nothing depends on any more. There is no way back.
#[utoipa::path(
    delete,
    path = "/v1/keys/{purpose}/{version}",
    operation_id = "destroy_key",
    tag = "admin",
    security(("jwt" = ["keys:destroy"])),
    params(
        ("purpose" = String, Path, description = "The purpose"),
        ("version" = u32, Path, description = "The version")
    ),
    responses(
        (status = 200, description = "The key, destroyed", body = Key),
        (status = "default", description = "A problem", body = Problem, content_type = "application/problem+json")
    )
)]
pub(super) async fn destroy(
    State(app): State<App>,
    path: Result<Path<(String, u32)>, PathRejection>,
    request: Request<Body>,
) -> Result<Response<Body>, Failure> {
    let caller = app.authorize(&request, &[Scope::KeysDestroy]).await?;
    let name = path
        .ok()
        .and_then(|Path((purpose, version))| Some(KeyName { purpose: Purpose::parse(&purpose)?, version }));
    let name = name.ok_or_else(|| Failure::from(VaultError::UnknownKey))?;
    caller.trail().key(&name);
    app.no_body(request).await?;
    let keys = app.vault().keys().clone();
    to_the_end(async move { keys.destroy(name).await }).await?;
    tracing::info!(key = %name, caller = caller.subject(), "destroyed on request");
    key(&app, name).map(|key| public_json(StatusCode::OK, &key))
}

/// Every key, as it goes over the wire.
pub(super) fn keys(app: &App) -> Result<Vec<Key>, Failure> {
    Ok(app.vault().keys().report()?.iter().map(answer).collect())
}

fn key(app: &App, name: KeyName) -> Result<Key, Failure> {
    let report = app.vault().keys().report()?.into_iter().find(|report| report.name == name);
    report.as_ref().map(answer).ok_or_else(|| VaultError::UnknownKey.into())
}

fn no_such_purpose() -> Failure {
    let known = Purpose::ALL.map(Purpose::as_str).join(", ");
    Failure::new(Code::NotFound, format!("the purpose must be one of {known}"))
}

/// Does `work` to its end, even if the caller goes away or its time is over: it must not stop between store and token.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, VaultError>> + Send + 'static,
) -> Result<T, Failure> {
    match tokio::spawn(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(Failure::no_answer()),
    }
}

fn answer(report: &KeyReport) -> Key {
    Key {
        purpose: report.name.purpose.to_string(),
        version: report.name.version,
        state: match report.state {
            store::KeyState::Pending => KeyState::Pending,
            store::KeyState::Active => KeyState::Active,
            store::KeyState::Retired => KeyState::Retired,
            store::KeyState::Destroyed => KeyState::Destroyed,
        },
        created_at: timestamp_s(report.created_at_s),
        retired_at: report.retired_at_s.map(timestamp_s),
        destroyed_at: report.destroyed_at_s.map(timestamp_s),
        age: report.age_s,
        ends_at: timestamp_s(report.ends_at_s),
        records: report.records,
        encryptions: report.encryptions,
        needed_until: report.needed_until_s.map(timestamp_s),
        warning: report.warning.map(|warning| warning.advice().to_owned()),
    }
}
