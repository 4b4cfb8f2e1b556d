//! What stops the start: one line that says what to do, and nothing left half done.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{self, Permissions},
    io::{BufRead, BufReader},
    os::unix::{
        fs::{MetadataExt, PermissionsExt},
        net::UnixListener,
    },
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use redb::{Database, ReadableTable, TableDefinition, WriteTransaction};
use serde_json::json;
use vault_tests::{Limit, Module, Pans, Vault, chaotic, not_run, run, vaultd};

/// A vault that was made and is stopped.
fn stopped() -> Vault {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault
}

/// The one line on standard error of a start that failed.
fn refusal(output: &Output, status: i32) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(status), "{said}");
    let lines: Vec<_> = said.lines().filter(|line| line.starts_with("vaultd:")).collect();
    assert_eq!(lines.len(), 1, "{said}");
    lines[0].to_owned()
}

fn serve(vault: &Vault) -> String {
    refusal(&vault.run("serve"), 1)
}

#[track_caller]
fn assert_says(line: &str, parts: &[&str]) {
    for part in parts {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn a_wrong_pin_is_tried_once() {
    let vault = stopped();
    fs::write(vault.path("hsm.pin"), "wrong-pin").unwrap();
    let line = serve(&vault);
    assert_says(&line, &["refused the PIN", "tried once", "hsm.pin_file"]);
    assert!(!line.contains("wrong-pin"));
}

#[test]
fn a_pin_file_that_others_may_read_or_that_is_empty() {
    let vault = stopped();
    fs::set_permissions(vault.path("hsm.pin"), Permissions::from_mode(0o644)).unwrap();
    assert_says(&serve(&vault), &["hsm.pin_file", "0644", "chmod 0600"]);
    fs::set_permissions(vault.path("hsm.pin"), Permissions::from_mode(0o600)).unwrap();
    fs::write(vault.path("hsm.pin"), "\n").unwrap();
    assert_says(&serve(&vault), &["must hold the PIN"]);
    fs::remove_file(vault.path("hsm.pin")).unwrap();
    assert_says(&serve(&vault), &["hsm.pin_file", "No such file"]);
}

#[test]
fn a_module_that_is_missing_or_none() {
    let vault = stopped();
    vault.change_config(|config| {
        config.replace(Module::of_this_run().path().to_str().unwrap(), "/nowhere/module.so")
    });
    assert_says(&serve(&vault), &["cannot load", "/nowhere/module.so", "hsm.module"]);
    vault.change_config(|config| config.replace("/nowhere/module.so", "/lib/x86_64-linux-gnu/libm.so.6"));
    assert_says(&serve(&vault), &["cannot load", "hsm.module"]);
}

#[test]
fn a_module_that_does_not_start() {
    if Module::of_this_run() != Module::Softhsm2 {
        not_run("another module may not need its configuration");
        return;
    }
    let vault = stopped();
    vault.change_config(|config| config.replace("softhsm2.conf", "nowhere.conf"));
    let line = serve(&vault);
    assert_says(
        &line,
        &["does not start: C_Initialize: CKR_GENERAL_ERROR", "hsm.environment", "SOFTHSM2_CONF"],
    );
    assert!(!line.contains("hsm.module"), "{line}");
}

#[test]
fn a_file_in_the_place_of_a_development_directory() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let line = refusal(&run(&["dev", "--dir", file.path().to_str().unwrap()]), 1);
    assert_says(&line, &["is no directory", "name one"]);
}

#[test]
fn a_token_that_is_not_there() {
    let vault = stopped();
    vault.change_config(|config| config.replace("token_label = \"vaultd-dev\"", "token_label = \"another\""));
    assert_says(&serve(&vault), &["no PKCS#11 token", "\"another\"", "\"vaultd-dev\""]);
}

#[test]
fn a_token_that_is_not_initialised() {
    let vault = stopped();
    Module::of_this_run().forget_token(&vault.path(""));
    assert_says(&serve(&vault), &["no token is initialised", "--init-token"]);
}

#[test]
fn an_extractable_key_is_refused_by_name() {
    let vault = stopped();
    let made = vault.pkcs11_tool(&[
        "--keygen",
        "--key-type",
        "AES:32",
        "--label",
        "vaultd-record-v2",
        "--extractable",
    ]);
    assert!(made.status.success(), "{made:?}");
    assert_says(&serve(&vault), &["vaultd-record-v2", "EXTRACTABLE", "must be false"]);
    let check = vault.run("check");
    assert!(String::from_utf8_lossy(&check.stdout).contains("vaultd-record-v2"), "{check:?}");
}

#[test]
fn a_key_the_store_does_not_know_or_has_lost() {
    let vault = stopped();
    fs::remove_file(vault.path("store/vault.redb")).unwrap();
    assert_says(&serve(&vault), &["there is no store", "vaultd init"]);

    let vault = stopped();
    let deleted =
        vault.pkcs11_tool(&["--delete-object", "--type", "secrkey", "--label", "vaultd-fingerprint-v1"]);
    assert!(deleted.status.success(), "{deleted:?}");
    assert_says(&serve(&vault), &["fingerprint-v1", "not in the token"]);
    // A key made anew would hide that the old one is lost.
    assert_says(&refusal(&vault.run("init"), 1), &["fingerprint-v1", "bring back that token"]);
    assert_says(&serve(&vault), &["fingerprint-v1", "not in the token"]);
}

#[test]
fn a_wrong_key_prefix_makes_no_keys() {
    let vault = stopped();
    vault.change_config(|config| config.replace("[hsm]", "[hsm]\nkey_prefix = \"other\""));
    assert_says(&refusal(&vault.run("init"), 1), &["record-v1", "hsm.key_prefix"]);
    vault.change_config(|config| config.replace("key_prefix = \"other\"", ""));
    assert!(vault.run("check").status.success());
}

#[test]
fn a_development_vault_that_was_copied_is_not_the_old_one() {
    let vault = stopped();
    let copy = vault.path("copy");
    fs::create_dir(&copy).unwrap();
    fs::copy(vault.path("vaultd.toml"), copy.join("vaultd.toml")).unwrap();
    assert_says(&refusal(&run(&["dev", "--dir", copy.to_str().unwrap()]), 1), &["another directory"]);
}

#[test]
fn a_development_vault_keeps_its_token() {
    let vault = stopped();
    let (at, other) = (vault.path(""), vault.path("other.toml"));
    fs::write(&other, "[hsm]\nlibrary = \"/usr/lib/other.so\"\n").unwrap();
    let said = refusal(&run(&["dev", "--dir", at.to_str().unwrap(), "--hsm", other.to_str().unwrap()]), 1);
    assert_says(&said, &["--hsm is not what", "vaultd.toml", "start anew in an empty directory"]);
}

#[test]
fn what_cannot_be_said_to_its_end_is_a_failure() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let said = Command::new(vaultd()).arg("schema").stdout(full).output().unwrap();
    assert_says(&refusal(&said, 1), &["No space left on device"]);
}

#[test]
fn a_log_that_nobody_takes_ends_nothing() {
    let mut vault = stopped();
    vault.restart_with_log(fs::File::options().write(true).open("/dev/full").unwrap());
    let answer = vault.request_as("not.a.jwt", "POST", "/v1/tokenize", "{}");
    assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_jwt"));
    assert!(vault.stop().success());
}

#[test]
fn a_key_file_that_others_may_change() {
    let vault = stopped();
    fs::set_permissions(vault.path("issuer.pub.pem"), Permissions::from_mode(0o666)).unwrap();
    assert_says(&serve(&vault), &["issuer.pub.pem", "mode 0666", "chmod 0644"]);
}

#[test]
fn directories_that_others_may_use() {
    let vault = stopped();
    for name in ["store", "audit"] {
        fs::set_permissions(vault.path(name), Permissions::from_mode(0o755)).unwrap();
        assert_says(&serve(&vault), &[&format!("{name}.dir"), "0755", "chmod 0700"]);
        fs::set_permissions(vault.path(name), Permissions::from_mode(0o700)).unwrap();
    }
}

#[test]
fn a_socket_in_use_stale_or_no_socket() {
    let mut vault = Vault::start();
    assert_says(&serve(&vault), &["in use by a running daemon"]);
    let deep = vault.run_with(&["check", "--quick", "--deep"]);
    let said = String::from_utf8_lossy(&deep.stdout);
    assert!(said.contains("WRONG --deep looks at") && said.contains("stop vaultd first"), "{said}");
    assert!(!said.contains("without token and store") && deep.status.code() == Some(1), "{said}");
    assert_eq!(vault.request("GET", "/healthz", "").status, 200, "the one that runs is not disturbed");
    vault.stop();

    drop(UnixListener::bind(vault.socket()).unwrap());
    assert_says(&serve(&vault), &["stale socket", "remove it"]);
    fs::remove_file(vault.socket()).unwrap();
    fs::write(vault.socket(), "").unwrap();
    assert_says(&serve(&vault), &["not a socket"]);
    fs::remove_file(vault.socket()).unwrap();

    vault.restart();
    vault.kill();
    assert!(vault.socket().exists(), "left behind by a daemon that was killed");
    vault.restart();
    assert_eq!(vault.request("GET", "/healthz", "").status, 200, "its own left-over is replaced");
    vault.stop();

    drop(UnixListener::bind(vault.socket()).unwrap());
    fs::write(vault.path("vaultd.sock.lock"), "opening\n").unwrap();
    vault.restart();
    assert_eq!(vault.request("GET", "/healthz", "").status, 200, "killed between opening it and noting it");
}

#[test]
fn a_kill_while_a_socket_is_opened_does_not_stop_the_next_start() {
    let mut vault = stopped();
    let socket = vault.socket();
    let made = || fs::symlink_metadata(&socket).ok().map(|it| (it.ino(), it.ctime(), it.ctime_nsec()));
    for round in 0..100 {
        let before = made();
        let was_opened = vault.start_and_kill(|| {
            let begun = Instant::now();
            while made().is_none_or(|now| Some(now) == before) {
                if begun.elapsed() > Duration::from_secs(30) {
                    return false;
                }
            }
            // What is between two steps of the daemon takes microseconds.
            let seen = Instant::now();
            while seen.elapsed() < Duration::from_micros(round) {}
            true
        });
        assert!(was_opened, "after {round} kills: {}", vault.log());
    }
    vault.restart();
}

#[test]
fn every_error_of_a_config_comes_at_once_with_file_line_and_key() {
    let vault = stopped();
    vault.change_config(|config| {
        format!(
            "[surprise]\n{}",
            config.replace("token_label", "token_lable").replace("[store]", "[store]\ncache_mib = \"much\"")
        )
    });
    let output = vault.run("serve");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    for part in [":1: surprise:", "hsm.token_lable: unknown field", "hsm.token_label:", "store.cache_mib:"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    let missing = run(&["serve", "--config", "/nowhere.toml"]);
    assert_eq!(missing.status.code(), Some(2));
    assert_eq!(run(&["serve"]).status.code(), Some(2));
    assert_eq!(run(&["nonsense"]).status.code(), Some(2));
    let card = run(&["serve", "--config", "vaultd.toml", "4111 1111 1111 1111"]);
    assert_eq!(card.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&card.stderr).contains("1111"), "{card:?}");
}

#[test]
fn an_issuer_whose_keys_cannot_be_used() {
    let vault = stopped();
    fs::copy(vault.path("issuer.key.pem"), vault.path("issuer.pub.pem")).unwrap();
    assert_says(&serve(&vault), &["issuer.pub.pem", "dev-issuer", "private key"]);
}

#[test]
fn keys_behind_a_link_and_a_config_without_a_directory_are_read_again() {
    let vault = stopped();
    let (elsewhere, key) = (tempfile::tempdir().unwrap(), vault.path("issuer.pub.pem"));
    fs::rename(&key, elsewhere.path().join("key.pem")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("key.pem"), &key).unwrap();
    let mut serve = Command::new(vault_tests::vaultd());
    serve.args(["serve", "--config", "vaultd.toml"]).current_dir(vault.path(""));
    let mut daemon = serve.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let _limit = Limit::on(&daemon);
    let mut first = String::new();
    BufReader::new(daemon.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.starts_with("ready"), "{first}");
    let reloaded = vault.admin("POST", "/v1/reload");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(reloaded.status, 200, "{reloaded:?}");
}

#[test]
fn check_reports_everything_at_once_and_changes_nothing() {
    let vault = stopped();
    fs::set_permissions(vault.path("audit"), Permissions::from_mode(0o755)).unwrap();
    fs::write(vault.path("issuer.pub.pem"), "").unwrap();
    fs::remove_file(vault.path("store/vault.redb")).unwrap();
    let output = vault.run("check");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for part in ["WRONG audit.dir", "WRONG auth.issuers", "WRONG there is no store", "ok    key record-v1"] {
        assert!(said.contains(part), "{part:?} is not in {said}");
    }
    assert!(!vault.path("store/vault.redb").exists());
}

/// The schema of the vault's store, which `changed` may change.
fn schema(vault: &Vault, changed: impl FnOnce(&WriteTransaction)) -> u32 {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let store = Database::open(vault.path("store/vault.redb")).unwrap();
    let transaction = store.begin_write().unwrap();
    changed(&transaction);
    let meta = transaction.open_table(META).unwrap();
    let found = meta.get("schema").unwrap().unwrap().value().try_into().unwrap();
    drop(meta);
    transaction.commit().unwrap();
    u32::from_be_bytes(found)
}

fn becomes_older(transaction: &WriteTransaction, schema: u32) {
    const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
    let mut meta = transaction.open_table(META).unwrap();
    meta.insert("schema", schema.to_be_bytes().as_slice()).unwrap();
    // What schema 4 has added.
    for table in ["locks", "windows"] {
        transaction.delete_table(TableDefinition::<'_, &[u8], &[u8]>::new(table)).unwrap();
    }
}

#[test]
fn only_serving_brings_an_older_store_forward() {
    let mut vault = Vault::start();
    let token =
        vault.request("POST", "/v1/tokenize", r#"{"pan":"4111111111111111"}"#).json()["token"].clone();
    let backup = vault.path("the.backup");
    let backup = backup.to_str().unwrap();
    assert!(vault.run_with(&["backup", "--out", backup]).status.success());
    assert!(vault.stop().success());
    let newest = schema(&vault, |_| {});
    let before = [
        (3, "ok    keys and store belong together"),
        // Its keys are written in another way.
        (2, "and nothing more of it was looked at"),
    ];
    for (older, found) in before {
        schema(&vault, |transaction| becomes_older(transaction, older));
        let checked = vault.run_with(&["check", "--quick"]);
        let said = String::from_utf8_lossy(&checked.stdout);
        assert!(checked.status.success(), "{said}");
        assert!(
            said.contains(&format!("has schema {older}")) && said.contains("`vaultd serve` brings it"),
            "{said}"
        );
        assert!(said.contains(found), "{said}");
        assert_eq!(schema(&vault, |_| {}), older, "check changes nothing");
        let refused = refusal(&vault.run_with(&["restore", "--from", backup]), 1);
        assert_says(&refused, &["a restore replaces none"]);
        assert_eq!(schema(&vault, |_| {}), older, "nor does a restore that is refused");
    }
    schema(&vault, |transaction| becomes_older(transaction, 3));
    let deep = vault.run_with(&["check", "--quick", "--deep"]);
    assert!(String::from_utf8_lossy(&deep.stdout).contains("1 records: each opens"), "{deep:?}");
    vault.restart();
    let answer = vault.request("POST", "/v1/detokenize", &json!({ "token": token }).to_string());
    assert_eq!(answer.json()["pan"], "4111111111111111");
    assert!(vault.stop().success());
    assert_eq!(schema(&vault, |_| {}), newest);
}

#[test]
fn limits_that_contradict_each_other_are_told() {
    let vault = Vault::start_with(|config| {
        config.replace("[hsm]\n", "[hsm]\ncall_timeout_seconds = 30\n")
            + "\n[limits]\nbody_timeout_seconds = 31\n"
    });
    let checked = vault.run_with(&["check", "--quick"]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success(), "{said}");
    for (key, advice) in [
        ("hsm.call_timeout_seconds", "make it less than 30, or limits.request_timeout_seconds more than 30"),
        ("limits.body_timeout_seconds", "make it 30 or less, or limits.request_timeout_seconds 31 or more"),
    ] {
        let told = |text: &str| text.lines().any(|line| line.contains(key) && line.contains(advice));
        assert!(told(&said) && told(&vault.log()), "{key}: {said}{}", vault.log());
    }
    let quiet = Vault::start();
    assert!(!quiet.log().contains("request_timeout_seconds"), "the defaults go together");
}

#[test]
fn cards_that_check_opens_are_in_locked_memory() {
    let mut vault = Vault::start_with(|config| chaotic(&config));
    assert_eq!(vault.request("POST", "/v1/tokenize", r#"{"pan":"4111111111111111"}"#).status, 201);
    assert!(vault.stop().success());
    // So that there is time to look.
    vault.trouble("C_Decrypt latency 500ms");
    let mut check = Command::new(vaultd());
    check.args(["check", "--deep", "--quick", "--config"]).arg(vault.path("vaultd.toml"));
    let mut check = check.stdout(Stdio::piped()).spawn().unwrap();
    let _limit = Limit::on(&check);
    let mut locked = false;
    while check.try_wait().unwrap().is_none() {
        let status = fs::read_to_string(format!("/proc/{}/status", check.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmLck:"));
        locked |= line.is_some_and(|line| line.trim() != "0 kB");
        thread::sleep(Duration::from_millis(10));
    }
    let checked = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout);
    assert!(checked.status.success() && said.contains("1 records: each opens"), "{said}");
    assert_ne!(locked, said.contains("note  memory is not locked"), "{said}");
}

#[test]
fn the_keys_are_sensitive_never_extractable_and_local() {
    let vault = stopped();
    let listed = vault.pkcs11_tool(&["--list-objects"]);
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let purposes = ["record", "fingerprint", "holder", "envelope", "jwt", "audit"];
    for purpose in purposes {
        assert!(text.contains(&format!("vaultd-{purpose}-v1")), "{text}");
    }
    let access: Vec<_> = text.lines().filter(|line| line.contains("Access:")).collect();
    let secret = access.iter().filter(|line| line.contains("sensitive"));
    assert_eq!(
        secret.filter(|line| line.contains("always sensitive, never extractable, local")).count(),
        purposes.len(),
        "{text}"
    );
    assert!(
        !text
            .lines()
            .any(|line| line.contains("Access:") && line.contains(" extractable") && !line.contains("never")),
        "{text}"
    );
}

#[test]
fn check_measures_the_token_and_says_how_many_sessions_suit_it() {
    let mut vault = Vault::start_with(|config| chaotic(&config));
    vault.stop();
    // An HSM that is so far away wants many sessions, however busy the processor is.
    vault.trouble("C_Sign latency 5ms");
    let output = vault.run("check");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    let advice = text.lines().find_map(|line| line.strip_prefix("note  hsm.sessions is 1, and ")).unwrap();
    let best: usize = advice.split(' ').next().unwrap().parse().unwrap();
    assert!(best >= 4 && advice.contains("change it"), "{text}");
    let quick = vault.run_with(&["check", "--quick"]);
    assert!(!String::from_utf8_lossy(&quick.stdout).contains("HMAC operations by sessions"));
}

#[test]
fn a_machine_with_several_processors_memories_is_served() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    // The allocator asks where it runs if there is more than one node.
    vault.restart_through(&["env", "MIMALLOC_USE_NUMA_NODES=2"]);
    let items: Vec<_> = Pans::new().take(200).iter().map(|pan| json!({ "pan": pan })).collect();
    let answer = vault.request("POST", "/v1/tokenize/batch", &json!({ "items": items }).to_string());
    assert_eq!(answer.status, 200, "{}", vault.log());
}
