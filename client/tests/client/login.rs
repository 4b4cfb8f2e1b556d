//! A client that logs in by itself.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use vault_client::{Code, Error, LoginRequest, TokenizeRequest, VaultClient};

use crate::{
    answers::{PAN, card, logged_in, record, tokenized},
    stub::{Reply, Seen, Stub, impatient},
};

/// A vault whose n-th login gives the JWT `jwt-n` for `lifetime` seconds, and that asks `decide` about all else.
fn vault_with_login(lifetime: u64, decide: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Stub {
    let logins = AtomicUsize::new(0);
    Stub::deciding(move |_, seen| match seen.path.as_str() {
        "/v1/login" => {
            let count = logins.fetch_add(1, Ordering::Relaxed) + 1;
            Reply::Json(200, logged_in(&format!("jwt-{count}"), lifetime))
        }
        _ => decide(seen),
    })
}

fn client(stub: &Stub) -> VaultClient {
    let request = LoginRequest { client: Some("cih".into()), ..Default::default() };
    impatient(VaultClient::builder(stub.socket())).login(request).build().unwrap()
}

/// What was asked, as `path` or `path authorization`.
fn asked(stub: &Stub) -> Vec<String> {
    let ask = |seen: Seen| match seen.authorization {
        Some(authorization) => format!("{} {authorization}", seen.path),
        None => seen.path,
    };
    stub.seen().into_iter().map(ask).collect()
}

#[tokio::test]
async fn one_login_serves_many_calls() {
    let stub = vault_with_login(300, |_| card());
    let vault = client(&stub);
    for _ in 0..2 {
        vault.detokenize("tok_1").await.unwrap();
    }
    let many: Vec<_> = (0..20)
        .map(|_| {
            let vault = vault.clone();
            tokio::spawn(async move { vault.detokenize("tok_1").await.unwrap() })
        })
        .collect();
    for call in many {
        call.await.unwrap();
    }
    let asked = asked(&stub);
    assert_eq!(stub.seen()[0].body, br#"{"client":"cih"}"#);
    assert_eq!(asked[..2], ["/v1/login", "/v1/detokenize Bearer jwt-1"]);
    assert_eq!(asked.iter().filter(|ask| *ask == "/v1/login").count(), 1);
}

#[tokio::test]
async fn a_call_that_needs_no_token_does_not_log_in() {
    let stub = vault_with_login(300, |_| Reply::Json(200, serde_json::json!({"status": "ok"})));
    client(&stub).health().await.unwrap();
    assert_eq!(asked(&stub), ["/healthz"]);
}

#[tokio::test]
async fn a_jwt_is_renewed_before_it_ends() {
    let stub = vault_with_login(2, |_| card());
    let vault = client(&stub);
    vault.detokenize("tok_1").await.unwrap();
    tokio::time::sleep(Duration::from_millis(1_700)).await;
    vault.detokenize("tok_1").await.unwrap();
    assert_eq!(asked(&stub)[2..], ["/v1/login", "/v1/detokenize Bearer jwt-2"]);
}

#[tokio::test]
async fn a_refused_jwt_is_renewed_once_even_for_a_tokenize() {
    for code in [Code::ExpiredJwt, Code::InvalidJwt, Code::ReplayedJwt] {
        let stub = vault_with_login(300, move |seen| match seen.authorization.as_deref() {
            Some("Bearer jwt-1") => Reply::Problem(code, None),
            _ => Reply::Json(201, tokenized()),
        });
        client(&stub).tokenize(&TokenizeRequest::new(PAN)).await.unwrap();
        assert_eq!(asked(&stub)[2..], ["/v1/login", "/v1/tokenize Bearer jwt-2"], "{code}");

        let stub = vault_with_login(300, move |_| Reply::Problem(code, None));
        let error = client(&stub).tokenize(&TokenizeRequest::new(PAN)).await.unwrap_err();
        assert_eq!(error.code(), Some(code));
        assert_eq!(asked(&stub).len(), 4, "two logins, two tries: {code}");
    }
}

#[tokio::test]
async fn a_vault_that_takes_each_jwt_once_gets_one_for_each_call() {
    let used = std::sync::Mutex::new(std::collections::HashSet::new());
    let stub = vault_with_login(300, move |seen| {
        let fresh = used.lock().unwrap().insert(seen.authorization.clone());
        if fresh { card() } else { Reply::Problem(Code::ReplayedJwt, None) }
    });
    let vault = client(&stub);
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let vault = vault.clone();
            tokio::spawn(async move { vault.detokenize("tok_1").await.map(drop) })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    // By now it knows, and shows none twice, whichever token it is about.
    let before = asked(&stub).len();
    vault.detokenize("tok_2").await.unwrap();
    assert_eq!(asked(&stub).len() - before, 2, "a login and the call");
}

#[tokio::test]
async fn what_is_learnt_of_one_token_holds_for_the_next() {
    let used = std::sync::Mutex::new(std::collections::HashSet::new());
    let stub = vault_with_login(300, move |seen| match seen.path.as_str() {
        "/v1/tokenize" => Reply::Json(201, tokenized()),
        _ if used.lock().unwrap().insert(seen.authorization.clone()) => Reply::Json(200, record()),
        _ => Reply::Problem(Code::ReplayedJwt, None),
    });
    let vault = client(&stub);
    for token in ["tok_1", "tok_2", "tok_3"] {
        vault.token(token).await.unwrap();
    }
    vault.tokenize(&TokenizeRequest::new(PAN)).await.unwrap();
    let expected = [
        "/v1/login",
        "/v1/tokens/tok_1 Bearer jwt-1",
        "/v1/tokens/tok_2 Bearer jwt-1",
        "/v1/login",
        "/v1/tokens/tok_2 Bearer jwt-2",
        "/v1/login",
        "/v1/tokens/tok_3 Bearer jwt-3",
        "/v1/tokenize Bearer jwt-1",
    ];
    assert_eq!(asked(&stub), expected);
}

#[tokio::test]
async fn a_login_that_fails_for_now_is_made_again_before_any_request() {
    for trouble in [Reply::Break, Reply::Problem(Code::HsmUnavailable, Some(0))] {
        let stub = Stub::deciding(move |number, seen| match (number, seen.path.as_str()) {
            (0, _) => trouble.clone(),
            (_, "/v1/login") => Reply::Json(200, logged_in("jwt", 300)),
            _ => Reply::Json(201, tokenized()),
        });
        client(&stub).tokenize(&TokenizeRequest::new(PAN)).await.unwrap();
        assert_eq!(asked(&stub), ["/v1/login", "/v1/login", "/v1/tokenize Bearer jwt"]);
    }
}

#[tokio::test]
async fn a_login_that_is_refused_is_told_from_a_call_that_is() {
    let stub = Stub::replying([Reply::Problem(Code::InsufficientScope, None)]);
    let error = client(&stub).detokenize("tok_1").await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Login(_)), "{error:?}");
    assert_eq!(error.code(), Some(Code::InsufficientScope));
    assert!(error.to_string().starts_with("cannot log in: the vault refused: "), "{error}");
    assert_eq!(asked(&stub), ["/v1/login"]);

    let stub = Stub::replying([Reply::Hang]);
    let builder = impatient(VaultClient::builder(stub.socket())).login(LoginRequest::default());
    let vault = builder.timeout(Duration::from_millis(100)).build().unwrap();
    // Also for the one that waits for the other's login.
    for error in <[_; 2]>::from(tokio::join!(vault.detokenize("tok_1"), vault.detokenize("tok_2"))) {
        let error = error.map(drop).unwrap_err();
        assert!(matches!(error, Error::Login(_)), "{error:?}");
        assert!(error.to_string().contains("was not sent"), "{error}");
    }
    assert_eq!(asked(&stub), ["/v1/login"]);

    let weird = serde_json::json!({"access_token": ["secret-jwt"]});
    let stub = Stub::replying([Reply::Json(200, weird)]);
    let error = client(&stub).detokenize("tok_1").await.map(drop).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("secret"), "{error:?}");

    let nobody = impatient(VaultClient::builder("/nowhere/v.sock")).login(LoginRequest::default());
    let error = nobody.build().unwrap().detokenize("tok_1").await.map(drop).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}
