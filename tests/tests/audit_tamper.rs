//! The audit log of a real vault: whatever is edited in it, `vaultd audit verify` finds it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    thread::{self, ScopedJoinHandle},
};

use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use tempfile::TempDir;
use vault_tests::{Pans, Tamperer, Vault, run, seeded_random};
use vaultd::audit::verify::{Options, Report, verify};

/// A vault whose log gets several files and many checkpoints, after a story with a kill and restarts.
fn vault_with_a_log(random: &mut fastrand::Rng) -> Vault {
    let mut vault = Vault::start_with(|config| {
        let audit = "[audit]\ncheckpoint_entries = 20\ncheckpoint_seconds = 1\nrotate_entries = 60\n";
        config.replace("[audit]\n", audit)
    });
    let mut pans = Pans::with(random.fork());
    for round in 0..3 {
        for _ in 0..40 {
            let card = json!({ "pan": pans.next_pan() }).to_string();
            let token = vault.request("POST", "/v1/tokenize", &card).json()["token"].clone();
            vault.request("POST", "/v1/detokenize", &json!({ "token": token }).to_string());
            vault.request("POST", "/v1/detokenize", &json!({ "token": "tok_unknown" }).to_string());
        }
        match round {
            0 => vault.kill(),
            _ => assert!(vault.stop().success()),
        }
        if round < 2 {
            vault.restart();
        }
    }
    compress(&vault.path("audit/audit-00000002.jsonl"));
    vault
}

fn compress(path: &Path) {
    let mut out =
        GzEncoder::new(File::create(path.with_extension("jsonl.gz")).unwrap(), Compression::default());
    out.write_all(&fs::read(path).unwrap()).unwrap();
    out.finish().unwrap();
    fs::remove_file(path).unwrap();
}

fn report(dir: &Path) -> Report {
    verify(dir, &Options::default(), &mut |_, _| {}).unwrap()
}

#[test]
fn every_edit_of_a_real_log_is_found_and_nothing_else() {
    let edits = std::env::var("VAULT_TEST_EDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000);
    let mut random = seeded_random();
    let (vault, other) = (vault_with_a_log(&mut random), vault_with_a_log(&mut random));
    // What is edited is a copy in memory's own file system, where there is one.
    let place = if Path::new("/dev/shm").is_dir() { Path::new("/dev/shm") } else { Path::new("/tmp") };
    let copy = TempDir::with_prefix_in("vt", place).unwrap();
    for file in fs::read_dir(vault.path("audit")).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let untouched = report(copy.path());
    assert!(untouched.intact && untouched.is_final && untouched.unsigned == 0, "{untouched}");
    assert!(untouched.files > 3 && untouched.lines > 300 && untouched.checkpoints > 10, "{untouched}");
    eprintln!("{untouched}");

    let tamperer = Tamperer::new(copy.path(), &other.path("audit"));
    for number in 0..edits {
        let edit = tamperer.edit(&mut random);
        let report = report(copy.path());
        assert!(!report.intact, "edit {number} was not found: {}\n{report}", edit.what);
        tamperer.undo(&edit);
    }
    assert_eq!(report(copy.path()), untouched, "all edits were taken back");
    eprintln!("{edits} edits, each of them found");
}

#[test]
fn the_log_of_a_vault_that_runs_is_intact_at_every_moment() {
    let vault = Vault::start_with(|config| {
        config.replace("[audit]\n", "[audit]\ncheckpoint_entries = 10\nrotate_entries = 50\n")
    });
    let dir = vault.path("audit");
    let ask = || {
        for _ in 0..100 {
            vault.request("POST", "/v1/detokenize", &json!({ "token": "tok_unknown" }).to_string());
        }
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
        let mut looks = 0;
        // One that has failed has finished, too.
        while looks < 20 || !callers.iter().any(ScopedJoinHandle::is_finished) {
            let report = report(&dir);
            assert!(report.intact, "look {looks}: {report}");
            looks += 1;
        }
    });
    let said = run(&["audit", "verify", dir.to_str().unwrap()]);
    assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stdout));
}
