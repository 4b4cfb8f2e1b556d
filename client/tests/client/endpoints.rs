//! Each method asks what the contract says.

use serde_json::json;
use vault_client::{Code, TokenPatch, TokenizeRequest, api::Metadata};

use crate::{
    answers::{PAN, card, record, tokenized},
    stub::{Reply, Stub},
};

#[tokio::test]
async fn each_method_asks_what_the_contract_says() {
    let stub = Stub::deciding(|_, seen| match (seen.method.as_str(), seen.path.as_str()) {
        ("POST", "/v1/tokenize") => Reply::Json(201, tokenized()),
        ("POST", "/v1/tokenize/batch") => Reply::Json(200, json!({"results": [tokenized(), tokenized()]})),
        ("POST", "/v1/detokenize") if seen.body.ends_with(br#""reveal":"masked"}"#) => {
            Reply::Json(200, json!({"masked_pan": "411111******1111"}))
        }
        ("POST", "/v1/detokenize") => card(),
        ("POST", "/v1/detokenize/batch") => Reply::Json(200, json!({"results": [{"pan": PAN}]})),
        ("GET" | "PATCH", "/v1/tokens/a%2Fb") => Reply::Json(200, record()),
        ("DELETE", "/v1/tokens/a%2Fb") => Reply::Empty,
        ("GET", "/.well-known/jwks.json") => Reply::Json(200, json!({"keys": []})),
        ("GET", "/healthz") => Reply::Json(200, json!({"status": "ok"})),
        ("GET", "/v1/openapi.json") => Reply::Json(200, json!({"openapi": "3.1.0"})),
        _ => Reply::Problem(Code::NotFound, None),
    });
    let vault = stub.client();

    let answer = vault.tokenize(&TokenizeRequest::new(PAN)).await.unwrap();
    assert_eq!((answer.token.as_str(), answer.created), ("tok_1", true));
    let items = [TokenizeRequest::new(PAN), TokenizeRequest::new(PAN)];
    assert_eq!(vault.tokenize_batch(&items).await.unwrap().len(), 2);
    assert_eq!(vault.detokenize("tok_1").await.unwrap().pan.expose(), PAN);
    assert_eq!(vault.detokenize_masked("tok_1").await.unwrap(), "411111******1111");
    let cards = vault.detokenize_batch(&["tok_1"]).await.unwrap();
    assert_eq!(cards[0].as_ref().unwrap().pan.expose(), PAN);
    assert_eq!(vault.token("a/b").await.unwrap().key_version, 1);
    let patch = TokenPatch { metadata: Some(Metadata::default()), expires_in: Some(60) };
    vault.update("a/b", &patch).await.unwrap();
    vault.delete("a/b").await.unwrap();
    assert!(vault.jwks().await.unwrap().keys.is_empty());
    assert_eq!(vault.health().await.unwrap().status, "ok");
    assert_eq!(vault.openapi().await.unwrap()["openapi"], "3.1.0");

    let seen = stub.seen();
    assert_eq!(seen[0].body, format!(r#"{{"pan":"{PAN}"}}"#).as_bytes());
    assert_eq!(seen[6].body, br#"{"metadata":{},"expires_in":60}"#);
    for request in &seen[..8] {
        assert_eq!(request.authorization.as_deref(), Some("Bearer aaa.bbb.ccc"), "{}", request.path);
        let expected = (!request.body.is_empty()).then_some("application/json");
        assert_eq!(request.content_type.as_deref(), expected, "{}", request.path);
    }
    for request in &seen[8..] {
        assert_eq!(request.authorization, None, "{} needs no token", request.path);
    }
    assert_eq!(stub.connections(), 1, "calls one after the other share a connection");
}
