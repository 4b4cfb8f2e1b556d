//! One test for each code of the contract that this vault can produce.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    io::{Read, Write},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::runtime::Runtime;
use vault_client::{Code, Error, RetryPolicy, TokenizeRequest};
use vault_tests::{AuditLog, PURPOSES, Vault, connect, exchange, keys, read_answer, until};

const CARD: &str = r#"{"pan":"4111111111111111"}"#;
const UNKNOWN: &str = "/v1/tokens/00000000-0000-7000-8000-000000000000";

#[test]
fn bad_bodies_are_malformed_or_invalid() {
    let vault = Vault::start();
    let code = |body: &str| vault.request("POST", "/v1/tokenize", body).code();
    for body in ["", "{", "{\"pan\":", "\u{1}", &"[".repeat(10_000)] {
        assert_eq!(code(body), "malformed_json", "{body:.40}");
    }
    let deep = format!("{{\"pan\":{}{}}}", "[".repeat(10_000), "]".repeat(10_000));
    for body in [
        "[]",
        "null",
        "{}",
        r#"{"pan":"4111111111111111","pan":"4111111111111111"}"#,
        r#"{"pan":"4111111111111111","cvv":"123"}"#,
        r#"{"pan":"4111111111111111","template":"no such"}"#,
        r#"{"pan":"4111111111111111","expires_in":0}"#,
        r#"{"pan":"4111111111111111","expires_in":1e9}"#,
        r#"{"pan":"4111111111111111","expiry_date":"13/29"}"#,
        r#"{"pan":"4111111111111111","holder":""}"#,
        r#"{"pan":"4111111111111111","metadata":{"note":"card 4111-1111-1111-1111"}}"#,
        &deep,
    ] {
        assert_eq!(code(body), "invalid_request", "{body:.60}");
    }
    let batch = |path: &str, body: &str| vault.request("POST", path, body).code();
    assert_eq!(batch("/v1/tokenize/batch", r#"{"items":[]}"#), "invalid_request");
    assert_eq!(batch("/v1/detokenize/batch", r#"{"tokens":[]}"#), "invalid_request");
    let many = vec![r#""x""#; 1_001].join(",");
    assert_eq!(batch("/v1/detokenize/batch", &format!("{{\"tokens\":[{many}]}}")), "invalid_request");
}

#[test]
fn where_no_body_is_asked_for_one_may_say_nothing() {
    let vault = Vault::start();
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    let send = |socket: &str, method: &str, path: &str, kind: &str, body: &str| {
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {}\r\ncontent-type: {kind}\r\n\
             content-length: {}\r\n\r\n{body}",
            vault.jwt(),
            body.len()
        );
        exchange(&vault.path(socket), request.as_bytes())
    };
    let (admin, api, json) = ("admin.sock", "vaultd.sock", "application/json");
    let card = format!("/v1/tokens/{token}");
    for (socket, method, path) in [
        (admin, "POST", "/v1/reload"),
        (admin, "POST", "/v1/rewrap"),
        (admin, "POST", "/v1/keys/jwt/rotate"),
        (admin, "POST", "/v1/backup"),
        (admin, "DELETE", "/v1/keys/jwt/1"),
        (admin, "DELETE", "/v1/honey/dev/00000000-0000-7000-8000-000000000000"),
        (api, "DELETE", card.as_str()),
    ] {
        for (kind, body, status, code) in [
            (json, r#"{"zzz":1}"#, 400, "invalid_request"),
            (json, "[]", 400, "invalid_request"),
            (json, "garbage", 400, "malformed_json"),
            ("text/plain", "garbage", 415, "unsupported_media_type"),
        ] {
            let answer = send(socket, method, path, kind, body);
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{method} {path} {body}");
        }
    }
    assert_eq!(keys(&vault).len(), PURPOSES.len(), "nothing was rotated");
    for (socket, method, path, kind, body, status) in [
        (admin, "POST", "/v1/reload", "text/plain", "", 200),
        (admin, "POST", "/v1/reload", json, "{}", 200),
        (admin, "POST", "/v1/rewrap", json, " {} ", 202),
        (admin, "POST", "/v1/keys/jwt/rotate", json, "{}", 201),
        (api, "DELETE", card.as_str(), json, "{}", 204),
    ] {
        assert_eq!(send(socket, method, path, kind, body).status, status, "{method} {path} {body}");
    }
}

#[test]
fn metadata_that_is_refused_changes_nothing() {
    let vault = Vault::start();
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{token}");
    let large: serde_json::Map<_, _> = (0..32).map(|n| (n.to_string(), json!("\u{1}".repeat(512)))).collect();
    for metadata in [json!(large), json!({ "cvv": "123" }), json!({ "note": "4111-1111-1111-1111" })] {
        let answer = vault.request("PATCH", &path, &json!({ "metadata": metadata }).to_string());
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
        let card = json!({ "pan": "5555555555554444", "metadata": metadata, "holder": "Ada" });
        assert_eq!(
            vault.request("POST", "/v1/tokenize", &card.to_string()).status,
            if metadata["note"].is_null() { 400 } else { 201 }
        );
    }
    assert_eq!(vault.request("GET", &path, "").json()["metadata"], json!({}));
    assert_eq!(vault.request("POST", "/v1/detokenize", &json!({ "token": token }).to_string()).status, 200);
}

#[test]
fn a_change_is_looked_at_before_its_token() {
    let vault = Vault::start();
    let answer = vault.request("POST", "/v1/tokenize", r#"{"pan":"4111111111111111","expires_in":1}"#);
    let ended = format!("/v1/tokens/{}", answer.json()["token"].as_str().unwrap());
    thread::sleep(Duration::from_secs(1));
    for path in [ended.as_str(), UNKNOWN] {
        for change in [r#"{"expires_in":0}"#, r#"{"metadata":{"":1}}"#, r#"{"metadata":{"cvv":"123"}}"#] {
            let answer = vault.request("PATCH", path, change);
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{path} {change}");
        }
    }
}

#[test]
fn refusals_without_end_are_counted_and_not_written() {
    const WRITTEN_AT_ONCE: usize = 500;
    const WRITTEN_PER_S: usize = 50;
    const EACH: usize = 1_500;
    let mut vault = Vault::start();
    let without_scope = vault.minter().mint(&json!({ "sub": "one", "scope": "tokens:read" }));
    // The files of issuers are read again, for which nobody has to wait.
    let unknown_key = vault.minter().mint_with_header(&json!({ "kid": "another" }), &json!({}));
    let (start, answered) = (Instant::now(), AtomicUsize::new(0));
    let may_be_written = || {
        let seconds = usize::try_from(start.elapsed().as_secs()).unwrap() + 1;
        WRITTEN_AT_ONCE + WRITTEN_PER_S * seconds
    };
    // However slow the machine is, more than may be written.
    let is_enough = || answered.load(Ordering::Relaxed) > may_be_written().max(2 * EACH);
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !is_enough() {
                    assert!(start.elapsed() < Duration::from_mins(2), "slower than what is written");
                    let answer = vault.request_as(&without_scope, "POST", "/v1/tokenize", CARD);
                    assert_eq!(answer.code(), "insufficient_scope", "whether it is written or not");
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            });
            scope.spawn(|| {
                let head = format!(
                    "GET {UNKNOWN} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {unknown_key}\r\n\r\n"
                );
                for _ in 0..EACH {
                    // Some have gone before they are answered.
                    let mut stream = connect(&vault.socket()).unwrap();
                    stream.write_all(head.as_bytes()).unwrap();
                    stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
                    drop(stream.read(&mut [0; 1]));
                }
            });
        }
    });
    assert_eq!(vault.request("POST", "/v1/tokenize", CARD).status, 201);
    assert!(vault.stop().success());
    let most = may_be_written();
    let told = AuditLog::of(&vault).follow();
    let is_refused = |entry: &&Value| entry["op"] == "tokens.read" || entry["status"] == 403;
    let written = told.iter().filter(is_refused).count();
    assert!(written <= most, "{written} of {most}");
    let counted = told.iter().filter(|entry| entry["event"] == "refusals.counted");
    let counted = counted
        .map(|entry| entry["detail"].as_str().unwrap().split(' ').next().unwrap().parse::<usize>().unwrap());
    let counted = counted.sum::<usize>();
    // Whoever had gone when vaultd took its connection sent nothing.
    let answered = answered.into_inner();
    assert!(counted > 0 && written + counted >= answered, "{written} and {counted} of {answered}");
}

#[test]
fn a_change_tells_nobody_the_hidden_digits() {
    let vault = Vault::start();
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    // The first is the card's number; the others are masked as it is.
    for number in ["4111111111111111", "4111110000001111", "4111119876541111"] {
        let change = json!({ "metadata": { "note": number } }).to_string();
        let answer = vault.request("PATCH", &format!("/v1/tokens/{token}"), &change);
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{number}");
    }
}

#[test]
fn bad_card_numbers_are_invalid_and_not_repeated() {
    let vault = Vault::start();
    for pan in [
        "41111111111",
        "41111111111111111111",
        "4111111111111112",
        "411111111111111x",
        "４１１１１１１１１１１１１１１１",
    ] {
        let answer = vault.request("POST", "/v1/tokenize", &json!({ "pan": pan }).to_string());
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_pan"), "{pan}");
        assert!(!answer.body.contains(pan), "{answer:?}");
    }
}

#[test]
fn whoever_may_be_anybody_sends_little() {
    let vault = Vault::start();
    let login = |client: usize| json!({ "client": "c".repeat(client) }).to_string();
    assert_eq!(vault.request("POST", "/v1/login", &login(20_000)).code(), "body_too_large");
    assert_eq!(vault.request("POST", "/v1/login", &login(10_000)).code(), "wrong_tenant");
}

#[test]
fn tokens_are_invalid_unknown_or_somebody_elses() {
    let vault = Vault::start();
    assert_eq!(vault.request("GET", "/v1/tokens/nonsense", "").code(), "invalid_token");
    assert_eq!(vault.request("GET", "/v1/tokens/%ff", "").code(), "invalid_token");
    assert_eq!(vault.request("GET", UNKNOWN, "").code(), "unknown_token");
    assert_eq!(vault.request("DELETE", UNKNOWN, "").code(), "unknown_token");
    assert_eq!(vault.request("PATCH", UNKNOWN, "{}").code(), "unknown_token");

    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    let other = vault.minter().mint(&json!({ "tenant": "other" }));
    for (method, path, body) in [
        ("GET", format!("/v1/tokens/{token}"), String::new()),
        ("DELETE", format!("/v1/tokens/{token}"), String::new()),
        ("POST", "/v1/detokenize".to_owned(), json!({ "token": token }).to_string()),
    ] {
        let answer = vault.request_as(&other, method, &path, &body);
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_token"), "{method} {path}");
    }
    assert_eq!(vault.request("GET", &format!("/v1/tokens/{token}"), "").status, 200, "it is still there");
}

#[test]
fn an_expired_token_says_so_to_the_second() {
    let vault = Vault::start();
    let body = r#"{"pan":"4111111111111111","expires_in":2}"#;
    let answer = vault.request("POST", "/v1/tokenize", body).json();
    let token = answer["token"].as_str().unwrap();
    let detokenize = json!({ "token": token }).to_string();
    assert_eq!(vault.request("POST", "/v1/detokenize", &detokenize).status, 200);
    thread::sleep(Duration::from_secs(2));
    let answer = vault.request("POST", "/v1/detokenize", &detokenize);
    assert_eq!((answer.status, answer.code().as_str()), (410, "token_expired"));
    assert_eq!(vault.request("GET", &format!("/v1/tokens/{token}"), "").code(), "token_expired");
    let fresh = vault.request("POST", "/v1/tokenize", body);
    assert_eq!(fresh.status, 201, "the same card gets a new token");
    assert_ne!(fresh.json()["token"], token);
}

#[test]
fn who_may_not_is_told_why() {
    let vault = Vault::start_with(|config| {
        let keys = config.lines().find(|line| line.starts_with("keys = ")).unwrap();
        let narrow = format!("[[auth.issuers]]\nname = \"narrow\"\n{keys}\ntenants = [\"one\"]\n\n[tokens]");
        config
            .replace("[tokens]", &narrow)
            .replace("[auth]\n", "[auth]\nsingle_use_scopes = [\"tokens:read\"]\n")
    });
    let minter = vault.minter();
    let tokenize = |jwt: &str| vault.request_as(jwt, "POST", "/v1/tokenize", CARD);

    let bare =
        exchange(&vault.socket(), b"POST /v1/tokenize HTTP/1.1\r\nhost: v\r\ncontent-length: 0\r\n\r\n");
    assert_eq!((bare.status, bare.code().as_str()), (401, "missing_token"));
    assert_eq!(tokenize("nonsense").code(), "invalid_jwt");
    assert_eq!(
        tokenize(&minter.mint(&json!({ "iat": 1_000_000_000, "exp": 1_000_000_600 }))).code(),
        "expired_jwt"
    );

    let narrow = tokenize(&minter.with_scope("detokenize"));
    assert_eq!((narrow.status, narrow.code().as_str()), (403, "insufficient_scope"));
    assert!(narrow.headers["www-authenticate"].contains("scope=\"tokenize\""), "{narrow:?}");
    let mask_only = minter.with_scope("detokenize:masked");
    let full = vault.request_as(&mask_only, "POST", "/v1/detokenize", r#"{"token":"tok_1"}"#);
    assert_eq!(full.code(), "insufficient_scope");

    assert_eq!(tokenize(&minter.mint(&json!({ "iss": "narrow", "tenant": "two" }))).code(), "wrong_tenant");
    let entries = vault.admin("GET", "/v1/audit?op=tokenize&last=1").json();
    let entry = &entries["entries"][0];
    let who = ["subject", "issuer", "tenant"].map(|field| entry[field].as_str().unwrap_or_default());
    assert_eq!(who, ["test", "narrow", "two"], "{entries}");
    assert_eq!(tokenize(&minter.mint(&json!({ "iss": "narrow", "tenant": "one" }))).status, 201);
    assert_eq!(
        tokenize(&minter.mint(&json!({ "iss": "narrow", "tenant": null }))).status,
        200,
        "it has one tenant"
    );

    let mine = u64::from(nix::unistd::geteuid().as_raw());
    assert_eq!(tokenize(&minter.mint(&json!({ "cnf": { "uid": mine } }))).status, 201);
    let stolen = tokenize(&minter.mint(&json!({ "cnf": { "uid": mine + 1 } })));
    assert_eq!((stolen.status, stolen.code().as_str()), (403, "sender_mismatch"));

    let once = minter.with_scope("tokens:read");
    assert_eq!(vault.request_as(&once, "GET", UNKNOWN, "").status, 404);
    let again = vault.request_as(&once, "GET", UNKNOWN, "");
    assert_eq!((again.status, again.code().as_str()), (401, "replayed_jwt"));
    let unnamed = minter.mint(&json!({ "jti": null, "scope": "tokens:read" }));
    assert_eq!(vault.request_as(&unnamed, "GET", UNKNOWN, "").code(), "invalid_jwt");
}

#[test]
fn paths_methods_types_and_sizes_have_their_codes() {
    let vault = Vault::start();
    assert_eq!(vault.request("GET", "/nowhere", "").code(), "not_found");
    let answer = vault.request("PUT", "/v1/tokenize", "{}");
    assert_eq!((answer.code().as_str(), answer.headers["allow"].as_str()), ("method_not_allowed", "POST"));

    let text = format!(
        "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {}\r\ncontent-type: text/plain\r\n\
         content-length: {}\r\n\r\n{CARD}",
        vault.jwt(),
        CARD.len()
    );
    assert_eq!(exchange(&vault.socket(), text.as_bytes()).code(), "unsupported_media_type");

    let large = format!("{{\"pan\":\"{}\"}}", "1".repeat(2 * 1_048_576));
    let answer = vault.request("POST", "/v1/tokenize", &large);
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
}

#[test]
fn slow_senders_are_told_and_dropped() {
    let vault = Vault::start_with(|config| {
        config + "\n[limits]\nheader_timeout_seconds = 1\nbody_timeout_seconds = 1\n"
    });
    let mut head = connect(&vault.socket()).unwrap();
    head.write_all(b"POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nx-slow: ").unwrap();
    let answer = read_answer(&mut head);
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));

    let mut body = connect(&vault.socket()).unwrap();
    let jwt = vault.jwt();
    write!(
        body,
        "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: application/json\r\n\
         content-length: 100\r\n\r\n{{\"pan\":"
    )
    .unwrap();
    let answer = read_answer(&mut body);
    assert_eq!((answer.status, answer.code().as_str()), (408, "request_timeout"));
}

#[test]
fn too_many_connections_are_overload() {
    let vault = Vault::start_with(|config| config + "\n[limits]\nmax_connections = 4\n");
    let held: Vec<_> = (0..4).map(|_| connect(&vault.socket()).unwrap()).collect();
    thread::sleep(Duration::from_millis(200));
    let mut refused = connect(&vault.socket()).unwrap();
    let answer = read_answer(&mut refused);
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    let admin = exchange(&vault.path("admin.sock"), b"GET /healthz HTTP/1.1\r\nhost: v\r\n\r\n");
    assert_eq!(admin.status, 200, "the operator is not locked out");
    let runtime = Runtime::new().unwrap();
    let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
    let client = vault.client_builder().retry(once).build().unwrap();
    let refusals: Vec<_> = (0..100)
        .map(|_| runtime.block_on(client.tokenize(&TokenizeRequest::new("4111111111111111"))).unwrap_err())
        .collect();
    let told = refusals.iter().filter(|error| error.code() == Some(Code::Overloaded)).count();
    let gone = refusals.iter().filter(|error| matches!(error, Error::Connect { .. })).count();
    eprintln!("of 100 calls {told} were told of the overload, {gone} that they found no connection");
    assert!(told > 0 && told + gone == 100, "{refusals:?}");
    drop(held);
    let is_served = || vault.request("GET", "/healthz", "").status == 200;
    until(Duration::from_secs(10), "places that are given back are free", is_served);
}
