//! `vaultd audit verify` on logs that a second hand wrote: it finds every edit, names it rightly, and finds nothing else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::LazyLock,
};

use proptest::prelude::*;
use tempfile::TempDir;
use vault_tests::{AuditKey, MadeLog, Tamperer, run, seeded_random};
use vaultd::audit::verify::{Damage, Options, Report, verify};

const VAULT: &str = "0123456789abcdef";
const OTHER_VAULT: &str = "fedcba9876543210";
const FIRST: &str = "audit-00000001.jsonl";
const SECOND: &str = "audit-00000002.jsonl";
const THIRD: &str = "audit-00000003.jsonl";

static KEY: LazyLock<AuditKey> = LazyLock::new(AuditKey::generate);
static OTHER_KEY: LazyLock<AuditKey> = LazyLock::new(AuditKey::generate);

fn report(dir: &Path) -> Report {
    verify(dir, &Options::default(), &mut |_, _| {}).unwrap()
}

fn any_log(vault: &str, key: &AuditKey, seed: u64, lines: u64) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    MadeLog::any(dir.path(), vault, key, &mut fastrand::Rng::with_seed(seed), lines);
    dir
}

/// Three files of ten lines each: `begin`, eight lines, a checkpoint. The last ends the log.
fn small_log() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut log = MadeLog::begin(dir.path(), VAULT, &KEY);
    for file in 1..=3 {
        let lines = if file == 3 { 7 } else { 8 };
        (0..lines).for_each(|_| log.access(&mut random));
        if file == 3 {
            log.stop();
        } else {
            let signed = log.sign(false);
            log.checkpoint(&signed);
            log.rotate();
        }
    }
    dir
}

fn edit(dir: &TempDir, file: &str, change: impl FnOnce(&mut Vec<String>)) {
    let path = dir.path().join(file);
    let mut lines: Vec<String> = fs::read_to_string(&path).unwrap().lines().map(str::to_owned).collect();
    change(&mut lines);
    fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// What is found: damage, file, line, seq.
fn found(dir: &TempDir) -> Vec<(Damage, String, Option<u64>, Option<u64>)> {
    let report = report(dir.path());
    assert_eq!(report.intact, report.findings.is_empty());
    let findings = report.findings.into_iter();
    findings.map(|finding| (finding.damage, finding.file, finding.line, finding.seq)).collect()
}

fn at(damage: Damage, file: &str, line: u64, seq: u64) -> (Damage, String, Option<u64>, Option<u64>) {
    (damage, file.to_owned(), Some(line), Some(seq))
}

fn of_file(damage: Damage, file: &str) -> (Damage, String, Option<u64>, Option<u64>) {
    (damage, file.to_owned(), None, None)
}

#[test]
fn an_untouched_log_is_intact_and_described() {
    let dir = small_log();
    let report = report(dir.path());
    assert!(report.intact, "{report}");
    assert_eq!((report.files, report.lines, report.checkpoints), (3, 30, 3));
    assert_eq!((report.first_seq, report.last_seq, report.signed_upto), (Some(1), Some(30), Some(29)));
    assert!(report.is_final && report.unsigned == 0 && report.notes.is_empty(), "{report}");
    assert_eq!(report.keys.len(), 1);
    assert_eq!((report.keys[0].thumbprint.as_str(), report.keys[0].checkpoints), (KEY.kid.as_str(), 3));
    assert!(report.to_string().contains("give --keys"), "{report}");
}

#[test]
fn each_kind_of_damage_is_named_where_it_is() {
    use Damage::{Altered, CutOff, Foreign, Inserted, Removed, Reordered, Unreadable};
    type Case = (fn(&TempDir), Vec<(Damage, String, Option<u64>, Option<u64>)>);
    let cases: [Case; 15] = [
        (
            |dir| edit(dir, FIRST, |lines| lines[4] = lines[4].replace("granted", "refused")),
            vec![at(Altered, FIRST, 5, 5)],
        ),
        (
            |dir| edit(dir, SECOND, |lines| lines[4] = lines[4].replace("\"prev\":\"", "\"prev\":\"00")),
            vec![(Unreadable, SECOND.to_owned(), Some(5), None)],
        ),
        (
            |dir| edit(dir, SECOND, |lines| lines[4] = lines[4].replace("\"seq\":15", "\"seq\":16")),
            vec![at(Altered, SECOND, 5, 15)],
        ),
        (|dir| edit(dir, FIRST, |lines| drop(lines.drain(4..6))), vec![at(Removed, FIRST, 5, 7)]),
        (|dir| edit(dir, FIRST, |lines| drop(lines.drain(..2))), vec![at(Removed, FIRST, 1, 3)]),
        (
            |dir| fs::remove_file(dir.path().join(SECOND)).unwrap(),
            vec![of_file(Removed, SECOND), at(Removed, THIRD, 1, 21)],
        ),
        (
            |dir| fs::remove_file(dir.path().join(FIRST)).unwrap(),
            vec![of_file(Removed, FIRST), at(Removed, SECOND, 1, 11)],
        ),
        (
            |dir| edit(dir, FIRST, |lines| lines.swap(3, 7)),
            vec![at(Reordered, FIRST, 4, 8), at(Reordered, FIRST, 8, 4)],
        ),
        (|dir| edit(dir, FIRST, |lines| lines.insert(8, lines[3].clone())), vec![at(Inserted, FIRST, 9, 4)]),
        (
            |dir| edit(dir, FIRST, |lines| lines.insert(8, "something".to_owned())),
            vec![(Unreadable, FIRST.to_owned(), Some(9), None)],
        ),
        (|dir| edit(dir, THIRD, |lines| lines.truncate(6)), vec![at(CutOff, THIRD, 6, 26)]),
        (|dir| fs::remove_file(dir.path().join(THIRD)).unwrap(), vec![at(CutOff, SECOND, 10, 20)]),
        (
            |dir| edit(dir, SECOND, |lines| lines[3] = lines[3].replace(VAULT, OTHER_VAULT)),
            vec![at(Altered, SECOND, 4, 14)],
        ),
        (
            |dir| {
                let other = any_log(OTHER_VAULT, &OTHER_KEY, 7, 20);
                edit(&other, FIRST, |lines| {
                    let lines = lines.clone();
                    edit(dir, FIRST, |mine| drop(mine.splice(3..3, lines[3..6].to_vec())));
                });
            },
            vec![(Foreign, FIRST.to_owned(), Some(4), None)],
        ),
        (|dir| fs::remove_file(dir.path().join("head.json")).unwrap(), vec![of_file(Removed, "head.json")]),
    ];
    for (number, (damage, expected)) in cases.into_iter().enumerate() {
        let dir = small_log();
        damage(&dir);
        assert_eq!(found(&dir), expected, "case {number}: {}", report(dir.path()));
    }
}

#[test]
fn a_chain_that_fits_again_is_still_not_signed() {
    let dir = tempfile::tempdir().unwrap();
    MadeLog::any(dir.path(), VAULT, &OTHER_KEY, &mut fastrand::Rng::with_seed(3), 200);
    fs::write(dir.path().join("keys.json"), serde_json::json!({ "keys": [KEY.jwk] }).to_string()).unwrap();
    let report = report(dir.path());
    assert!(!report.intact && report.checkpoints == 0);
    assert!(
        report
            .findings
            .iter()
            .all(|finding| finding.file == "head.json" || finding.damage == Damage::Foreign)
    );
    assert!(report.findings.iter().any(|finding| finding.what.contains(&OTHER_KEY.kid)));
}

#[test]
fn the_beginning_may_be_kept_elsewhere_if_said_so() {
    let dir = small_log();
    fs::remove_file(dir.path().join(FIRST)).unwrap();
    let partial = Options { is_partial: true, ..Options::default() };
    let report = verify(dir.path(), &partial, &mut |_, _| {}).unwrap();
    assert!(report.intact && report.lines == 20 && report.checkpoints == 2, "{report}");
}

#[test]
fn a_log_that_is_being_written_is_intact() {
    let dir = tempfile::tempdir().unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut log = MadeLog::begin(dir.path(), VAULT, &KEY);
    log.event("start");
    let signed = log.sign(false);
    log.access(&mut random);
    log.checkpoint(&signed);
    log.flush();
    let head = fs::read(dir.path().join("head.json")).unwrap();
    (0..5).for_each(|_| log.access(&mut random));
    log.flush();
    fs::write(dir.path().join("head.json"), head).unwrap();
    let mut file = File::options().append(true).open(dir.path().join(FIRST)).unwrap();
    file.write_all(b"{\"v\":1,\"seq\":10,\"ti").unwrap();
    let report = report(dir.path());
    assert!(report.intact, "{report}");
    assert_eq!((report.lines, report.unsigned, report.is_final), (9, 6, false));
    assert_eq!(report.notes.len(), 4, "{report}");
}

#[test]
fn bytes_after_an_orderly_end_are_damage() {
    let dir = small_log();
    let mut file = File::options().append(true).open(dir.path().join(THIRD)).unwrap();
    file.write_all(b"{").unwrap();
    assert_eq!(found(&dir), [(Damage::HalfWritten, THIRD.to_owned(), Some(11), None)]);
}

#[test]
fn a_log_in_pieces_is_reported_with_bounds() {
    let dir = any_log(VAULT, &KEY, 5, 3_000);
    for entry in fs::read_dir(dir.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.strip_suffix(".jsonl").is_some() {
            edit(&dir, &name, |lines| {
                let mut number = 0;
                lines.retain(|_| {
                    number += 1;
                    number % 2 == 0
                });
            });
        }
    }
    let report = report(dir.path());
    assert_eq!(report.findings.len(), 100);
    assert!(report.more_findings > 500, "{}", report.more_findings);
}

#[test]
fn every_one_of_many_random_edits_is_found() {
    let edits = std::env::var("VAULT_TEST_EDITS").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let mut random = seeded_random();
    let mut logs = Vec::new();
    for _ in 0..4 {
        let dir = any_log(VAULT, &KEY, random.u64(..), 300);
        let other = any_log(OTHER_VAULT, &OTHER_KEY, random.u64(..), 300);
        assert!(report(dir.path()).intact, "{}", report(dir.path()));
        logs.push((Tamperer::new(dir.path(), other.path()), dir));
    }
    for number in 0..edits {
        let (tamperer, dir) = random.choice(&logs).unwrap();
        let edit = tamperer.edit(&mut random);
        let report = report(dir.path());
        assert!(!report.intact, "edit {number} was not found: {}\n{report}", edit.what);
        tamperer.undo(&edit);
    }
    for (_, dir) in &logs {
        assert!(report(dir.path()).intact);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_log_that_was_written_by_the_rules_is_intact(seed: u64, lines in 1_u64..400) {
        let dir = any_log(VAULT, &KEY, seed, lines);
        let report = report(dir.path());
        prop_assert!(report.intact, "{report}");
        prop_assert!(report.is_final && report.unsigned == 0);
    }

    #[test]
    fn any_edit_is_found(seed: u64, lines in 1_u64..100) {
        let mut random = fastrand::Rng::with_seed(seed);
        let dir = any_log(VAULT, &KEY, seed, lines);
        let other = any_log(OTHER_VAULT, &OTHER_KEY, seed, lines);
        let edit = Tamperer::new(dir.path(), other.path()).edit(&mut random);
        prop_assert!(!report(dir.path()).intact, "{}", edit.what);
    }
}

#[test]
fn the_command_says_it_with_its_status() {
    let dir = small_log();
    let path = dir.path().to_str().unwrap();
    let good = run(&["audit", "verify", path]);
    let said = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success() && said.contains("the log is intact"), "{said}");
    assert!(good.stderr.is_empty());

    edit(&dir, FIRST, |lines| lines.swap(3, 4));
    let bad = run(&["audit", "verify", path, "--json"]);
    assert_eq!(bad.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&bad.stdout).unwrap();
    assert_eq!((&report["intact"], &report["findings"][0]["damage"]), (&false.into(), &"reordered".into()));
    assert!(String::from_utf8(bad.stderr).unwrap().starts_with("vaultd: the log is damaged"));

    let empty = tempfile::tempdir().unwrap();
    for arguments in [
        vec!["audit", "verify", empty.path().to_str().unwrap()],
        vec!["audit", "verify", "/nonexistent"],
        vec!["audit", "verify", path, "--keys", "/nonexistent"],
    ] {
        assert_eq!(run(&arguments).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn keys_can_be_given_as_jwk_set_or_pem() {
    let dir = small_log();
    let own = dir.path().join("keys.json");
    let given = dir.path().join("given.json");
    fs::rename(&own, &given).unwrap();
    let options = Options { keys: Some(given.clone()), ..Options::default() };
    let report_with = |options: &Options| verify(dir.path(), options, &mut |_, _| {}).unwrap();
    assert!(report_with(&options).intact);
    assert!(!report_with(&options).to_string().contains("give --keys"));
    assert!(!report(dir.path()).intact, "no keys");

    // A name that the file gives is not believed.
    let lying = serde_json::json!({ "keys": [{ "kty": "RSA", "kid": KEY.kid, "n": OTHER_KEY.jwk["n"], "e": "AQAB" }] });
    fs::write(&given, lying.to_string()).unwrap();
    let report = report_with(&options);
    assert!(!report.intact && report.keys.iter().any(|key| key.thumbprint == OTHER_KEY.kid));
}
