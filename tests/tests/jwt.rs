//! One test for each rule of the contract about JWTs (section 5; RFC 8725).
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    thread,
    time::Duration,
};

use jsonwebtoken::{Algorithm, EncodingKey};
use nix::{fcntl::OFlag, sys::stat::Mode, unistd::mkfifo};
use serde_json::{Value, json};
use vault_tests::{AuditLog, Vault, until};

const CARD: &str = r#"{"pan":"4111111111111111"}"#;

/// The codes of JWTs that differ from a good one in their claims or header, made at a time that is given when the vault runs.
fn codes(changes: impl FnOnce(u64) -> Vec<(Value, Value)>) -> Vec<String> {
    let vault = Vault::start();
    let minter = vault.minter();
    changes(now())
        .iter()
        .map(|(header, claims)| {
            let answer =
                vault.request_as(&minter.mint_with_header(header, claims), "POST", "/v1/tokenize", CARD);
            if answer.status < 300 { "accepted".to_owned() } else { answer.code() }
        })
        .collect()
}

fn claims(changes: &[Value]) -> Vec<String> {
    claims_at(|_| changes.to_vec())
}

/// The same of claims that depend on the time.
fn claims_at(changes: impl FnOnce(u64) -> Vec<Value>) -> Vec<String> {
    codes(|now| changes(now).into_iter().map(|change| (json!({}), change)).collect())
}

fn headers(changes: &[Value]) -> Vec<String> {
    codes(|_| changes.iter().map(|change| (change.clone(), json!({}))).collect())
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn required_claims_are_required() {
    let missing: Vec<_> =
        ["iss", "sub", "aud", "exp", "iat"].iter().map(|name| json!({ *name: null })).collect();
    assert_eq!(claims(&missing), ["invalid_jwt"; 5]);
}

#[test]
fn claims_of_the_wrong_type_are_refused() {
    let wrong = [
        json!({ "exp": "9999999999" }),
        json!({ "iat": -1 }),
        json!({ "sub": 7 }),
        json!({ "scope": ["tokenize"] }),
    ];
    assert_eq!(claims(&wrong), ["invalid_jwt"; 4]);
}

#[test]
fn audience_and_issuer_must_fit() {
    let changes = [
        json!({ "aud": "somebody" }),
        json!({ "aud": [] }),
        json!({ "iss": "somebody" }),
        json!({ "iss": "vaultd" }),
        json!({ "aud": ["somebody", "vaultd"] }),
    ];
    assert_eq!(claims(&changes), ["invalid_jwt", "invalid_jwt", "invalid_jwt", "invalid_jwt", "accepted"]);
}

#[test]
fn time_has_a_leeway_of_thirty_seconds() {
    let changes = |now| {
        vec![
            json!({ "iat": now - 100, "exp": now - 20 }),
            json!({ "iat": now - 100, "exp": now - 40 }),
            json!({ "iat": now + 20 }),
            json!({ "iat": now + 60 }),
            json!({ "nbf": now + 20 }),
            json!({ "nbf": now + 60 }),
            json!({ "iat": now, "exp": now - 10 }),
        ]
    };
    let expected =
        ["accepted", "expired_jwt", "accepted", "invalid_jwt", "accepted", "invalid_jwt", "invalid_jwt"];
    assert_eq!(claims_at(changes), expected);
}

#[test]
fn a_lifetime_over_the_issuers_maximum_is_refused() {
    let lasts = |now, lifetime_s| json!({ "iat": now, "exp": now + lifetime_s });
    let changes = |now| vec![lasts(now, 7 * 86_400), lasts(now, 7 * 86_400 + 1)];
    assert_eq!(claims_at(changes), ["accepted", "invalid_jwt"]);
}

#[test]
fn a_binding_that_cannot_be_checked_is_refused() {
    assert_eq!(claims(&[json!({ "cnf": { "jkt": "abc" } }), json!({ "cnf": {} })]), ["invalid_jwt"; 2]);
}

#[test]
fn tenants_are_plain_names() {
    let changes = [
        json!({ "tenant": null }),
        json!({ "tenant": "" }),
        json!({ "tenant": "a b" }),
        json!({ "tenant": "x".repeat(65) }),
    ];
    assert_eq!(claims(&changes), ["invalid_jwt"; 4]);
}

#[test]
fn headers_that_point_elsewhere_are_refused() {
    let changes = [
        json!({ "jku": "https://example.org/keys" }),
        json!({ "x5u": "https://example.org/cert" }),
        json!({ "x5c": ["MIIB"] }),
        json!({ "jwk": { "kty": "RSA", "n": "AQAB", "e": "AQAB" } }),
        json!({ "crit": ["exp"] }),
        json!({ "kid": null }),
        json!({ "kid": "another" }),
        json!({ "typ": "JWE" }),
    ];
    assert_eq!(headers(&changes), ["invalid_jwt"; 8]);
}

#[test]
fn no_algorithm_but_rs256_is_accepted() {
    let vault = Vault::start();
    let minter = vault.minter();
    let public = fs::read(vault.path("issuer.pub.pem")).unwrap();
    let private = EncodingKey::from_rsa_pem(&fs::read(vault.path("issuer.key.pem")).unwrap()).unwrap();
    let sign = |algorithm, key: &EncodingKey, message: &[u8]| {
        jsonwebtoken::crypto::sign(message, key, algorithm).unwrap()
    };
    let confused = EncodingKey::from_secret(&public);
    for jwt in [
        minter.forge(&json!({ "alg": "none" }), |_| String::new()),
        minter.forge(&json!({ "alg": "None" }), |_| String::new()),
        minter.forge(&json!({ "alg": "RS256" }), |_| String::new()),
        minter.forge(&json!({ "alg": "HS256" }), |message| sign(Algorithm::HS256, &confused, message)),
        minter.forge(&json!({ "alg": "RS256" }), |message| sign(Algorithm::HS256, &confused, message)),
        minter.forge(&json!({ "alg": "RS512" }), |message| sign(Algorithm::RS512, &private, message)),
        minter.forge(&json!({ "alg": "PS256" }), |message| sign(Algorithm::PS256, &private, message)),
        minter.forge(&json!({ "alg": null }), |message| sign(Algorithm::RS256, &private, message)),
        format!("{}x", minter.mint(&json!({}))),
    ] {
        let answer = vault.request_as(&jwt, "POST", "/v1/tokenize", CARD);
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_jwt"), "{jwt}");
    }
}

#[test]
fn a_jwt_longer_than_8_kib_is_refused() {
    assert_eq!(claims(&[json!({ "padding": "x".repeat(8_192) })]), ["invalid_jwt"]);
}

#[test]
fn issuers_change_on_sighup_and_a_broken_file_changes_nothing() {
    let vault = Vault::start();
    let jwt = vault.minter().mint(&json!({}));
    let accepted = || vault.request_as(&jwt, "POST", "/v1/tokenize", CARD).status < 300;
    assert!(accepted());
    let keys = vault.path("issuer.pub.pem");
    let good = fs::read(&keys).unwrap();

    fs::write(&keys, "not a key").unwrap();
    hang_up(&vault, "not reloaded");
    assert!(accepted(), "the last good keys stay");

    // The key of RFC 7638, 3.1: nobody here has its private half.
    let other = r#"{"keys":[{"kty":"RSA","e":"AQAB","n":"0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}]}"#;
    fs::write(&keys, other).unwrap();
    hang_up(&vault, "reloaded issuers");
    assert!(!accepted(), "a key that is gone counts no more, not even from the cache");

    fs::write(&keys, good).unwrap();
    hang_up(&vault, "reloaded issuers");
    assert!(accepted());
}

/// Makes the configuration one that nobody can read to its end, has it read by `reload`, and puts another in its place that
/// trusts another issuer. Gives back what lets the first go on, as it was.
fn hang_and_replace(vault: &Vault, reload: impl FnOnce()) -> impl FnOnce() {
    let config = vault.path("vaultd.toml");
    let old = fs::read_to_string(&config).unwrap();
    let slow = vault.path("slow");
    mkfifo(&slow, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    fs::rename(&slow, &config).unwrap();
    reload();
    let mut writer = None;
    until(Duration::from_secs(10), "it is read", || {
        // Nobody can write to a FIFO that nobody reads.
        let opened = OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(&config);
        writer = opened.ok();
        writer.is_some()
    });
    fs::write(vault.path("new"), old.replace("\"dev-issuer\"", "\"other-issuer\"")).unwrap();
    fs::rename(vault.path("new"), &config).unwrap();
    move || writer.unwrap().write_all(old.as_bytes()).unwrap()
}

fn assert_withdrawn(vault: &Vault) {
    let answer = vault.request("POST", "/v1/tokenize", CARD);
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_jwt"), "its issuer is gone");
}

#[test]
fn a_reload_that_hangs_neither_holds_up_the_next_nor_ends_after_it() {
    let vault = Vault::start();
    thread::scope(|scope| {
        let mut first = None;
        let go_on = hang_and_replace(&vault, || {
            first = Some(scope.spawn(|| vault.admin("POST", "/v1/reload")));
        });
        hang_up(&vault, "reloaded issuers");
        go_on();
        assert_eq!(first.unwrap().join().unwrap().status, 200);
    });
    assert!(vault.log().contains("another has overtaken"));
    assert_withdrawn(&vault);
}

#[test]
fn a_signal_is_heard_while_a_reload_hangs() {
    let mut vault = Vault::start();
    let go_on = hang_and_replace(&vault, || vault.signal("HUP"));
    hang_up(&vault, "reloaded issuers");
    assert_withdrawn(&vault);
    go_on();
    assert!(vault.stop().success());
    assert!(
        AuditLog::everything(&vault)
            .contains(r#""event":"config.reload","detail":"not waited for any more""#)
    );
}

/// Sends SIGHUP and waits for the daemon to say what came of it.
fn hang_up(vault: &Vault, outcome: &str) {
    let before = vault.log().matches(outcome).count();
    vault.signal("HUP");
    until(Duration::from_secs(10), outcome, || vault.log().matches(outcome).count() > before);
}
