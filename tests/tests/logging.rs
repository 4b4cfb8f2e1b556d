//! The log in the forms that can be asked for.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{self, File},
    process::{Command, Stdio},
};

use serde_json::Value;
use vault_tests::{Limit, Vault, finish, vaultd};

#[test]
fn a_log_of_json_has_an_object_a_line() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    vault.change_config(|config| config + "\n[log]\nlevel = \"debug\"\nformat = \"json\"\n");
    let path = vault.path("json.log");
    vault.restart_with_log(File::create(&path).unwrap());
    assert_eq!(vault.request_as("no.jwt", "POST", "/v1/detokenize", "{}").status, 401);
    assert!(vault.stop().success());

    let text = fs::read_to_string(path).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let refused = lines.iter().find(|line| line["message"] == "request refused").unwrap();
    assert_eq!((&refused["level"], &refused["route"]), (&"INFO".into(), &"/v1/detokenize".into()));
    assert!(refused["timestamp"].is_string() && refused["status"].is_u64(), "{refused}");
}

/// A child of a service inherits the variable, but its standard error may be another file: that is not the journal.
#[test]
fn another_file_than_the_journals_gets_text_with_times() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    let path = vault.path("text.log");
    let config = vault.path("vaultd.toml");
    let mut child = Command::new(vaultd())
        .args(["serve", "--config", config.to_str().unwrap()])
        .env("JOURNAL_STREAM", "8:4711")
        .stdout(Stdio::piped())
        .stderr(File::create(&path).unwrap())
        .spawn()
        .unwrap();
    let _limit = Limit::on(&child);
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(line.starts_with("ready"), "{line}");
    let text = fs::read_to_string(path).unwrap();
    assert!(text.lines().any(|line| line.starts_with("20") && line.contains(" INFO serving")), "{text}");
}

/// redb panics at a page that is none. What the standard library says of a panic may have card data in it.
#[test]
fn a_panic_is_told_by_its_place_alone() {
    const PAGE_BYTES: usize = 4_096;
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    let path = vault.path("store/vault.redb");
    let mut store = fs::read(&path).unwrap();
    store.chunks_mut(PAGE_BYTES).skip(1).for_each(|page| page[0] = 9);
    fs::write(&path, store).unwrap();
    let config = vault.path("vaultd.toml");
    let mut serve = Command::new(vaultd());
    serve.arg("serve").arg("--config").arg(config).env("RUST_BACKTRACE", "1");
    let said = finish(&mut serve, "").stderr;
    let line = said.lines().find(|line| line.contains("ERROR vaultd panicked: please report this place="));
    assert!(line.is_some_and(|line| line.contains("redb")), "{said}");
    assert!(said.contains("restore a backup"), "{said}");
    assert!(!said.contains("backtrace") && !said.contains("unreachable"), "{said}");
}

#[test]
fn a_token_that_is_to_change_is_named_whatever_comes_of_it() {
    let vault = Vault::start();
    let card = r#"{"pan":"4111111111111111","template":"numeric"}"#;
    let token = vault.request("POST", "/v1/tokenize", card).json()["token"].as_str().unwrap().to_owned();
    for (path, named) in [(token.as_str(), token.as_str()), ("4222222222222222", "422222******2222")] {
        let change = r#"{"metadata":{"note":"4111111111111111"}}"#;
        let refused = vault.request("PATCH", &format!("/v1/tokens/{path}"), change);
        assert!((400..500).contains(&refused.status), "{refused:?}");
        let entries = vault.admin("GET", "/v1/audit?op=tokens.change&last=1").json();
        assert_eq!(entries["entries"][0]["tokens"][0], named, "{entries}");
    }
}
