//! `GET /.well-known/jwks.json`.

use axum::{
    body::Body,
    extract::State,
    http::{Response, StatusCode},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use vault_api::{Jwk, JwkSet};

use super::{app::App, reply::public_json};
use crate::{hsm::RsaPublic, jose::thumbprint};

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

fn jwk(key: &RsaPublic) -> Jwk {
    Jwk {
        kty: "RSA".to_owned(),
        usage: "sig".to_owned(),
        alg: "RS256".to_owned(),
        kid: thumbprint(&key.modulus, &key.exponent),
        n: URL_SAFE_NO_PAD.encode(&key.modulus),
        e: URL_SAFE_NO_PAD.encode(&key.exponent),
    }
}
