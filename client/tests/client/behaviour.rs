//! What is sent again, and what the caller learns.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::UnixListener, runtime::Runtime};
use vault_client::{
    Code, Error, LoginRequest, MAX_ANSWER_BYTES, Problem, RetryPolicy, TokenError, TokenizeRequest,
    VaultClient,
};

use crate::{
    answers::{PAN, card, envelope, logged_in, opened, sealed, tokenized},
    stub::{Reply, Stub, answer_raw, impatient},
};

#[tokio::test]
async fn a_read_survives_a_broken_connection_and_a_busy_vault() {
    for trouble in [
        Reply::Break,
        Reply::BreakInBody,
        Reply::Problem(Code::Overloaded, Some(0)),
        Reply::Problem(Code::RateLimited, None),
        Reply::Problem(Code::AuditUnavailable, Some(0)),
    ] {
        let stub = Stub::replying([trouble.clone(), trouble.clone(), card()]);
        assert_eq!(stub.client().detokenize("tok_1").await.unwrap().pan.expose(), PAN, "{trouble:?}");
        assert_eq!(stub.seen().len(), 3, "{trouble:?}");
    }
}

#[tokio::test]
async fn the_attempts_are_counted() {
    let stub = Stub::replying([Reply::Break]);
    assert!(matches!(stub.client().token("tok_1").await, Err(Error::Broken)));
    assert_eq!(stub.seen().len(), 3);
}

#[tokio::test]
async fn a_tokenize_is_not_sent_again_when_the_vault_may_have_done_it() {
    for trouble in [Reply::Break, Reply::BreakInBody, Reply::Problem(Code::StoreUnavailable, Some(0))] {
        let stub = Stub::replying([trouble.clone(), Reply::Json(201, tokenized())]);
        stub.client().tokenize(&TokenizeRequest::new(PAN)).await.unwrap_err();
        stub.client().tokenize_batch(&[TokenizeRequest::new(PAN)]).await.unwrap_err();
        assert_eq!(stub.seen().len(), 2, "{trouble:?}");

        let stub = Stub::replying([trouble.clone(), Reply::Json(201, tokenized())]);
        let vault = stub.builder().retry_tokenize(true).build().unwrap();
        vault.tokenize(&TokenizeRequest::new(PAN)).await.unwrap();
        assert_eq!(stub.seen().len(), 2, "{trouble:?}");
    }
}

#[tokio::test]
async fn an_envelope_is_not_opened_twice_for_one_call() {
    let unavailable = [Code::StoreUnavailable, Code::AuditUnavailable];
    let unavailable = unavailable.map(|code| Reply::Problem(code, Some(0)));
    for trouble in [Reply::Break, Reply::BreakInBody].into_iter().chain(unavailable) {
        let stub = Stub::replying([trouble.clone(), Reply::Json(200, opened())]);
        stub.client().open_envelope("e.e.e").await.map(drop).unwrap_err();
        assert_eq!(stub.seen().len(), 1, "{trouble:?}");

        let stub = Stub::replying([trouble.clone(), Reply::Json(200, sealed())]);
        stub.client().seal_envelope(&envelope()).await.unwrap();
        assert_eq!(stub.seen().len(), 2, "nothing is stored, so a seal is sent again: {trouble:?}");
    }
    for code in [Code::Overloaded, Code::HsmUnavailable] {
        let stub = Stub::replying([Reply::Problem(code, Some(0)), Reply::Json(200, opened())]);
        stub.client().open_envelope("e.e.e").await.unwrap();
    }
}

#[tokio::test]
async fn a_tokenize_is_sent_again_when_the_vault_did_nothing() {
    for code in [Code::Overloaded, Code::HsmUnavailable, Code::RateLimited] {
        let stub = Stub::replying([Reply::Problem(code, Some(0)), Reply::Json(201, tokenized())]);
        stub.client().tokenize(&TokenizeRequest::new(PAN)).await.unwrap();
        let seen = stub.seen();
        assert_eq!(seen[0].body, seen[1].body);
    }
}

#[tokio::test]
async fn a_tokenize_waits_for_a_vault_that_is_starting() {
    let stub = Stub::replying([Reply::Json(200, tokenized())]);
    let (now, later) = (stub.socket().with_file_name("started.sock"), stub.socket());
    let vault = impatient(VaultClient::builder(&now)).token("aaa.bbb.ccc".into());
    let vault = vault
        .retry(vault_client::RetryPolicy {
            max_attempts: 20,
            base: Duration::from_millis(20),
            cap: Duration::from_millis(20),
        })
        .build()
        .unwrap();
    let start = async {
        tokio::time::sleep(Duration::from_millis(60)).await;
        std::fs::rename(later, &now).unwrap();
    };
    let request = TokenizeRequest::new(PAN);
    let (answer, ()) = tokio::join!(vault.tokenize(&request), start);
    assert_eq!(answer.unwrap().token, "tok_1");
}

#[tokio::test]
async fn a_delete_that_may_have_been_done_succeeds() {
    let problem = |code| Reply::Problem(code, None);
    let gone = problem(Code::UnknownToken);
    for lost in [Reply::Break, problem(Code::StoreUnavailable), problem(Code::AuditUnavailable)] {
        let stub = Stub::replying([lost, gone.clone()]);
        stub.client().delete("tok_1").await.unwrap();
    }
    for stub in [Stub::replying([gone.clone()]), Stub::replying([problem(Code::Overloaded), gone])] {
        let error = stub.client().delete("tok_1").await.unwrap_err();
        assert_eq!(error.code(), Some(Code::UnknownToken));
    }
}

#[tokio::test]
async fn an_approval_is_shown_to_the_vault_once() {
    let approval = secrecy::SecretString::from("ddd.eee.fff");
    let codes = [
        Code::RateLimited,
        Code::Overloaded,
        Code::HsmUnavailable,
        Code::StoreUnavailable,
        Code::AuditUnavailable,
    ];
    let refusals = codes.map(|code| Reply::Problem(code, Some(0)));
    for trouble in [Reply::Break, Reply::BreakInBody].into_iter().chain(refusals) {
        let spent = Reply::Problem(Code::ApprovalRequired, None);
        let stub = Stub::replying([trouble.clone(), spent]);
        let error = stub.client().approved(&approval).unwrap().delete("tok_1").await.unwrap_err();
        let expected = if let Reply::Problem(code, _) = trouble { Some(code) } else { None };
        assert_eq!((error.code(), stub.seen().len()), (expected, 1), "{trouble:?}");
    }

    // Without a connection it is still good.
    let nowhere = impatient(VaultClient::builder("/nowhere/v.sock")).token("aaa.bbb.ccc".into());
    let nowhere = nowhere.build().unwrap();
    let error = nowhere.approved(&approval).unwrap().delete("tok_1").await.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    // Nor is it spent by a login that fails.
    let stub = Stub::deciding(|number, seen| match (number, seen.path.as_str()) {
        (0, _) => Reply::Problem(Code::HsmUnavailable, Some(0)),
        (_, "/v1/login") => Reply::Json(200, logged_in("jwt", 300)),
        _ => Reply::Empty,
    });
    let vault = impatient(VaultClient::builder(stub.socket())).login(LoginRequest::default());
    vault.build().unwrap().approved(&approval).unwrap().delete("tok_1").await.unwrap();
}

#[tokio::test]
async fn a_jwt_that_an_earlier_attempt_has_spent_is_not_what_went_wrong() {
    let replayed = Reply::Problem(Code::ReplayedJwt, None);
    for trouble in [Reply::Break, Reply::Problem(Code::AuditUnavailable, Some(0))] {
        let stub = Stub::replying([trouble.clone(), replayed.clone()]);
        let error = stub.client().delete("tok_1").await.unwrap_err();
        let expected = if let Reply::Problem(code, _) = trouble { Some(code) } else { None };
        assert_eq!((error.code(), stub.seen().len()), (expected, 2), "{trouble:?}");
    }
    let stub = Stub::replying([replayed]);
    assert_eq!(stub.client().delete("tok_1").await.unwrap_err().code(), Some(Code::ReplayedJwt));
}

#[tokio::test]
async fn retry_after_is_respected_and_too_long_a_wait_is_not_begun() {
    let stub = Stub::replying([Reply::Problem(Code::RateLimited, Some(1)), card()]);
    let started = Instant::now();
    stub.client().detokenize("tok_1").await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1));

    let stub = Stub::replying([Reply::Problem(Code::RateLimited, Some(60))]);
    let started = Instant::now();
    let error = stub.client().detokenize("tok_1").await.unwrap_err();
    assert_eq!(error.code(), Some(Code::RateLimited));
    assert!(started.elapsed() < Duration::from_secs(1));
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn what_is_left_of_a_limit_can_be_asked() {
    let limited = |left| Reply::Limited(json!({"pan": PAN}), left);
    let stub = Stub::replying([
        limited(r#""subject-hour";r=1;t=60"#),
        limited(r#""subject-hour";r=0;t=59"#),
        card(),
    ]);
    let vault = stub.client();
    assert_eq!(vault.rate_limit(), None);
    for left in [1, 0, 0] {
        vault.clone().detokenize("tok_1").await.unwrap();
        assert_eq!(vault.rate_limit().unwrap().remaining, left);
    }
}

#[tokio::test]
async fn a_vault_that_hangs_is_left_at_the_timeout() {
    let stub = Stub::replying([Reply::Hang]);
    let vault = stub.builder().timeout(Duration::from_millis(100)).build().unwrap();
    let started = Instant::now();
    let error = vault.health().await.unwrap_err();
    assert!(matches!(error, Error::Timeout { after, .. } if after == Duration::from_millis(100)), "{error}");
    assert!(started.elapsed() < Duration::from_secs(2));
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn an_oversized_answer_is_not_read() {
    for (count, announced) in
        [(MAX_ANSWER_BYTES + 1, true), (MAX_ANSWER_BYTES + 1, false), (usize::MAX, false)]
    {
        let stub = Stub::replying([Reply::Bytes { count, announced }]);
        let error = stub.client().openapi().await.unwrap_err();
        assert!(matches!(&error, Error::Protocol(what) if what.contains("larger than")), "{error}");
    }
}

#[tokio::test]
async fn something_else_behind_the_socket_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v.sock");
    let other = answer_raw(&socket, b"220 mail.example ESMTP\r\n");
    let error = impatient(VaultClient::builder(&socket)).build().unwrap().health().await.unwrap_err();
    assert!(matches!(error, Error::Protocol(_)), "{error}");
    other.abort();

    for reply in [Reply::Json(200, json!("hello")), Reply::Json(302, json!({})), Reply::Empty] {
        let stub = Stub::replying([reply.clone()]);
        let error = stub.client().health().await.unwrap_err();
        assert!(matches!(error, Error::Protocol(_)), "{reply:?}: {error}");
        assert_eq!(stub.seen().len(), 1);
    }
}

/// As vaultd does where a door is full: it is not known whether the answer or the request comes first.
#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_refuses_before_it_was_asked_has_done_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let full = tokio::spawn(async move {
        let problem = serde_json::to_string(&Problem::new(Code::Overloaded, "full", "r-1")).unwrap();
        let answer = format!(
            "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\ncontent-length: \
             {}\r\nconnection: close\r\n\r\n{problem}",
            problem.len()
        );
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    let builder = impatient(VaultClient::builder(&socket)).token("aaa.bbb.ccc".into());
    let vault = builder.retry(RetryPolicy { max_attempts: 1, ..RetryPolicy::default() }).build().unwrap();
    for _ in 0..500 {
        let error = vault.tokenize(&TokenizeRequest::new(PAN)).await.unwrap_err();
        let is_known = error.code() == Some(Code::Overloaded) || matches!(error, Error::Connect { .. });
        assert!(is_known, "{error:?}");
    }
    full.abort();
}

#[tokio::test]
async fn no_vault_at_all_is_said_with_its_path() {
    let vault = impatient(VaultClient::builder("/nowhere/v.sock")).build().unwrap();
    let error = vault.health().await.unwrap_err();
    assert!(matches!(&error, Error::Connect { .. }), "{error:?}");
    let message = error.to_string();
    assert!(message.contains("/nowhere/v.sock") && message.contains("start vaultd"), "{message}");
}

#[tokio::test]
async fn a_refused_token_from_a_file_is_read_again_once() {
    let stub = Stub::deciding(|_, seen| match seen.authorization.as_deref() {
        Some("Bearer renewed") => Reply::Json(201, tokenized()),
        _ => Reply::Problem(Code::ExpiredJwt, None),
    });
    let file = stub.socket().with_file_name("token.jwt");
    let stamp = std::time::SystemTime::now();
    let write = |token: &str| {
        std::fs::write(&file, token).unwrap();
        // The same size and time: only the 401 tells that the token is another.
        std::fs::File::options().write(true).open(&file).unwrap().set_modified(stamp).unwrap();
    };
    let vault = stub.builder().token_file(&file).build().unwrap();
    let request = TokenizeRequest::new(PAN);

    write("expired");
    assert_eq!(vault.tokenize(&request).await.unwrap_err().code(), Some(Code::ExpiredJwt));
    assert_eq!(stub.seen().len(), 1, "the file holds no other token");

    write("renewed");
    vault.tokenize(&request).await.unwrap();
    vault.tokenize(&request).await.unwrap();
    assert_eq!(stub.seen().len(), 4, "one more 401, then the renewed token for both");

    let fixed = stub.client().tokenize(&request).await.unwrap_err();
    assert_eq!(fixed.code(), Some(Code::ExpiredJwt));
    assert_eq!(stub.seen().len(), 5);
}

#[tokio::test]
async fn a_call_that_needs_a_token_is_not_sent_without() {
    let stub = Stub::replying([Reply::Json(200, json!({"status": "ok"}))]);
    let vault = impatient(VaultClient::builder(stub.socket())).build().unwrap();
    vault.health().await.unwrap();
    assert!(matches!(vault.token("tok_1").await, Err(Error::Token(TokenError::Missing))));
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn a_vault_that_is_not_ready_is_an_answer() {
    let body = json!({"ready": false, "checks": {"hsm": {"ok": false, "detail": "no token in the slot"}}});
    let stub = Stub::replying([Reply::Json(503, body)]);
    let readiness = stub.client().readiness().await.unwrap();
    assert!(!readiness.ready);
    assert_eq!(readiness.checks["hsm"].detail.as_deref(), Some("no token in the slot"));
    assert_eq!(stub.seen().len(), 1);
}

#[tokio::test]
async fn no_error_shows_card_data_or_the_token() {
    let weird = json!({"pan": {"is": PAN}, "token": PAN, "results": [PAN]});
    let stub = Stub::replying([Reply::Json(200, weird)]);
    let vault = stub.client();
    let errors = [
        vault.detokenize("tok_1").await.map(drop).unwrap_err(),
        vault.detokenize_batch(&["tok_1"]).await.map(drop).unwrap_err(),
        vault.tokenize(&TokenizeRequest::new(PAN)).await.map(drop).unwrap_err(),
        vault.token("tok_1").await.map(drop).unwrap_err(),
    ];
    for error in errors {
        let text = format!("{error} {error:?} {vault:?}");
        assert!(!text.contains("4111") && !text.contains("aaa.bbb"), "{text}");
    }
}

#[tokio::test]
async fn many_calls_at_once_each_get_their_own_answer() {
    let stub = Stub::deciding(|_, seen| {
        let request: Value = serde_json::from_slice(&seen.body).unwrap();
        Reply::Json(200, json!({"pan": request["token"]}))
    });
    let vault = stub.builder().max_idle_connections(4).build().unwrap();
    let calls: Vec<_> = (0..100)
        .map(|number| {
            let vault = vault.clone();
            tokio::spawn(async move {
                let token = number.to_string();
                assert_eq!(vault.detokenize(&token).await.unwrap().pan.expose(), token);
            })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    assert_eq!(stub.seen().len(), 100);
}

#[test]
fn a_restart_that_the_client_has_not_noticed_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("v.sock");
    let start = || {
        let runtime = Runtime::new().unwrap();
        let stub = runtime.block_on(async { Stub::at(&socket, |_, _| Reply::Json(200, tokenized())) });
        (stub, runtime)
    };
    // A runtime that stands still between calls: it learns of the closed connection by writing to it.
    let own = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let vault = impatient(VaultClient::builder(&socket)).token("aaa.bbb.ccc".into()).build().unwrap();
    let tokenize = || own.block_on(vault.tokenize(&TokenizeRequest::new(PAN))).unwrap();

    let before = start();
    tokenize();
    drop(before);
    std::fs::remove_file(&socket).unwrap();
    let (after, _runtime) = start();
    tokenize();
    assert_eq!(after.seen().len(), 1);
}
