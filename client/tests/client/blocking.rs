//! The blocking face: the same calls, from threads that know no runtime.

use std::thread;

use serde_json::json;
use tokio::runtime::Runtime;
use vault_client::{Code, Error, TokenizeRequest, blocking::VaultClient};

use crate::{
    answers::{PAN, card, logged_in, tokenized},
    stub::{Reply, Stub, impatient},
};

/// A stub in a runtime of its own, and a blocking client of it that logs in.
fn stub(decide: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Runtime, Stub, VaultClient) {
    let runtime = Runtime::new().unwrap();
    let stub = runtime.block_on(async {
        Stub::deciding(move |_, seen| match seen.path.as_str() {
            "/v1/login" => Reply::Json(200, logged_in("jwt", 300)),
            path => decide(path),
        })
    });
    let builder = impatient(VaultClient::builder(stub.socket())).login(vault_client::LoginRequest::default());
    let vault = builder.build_blocking().unwrap();
    (runtime, stub, vault)
}

#[test]
fn calls_block_until_the_answer_is_there() {
    let (_runtime, stub, vault) = stub(|path| match path {
        "/v1/tokenize" => Reply::Json(201, tokenized()),
        "/v1/tokens/compare" => Reply::Json(200, json!({"equal": false})),
        "/v1/detokenize" => card(),
        _ => Reply::Problem(Code::UnknownToken, None),
    });
    assert_eq!(vault.tokenize(&TokenizeRequest::new(PAN)).unwrap().token, "tok_1");
    assert_eq!(vault.detokenize("tok_1").unwrap().pan.expose(), PAN);
    assert!(!vault.compare("tok_1", &PAN.into()).unwrap());
    assert_eq!(vault.delete("tok_1").unwrap_err().code(), Some(Code::UnknownToken));
    assert_eq!(stub.connections(), 1);
    assert!(!format!("{vault:?}").contains("jwt"), "{vault:?}");
}

#[test]
fn an_operator_may_block_too() {
    let (_runtime, stub, vault) = stub(|path| match path {
        "/v1/locks" => Reply::Json(200, json!({"locks": []})),
        _ => Reply::Problem(Code::KeyInUse, None),
    });
    let admin = vault.admin(stub.socket()).unwrap();
    assert!(admin.locks().unwrap().is_empty());
    let approved = admin.approved(&"xxx.yyy.zzz".into()).unwrap();
    assert_eq!(approved.destroy_key("record", 1).unwrap_err().code(), Some(Code::KeyInUse));
    assert_eq!(stub.seen()[2].approval.as_deref(), Some("xxx.yyy.zzz"));
    assert!(!format!("{admin:?}").contains("jwt"), "{admin:?}");
}

#[test]
fn threads_may_share_a_client() {
    let (_runtime, stub, vault) = stub(|_| card());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..10 {
                    vault.clone().detokenize("tok_1").unwrap();
                }
            });
        }
    });
    assert_eq!(stub.seen().len(), 81, "80 calls and one login");
}

#[test]
fn no_vault_is_an_error_and_no_wait() {
    let vault = impatient(VaultClient::builder("/nowhere/v.sock")).build_blocking().unwrap();
    assert!(matches!(vault.health(), Err(Error::Connect { .. })));
}
