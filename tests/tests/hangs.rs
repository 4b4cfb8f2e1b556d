//! Calls that never come back, and what goes on without them.

use std::{fs::File, io, os::fd::OwnedFd, thread, time::Duration};

use serde_json::json;
use vault_tests::{Vault, chaotic, until};

const CARD: &str = r#"{"pan": "4111111111111111"}"#;
/// Lines of these are more than a pipe holds.
const REFUSALS: usize = 1_000;
const PATIENCE: Duration = Duration::from_secs(30);

fn vault(hsm: &str) -> Vault {
    Vault::start_with(|config| {
        let hsm = format!("[hsm]\ncall_timeout_seconds = 1\n{hsm}");
        format!("[limits]\nshutdown_grace_seconds = 1\n\n{}", chaotic(&config).replace("[hsm]\n", &hsm))
    })
}

#[test]
fn a_stop_comes_to_an_end_though_the_module_does_not() {
    let mut vault = vault("");
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].clone();
    vault.trouble("C_Finalize hang\n");
    assert_eq!(vault.stop().code(), Some(1));
    assert!(vault.log().contains(r#"the process ends without it what="stopping""#), "{}", vault.log());
    vault.calm();
    vault.restart();
    let answer = vault.request("POST", "/v1/detokenize", &json!({ "token": token }).to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    assert!(vault.stop().success());
}

#[test]
fn the_sessions_that_are_left_go_on() {
    let vault = vault("sessions = 4\nmax_written_off_threads = 2\n");
    let token = vault.request("POST", "/v1/tokenize", CARD).json()["token"].clone();
    let body = json!({ "token": token }).to_string();
    vault.trouble("C_Decrypt hang count=4\n");
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| vault.request("POST", "/v1/detokenize", &body));
        }
    });
    until(PATIENCE, "four hang, and two are replaced", || {
        vault.admin("GET", "/metrics").body.contains("vaultd_hsm_written_off_threads 4")
    });
    until(PATIENCE, "the others work", || vault.request("POST", "/v1/detokenize", &body).status == 200);
    vault.calm();
}

#[test]
fn nobody_waits_for_a_log_that_nobody_reads() {
    let mut vault = vault("");
    assert!(vault.stop().success());
    let (_reader, writer) = io::pipe().unwrap();
    vault.restart_with_log(File::from(OwnedFd::from(writer)));
    for _ in 0..REFUSALS {
        assert_eq!(vault.request_as("no.jwt", "POST", "/v1/detokenize", "{}").status, 401);
    }
    assert!(vault.stop().success());
}
