//! How the daemon ends: what a client has heard is in the audit log, and the log goes on, or ends in order.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    collections::HashSet,
    fs::{self, OpenOptions},
    io::Write as _,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use serde_json::{Value, json};
use vault_tests::{AuditLog, Pans, Vault, connect, read_answer_if_whole, seeded_random};

const CALLERS: usize = 16;
const PATIENCE: Duration = Duration::from_secs(30);

/// Asks for whatever `body` says until the daemon is gone; the ids of the answers that came whole.
fn ask(
    vault: &Vault,
    jwt: &str,
    stop: &AtomicBool,
    mut body: impl FnMut() -> (&'static str, String),
) -> Vec<String> {
    let mut heard = Vec::new();
    let Ok(mut stream) = connect(&vault.socket()) else { return heard };
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    while !stop.load(Ordering::Relaxed) {
        let (path, body) = body();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if stream.write_all(request.as_bytes()).is_err() {
            break;
        }
        let Some(answer) = read_answer_if_whole(&mut stream) else { break };
        assert!(answer.status < 300, "{answer:?}");
        heard.push(answer.headers["x-request-id"].clone());
    }
    heard
}

#[test]
fn every_answer_that_was_heard_has_its_entry_after_kill_9() {
    let kills = std::env::var("VAULT_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(100);
    let mut random = seeded_random();
    let mut pans = Pans::with(random.fork());
    let mut vault = Vault::start();
    let mut log = AuditLog::of(&vault);
    let jwt = vault.jwt();
    let pan = pans.next_pan();
    let token =
        vault.request("POST", "/v1/tokenize", &json!({ "pan": pan }).to_string()).json()["token"].clone();
    log.follow();
    let (mut answers, mut repairs) = (0, 0);
    for kill in 0..kills {
        let stop = AtomicBool::new(false);
        let heard: Vec<String> = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|caller| {
                    let (vault, jwt, stop, token) = (&vault, &jwt, &stop, &token);
                    let mut pans = Pans::with(random.fork());
                    scope.spawn(move || {
                        ask(vault, jwt, stop, || match caller % 2 {
                            0 => ("/v1/tokenize", json!({ "pan": pans.next_pan() }).to_string()),
                            _ => ("/v1/detokenize", json!({ "token": token }).to_string()),
                        })
                    })
                })
                .collect();
            thread::sleep(Duration::from_millis(random.u64(20..150)));
            vault.signal("KILL");
            stop.store(true, Ordering::Relaxed);
            callers.into_iter().flat_map(|caller| caller.join().unwrap()).collect()
        });
        vault.wait();
        // A kill may end a write between two pages, a power failure anywhere.
        if random.bool() {
            let half = &br#"{"v":1,"seq":99,"time":"2026-"#[..random.usize(1..29)];
            OpenOptions::new().append(true).open(log.path()).unwrap().write_all(half).unwrap();
        }
        let torn = !fs::read(log.path()).unwrap().ends_with(b"\n");
        vault.restart();
        let entries = log.follow();
        let written: HashSet<_> = entries.iter().filter_map(|entry| entry["request_id"].as_str()).collect();
        let missing: Vec<_> = heard.iter().filter(|id| !written.contains(id.as_str())).collect();
        assert!(missing.is_empty(), "after {kill} kills, not in the log: {missing:?}");
        let repaired = entries.iter().filter(|entry| entry["event"] == "repair").count();
        assert_eq!(repaired, usize::from(torn), "after {kill} kills: what was cut off is noted");
        (answers, repairs) = (answers + heard.len(), repairs + repaired);
    }
    assert!(vault.stop().success());
    let end = log.follow();
    assert_eq!(end.last().unwrap()["statement"]["final"], true);
    eprintln!(
        "{kills} kills, {answers} answers, each with its entry; {repairs} half lines cut off and noted"
    );
    assert!(answers > 0 && repairs > 0, "nothing was looked for");
}

#[test]
fn a_request_that_does_not_end_is_told_before_the_end_is_signed() {
    let mut vault = Vault::start_with(|config| config + "\n[limits]\nshutdown_grace_seconds = 1\n");
    let mut log = AuditLog::of(&vault);
    let mut stream = connect(&vault.socket()).unwrap();
    let jwt = vault.jwt();
    let head = format!(
        "POST /v1/detokenize HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
         application/json\r\ncontent-length: 100\r\n\r\n{{"
    );
    stream.write_all(head.as_bytes()).unwrap();
    // A second request shows that the first has been taken up: both have waited for the same log.
    assert_eq!(vault.request("POST", "/v1/tokens/search", "{\"holder\":\"nobody\"}").status, 200);
    thread::sleep(Duration::from_millis(200));
    assert!(vault.stop().success());
    let lines = log.follow();
    let told: Vec<_> = lines.iter().rev().take(3).rev().collect();
    assert_eq!(told[0]["code"], "abandoned", "{told:?}");
    assert_eq!(told[1]["event"], "stop", "{told:?}");
    assert_eq!(told[2]["statement"]["final"], true, "{told:?}");
    let audit = vault.path("audit");
    let verified = vault_tests::run(&["audit", "verify", audit.to_str().unwrap()]);
    assert!(verified.status.success(), "{verified:?}");
}

#[test]
fn refusals_that_the_end_cuts_off_are_written_or_counted() {
    const FLOOD: usize = 600;
    const OPEN: usize = 150;
    let mut vault = Vault::start_with(|config| config + "\n[limits]\nshutdown_grace_seconds = 1\n");
    let mut log = AuditLog::of(&vault);
    for _ in 0..FLOOD {
        assert_eq!(vault.request_as("none", "POST", "/v1/tokenize", "{}").code(), "invalid_jwt");
    }
    // Nobody knows yet whether they may.
    let head = "POST /v1/login HTTP/1.1\r\nhost: vault\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
    let open: Vec<_> = std::iter::repeat_with(|| connect(&vault.socket()).unwrap()).take(OPEN).collect();
    for mut stream in &open {
        stream.write_all(head.as_bytes()).unwrap();
    }
    thread::sleep(Duration::from_millis(500));
    assert!(vault.stop().success());
    let lines = log.follow();
    let written = lines.iter().filter(|line| line["status"] == 401 || line["code"] == "abandoned").count();
    let counted = lines.iter().filter(|line| line["event"] == "refusals.counted");
    let count = |line: &Value| line["detail"].as_str().unwrap().split(' ').next().unwrap().parse::<usize>();
    let counted = counted.map(|line| count(line).unwrap()).sum::<usize>();
    assert_eq!(written + counted, FLOOD + OPEN, "{written} and {counted}");
}
