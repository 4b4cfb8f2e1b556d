//! Where `vaultctl` takes a JWT from.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{ffi::OsStr, fs, os::unix::ffi::OsStrExt, thread};

use nix::{sys::stat::Mode, unistd::mkfifo};
use serde_json::json;
use vault_tests::{Vault, finish};

/// A test card of Visa; it belongs to nobody.
const PAN: &str = "4111111111111111";

#[test]
fn a_jwt_is_taken_from_what_can_be_read_once_and_is_never_waited_for() {
    let vault = Vault::start();
    let jwt = vault.minter().mint(&json!({}));
    let token = vault.ctl("tokenize --json", PAN).json()["token"].as_str().unwrap().to_owned();
    let ran = vault.ctl(&format!("detokenize {token} --token-file -"), &format!("\u{feff}{jwt}\r\n"));
    assert_eq!(ran.status, Some(0), "{}", ran.stderr);
    let fifo = vault.path("fifo");
    mkfifo(&fifo, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut command = vault.ctl_command();
    let ran = finish(command.args(["detokenize", &token]).env("VAULT_TOKEN_FILE", &fifo), "");
    assert!(ran.stderr.contains("it is no regular file"), "{}", ran.stderr);
    thread::scope(|scope| {
        scope.spawn(|| fs::write(&fifo, &jwt));
        let line = format!("tokenize --file - --batch 1 --token-file {}", fifo.display());
        let ran = vault.ctl(&line, &format!("{PAN}\n{PAN}\n{PAN}\n"));
        assert_eq!((ran.status, ran.stdout.lines().count()), (Some(0), 4), "{}", ran.stderr);
    });
}

#[test]
fn an_approval_that_is_none_is_told() {
    let vault = Vault::start();
    let empty = vault.path("empty.jwt");
    fs::write(&empty, "\n").unwrap();
    let ran = vault.ctl(&format!("locks --approval-file {}", empty.display()), "");
    assert!(ran.status == Some(1) && ran.stderr.contains("empty.jwt is empty: nothing was sent"), "{ran:?}");
    let with = |approval: &[u8]| {
        finish(vault.ctl_command().arg("locks").env("VAULT_APPROVAL", OsStr::from_bytes(approval)), "")
    };
    assert_eq!(with(b"").status, Some(0), "an empty variable is none");
    assert!(with(b"\xff").stderr.contains("VAULT_APPROVAL is not UTF-8"));
}
