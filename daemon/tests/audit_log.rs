//! The audit log on a real file system: durable, followed from where it was signed, mended or refused.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

use std::{
    fs::{self, OpenOptions, Permissions},
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use vault_api::AuditQuery;
use vaultd::audit::{Audit, AuditError, Entry, Event, Mark, OpenError, Rotation, Settings};

const VAULT: [u8; 16] = *b"the vault of us!";

fn settings(dir: &Path) -> Settings {
    Settings {
        dir: dir.to_owned(),
        queue: 1_000,
        checkpoint_entries: 1_000,
        checkpoint_interval: Duration::from_mins(1),
        rotation: Rotation { bytes: 1 << 30, lines: 1_000_000, age: Duration::from_hours(1) },
    }
}

fn open(dir: &Path, mark: Option<Mark>) -> Result<Audit, OpenError> {
    Audit::open(settings(dir), &VAULT, mark)
}

fn entry(request_id: &str) -> Entry {
    entry_of("detokenize", request_id)
}

fn entry_of(op: &'static str, request_id: &str) -> Entry {
    let access = vaultd::audit::Access {
        request_id,
        subject: Some("tester"),
        issuer: None,
        tenant: Some("t"),
        uid: Some(7),
        gid: None,
        pid: None,
        unit: None,
        op,
        outcome: vaultd::audit::Outcome::Granted,
        status: Some(200),
        code: None,
        via: "api",
        tokens: &["tok_a".to_owned()],
        failed: &[],
        jti: None,
        key: None,
        about: None,
        approved_by: None,
        approved_by_issuer: None,
        detail: None,
        alarm: false,
    };
    Entry::new(&access)
}

fn file(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("audit-{number:08}.jsonl"))
}

/// Every line of the log, which must be JSON; a `seq` follows the other.
fn lines(dir: &Path) -> Vec<serde_json::Value> {
    let mut names: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.retain(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    names.sort();
    let texts: Vec<_> = names.iter().map(|path| fs::read_to_string(path).unwrap()).collect();
    let lines: Vec<serde_json::Value> =
        texts.iter().flat_map(|text| text.lines()).map(|line| serde_json::from_str(line).unwrap()).collect();
    for (place, line) in lines.iter().enumerate() {
        assert_eq!(line["seq"], place + 1);
    }
    lines
}

fn damage(result: Result<Audit, OpenError>) -> String {
    match result {
        Err(OpenError::Damaged(why)) => why,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was opened"),
    }
}

/// Waits until the log can be written again, as it does by itself.
async fn until_usable(audit: &Audit) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while let Err(error) = audit.probe().await {
        assert!(Instant::now() < deadline, "{error}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_recorded_is_there_and_goes_on_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    for start in 0..3 {
        let audit = open(dir.path(), None).unwrap();
        for n in 0..10 {
            audit.record(|| entry(&format!("{start}-{n}"))).await.unwrap();
            // Durable means: whoever looks finds it.
            assert_eq!(lines(dir.path()).last().unwrap()["request_id"], format!("{start}-{n}"));
        }
        audit.close();
        assert!(matches!(audit.record(|| entry("late")).await, Err(AuditError::Unavailable(_))));
    }
    assert_eq!(lines(dir.path()).len(), 1 + 3 * 10);
}

#[tokio::test]
async fn many_at_once_are_all_written() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    let tasks: Vec<_> = (0..50)
        .map(|task| {
            let audit = audit.clone();
            tokio::spawn(async move {
                for n in 0..20 {
                    audit.record(|| entry(&format!("{task}-{n}"))).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    audit.close();
    assert_eq!(lines(dir.path()).len(), 1 + 1_000);
}

#[tokio::test]
async fn files_follow_one_another() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.rotation.lines = 10;
    let audit = Audit::open(settings, &VAULT, None).unwrap();
    for n in 0..35 {
        audit.record(|| entry(&n.to_string())).await.unwrap();
    }
    let end = audit.last();
    audit.close();
    let lines = lines(dir.path());
    let begins: Vec<_> = lines.iter().filter(|line| line["type"] == "begin").collect();
    assert_eq!(begins.len(), 4);
    assert!(begins.iter().zip(1..).all(|(begin, number)| begin["file"] == number));

    // The last file alone is enough to go on, if what is before it was signed.
    let first = lines.iter().find(|line| line["file"] == 4).unwrap();
    let text = fs::read_to_string(file(dir.path(), 4)).unwrap();
    let begin = text.lines().next().unwrap();
    let hash = <sha2::Sha256 as sha2::Digest>::digest(begin).into();
    let mark = Mark { seq: first["seq"].as_u64().unwrap(), hash, file: 4, offset: 0 };
    fs::remove_file(file(dir.path(), 1)).unwrap();
    let audit = open(dir.path(), Some(mark)).unwrap();
    assert_eq!(audit.last(), end);
    audit.close();
    assert!(damage(open(dir.path(), None)).contains("file 1"));
}

#[tokio::test]
async fn nobody_begins_whose_entry_may_find_no_room() {
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Settings { queue: 2, ..settings(dir.path()) }, &VAULT, None).unwrap();
    let (first, second) = (audit.begin().unwrap(), audit.begin().unwrap());
    assert_eq!(audit.begin().unwrap_err(), AuditError::Busy);
    drop(first);
    assert!(audit.begin().is_ok());
    drop(second);
    audit.close();
}

#[tokio::test]
async fn looks_at_the_log_take_no_room_from_what_has_begun() {
    const LOOKS: usize = 50;
    let dir = tempfile::tempdir().unwrap();
    let audit = Audit::open(Settings { queue: 2, ..settings(dir.path()) }, &VAULT, None).unwrap();
    for round in 0..200 {
        let Ok(begun) = audit.begin() else { continue };
        for _ in 0..LOOKS {
            // Whoever asks goes away at once.
            let _ = audit.probe().now_or_never();
        }
        audit.record(|| entry(&round.to_string())).await.unwrap();
        drop(begun);
    }
    audit.close();
}

#[tokio::test]
async fn a_finished_file_may_be_compressed_even_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("a")).await.unwrap();
    audit.close();
    let status = std::process::Command::new("gzip").arg(file(dir.path(), 1)).status().unwrap();
    assert!(status.success());
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("b")).await.unwrap();
    let found =
        audit.read(&AuditQuery { op: Some("detokenize".to_owned()), ..AuditQuery::default() }).await.unwrap();
    audit.close();
    let ids: Vec<serde_json::Value> =
        found.entries.iter().map(|entry| serde_json::from_str(entry.get()).unwrap()).collect();
    let ids: Vec<_> = ids.iter().map(|entry| entry["request_id"].as_str().unwrap()).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[tokio::test]
async fn whoever_follows_the_log_does_not_follow_itself() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    let start = audit.read(&AuditQuery { last: Some(1), ..AuditQuery::default() }).await.unwrap().next;
    audit.record(|| entry_of("audit.read", "a")).await.unwrap();

    let query = |wait| AuditQuery { after: Some(start), wait: Some(wait), ..AuditQuery::default() };
    let started = Instant::now();
    let answer = audit.read(&query(1)).await.unwrap();
    assert!(started.elapsed() >= Duration::from_secs(1), "its own entry ended the wait");
    assert_eq!(answer.entries.len(), 1, "at the end of the wait it is told of");

    let (audit, query) = (&audit, query(30));
    let waiting = tokio::time::timeout(Duration::from_secs(20), audit.read(&query));
    let (answer, written) = tokio::join!(waiting, audit.record(|| entry("b")));
    written.unwrap();
    assert_eq!(answer.unwrap().unwrap().entries.len(), 2, "none is lost");
}

#[tokio::test]
async fn readers_do_not_keep_a_daemon_that_is_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    let end = audit.read(&AuditQuery { last: Some(1), ..AuditQuery::default() }).await.unwrap().next;
    let query = AuditQuery { after: Some(end), wait: Some(30), ..AuditQuery::default() };
    let waiting = tokio::time::timeout(Duration::from_secs(20), audit.read(&query));
    let (answer, ()) = tokio::join!(waiting, async { audit.dismiss_readers() });
    assert!(answer.unwrap().unwrap().entries.is_empty());
}

#[tokio::test]
async fn half_a_line_is_cut_off_and_noted() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("a")).await.unwrap();
    audit.close();
    let half = br#"{"v":1,"seq":3,"ti"#;
    OpenOptions::new().append(true).open(file(dir.path(), 1)).unwrap().write_all(half).unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.close();
    let lines = lines(dir.path());
    let repair = lines.last().unwrap();
    assert_eq!((&repair["event"], &repair["bytes"]), (&"repair".into(), &half.len().into()));
}

#[tokio::test]
async fn zeros_that_a_power_failure_left_are_cut_off_and_noted() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("a")).await.unwrap();
    audit.close();
    let path = file(dir.path(), 1);
    // The first sector of two lines is missing, the second one is there.
    let torn = [vec![0; 300], br#"ens":["tok_a"]}"#.to_vec(), b"\n{\"v\":1,\"seq\":4}\n".to_vec()].concat();
    OpenOptions::new().append(true).open(&path).unwrap().write_all(&torn).unwrap();
    open(dir.path(), None).unwrap().close();
    let repair = lines(dir.path()).pop().unwrap();
    assert_eq!((&repair["event"], &repair["bytes"]), (&"repair".into(), &torn.len().into()));

    // The first line of a file that was just begun.
    fs::write(file(dir.path(), 2), [vec![0; 100], b"}\n".to_vec()].concat()).unwrap();
    open(dir.path(), None).unwrap().close();
    assert!(!file(dir.path(), 2).exists());

    // Zeros in place of a line that is known to have been written are another matter.
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.len() - 2;
    bytes[end - 20..end].fill(0);
    fs::write(&path, bytes).unwrap();
    assert!(damage(open(dir.path(), None)).contains("entries were cut off"));
}

#[tokio::test]
async fn a_head_that_a_power_failure_has_mixed_is_put_right_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    let statement = audit.statement(audit.last(), "kid", false);
    audit.checkpoint(&statement, b"signature").await.unwrap();
    audit.close();
    let path = dir.path().join("head.json");
    let whole = fs::read_to_string(&path).unwrap();
    let mixed = whole.replace("c2lnbmF0dXJl", "bmF0dXJlc2ln");
    assert_ne!(mixed, whole);
    fs::write(&path, mixed).unwrap();
    open(dir.path(), None).unwrap().close();
    assert_eq!(fs::read_to_string(&path).unwrap(), whole);
}

#[tokio::test]
async fn a_file_that_was_never_begun_is_no_obstacle() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.close();
    fs::write(file(dir.path(), 2), "{\"v\":1,").unwrap();
    let mut settings = settings(dir.path());
    settings.rotation.lines = 1;
    let audit = Audit::open(settings, &VAULT, None).unwrap();
    audit.record(|| entry("a")).await.unwrap();
    audit.record(|| entry("b")).await.unwrap();
    audit.close();
    assert_eq!(lines(dir.path()).len(), 4);
    assert!(fs::read_to_string(file(dir.path(), 2)).unwrap().contains("\"request_id\":\"b\""));
}

#[tokio::test]
async fn a_log_that_was_cut_back_or_changed_is_refused_until_somebody_accepts_it() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("a")).await.unwrap();
    let before = fs::read(file(dir.path(), 1)).unwrap();
    audit.record(|| entry("b")).await.unwrap();
    let last = audit.last();
    let mark = Some(last);
    audit.close();
    let whole = fs::read(file(dir.path(), 1)).unwrap();
    let head = fs::read(dir.path().join("head.json")).unwrap();

    // Cut back by whole lines: the head tells, and without it the store does.
    fs::write(file(dir.path(), 1), &before).unwrap();
    assert!(damage(open(dir.path(), None)).contains("cut off"));
    fs::remove_file(dir.path().join("head.json")).unwrap();
    assert!(damage(open(dir.path(), mark)).contains("ends too soon"));
    // A letter of an entry that was signed.
    let changed = String::from_utf8(whole.clone()).unwrap().replace("\"b\"", "\"c\"");
    fs::write(file(dir.path(), 1), changed).unwrap();
    assert!(damage(open(dir.path(), mark)).contains("not the one that was signed"));
    // A letter of an entry that was not.
    let changed = String::from_utf8(whole.clone()).unwrap().replace("\"a\"", "\"c\"");
    fs::write(file(dir.path(), 1), changed).unwrap();
    assert!(damage(open(dir.path(), None)).contains("does not name the hash"));
    // All of it, and another vault's.
    fs::remove_file(file(dir.path(), 1)).unwrap();
    assert!(damage(open(dir.path(), mark)).contains("gone"));
    fs::write(file(dir.path(), 1), &whole).unwrap();
    let other = Audit::open(settings(dir.path()), b"a vault of other", None);
    assert!(damage(other).contains("another vault"));
    // As it was, it is taken.
    fs::write(dir.path().join("head.json"), head).unwrap();
    open(dir.path(), mark).unwrap().close();

    fs::write(file(dir.path(), 1), before).unwrap();
    let resumed = Audit::resume(&settings(dir.path()), &VAULT, mark, "a test").unwrap();
    assert_eq!(resumed.seq, last.seq + 1);
    let audit = open(dir.path(), Some(resumed)).unwrap();
    audit.record(|| entry("d")).await.unwrap();
    audit.close();
    let text = fs::read_to_string(file(dir.path(), 2)).unwrap();
    assert!(text.contains("\"resumed\":\"a test\""), "{text}");
}

#[tokio::test]
async fn trouble_stops_it_at_once_and_it_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let (path, away) = (file(dir.path(), 1), dir.path().join("away"));
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("before")).await.unwrap();

    let refused = |written: Result<(), AuditError>, why: &str| {
        let Err(AuditError::Unavailable(text)) = written else { panic!("{written:?}") };
        assert!(text.contains(why), "{text}");
    };
    fs::rename(&path, &away).unwrap();
    refused(audit.record(|| entry("removed")).await, "was removed");
    refused(audit.begin().map(drop), "was removed");
    refused(audit.probe().await, "was removed");
    fs::rename(&away, &path).unwrap();
    until_usable(&audit).await;

    // The same content in another file will do, as a copy from /proc/PID/fd is one; other content will not.
    let content = fs::read(&path).unwrap();
    fs::remove_file(&path).unwrap();
    fs::write(&path, "other content, and not shorter than what was there before\n".repeat(99)).unwrap();
    refused(audit.record(|| entry("replaced")).await, "replaced");
    fs::write(&path, &content).unwrap();
    until_usable(&audit).await;

    let content = fs::read(&path).unwrap();
    OpenOptions::new().write(true).open(&path).unwrap().set_len(40).unwrap();
    refused(audit.record(|| entry("cut")).await, "cut from");
    fs::write(&path, &content).unwrap();
    until_usable(&audit).await;

    OpenOptions::new().append(true).open(&path).unwrap().write_all(b"a foreign line\n").unwrap();
    refused(audit.record(|| entry("foreign")).await, "another program");
    until_usable(&audit).await;

    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    refused(audit.record(|| entry("read-only")).await, "read-only");
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    until_usable(&audit).await;

    audit.record(|| entry("after")).await.unwrap();
    audit.close();
    let lines = lines(dir.path());
    let recovered = lines.iter().filter(|line| line["event"] == "recovered").count();
    assert_eq!(recovered, 5);
    let recorded: Vec<_> = lines.iter().filter_map(|line| line["request_id"].as_str()).collect();
    assert_eq!(recorded, ["before", "after"]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_told_when_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    assert!(audit.record(|| entry("refused")).await.is_err());
    audit.note(entry("gone away"));
    audit.event(&Event { event: "subject.locked", alarm: true, ..Event::default() });
    assert!(audit.probe().await.is_err());
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    until_usable(&audit).await;
    audit.record(|| entry("after")).await.unwrap();
    audit.close();
    let told: Vec<_> = lines(dir.path())
        .iter()
        .filter_map(|line| line["request_id"].as_str().or(line["event"].as_str()).map(ToOwned::to_owned))
        .collect();
    assert_eq!(told, ["recovered", "gone away", "subject.locked", "after"]);
}

#[tokio::test]
async fn what_nobody_waits_for_is_told_at_the_end_if_it_can_be() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    audit.note(entry("gone away"));
    assert!(audit.probe().await.is_err());
    assert!(audit.probe().await.is_err());
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    // Before the next try is due.
    audit.close();
    let told: Vec<_> = lines(dir.path())
        .iter()
        .filter_map(|line| line["request_id"].as_str().or(line["event"].as_str()).map(ToOwned::to_owned))
        .collect();
    assert_eq!(told, ["recovered", "gone away"]);
}

#[tokio::test]
async fn that_it_was_mended_is_there_for_readers_and_to_be_signed() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("before")).await.unwrap();
    fs::set_permissions(dir.path(), Permissions::from_mode(0o500)).unwrap();
    assert!(audit.probe().await.is_err());
    fs::set_permissions(dir.path(), Permissions::from_mode(0o700)).unwrap();
    audit.retry().await.unwrap();
    let read = audit.read(&AuditQuery { last: Some(1), ..AuditQuery::default() }).await.unwrap();
    assert!(read.entries[0].get().contains("recovered"), "{:?}", read.entries);
    let lines = u64::try_from(lines(dir.path()).len()).unwrap();
    assert_eq!(audit.last().seq, lines);
    audit.close();
}

#[tokio::test]
async fn a_checkpoint_begins_no_file() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.rotation.lines = 10;
    let audit = Audit::open(settings, &VAULT, None).unwrap();
    for n in 0..10 {
        audit.record(|| entry(&n.to_string())).await.unwrap();
    }
    // The file is full; what signs its last line has to be the very next one.
    let statement = audit.statement(audit.last(), "kid", true);
    audit.checkpoint(&statement, b"signature").await.unwrap();
    audit.close();
    let lines = lines(dir.path());
    let last = lines.last().unwrap();
    assert_eq!(last["statement"]["upto"].as_u64().unwrap() + 1, last["seq"].as_u64().unwrap());
}

#[tokio::test]
async fn a_next_file_that_cannot_be_begun_is_trouble_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.rotation.lines = 2;
    let audit = Audit::open(settings, &VAULT, None).unwrap();
    fs::create_dir(file(dir.path(), 2)).unwrap();
    let mut written = 0;
    while audit.record(|| entry("a")).await.is_ok() {
        written += 1;
    }
    audit.note(entry("owed"));
    let deadline = Instant::now() + Duration::from_secs(1);
    while Instant::now() < deadline {
        assert!(audit.probe().await.is_err(), "it would fail again");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    fs::remove_dir(file(dir.path(), 2)).unwrap();
    until_usable(&audit).await;
    audit.close();
    let lines = lines(dir.path());
    let types: Vec<_> = lines.iter().skip(1 + written).map(|line| line["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["begin", "event", "access"], "tried again and again, and told once");
}

#[tokio::test]
async fn a_log_goes_on_after_its_own_lines_whatever_stands_among_them() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("a")).await.unwrap();
    let last = audit.last();
    audit.close();
    let text = fs::read_to_string(file(dir.path(), 1)).unwrap();
    let line = text.lines().last().unwrap();
    let name = line.split('"').nth(11).unwrap().to_owned();
    let seq = format!("\"seq\":{},", last.seq);
    let foreign = line.replace(&seq, "\"seq\":900,").replace(&name, "0123456789abcdef");
    let endless = line.replace(&seq, &format!("\"seq\":{},", u64::MAX));
    fs::write(file(dir.path(), 1), format!("{text}{foreign}\n{endless}\n")).unwrap();
    fs::write(file(dir.path(), u64::MAX), "").unwrap();
    damage(open(dir.path(), Some(last)));
    let resumed = Audit::resume(&settings(dir.path()), &VAULT, Some(last), "a test").unwrap();
    assert_eq!((resumed.seq, resumed.file), (last.seq + 1, 2));
}

#[tokio::test]
async fn a_damaged_log_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let audit = open(dir.path(), None).unwrap();
    audit.record(|| entry("a")).await.unwrap();
    let mark = audit.last();
    audit.close();
    fs::write(file(dir.path(), 1), "{\"v\":1,").unwrap();
    assert!(damage(open(dir.path(), Some(mark))).contains("gone"));
    assert!(file(dir.path(), 1).exists(), "what is left is for people to look at");
}

#[tokio::test]
async fn reading_goes_forward_backward_and_waits() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = settings(dir.path());
    settings.rotation.lines = 10;
    let audit = Audit::open(settings, &VAULT, None).unwrap();
    for n in 0..30 {
        audit.record(|| entry(&n.to_string())).await.unwrap();
    }
    let ids = |answer: vault_api::AuditAnswer| -> Vec<String> {
        let entries = answer.entries.iter();
        entries
            .filter_map(|entry| {
                let entry: serde_json::Value = serde_json::from_str(entry.get()).unwrap();
                entry["request_id"].as_str().map(ToOwned::to_owned)
            })
            .collect()
    };
    let token = Some("tok_a".to_owned());
    let all = AuditQuery { token: token.clone(), ..AuditQuery::default() };
    let first = audit.read(&AuditQuery { limit: Some(12), ..all.clone() }).await.unwrap();
    let (next, more) = (first.next, first.more);
    assert!(more);
    let mut read = ids(first);
    let rest = audit.read(&AuditQuery { after: Some(next), ..all.clone() }).await.unwrap();
    assert!(!rest.more);
    let end = rest.next;
    read.extend(ids(rest));
    assert_eq!(read, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    let last = audit.read(&AuditQuery { last: Some(15), ..all.clone() }).await.unwrap();
    assert_eq!(ids(last), (15..30).map(|n| n.to_string()).collect::<Vec<_>>());
    let none = AuditQuery { token: Some("tok_b".to_owned()), ..AuditQuery::default() };
    assert!(audit.read(&none).await.unwrap().entries.is_empty());
    let beyond = AuditQuery { after: Some(u64::MAX), ..AuditQuery::default() };
    assert!(audit.read(&beyond).await.unwrap().entries.is_empty());

    let wait = AuditQuery { after: Some(end), wait: Some(20), ..all };
    let (waited, written) = tokio::join!(audit.read(&wait), async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        audit.event(&Event { event: "other", ..Event::default() });
        audit.record(|| entry("new")).await
    });
    written.unwrap();
    assert_eq!(ids(waited.unwrap()), ["new"]);
    audit.close();
}
