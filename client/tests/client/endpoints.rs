//! Each method asks what the contract says.

use serde_json::json;
use vault_client::{Code, LoginRequest, Scope, SearchRequest, TokenPatch, TokenizeRequest, api::Metadata};

use crate::{
    answers::{PAN, card, envelope, logged_in, opened, record, sealed, tokenized},
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
        ("POST", "/v1/tokens/search") => Reply::Json(200, json!({"tokens": [record()], "cursor": "more"})),
        ("POST", "/v1/tokens/compare") => Reply::Json(200, json!({"equal": true})),
        ("POST", "/v1/envelopes") => Reply::Json(200, sealed()),
        ("POST", "/v1/envelopes/open") => Reply::Json(200, opened()),
        ("POST", "/v1/login") => Reply::Json(200, logged_in("xxx.yyy.zzz", 300)),
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
    let search = SearchRequest { holder: Some("Ada Lovelace".into()), ..Default::default() };
    let found = vault.search(&search).await.unwrap();
    assert_eq!((found.tokens[0].last4.as_str(), found.cursor.as_deref()), ("1111", Some("more")));
    assert!(vault.compare("tok_1", &PAN.into()).await.unwrap());
    assert_eq!(vault.seal_envelope(&envelope()).await.unwrap().jti, "j-1");
    let opened = vault.open_envelope("e.e.e").await.unwrap();
    assert_eq!((opened.meta_data.card_number.expose(), opened.claims.exp), (PAN, 1_900));
    let login = LoginRequest {
        client: Some("cih".into()),
        scopes: Some(vec![Scope::Tokenize]),
        ..LoginRequest::default()
    };
    assert_eq!(vault.login(&login).await.unwrap().access_token.expose(), "xxx.yyy.zzz");
    assert!(vault.jwks().await.unwrap().keys.is_empty());
    assert_eq!(vault.health().await.unwrap().status, "ok");
    assert_eq!(vault.openapi().await.unwrap()["openapi"], "3.1.0");

    let seen = stub.seen();
    assert_eq!(seen[0].body, format!(r#"{{"pan":"{PAN}"}}"#).as_bytes());
    assert_eq!(seen[6].body, br#"{"metadata":{},"expires_in":60}"#);
    assert_eq!(seen[8].body, br#"{"holder":"Ada Lovelace"}"#);
    assert_eq!(seen[9].body, format!(r#"{{"token":"tok_1","pan":"{PAN}"}}"#).as_bytes());
    let meta_data = format!(r#"{{"card_number":"{PAN}","expiry_date":"12/30","cvv":"123"}}"#);
    assert_eq!(seen[10].body, format!(r#"{{"meta_data":{meta_data},"single_use":true}}"#).as_bytes());
    assert_eq!(seen[11].body, br#"{"jwt":"e.e.e"}"#);
    assert_eq!(seen[12].body, br#"{"client":"cih","scopes":["tokenize"]}"#);
    for request in &seen[..12] {
        assert_eq!(request.authorization.as_deref(), Some("Bearer aaa.bbb.ccc"), "{}", request.path);
        let expected = (!request.body.is_empty()).then_some("application/json");
        assert_eq!(request.content_type.as_deref(), expected, "{}", request.path);
    }
    assert_eq!((seen[12].path.as_str(), seen[12].authorization.as_deref()), ("/v1/login", None));
    for request in &seen[13..] {
        assert_eq!(request.authorization, None, "{} needs no token", request.path);
    }
    assert_eq!(stub.connections(), 1, "calls one after the other share a connection");
}
