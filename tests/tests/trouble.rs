//! What stands under the vault breaks: the HSM, the disk, the reader of an answer.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs,
    io::{Read, Write},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vault_tests::{Pans, Vault, chaotic, connect, until};

const CARD: &str = r#"{"pan":"4111111111111111"}"#;
/// For a disk to be full.
const PATIENCE: Duration = Duration::from_mins(2);

/// Waits until the vault has mended what `fault` has broken. How soon is for `outage.rs` to say.
fn is_back(vault: &Vault, fault: &str) {
    let is_ready = || vault.request("GET", "/readyz", "").status == 200;
    until(Duration::from_secs(10), &format!("back after {fault}"), is_ready);
}

#[test]
fn an_hsm_that_goes_away_is_503_and_comes_back_by_itself() {
    let vault = Vault::start_with(|config| chaotic(&config));
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    let detokenize = json!({ "token": token }).to_string();
    assert_eq!(vault.request("POST", "/v1/detokenize", &detokenize).status, 200);

    // CKR_DEVICE_ERROR, CKR_SESSION_HANDLE_INVALID, CKR_USER_NOT_LOGGED_IN, CKR_GENERAL_ERROR
    for fault in ["0x30", "0xB3", "0x101", "5"] {
        vault.trouble(fault);
        for (path, body) in
            [("/v1/tokenize", r#"{"pan":"5555555555554444"}"#), ("/v1/detokenize", detokenize.as_str())]
        {
            let answer = vault.request("POST", path, body);
            assert_eq!((answer.status, answer.code().as_str()), (503, "hsm_unavailable"), "{fault} {path}");
        }
        let ready = vault.request("GET", "/readyz", "");
        assert_eq!(ready.status, 503);
        assert_eq!(ready.json()["checks"]["hsm"]["ok"], false);
        assert_eq!(ready.json()["checks"]["store"]["ok"], true);
        assert_eq!(vault.request("GET", "/healthz", "").status, 200, "it is alive");

        vault.calm();
        is_back(&vault, fault);
        let answer = vault.request("POST", "/v1/detokenize", &detokenize);
        assert_eq!(
            (answer.status, answer.json()["pan"].as_str()),
            (200, Some("4111111111111111")),
            "{fault}"
        );
        assert_eq!(vault.request("GET", "/readyz", "").status, 200);
    }
}

#[test]
fn an_output_of_the_wrong_length_is_the_hsms_fault_and_nothing_is_kept_of_it() {
    let vault = Vault::start_with(|config| chaotic(&config));
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    let detokenize = json!({ "token": token }).to_string();
    let other = r#"{"pan":"5555555555554444"}"#;
    for (rule, path, body) in [
        ("C_Encrypt wrong-length -1", "/v1/tokenize", other),
        ("C_Encrypt wrong-length +1", "/v1/tokenize", other),
        ("C_Sign wrong-length -1", "/v1/tokenize", other),
        ("C_Decrypt wrong-length -1", "/v1/detokenize", detokenize.as_str()),
    ] {
        vault.trouble(rule);
        let answer = vault.request("POST", path, body);
        assert_eq!((answer.status, answer.code().as_str()), (503, "hsm_unavailable"), "{rule}");
        vault.calm();
        is_back(&vault, rule);
    }
    let made = vault.request("POST", "/v1/tokenize", other);
    assert_eq!((made.status, &made.json()["created"]), (201, &json!(true)), "nothing was kept");
    assert_eq!(vault.request("POST", "/v1/detokenize", &detokenize).json()["pan"], "4111111111111111");
}

#[test]
fn a_token_that_comes_back_with_another_key_is_not_used() {
    let vault = Vault::start_with(|config| chaotic(&config));
    assert_eq!(vault.request("POST", "/v1/tokenize", CARD).status, 201);

    // Another key with the same label: the old one is deleted, `init` for another store makes it anew.
    let deleted = vault.pkcs11_tool(&["--delete-object", "--type", "secrkey", "--label", "vaultd-record-v1"]);
    assert!(deleted.status.success(), "{deleted:?}");
    let other = fs::read_to_string(vault.path("vaultd.toml")).unwrap();
    let other = other.replace("/store\"", "/other-store\"").replace("/audit\"", "/other-audit\"");
    fs::write(vault.path("other.toml"), other).unwrap();
    let made = vault_tests::run(&["init", "--config", vault.path("other.toml").to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let said = String::from_utf8_lossy(&made.stdout);
    assert!(said.contains("had keys before this store") && said.contains("hsm.key_prefix"), "{said}");

    vault.trouble("0x30");
    assert_eq!(vault.request("POST", "/v1/tokenize", CARD).status, 503);
    vault.calm();
    thread::sleep(Duration::from_secs(1));
    let answer = vault.request("POST", "/v1/tokenize", r#"{"pan":"5555555555554444"}"#);
    assert_eq!((answer.status, answer.code().as_str()), (503, "hsm_unavailable"));
    assert_eq!(vault.request("GET", "/readyz", "").status, 503);
    assert!(vault.log().contains("came back without key record-v1, or with another"), "{}", vault.log());
}

#[test]
fn a_module_that_hangs_does_not_keep_the_daemon_from_ending() {
    let mut vault =
        Vault::start_with(|config| chaotic(&config).replace("[hsm]", "[hsm]\ncall_timeout_seconds = 1"));
    assert_eq!(vault.request("POST", "/v1/tokenize", CARD).status, 201);
    vault.trouble("C_Sign hang");
    let answer = vault.request("POST", "/v1/tokenize", r#"{"pan":"5555555555554444"}"#);
    assert_eq!((answer.status, answer.code().as_str()), (503, "hsm_unavailable"));
    assert!(vault.stop().success());
    assert!(vault.log().contains("an HSM call does not come back"));
}

#[test]
fn whoever_waited_too_long_is_not_told_that_nothing_was_done() {
    let vault = Vault::start_with(|config| chaotic(&config) + "\n[limits]\nrequest_timeout_seconds = 1\n");
    vault.trouble("C_Encrypt hang 2s");
    let answer = vault.request("POST", "/v1/tokenize", CARD);
    // After `overloaded` every client asks again, whatever it asked for.
    assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
    vault.calm();
}

#[test]
fn a_change_that_was_made_is_answered_without_the_hsm() {
    let vault = Vault::start_with(|config| chaotic(&config));
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    let path = format!("/v1/tokens/{token}");
    let change = |note: &str| json!({ "metadata": { "note": note } }).to_string();
    assert_eq!(vault.request("PATCH", &path, &change("one")).status, 200);
    // Card and private part are opened; then the change is made.
    vault.trouble("C_Decrypt error CKR_DEVICE_ERROR after=2");
    let answer = vault.request("PATCH", &path, &change("two"));
    assert_eq!((answer.status, answer.json()["metadata"]["note"].as_str()), (200, Some("two")));
    vault.calm();
}

#[test]
fn a_disk_that_takes_no_more_is_503_until_it_does() {
    let vault = Vault::start();
    let known = vault.request("POST", "/v1/tokenize", CARD).json()["token"].as_str().unwrap().to_owned();
    let may_grow_to = |bytes: &str| {
        let limited = Command::new("prlimit")
            .args(["--pid", &vault.pid().to_string(), &format!("--fsize={bytes}:unlimited")])
            .status();
        assert!(limited.unwrap().success());
    };
    may_grow_to("4096");
    let answer = vault.request("POST", "/v1/tokenize", r#"{"pan":"5555555555554444"}"#);
    assert_eq!((answer.status, answer.code().as_str()), (503, "store_unavailable"));
    let ready = vault.request("GET", "/readyz", "");
    assert_eq!((ready.status, &ready.json()["checks"]["store"]["ok"]), (503, &json!(false)));

    may_grow_to("unlimited");
    // Nobody has to send anything for it.
    is_back(&vault, "a full disk");
    let answer = vault.request("POST", "/v1/tokenize", r#"{"pan":"5555555555554444"}"#);
    assert_eq!(answer.status, 201, "nothing was kept of the one that failed: {answer:?}");
    let answer = vault.request("POST", "/v1/detokenize", &json!({ "token": known }).to_string());
    assert_eq!(answer.json()["pan"], "4111111111111111");
}

#[test]
fn a_full_disk_is_not_called_ready_between_two_failures() {
    let vault = Vault::start();
    let store = vault.path("store/vault.redb");
    let size = fs::metadata(&store).unwrap().len();
    let full = Command::new("prlimit")
        .args(["--pid", &vault.pid().to_string(), &format!("--fsize={size}:unlimited")])
        .status();
    assert!(full.unwrap().success());
    let mut pans = Pans::new();
    until(PATIENCE, "the disk is full", || {
        let items: Vec<_> = pans.take(200).iter().map(|pan| json!({ "pan": pan })).collect();
        let answer = vault.request("POST", "/v1/tokenize/batch", &json!({ "items": items }).to_string());
        let results = answer.json()["results"].clone();
        let failed = |results: &Vec<Value>| results.iter().any(|result| result["error"].is_object());
        results.as_array().is_none_or(failed)
    });
    let mut one =
        || vault.request("POST", "/v1/tokenize", &json!({ "pan": pans.take(1)[0] }).to_string()).status;
    until(PATIENCE, "nothing fits any more", || one() != 201);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(4) {
        let ready = vault.request("GET", "/readyz", "");
        assert_eq!((ready.status, &ready.json()["checks"]["store"]["ok"]), (503, &json!(false)));
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!vault.log().contains("the store can be written again"), "{}", vault.log());
}

#[test]
fn whoever_does_not_read_loses_the_connection() {
    let vault = Vault::start_with(|config| config + "\n[limits]\nanswer_timeout_seconds = 1\n");
    let mut greedy = connect(&vault.socket()).unwrap();
    greedy.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    // Until neither side has room for more.
    while greedy.write_all(&b"GET /v1/openapi.json HTTP/1.1\r\nhost: v\r\n\r\n".repeat(64)).is_ok() {}
    thread::sleep(Duration::from_secs(2));
    let mut rest = Vec::new();
    greedy.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    // What was in the socket's buffer, and then the end: more answers are not made.
    let ended = greedy.read_to_end(&mut rest);
    assert!(ended.is_ok() || ended.unwrap_err().kind() == std::io::ErrorKind::ConnectionReset);
}
