//! Modules that are as peculiar as some vendors' are: each is served from, or refused with a reason.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use serde_json::json;
use vault_tests::{Module, Vault, chaotic, until};

const PATIENCE: Duration = Duration::from_secs(30);

/// A vault with a card in it, whose module has the `quirks` from now on. It is stopped.
fn peculiar(quirks: &str) -> (Vault, String) {
    let mut vault = Vault::start();
    let token = tokenize(&vault, "4111111111111111");
    assert!(vault.stop().success());
    let stand_in = vault_tests::vaultd().with_file_name("libquirky_hsm.so");
    assert!(stand_in.exists(), "{} is not built: `cargo build --workspace`", stand_in.display());
    let module = Module::of_this_run().path().display().to_string();
    vault.change_config(|config| {
        config.replace(&module, stand_in.to_str().unwrap()).replace(
            "environment = {",
            &format!("environment = {{ QUIRKY_HSM_MODULE = \"{module}\", QUIRKY_HSM_QUIRKS = \"{quirks}\","),
        )
    });
    (vault, token)
}

fn tokenize(vault: &Vault, pan: &str) -> String {
    let answer = vault.request("POST", "/v1/tokenize", &json!({ "pan": pan }).to_string());
    assert!(matches!(answer.status, 200 | 201), "{}", answer.json());
    answer.json()["token"].as_str().unwrap().to_owned()
}

fn detokenize(vault: &Vault, token: &str) -> String {
    let answer = vault.request("POST", "/v1/detokenize", &json!({ "token": token }).to_string());
    assert_eq!(answer.status, 200, "{}", answer.json());
    answer.json()["pan"].as_str().unwrap().to_owned()
}

/// Starts the vault, uses old and new cards, and gives back what `check` says.
fn serves(vault: &mut Vault, token: &str) -> String {
    vault.restart();
    assert_eq!(detokenize(vault, token), "4111111111111111");
    let new = tokenize(vault, "5555555555554444");
    assert_eq!(detokenize(vault, &new), "5555555555554444");
    let check = vault.run("check");
    let said = String::from_utf8_lossy(&check.stdout).into_owned();
    assert!(check.status.success(), "{said}");
    said
}

fn refuses(vault: &Vault, command: &str) -> String {
    let output = vault.run(command);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn assert_says(said: &str, parts: &[&str]) {
    for part in parts {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
}

#[test]
fn a_module_that_makes_the_nonces() {
    for quirk in ["room", "append"] {
        let (mut vault, token) = peculiar(quirk);
        let said = serves(&mut vault, &token);
        assert_says(&said, &["ok    seals with AES-256-GCM, under nonces the module makes"]);
        // What it sealed opens where the caller makes the nonces, and the other way round.
        let new = tokenize(&vault, "378282246310005");
        assert!(vault.stop().success());
        vault.change_config(|config| config.replace(&format!("QUIRKS = \"{quirk}\""), "QUIRKS = \"\""));
        assert_says(&serves(&mut vault, &token), &["under nonces drawn from the token"]);
        assert_eq!(detokenize(&vault, &new), "378282246310005");
    }
}

#[test]
fn a_module_that_copies_no_keys() {
    let (mut vault, token) = peculiar("no_copy");
    let said = serves(&mut vault, &token);
    assert_says(&said, &["note  copies no keys (C_CopyObject: FunctionNotSupported)"]);
}

#[test]
fn a_module_that_copies_no_keys_and_loses_the_session_of_key_changes() {
    let mut vault = Vault::start_with(|config| chaotic(&config));
    assert!(vault.stop().success());
    let copies_none = "C_CopyObject error CKR_FUNCTION_NOT_SUPPORTED\n";
    vault.trouble(copies_none);
    vault.restart();
    // A worker has a session now, which keeps the login.
    tokenize(&vault, "4111111111111111");
    for (method, path) in [("POST", "/v1/keys/audit/rotate"), ("DELETE", "/v1/keys/audit/1")] {
        vault.trouble(&format!("{copies_none}C_FindObjectsInit lose-session count=1\n"));
        assert_eq!(vault.admin(method, path).code(), "hsm_unavailable", "{path}: it lost nothing");
        wait_until(&vault, |vault| matches!(vault.admin(method, path).status, 200 | 201));
    }
}

#[track_caller]
fn wait_until(vault: &Vault, is_so: impl Fn(&Vault) -> bool) {
    let since = Instant::now();
    while !is_so(vault) {
        assert!(since.elapsed() < Duration::from_secs(10), "{}", vault.log());
        thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_key_is_not_said_to_be_destroyed_by_who_cannot_see_it() {
    let vault = Vault::start_with(|config| chaotic(&config));
    assert_eq!(vault.admin("POST", "/v1/keys/audit/rotate").status, 201);
    let tokenizes = |vault: &Vault| {
        vault.request("POST", "/v1/tokenize", r#"{"pan": "4111111111111111"}"#).status / 100 == 2
    };
    // At the first search, and at that of the session that removes.
    for passed in [0, 1] {
        vault.trouble(&format!("C_FindObjectsInit lose-login after={passed} count=1\n"));
        let answer = vault.admin("DELETE", "/v1/keys/audit/1");
        assert_eq!(answer.code(), "hsm_unavailable", "after {passed} searches");
        vault.calm();
        wait_until(&vault, tokenizes);
    }
    wait_until(&vault, |vault| vault.admin("DELETE", "/v1/keys/audit/1").status == 200);
}

#[test]
fn a_token_with_few_sessions() {
    let (mut vault, token) = peculiar("sessions=4");
    vault.change_config(|config| config.replace("[hsm]", "[hsm]\nsessions = 8"));
    let said = serves(&mut vault, &token);
    assert_says(&said, &["note  hsm.sessions is 8, the token allows 2: vaultd runs with 2"]);
    assert_says(&vault.log(), &["does not allow hsm.sessions"]);

    vault.change_config(|config| config.replace("sessions = 8", "sessions = 3"));
    assert!(vault.stop().success());
    let said = serves(&mut vault, &token);
    assert_says(&said, &["note  hsm.sessions is 3, the token allows 2: vaultd runs with 2"]);

    let (vault, _) = peculiar("sessions=1");
    assert_says(&refuses(&vault, "serve"), &["allows no second session"]);
}

#[test]
fn a_token_with_few_sessions_does_without_one_that_hangs() {
    let (mut vault, token) = peculiar("sessions=8");
    vault.change_config(|config| {
        let few = config.replace("[hsm]", "[hsm]\nsessions = 6\ncall_timeout_seconds = 1");
        format!("[limits]\nshutdown_grace_seconds = 1\n\n{}", chaotic(&few))
    });
    vault.restart();
    for hung in 1..=2 {
        vault.trouble(&format!("# {hung}\nC_Decrypt hang 1000s count=1\n"));
        let body = json!({ "token": token }).to_string();
        assert_eq!(vault.request("POST", "/v1/detokenize", &body).status, 503);
        let given_up = format!("vaultd_hsm_written_off_threads {hung}");
        until(PATIENCE, "it is given up", || vault.admin("GET", "/metrics").body.contains(&given_up));
        until(PATIENCE, "the others go on", || vault.request("POST", "/v1/detokenize", &body).status == 200);
        // Longer than the thread that replaces it takes to ask for a session, and than a connection takes to settle.
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(2) {
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| assert_eq!(detokenize(&vault, &token), "4111111111111111"));
                }
            });
        }
    }
    vault.calm();
}

#[test]
fn a_session_that_cannot_be_had_is_one_less() {
    let (mut vault, token) = peculiar("");
    vault.change_config(|config| chaotic(&config.replace("[hsm]", "[hsm]\nsessions = 2")));
    vault.restart();
    let fault = "C_DecryptInit lose-session count=1\nC_OpenSession error CKR_SESSION_COUNT\n";
    vault.trouble(fault);
    let body = json!({ "token": token }).to_string();
    assert_eq!(vault.request("POST", "/v1/detokenize", &body).status, 503, "its session is gone");
    for _ in 0..20 {
        assert_eq!(detokenize(&vault, &token), "4111111111111111");
    }
    let metrics = vault.admin("GET", "/metrics").body;
    assert!(metrics.contains("vaultd_hsm_reconnections_total 0"), "{metrics}");
    vault.calm();
}

#[test]
fn a_token_that_cannot_be_written_to() {
    let (mut vault, token) = peculiar("read_only");
    let said = serves(&mut vault, &token);
    assert_says(&said, &["note  opens no session for writing (C_OpenSession: TokenWriteProtected)"]);
    assert!(vault.stop().success());
    assert!(vault.run("init").status.success(), "there is nothing to make");

    vault.change_config(|config| {
        config.replace("/store\"", "/other\"").replace("[hsm]", "[hsm]\nkey_prefix = \"other\"")
    });
    assert_says(&refuses(&vault, "init"), &["other-record-v1", "no session for writing", "vendor's tools"]);
}

#[test]
fn a_module_that_opens_sessions_for_writing_only() {
    let (mut vault, token) = peculiar("writing_only,no_copy,room");
    serves(&mut vault, &token);
}

#[test]
fn a_token_that_asks_for_the_pin_itself() {
    let (mut vault, token) = peculiar("");
    let pin = fs::read_to_string(vault.path("hsm.pin")).unwrap();
    let without_pin = |config: String| {
        config.lines().filter(|line| !line.starts_with("pin_file")).collect::<Vec<_>>().join("\n")
    };
    vault.change_config(without_pin);
    assert_says(
        &refuses(&vault, "serve"),
        &["wants a PIN", "no protected authentication path", "hsm.pin_file"],
    );

    vault.change_config(|config| {
        config.replace("QUIRKS = \"\"", &format!("QUIRKS = \"protected_path={pin}\""))
    });
    let said = serves(&mut vault, &token);
    assert_says(
        &said,
        &["asks for the PIN by its own means", "ok    logs in through the token's own PIN entry"],
    );
    assert!(vault.stop().success());
    let check = String::from_utf8(vault.run("check").stdout).unwrap();
    assert_says(&check, &["note  the token is not measured: it could ask"]);
}

#[test]
fn a_token_that_wants_no_login() {
    let (mut vault, token) = peculiar("");
    let pin = fs::read_to_string(vault.path("hsm.pin")).unwrap();
    vault.change_config(|config| {
        let config = config.replace("QUIRKS = \"\"", &format!("QUIRKS = \"no_login={pin}\""));
        config.lines().filter(|line| !line.starts_with("pin_file")).collect::<Vec<_>>().join("\n")
    });
    assert_says(&serves(&mut vault, &token), &["ok    wants no login"]);
}

#[test]
fn a_token_with_one_try_of_the_pin_left() {
    let (mut vault, token) = peculiar("last_try");
    assert_says(&refuses(&vault, "serve"), &["one try of the PIN is left", "hsm.pin_file"]);
    // Somebody logged in by other means.
    vault.change_config(|config| config.replace("QUIRKS = \"last_try\"", "QUIRKS = \"\""));
    serves(&mut vault, &token);
}

#[test]
fn a_token_that_makes_short_rsa_keys_only() {
    let (mut vault, token) = peculiar("short_rsa");
    let said = serves(&mut vault, &token);
    assert_says(&said, &["with new keys of 2048 bits"]);
}

#[test]
fn a_token_that_does_not_tell_what_a_keys_secrecy_rests_on() {
    let (vault, _) = peculiar("untold");
    assert_says(
        &refuses(&vault, "serve"),
        &["vaultd-record-v1", "CKA_ALWAYS_SENSITIVE is not told by the token and must be true"],
    );
}
