//! An audit log that cannot be written: nothing leaves, readiness says why, and service comes back by itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    time::{Duration, Instant},
};

use serde_json::json;
use vault_tests::{Answer, AuditLog, Pans, SmallDisk, Vault, connect, read_answer};

/// Service must be back in this time once the cause is gone: the log is looked at twice a second.
const BACK_WITHIN: Duration = Duration::from_secs(5);

struct Card {
    pan: String,
    detokenize: String,
}

fn card(vault: &Vault) -> Card {
    let pan = Pans::new().next_pan();
    let answer = vault.request("POST", "/v1/tokenize", &json!({ "pan": pan }).to_string());
    Card { detokenize: json!({ "token": answer.json()["token"] }).to_string(), pan }
}

fn detokenize(vault: &Vault, card: &Card) -> Answer {
    vault.request("POST", "/v1/detokenize", &card.detokenize)
}

/// The very next request is refused, whatever it asks for, and nothing of the card leaves.
fn assert_stopped(vault: &Vault, card: &Card, why: &str) {
    for (method, path, body) in [
        ("POST", "/v1/detokenize", card.detokenize.as_str()),
        ("POST", "/v1/tokenize", "{\"pan\":\"4111111111111111\"}"),
        ("POST", "/v1/login", ""),
        ("POST", "/v1/tokens/search", "{\"holder\":\"nobody\"}"),
    ] {
        let answer = vault.request(method, path, body);
        assert_eq!((answer.status, answer.code().as_str()), (503, "audit_unavailable"), "{path}");
        assert!(!answer.body.contains(&card.pan));
    }
    let ready = vault.request("GET", "/readyz", "");
    assert_eq!(ready.status, 503);
    let check = &ready.json()["checks"]["audit"];
    assert_eq!(check["ok"], false);
    assert!(check["detail"].as_str().unwrap().contains(why), "{check}");
    assert_eq!(vault.request("GET", "/healthz", "").status, 200, "it is alive");
}

fn assert_back(vault: &Vault, card: &Card) {
    let started = Instant::now();
    loop {
        let answer = detokenize(vault, card);
        if answer.status == 200 {
            assert_eq!(answer.json()["pan"], card.pan);
            break;
        }
        assert_eq!(answer.code(), "audit_unavailable");
        assert!(started.elapsed() < BACK_WITHIN, "{answer:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(vault.request("GET", "/readyz", "").status, 200);
}

/// Each answer with a card has its entry, and nothing else is called granted.
fn assert_all_told(log: &mut AuditLog, reveals: usize) {
    let entries = log.follow();
    let granted = |entry: &&serde_json::Value| entry["op"] == "detokenize" && entry["outcome"] == "granted";
    assert_eq!(entries.iter().filter(granted).count(), reveals);
}

#[test]
fn a_file_that_is_removed_replaced_or_cut_stops_service_until_it_is_put_back() {
    let vault = Vault::start();
    let (mut log, card) = (AuditLog::of(&vault), card(&vault));
    let (path, away) = (log.path().clone(), vault.path("away"));

    fs::rename(&path, &away).unwrap();
    assert_stopped(&vault, &card, "was removed");
    fs::rename(&away, &path).unwrap();
    assert_back(&vault, &card);

    // For good; but the daemon still holds it.
    fs::remove_file(&path).unwrap();
    assert_stopped(&vault, &card, "/proc/");
    let ready = vault.request("GET", "/readyz", "").json();
    let detail = ready["checks"]["audit"]["detail"].as_str().unwrap().to_owned();
    let held = detail.split_whitespace().find(|word| word.starts_with("/proc/")).unwrap();
    fs::copy(held, &path).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    assert_back(&vault, &card);

    let content = fs::read(&path).unwrap();
    fs::rename(&path, &away).unwrap();
    fs::write(&path, "").unwrap();
    assert_stopped(&vault, &card, "replaced");
    fs::rename(&away, &path).unwrap();
    assert_back(&vault, &card);

    // As logrotate's copytruncate does.
    let whole = fs::read(&path).unwrap();
    assert!(whole.starts_with(&content));
    OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    assert_stopped(&vault, &card, "was cut");
    fs::write(&path, whole).unwrap();
    assert_back(&vault, &card);

    assert_all_told(&mut log, 4);
}

#[test]
fn a_directory_that_becomes_read_only_stops_service_until_it_is_not() {
    let vault = Vault::start();
    let (mut log, card) = (AuditLog::of(&vault), card(&vault));
    let dir = vault.path("audit");
    fs::set_permissions(&dir, Permissions::from_mode(0o500)).unwrap();
    assert_stopped(&vault, &card, "read-only");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).unwrap();
    assert_back(&vault, &card);
    assert_all_told(&mut log, 1);
}

#[test]
fn a_full_disk_stops_service_until_there_is_room() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    let Some(disk) = SmallDisk::under(&vault.path("audit"), 256) else { return };
    vault.restart();
    let (mut log, card) = (AuditLog::of(&vault), card(&vault));
    for round in 0..3 {
        disk.fill();
        // What is left of the last page takes some more.
        let mut reveals = 0;
        let refused = loop {
            let answer = detokenize(&vault, &card);
            if answer.status != 200 {
                break answer;
            }
            reveals += 1;
            assert!(reveals < 100, "the disk is not full");
        };
        assert_eq!(refused.code(), "audit_unavailable", "round {round}");
        assert_stopped(&vault, &card, "No space left");
        assert_eq!(vault.request("GET", "/readyz", "").status, 503);
        disk.free();
        assert_back(&vault, &card);
        assert_all_told(&mut log, reveals + 1);
    }
    assert!(vault.stop().success());
    assert!(vault.run_with(&["check", "--quick"]).status.success());
}

#[test]
fn what_was_answered_503_is_not_told_as_granted_after_a_kill() {
    /// So many entries at once, of which the file has room for two and a half.
    const CALLS: usize = 3;
    const ROUNDS: usize = 30;
    let mut vault = Vault::start();
    let (mut log, card) = (AuditLog::of(&vault), card(&vault));
    let jwt = vault.jwt();
    let request = format!(
        "POST /v1/detokenize HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
         application/json\r\ncontent-length: {}\r\n\r\n{}",
        card.detokenize.len(),
        card.detokenize
    );
    for _ in 0..ROUNDS {
        let seen = detokenize(&vault, &card);
        assert_eq!(seen.status, 200, "{seen:?}");
        let text = fs::read_to_string(log.path()).unwrap();
        let line = text.lines().find(|line| line.contains(&seen.headers["x-request-id"])).unwrap();
        let room = line.len() * (CALLS - 1) + line.len() / 2;
        // All of them are there when it goes on, so that their entries are written together.
        vault.signal("STOP");
        let mut streams: Vec<_> = (0..CALLS).map(|_| connect(&vault.socket()).unwrap()).collect();
        for stream in &mut streams {
            stream.write_all(request.as_bytes()).unwrap();
        }
        let size = fs::metadata(log.path()).unwrap().len();
        vault.limit(&format!("--fsize={}:", size + u64::try_from(room).unwrap()));
        vault.signal("CONT");
        let answers: Vec<_> = streams.iter_mut().map(read_answer).collect();
        vault.kill();
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
        assert!(refused.iter().all(|answer| answer.code() == "audit_unavailable"), "{answers:?}");

        vault.restart();
        let entries = log.follow();
        let is_told = |answer: &Answer, outcome: &str| {
            let is_its =
                |entry: &&serde_json::Value| entry["request_id"] == answer.headers["x-request-id"].as_str();
            entries.iter().filter(is_its).any(|entry| entry["outcome"] == outcome)
        };
        for answer in &answers {
            assert_eq!(is_told(answer, "granted"), answer.status == 200, "{answer:?}");
        }
        // The first of two that were refused together would have fitted.
        if refused.len() > 1 {
            return;
        }
    }
    panic!("no two entries were written together");
}

#[test]
fn a_log_that_was_cut_back_while_the_daemon_was_down_is_found_and_can_be_accepted() {
    let mut vault = Vault::start();
    let card = card(&vault);
    assert_eq!(detokenize(&vault, &card).status, 200);
    assert!(vault.stop().success());
    let log = AuditLog::of(&vault).path().clone();
    let text = fs::read_to_string(&log).unwrap();
    // The last four lines.
    let end = text.trim_end().rmatch_indices('\n').nth(3).unwrap().0;
    fs::write(&log, &text[..=end]).unwrap();

    let resume = |vault: &Vault| vault.run_with(&["audit", "resume", "--reason", "a test has cut it"]);
    let config = vault.path("vaultd.toml");
    let refused = vault_tests::run(&["serve", "--config", config.to_str().unwrap()]);
    assert_eq!(refused.status.code(), Some(1));
    let why = String::from_utf8_lossy(&refused.stderr);
    assert!(why.contains("audit.dir") && why.contains("vaultd audit resume"), "{why}");
    let checked = vault.run_with(&["check", "--quick"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&checked.stdout).contains("WRONG audit.dir"));

    let resumed = resume(&vault);
    assert!(resumed.status.success(), "{resumed:?}");
    assert!(!resume(&vault).status.success(), "once");
    vault.restart();
    assert_eq!(detokenize(&vault, &card).status, 200);
    assert!(vault.stop().success());
    // It is no secret that something was lost.
    let dir = vault.path("audit");
    let verified = vault_tests::run(&["audit", "verify", dir.to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(1));
    assert!(AuditLog::everything(&vault).contains("a test has cut it"));
}
