//! The operator's client, against what the admin socket is to answer.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use vault_client::{AuditQuery, Code, Error, LoginRequest, PlantRequest, RewrapState, VaultClient};

use crate::{
    answers::{card, logged_in},
    stub::{Reply, Seen, Stub, impatient},
};

fn key() -> Value {
    json!({
        "purpose": "record", "version": 2, "state": "active", "created_at": "2026-01-02T03:04:05Z",
        "age": 7, "ends_at": "2028-01-02T03:04:05Z", "records": 3,
    })
}

fn rewrap() -> Value {
    json!({"state": "running", "done": 5, "left": 7, "failed": 0, "rate": 1.5, "eta": 5})
}

fn honey() -> Value {
    json!({
        "token": "tok_h", "tenant": "dev", "template": "opaque", "note": "in the backup",
        "planted_at": "2026-01-02T03:04:05Z",
    })
}

fn answer(seen: &Seen) -> Reply {
    let status = json!({
        "version": "0.1.0", "uptime": 9, "ready": true, "checks": {"hsm": {"ok": true}}, "records": 3,
        "keys": [key()], "rewrap": rewrap(),
    });
    let lock = json!({
        "issuer": "bank", "subject": "till 7", "tenant": "dev", "reason": "honey token",
        "locked_at": "2026-01-02T03:04:05Z",
    });
    match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/v1/status") => Reply::Json(200, status),
        ("POST", "/v1/reload") => Reply::Json(200, json!({"issuers": 2, "peers": 1})),
        ("GET", "/v1/keys") => Reply::Json(200, json!({"keys": [key()]})),
        ("POST", "/v1/keys/record/rotate") => Reply::Json(201, key()),
        ("DELETE", "/v1/keys/record/1") => Reply::Json(200, key()),
        ("GET", "/v1/rewrap") => Reply::Json(200, rewrap()),
        ("POST", "/v1/rewrap") => Reply::Json(202, rewrap()),
        ("GET", "/v1/audit?last=2&op=detokenize&type=access") => {
            let entry = json!({"v": 1, "seq": 41, "type": "access", "new": {"field": true}});
            Reply::Json(200, json!({"entries": [entry], "next": 41, "more": false}))
        }
        ("GET", "/v1/locks") => Reply::Json(200, json!({"locks": [lock]})),
        ("POST", "/v1/locks/unlock") => Reply::Json(200, json!({"unlocked": true})),
        ("GET", "/v1/honey") => Reply::Json(200, json!({"tokens": [honey()]})),
        ("POST", "/v1/honey") => Reply::Json(201, honey()),
        ("DELETE", "/v1/honey/dev/tok_h") => Reply::Empty,
        _ => Reply::Problem(Code::NotFound, None),
    }
}

#[tokio::test]
async fn each_method_asks_what_the_admin_socket_answers() {
    let stub = Stub::deciding(|_, seen| answer(seen));
    let admin = stub.client().admin(stub.socket()).unwrap();
    assert_eq!(admin.status().await.unwrap().checks.len(), 1);
    assert_eq!(admin.reload().await.unwrap().issuers, 2);
    assert_eq!(admin.keys().await.unwrap()[0].records, Some(3));
    assert_eq!(admin.rotate("record").await.unwrap().version, 2);
    assert_eq!(admin.destroy_key("record", 1).await.unwrap().version, 2);
    assert_eq!(admin.rewrap().await.unwrap().state, RewrapState::Running);
    assert_eq!(admin.start_rewrap().await.unwrap().left, 7);
    let query = AuditQuery {
        last: Some(2),
        op: Some("detokenize".into()),
        kind: Some("access".into()),
        ..AuditQuery::default()
    };
    let audit = admin.audit(&query).await.unwrap();
    assert!(audit.entries[0].get().contains(r#""new":{"field":true}"#), "{audit:?}");
    assert_eq!((audit.next, audit.more), (41, false));
    assert_eq!(admin.locks().await.unwrap()[0].subject, "till 7");
    assert!(admin.unlock("bank", "till 7").await.unwrap());
    assert_eq!(admin.honey().await.unwrap()[0].note.as_deref(), Some("in the backup"));
    let plant = PlantRequest { tenant: "dev".into(), template: Some("opaque".into()), note: None };
    assert_eq!(admin.plant_honey(&plant).await.unwrap().token, "tok_h");
    admin.remove_honey("dev", "tok_h").await.unwrap();

    let seen = stub.seen();
    assert_eq!(seen[9].body, br#"{"issuer":"bank","subject":"till 7"}"#);
    assert_eq!(seen[11].body, br#"{"tenant":"dev","template":"opaque"}"#);
    for request in &seen {
        assert_eq!(request.authorization.as_deref(), Some("Bearer aaa.bbb.ccc"), "{}", request.path);
        assert_eq!(request.approval, None);
    }
    assert_eq!(stub.connections(), 1);
}

#[tokio::test]
async fn a_login_goes_to_the_api_socket_and_serves_both() {
    let api = Stub::deciding(|_, seen| match seen.path.as_str() {
        "/v1/login" => Reply::Json(200, logged_in("jwt", 300)),
        _ => card(),
    });
    let admin_stub = Stub::deciding(|_, seen| answer(seen));
    let vault = impatient(VaultClient::builder(api.socket())).login(LoginRequest::default()).build().unwrap();
    let admin = vault.admin(admin_stub.socket()).unwrap();
    admin.keys().await.unwrap();
    vault.detokenize("tok_1").await.unwrap();
    let asked = |stub: &Stub| stub.seen().into_iter().map(|seen| seen.path).collect::<Vec<_>>();
    assert_eq!(asked(&api), ["/v1/login", "/v1/detokenize"]);
    assert_eq!(asked(&admin_stub), ["/v1/keys"]);
    assert_eq!(admin_stub.seen()[0].authorization.as_deref(), Some("Bearer jwt"));
}

#[tokio::test]
async fn a_second_jwt_is_shown_by_the_approved_client_only() {
    let stub = Stub::deciding(|_, seen| match seen.path.as_str() {
        "/v1/detokenize/batch" => Reply::Json(200, json!({"results": [{"pan": "1"}]})),
        _ => answer(seen),
    });
    let (vault, second) = (stub.client(), "xxx.yyy.zzz\n".into());
    let admin = vault.admin(stub.socket()).unwrap();
    admin.approved(&second).unwrap().destroy_key("record", 1).await.unwrap();
    vault.approved(&second).unwrap().detokenize_batch(&["tok_1"]).await.unwrap();
    admin.keys().await.unwrap();
    let shown: Vec<_> = stub.seen().into_iter().map(|seen| seen.approval).collect();
    assert_eq!(shown, [Some("xxx.yyy.zzz".to_owned()), Some("xxx.yyy.zzz".to_owned()), None]);
    assert!(matches!(admin.approved(&"two words".into()), Err(Error::Token(_))));
}

#[tokio::test]
async fn what_would_make_two_things_is_not_sent_again() {
    let stub = Stub::replying([Reply::Break]);
    let admin = stub.client().admin(stub.socket()).unwrap();
    assert!(matches!(admin.rotate("record").await, Err(Error::Broken)));
    let plant = PlantRequest { tenant: "dev".into(), template: None, note: None };
    assert!(matches!(admin.plant_honey(&plant).await, Err(Error::Broken)));
    assert_eq!(stub.seen().len(), 2);
    assert!(matches!(admin.destroy_key("record", 1).await, Err(Error::Broken)));
    assert_eq!(stub.seen().len(), 5);
}

#[tokio::test]
async fn the_vault_may_take_as_long_as_it_was_asked_to_wait() {
    let stub = Stub::replying([Reply::Hang]);
    let vault = stub.builder().timeout(Duration::from_millis(100)).build().unwrap();
    let admin = vault.admin(stub.socket()).unwrap();
    let started = Instant::now();
    let error = admin.audit(&AuditQuery { wait: Some(1), ..AuditQuery::default() }).await.unwrap_err();
    assert!(
        matches!(error, Error::Timeout { after, .. } if after == Duration::from_millis(1_100)),
        "{error}"
    );
    assert!(started.elapsed() >= Duration::from_millis(1_100));
}
