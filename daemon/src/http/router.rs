//! The endpoints, and the OpenAPI document that is made from them.

use axum::{
    Router,
    body::Body,
    http::{Request, Response, Uri},
};
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};
use vault_api::{Code, NO_ENDPOINT};

use super::{
    app::{App, around},
    audit, backup, detokenize, envelopes, health, honey, key_set, keys, locks, login, metrics,
    openapi::{Document, add_admin, complete},
    problem::Failure,
    rewrap, search, status, tokenize, tokens,
};

fn endpoints() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(tokenize::tokenize))
        .routes(routes!(tokenize::tokenize_batch))
        .routes(routes!(detokenize::detokenize))
        .routes(routes!(detokenize::detokenize_batch))
        .routes(routes!(tokens::read, tokens::change, tokens::forget))
        .routes(routes!(search::search))
        .routes(routes!(search::compare))
        .routes(routes!(envelopes::seal))
        .routes(routes!(envelopes::open))
        .routes(routes!(login::login))
        .routes(routes!(key_set::key_set))
        .routes(routes!(openapi_document))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
}

fn admin_endpoints() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(metrics::metrics))
        .routes(routes!(status::status))
        .routes(routes!(status::reload))
        .routes(routes!(keys::list))
        .routes(routes!(keys::rotate))
        .routes(routes!(keys::destroy))
        .routes(routes!(rewrap::read, rewrap::start))
        .routes(routes!(audit::read))
        .routes(routes!(backup::backup))
        .routes(routes!(locks::list))
        .routes(routes!(locks::unlock))
        .routes(routes!(honey::list, honey::plant))
        .routes(routes!(honey::dig_up))
}

/// The OpenAPI 3.1 document of both sockets, where an envelope may live for `max_envelope_s` seconds.
pub(super) fn openapi(max_envelope_s: u64) -> utoipa::openapi::OpenApi {
    let mut document = endpoints().split_for_parts().1;
    add_admin(&mut document, admin_endpoints().split_for_parts().1);
    complete(&mut document, max_envelope_s);
    document
}

/// The endpoints of one socket. Cheap to clone.
#[derive(Clone)]
pub struct Endpoints {
    app: App,
    via: &'static str,
    router: Router,
}

impl Endpoints {
    /// The answer to `request`, which is there when its entry is in the audit log.
    pub(super) async fn answer(self, request: Request<Body>) -> Response<Body> {
        // Not a layer of the router: those box each request once more.
        around(&self.app, self.via, &self.router, request).await
    }
}

impl App {
    /// The endpoints of the API socket.
    pub fn api_endpoints(&self) -> Endpoints {
        self.finish(endpoints().split_for_parts().0, "api")
    }

    /// The endpoints of the admin socket.
    pub fn admin_endpoints(&self) -> Endpoints {
        self.finish(admin_endpoints().split_for_parts().0, "admin")
    }

    fn finish(&self, router: Router<App>, via: &'static str) -> Endpoints {
        let router = router
            .fallback(|_: Uri| async { Failure::new(Code::NotFound, NO_ENDPOINT) })
            .method_not_allowed_fallback(|| async {
                // Not repeated: a method can be any text.
                Failure::new(Code::MethodNotAllowed, "this endpoint takes other methods; see `allow`")
            })
            .with_state(self.clone());
        Endpoints { app: self.clone(), via, router }
    }
}

/// A path as it may be logged: tokens are part of some.
pub(super) fn route_name(path: &str) -> &'static str {
    match path {
        "/v1/tokenize" => "/v1/tokenize",
        "/v1/tokenize/batch" => "/v1/tokenize/batch",
        "/v1/detokenize" => "/v1/detokenize",
        "/v1/detokenize/batch" => "/v1/detokenize/batch",
        "/v1/tokens/search" => "/v1/tokens/search",
        "/v1/tokens/compare" => "/v1/tokens/compare",
        "/v1/login" => "/v1/login",
        "/v1/envelopes" => "/v1/envelopes",
        "/v1/envelopes/open" => "/v1/envelopes/open",
        "/.well-known/jwks.json" => "/.well-known/jwks.json",
        "/v1/openapi.json" => "/v1/openapi.json",
        "/healthz" => "/healthz",
        "/readyz" => "/readyz",
        "/metrics" => "/metrics",
        "/v1/status" => "/v1/status",
        "/v1/reload" => "/v1/reload",
        "/v1/keys" => "/v1/keys",
        "/v1/rewrap" => "/v1/rewrap",
        "/v1/audit" => "/v1/audit",
        "/v1/backup" => "/v1/backup",
        "/v1/honey" => "/v1/honey",
        "/v1/locks" => "/v1/locks",
        "/v1/locks/unlock" => "/v1/locks/unlock",
        key if key.starts_with("/v1/keys/") && key.ends_with("/rotate") => "/v1/keys/{purpose}/rotate",
        key if key.starts_with("/v1/keys/") => "/v1/keys/{purpose}/{version}",
        token if token.starts_with("/v1/honey/") => "/v1/honey/{tenant}/{token}",
        token if token.starts_with("/v1/tokens/") => "/v1/tokens/{token}",
        _ => "other",
    }
}

/// This document.
#[utoipa::path(
    get,
    path = "/v1/openapi.json",
    tag = "about",
    responses((status = 200, description = "OpenAPI 3.1", content_type = "application/json", body = Object))
)]
async fn openapi_document(axum::extract::State(app): axum::extract::State<App>) -> Response<Body> {
    super::reply::json(axum::http::StatusCode::OK, app.openapi_json())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_the_document_has_a_name_for_the_log() {
        for path in openapi(1).paths.paths.keys() {
            assert_eq!(route_name(path), path);
        }
    }

    #[test]
    fn the_document_names_codes_and_scopes_as_they_are_sent() {
        let document = serde_json::to_value(openapi(1)).unwrap();
        let named = |schema: &str| document["components"]["schemas"][schema]["enum"].clone();
        let codes: Vec<_> = Code::ALL.iter().map(|code| code.as_str()).collect();
        assert_eq!(named("Code"), serde_json::json!(codes));
        let scopes: Vec<_> = vault_api::Scope::ALL.iter().map(|scope| scope.as_str()).collect();
        assert_eq!(named("Scope"), serde_json::json!(scopes));
    }

    #[test]
    fn the_document_is_openapi_3_1_and_every_operation_names_its_problems() {
        let document = serde_json::to_value(openapi(1)).unwrap();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap().iter().filter(|(name, _)| *name != "servers")
            {
                assert!(operation["summary"].is_string(), "{method} {path}");
            }
        }
    }
}
