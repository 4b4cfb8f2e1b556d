//! `GET /.well-known/jwks.json`.

use axum::{
    body::Body,
    extract::State,
    http::{Response, StatusCode},
};
use vault_api::JwkSet;

use super::{app::App, reply::public_json};
use crate::jose::jwk;

/// The vault's public keys.
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "about",
    responses((status = 200, description = "A JWK set (RFC 7517)", body = JwkSet))
)]
pub(super) async fn key_set(State(app): State<App>) -> Response<Body> {
    let keys = app.vault().keys().signer().public_keys();
    public_json(StatusCode::OK, &JwkSet { keys: keys.iter().map(jwk).collect() })
}
