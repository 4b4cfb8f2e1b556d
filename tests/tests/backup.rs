//! The restore drill, and every backup that must not be restored.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    os::unix::{
        fs::{OpenOptionsExt as _, PermissionsExt as _},
        net::UnixListener,
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use serde_json::{Value, json};
use vault_client::{RetryPolicy, TokenizeRequest, VaultClient};
use vault_tests::{
    AuditLog, Module, Pans, Vault, assert_all_there, connect, destroy_retired, fast_vault, fill, keys,
    not_run, rewrap, rotate, seeded_random,
};

const CLIENTS: usize = 8;
/// For a file to be full.
const PATIENCE: Duration = Duration::from_mins(2);
/// Bytes of a chunk in the file (`docs/backup-format.md`).
const CHUNK: usize = 65_536 + 16;

fn backup(vault: &Vault, to: &Path) -> Output {
    vault.run_with(&["backup", "--out", to.to_str().unwrap()])
}

fn restore(vault: &Vault, from: &Path) -> Output {
    vault.run_with(&["restore", "--from", from.to_str().unwrap()])
}

fn check(vault: &Vault, from: &Path) -> Output {
    vault.run_with(&["restore", "--check", "--from", from.to_str().unwrap()])
}

/// What a command that did what it was asked has said.
fn said(ran: &Output) -> String {
    assert!(ran.status.success(), "{ran:?}");
    String::from_utf8(ran.stdout.clone()).unwrap()
}

/// The one line of a command that failed, which names `reason`.
#[track_caller]
fn refused(ran: &Output, reason: &str) -> String {
    let why = String::from_utf8(ran.stderr.clone()).unwrap();
    assert_eq!(ran.status.code(), Some(1), "{ran:?}");
    assert!(
        why.starts_with("vaultd: ") && why.lines().count() == 1 && why.contains(reason),
        "{reason}: {why}"
    );
    why
}

/// A backup of `vault` in its directory.
fn made(vault: &Vault, name: &str) -> PathBuf {
    let path = vault.path(name);
    said(&backup(vault, &path));
    path
}

fn destroy_store(vault: &Vault) {
    fs::remove_dir_all(vault.path("store")).unwrap();
    fs::create_dir(vault.path("store")).unwrap();
    fs::set_permissions(vault.path("store"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// What is in the directory of the store.
fn in_store(vault: &Vault) -> Vec<String> {
    let entries = fs::read_dir(vault.path("store")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The header of the backup at `path`, read from its description.
fn header(path: &Path) -> (Value, usize) {
    let bytes = fs::read(path).unwrap();
    assert_eq!(&bytes[..10], b"vaultdBK\0\x01");
    let len = usize::try_from(u32::from_be_bytes(bytes[10..14].try_into().unwrap())).unwrap();
    (serde_json::from_slice(&bytes[14..14 + len]).unwrap(), 14 + len + 32 + 12 + 48)
}

/// Clients that tokenize new cards until they are stopped or the daemon is gone, and what they were told.
struct Load {
    told: Arc<Mutex<Vec<(String, String)>>>,
    stop: Arc<AtomicBool>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(vault: &Vault, pans: Vec<String>) -> Self {
        let once = RetryPolicy { max_attempts: 1, ..RetryPolicy::default() };
        let client = vault.client_builder().retry(once).max_idle_connections(CLIENTS).build().unwrap();
        let (told, stop) = (Arc::<Mutex<Vec<_>>>::default(), Arc::<AtomicBool>::default());
        let pans = Arc::new(Mutex::new(pans));
        let clients = (0..CLIENTS)
            .map(|_| {
                let (client, pans) = (client.clone(), Arc::clone(&pans));
                let (told, stop) = (Arc::clone(&told), Arc::clone(&stop));
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let Some(pan) = pans.lock().unwrap().pop() else { break };
                        let Ok(answer) = client.tokenize(&TokenizeRequest::new(pan.as_str())).await else {
                            break;
                        };
                        told.lock().unwrap().push((pan, answer.token));
                    }
                })
            })
            .collect();
        Self { told, stop, clients }
    }

    /// What was acknowledged so far.
    fn told(&self) -> Vec<(String, String)> {
        self.told.lock().unwrap().clone()
    }

    async fn stop(self) -> Vec<(String, String)> {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.unwrap();
        }
        Arc::into_inner(self.told).unwrap().into_inner().unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_drill_gives_back_every_card_that_was_acknowledged_before_the_mark() {
    let mut vault = Vault::start();
    let mut pans = Pans::new();
    let old = fill(&vault.client(), &pans.take(10_000)).await;
    let load = Load::start(&vault, pans.take(60_000));
    tokio::time::sleep(Duration::from_millis(500)).await;

    let mut before = load.told();
    assert!(!before.is_empty());
    let path = vault.path("the.backup");
    let ran = said(&backup(&vault, &path));
    let after = load.told().len();
    assert!(after > before.len(), "nobody waited for the backup");
    let (header, _) = header(&path);
    let mark = header["audit"]["seq"].as_u64().unwrap();
    assert!(ran.contains(&format!("up to line {mark}")), "{ran}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);

    tokio::time::sleep(Duration::from_millis(300)).await;
    vault.kill();
    let told = load.stop().await;
    assert!(told.len() > after, "there was load until the end");
    destroy_store(&vault);
    let (lines, ran) = (AuditLog::of(&vault).follow(), said(&restore(&vault, &path)));
    let records = header["rows"]["records"].as_u64().unwrap();
    assert!(ran.contains(&format!("restored: {records} records")), "{ran}");
    assert_eq!(in_store(&vault), ["vault.redb"]);

    // Whoever was answered before the backup began, and whose entry stands before the mark.
    let marked: Vec<_> = lines
        .iter()
        .filter(|line| line["op"] == "tokenize" && line["seq"].as_u64().unwrap() <= mark)
        .map(|line| line["tokens"][0].as_str().unwrap().to_owned())
        .collect();
    let card_of: HashMap<_, _> = told.iter().map(|(pan, token)| (token.as_str(), pan)).collect();
    before.extend(old);
    before.extend(marked.iter().map(|token| (card_of[token.as_str()].clone(), token.clone())));
    assert!(u64::try_from(marked.len()).unwrap() + 10_000 <= records, "the snapshot is after the mark");
    let deep = said(&vault.run_with(&["check", "--deep", "--quick"]));
    assert!(deep.contains(&format!("{records} records: each opens, and indexes and census agree")), "{deep}");
    vault.restart();
    assert_all_there(&vault.client(), &before).await;

    // The vault goes on: what is new is sealed by a key that has sealed nothing yet.
    fill(&vault.client(), &pans.take(10)).await;
    let active = |purpose: &str| {
        let keys = keys(&vault);
        let active = keys.into_iter().find(|key| key["purpose"] == purpose && key["state"] == "active");
        active.unwrap()["version"].clone()
    };
    assert_eq!((active("record"), active("fingerprint")), (json!(2), json!(1)));
    let sealed = vault.request(
        "POST",
        "/v1/envelopes",
        r#"{"meta_data":{"card_number":"4111111111111111","expiry_date":"12/31"}}"#,
    );
    assert_eq!(sealed.status, 200, "{sealed:?}");
    assert_eq!(active("envelope"), json!(2));

    // The log tells of both, and is whole.
    assert!(vault.stop().success());
    let log = AuditLog::everything(&vault);
    assert!(
        log.contains(r#""op":"backup","outcome":"granted""#) && log.contains(r#""event":"restore""#),
        "{log}"
    );
    let audit = vault.path("audit");
    said(&vault_tests::run(&["audit", "verify", audit.to_str().unwrap()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_a_store_holds_comes_back() {
    let mut vault = Vault::start();
    let client = vault.client();
    let pan = Pans::new().next_pan();
    let card = json!({"pan": pan, "holder": "Ada Lovelace", "expires_in": 86_400, "metadata": {"order": "7"},
                      "template": "opaque"});
    let token = vault.request("POST", "/v1/tokenize", &card.to_string()).json()["token"].clone();
    let record = vault.request("GET", &format!("/v1/tokens/{}", token.as_str().unwrap()), "").json();
    let envelope = json!({"meta_data": {"card_number": pan, "expiry_date": "12/31"}, "single_use": true});
    let envelope = vault.request("POST", "/v1/envelopes", &envelope.to_string()).json()["jwt"].clone();
    let open = json!({ "jwt": envelope }).to_string();
    assert_eq!(vault.request("POST", "/v1/envelopes/open", &open).status, 200);
    let path = made(&vault, "the.backup");
    // Whoever steals it has nothing: what the store shows in clear is sealed here, too.
    let stolen = fs::read(&path).unwrap();
    for text in [pan.as_str(), "Lovelace", "order", "opaque"] {
        assert!(!stolen.windows(text.len()).any(|window| window == text.as_bytes()), "{text:?} is in clear");
    }
    let gone = fill(&client, &Pans::new().take(1)).await;
    let deleted = vault.request("DELETE", &format!("/v1/tokens/{}", token.as_str().unwrap()), "");
    assert_eq!(deleted.status, 204);

    assert!(vault.stop().success());
    destroy_store(&vault);
    said(&restore(&vault, &path));
    vault.restart();
    let again = vault.request("GET", &format!("/v1/tokens/{}", token.as_str().unwrap()), "").json();
    assert_eq!(again, record, "deleted since: it is back");
    let found = vault.request("POST", "/v1/tokens/search", r#"{"holder":"ada lovelace"}"#).json();
    assert_eq!(found["tokens"][0]["token"], token);
    assert_eq!(vault.request("POST", "/v1/envelopes/open", &open).code(), "envelope_replayed");
    let later = json!({ "token": gone[0].1 }).to_string();
    assert_eq!(
        vault.request("POST", "/v1/detokenize", &later).code(),
        "unknown_token",
        "made since: it is not"
    );
}

#[test]
fn an_altered_byte_is_found_wherever_it_is() {
    let mut vault = Vault::start();
    let mut random = seeded_random();
    let path = made(&vault, "the.backup");
    let whole = fs::read(&path).unwrap();
    said(&check(&vault, &path));
    let (_, chunks) = header(&path);
    let altered = vault.path("altered.backup");
    let flip = |place: usize, bit: u8| {
        let mut bytes = whole.clone();
        bytes[place] ^= 1 << bit;
        fs::write(&altered, bytes).unwrap();
        check(&vault, &altered)
    };
    refused(&flip(0, 0), "it is not a backup");
    refused(&flip(9, 1), "it has format 3");
    refused(&flip(10, 7), "its header was altered");
    refused(&flip(14, 0), "its header was altered");
    refused(&flip(chunks - 61, 0), "its header was altered");
    refused(&flip(chunks - 60, 0), "does not open what header and data key say");
    refused(&flip(chunks - 1, 0), "does not open what header and data key say");
    refused(&flip(chunks, 0), "it was altered: chunk 1, which begins at byte");
    refused(&flip(whole.len() - 1, 0), "it was altered: chunk 1, which begins at byte");
    for _ in 0..40 {
        let (place, bit) = (random.usize(14..whole.len()), random.u8(..8));
        refused(&flip(place, bit), "altered");
    }

    // It is the same without `--check`, and nothing is left of the attempt.
    flip(chunks + 99, 0);
    assert!(vault.stop().success());
    destroy_store(&vault);
    refused(&restore(&vault, &altered), "it was altered: chunk 1");
    assert!(in_store(&vault).is_empty(), "{:?}", in_store(&vault));
    said(&restore(&vault, &path));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_that_is_cut_short_is_refused() {
    let vault = Vault::start();
    let mut random = seeded_random();
    fill(&vault.client(), &Pans::with(random.fork()).take(1_000)).await;
    let path = made(&vault, "the.backup");
    let whole = fs::read(&path).unwrap();
    let (_, chunks) = header(&path);
    let count = (whole.len() - chunks) / CHUNK;
    assert!(count > 2 && whole.len() == chunks + count * CHUNK, "whole chunks, {count} of them");
    let cut = vault.path("cut.backup");
    let check_cut = |bytes: &[u8]| {
        fs::write(&cut, bytes).unwrap();
        check(&vault, &cut)
    };
    refused(&check_cut(&[]), "it is not a backup");
    let boundaries = (0..count).map(|chunk| chunks + chunk * CHUNK);
    let places = [1, 8, 13, 14, 500, chunks - 1, chunks + 1, whole.len() - 1].into_iter();
    for place in places.chain(boundaries).chain((0..20).map(|_| random.usize(1..whole.len()))) {
        refused(&check_cut(&whole[..place]), "it is cut short");
    }
    refused(&check_cut(&whole[..chunks + CHUNK]), "after chunk 1, which is not the last");
    refused(&check_cut(&[&whole, b"x".as_slice()].concat()), "something was appended to it");
    let chunk = |n: usize| &whole[chunks + n * CHUNK..chunks + (n + 1) * CHUNK];
    let swapped = [&whole[..chunks], chunk(1), chunk(0), &whole[chunks + 2 * CHUNK..]].concat();
    refused(&check_cut(&swapped), "chunk 1, which begins at byte");
    let missing = [&whole[..chunks + CHUNK], &whole[chunks + 2 * CHUNK..]].concat();
    refused(&check_cut(&missing), "chunk 2, which begins at byte");
    said(&check_cut(&whole));
}

#[test]
fn a_backup_of_another_vault_is_refused() {
    let (ours, theirs) = (Vault::start(), Vault::start());
    let path = made(&theirs, "the.backup");
    refused(&check(&ours, &path), "it is of another vault: key record-v1 of this token is not the one");
    let other = ours.path("other");
    fs::write(&other, "not a backup at all\n").unwrap();
    refused(&check(&ours, &other), "it is not a backup of a vault");
    refused(&check(&ours, &ours.path("absent")), "No such file");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_replaces_no_record_and_disturbs_nobody() {
    let mut vault = Vault::start();
    fill(&vault.client(), &Pans::new().take(3)).await;
    let path = made(&vault, "the.backup");
    let store = vault.path("store/vault.redb");
    let advice = format!("stop vaultd, and move {} away", store.display());
    assert!(refused(&restore(&vault, &path), "there is a store in use").contains(&advice));
    // The store's file is gone under a daemon that has it open.
    let aside = vault.path("aside");
    fs::rename(&store, &aside).unwrap();
    refused(&restore(&vault, &path), "somebody serves on");
    fs::rename(&aside, &store).unwrap();
    assert!(vault.stop().success());
    assert!(refused(&restore(&vault, &path), "there is a store with 3 records").contains(&advice));
    let whole = fs::read(&store).unwrap();
    fs::write(&store, "not a store").unwrap();
    assert!(refused(&restore(&vault, &path), "there is a store that does not open").contains(&advice));
    fs::write(&store, whole).unwrap();

    // What a restore has left that was killed is no store, and not in the way.
    fs::rename(&store, &aside).unwrap();
    fs::create_dir(vault.path("store/restoring")).unwrap();
    fs::write(vault.path("store/restoring/vault.redb"), "half a store").unwrap();
    refused(&vault.run_with(&["check", "--quick"]), "wrong");
    said(&vault.run_with(&["restore", "--in", path.to_str().unwrap()]));
    assert_eq!(in_store(&vault), ["vault.redb"]);
    vault.restart();
}

/// A vault that is stopped and has lost its store; the cards that were in it with their tokens, and where its backup is.
async fn lost(cards: usize) -> (Vault, Vec<(String, String)>, PathBuf) {
    let mut vault = Vault::start();
    let cards = fill(&vault.client(), &Pans::new().take(cards)).await;
    let path = made(&vault, "the.backup");
    assert!(vault.stop().success());
    destroy_store(&vault);
    (vault, cards, path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_records_is_replaced() {
    let (mut vault, cards, path) = lost(5).await;
    said(&vault.run("init"));
    let (altered, mut bytes) = (vault.path("altered.backup"), fs::read(&path).unwrap());
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&altered, bytes).unwrap();
    refused(&restore(&vault, &altered), "it was altered");
    assert_eq!(in_store(&vault), ["vault.redb"], "what was there stays");
    said(&restore(&vault, &path));
    assert_eq!(in_store(&vault), ["vault.redb"]);
    vault.restart();
    assert_all_there(&vault.client(), &cards).await;
}

/// Restores the backup at `path`, and does `meanwhile` when half of the store is made.
fn restore_slowly(vault: &Vault, path: &Path, meanwhile: impl FnOnce()) -> Output {
    let (whole, slow) = (fs::read(path).unwrap(), vault.path("slow.backup"));
    let (_, chunks) = header(path);
    // The first chunk is looked at when there is more.
    let (early, late) = whole.split_at(chunks + CHUNK + 99);
    assert!(Command::new("mkfifo").arg(&slow).status().unwrap().success());
    thread::scope(|scope| {
        let restoring = scope.spawn(|| restore(vault, &slow));
        // Only a restore that is not there yet is waited for, not one that has ended.
        let open = || File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&slow);
        let mut feed = loop {
            match open() {
                Ok(feed) => break feed,
                Err(error) => assert!(!restoring.is_finished(), "{error}: {:?}", restoring.join()),
            }
            thread::sleep(Duration::from_millis(10));
        };
        fcntl(&feed, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        feed.write_all(early).unwrap();
        while !vault.path("store/restoring/vault.redb").exists() {
            assert!(!restoring.is_finished(), "{:?}", restoring.join());
            thread::sleep(Duration::from_millis(10));
        }
        meanwhile();
        // Whoever reads no more has said why.
        let _ = feed.write_all(late);
        drop(feed);
        restoring.join().unwrap()
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_restore_leaves_the_first_ones_work_alone() {
    let (mut vault, cards, path) = lost(1_000).await;
    let first = restore_slowly(&vault, &path, || {
        refused(&restore(&vault, &path), "another restore is on its way");
        assert_eq!(in_store(&vault), ["restoring"], "the first one's");
    });
    said(&first);
    assert_eq!(in_store(&vault), ["vault.redb"]);
    vault.restart();
    assert_all_there(&vault.client(), &cards).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_fails_at_last_is_not_on_record_as_done() {
    let (vault, _, path) = lost(1_000).await;
    let store = vault.path("store/vault.redb");
    let ran = restore_slowly(&vault, &path, || fs::write(&store, "another's").unwrap());
    refused(&ran, "vault.redb");
    assert_eq!((in_store(&vault).len(), fs::read(&store).unwrap()), (1, b"another's".to_vec()));
    let log = AuditLog::of(&vault).follow();
    let told = log.iter().rfind(|line| line["event"] == "restore").unwrap();
    assert!(told["detail"].as_str().unwrap().starts_with("failed: "), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vault_that_is_stopped_can_be_backed_up() {
    let mut vault = Vault::start();
    let cards = fill(&vault.client(), &Pans::new().take(100)).await;
    assert!(vault.stop().success());
    let path = vault.path("the.backup");
    assert!(said(&backup(&vault, &path)).contains("100 records"));
    let before = fs::read(&path).unwrap();
    refused(&backup(&vault, &path), "a backup replaces nothing");
    assert_eq!(fs::read(&path).unwrap(), before);
    let lines = AuditLog::of(&vault).follow();
    let event = lines.iter().find(|line| line["event"] == "backup").unwrap();
    assert!(event["detail"].as_str().unwrap().contains("without a daemon, by user id"), "{event}");
    assert_eq!(lines.last().unwrap()["statement"]["final"], true, "the end is signed");
    destroy_store(&vault);
    said(&restore(&vault, &path));
    vault.restart();
    assert_all_there(&vault.client(), &cards).await;
}

#[test]
fn a_stream_that_is_cut_off_leaves_no_file() {
    let mut vault = Vault::start();
    assert!(vault.stop().success());
    let listener = UnixListener::bind(vault.path("admin.sock")).unwrap();
    let daemon = thread::spawn(move || {
        for answer in [
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nvaul\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nvaul",
            "HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n",
        ] {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 4_096];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let dir = vault.path("backups");
    fs::create_dir(&dir).unwrap();
    for reason in ["broke off the backup", "broke off the backup", "is it this vaultd?"] {
        refused(&backup(&vault, &dir.join("the.backup")), reason);
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 0);
    }
    daemon.join().unwrap();
}

#[test]
fn only_root_and_the_daemons_own_user_are_given_a_backup() {
    if !nix::unistd::geteuid().is_root() {
        not_run("this needs root");
        return;
    }
    let vault = Vault::start();
    // As if the administrator had opened the socket to a group.
    for (path, mode) in [("", 0o755), ("admin.sock", 0o666)] {
        fs::set_permissions(vault.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    let socket = vault.path("admin.sock");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "--max-time", "30", "-X", "POST", "--unix-socket", socket.to_str().unwrap()]);
    curl.arg("http://vault/v1/backup");
    let answer = curl.uid(65_534).gid(65_534).output().unwrap();
    let problem: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert_eq!((&problem["status"], &problem["code"]), (&json!(403), &json!("sender_mismatch")), "{problem}");
    let lines = AuditLog::of(&vault).follow();
    let entry = lines.iter().find(|line| line["op"] == "backup").unwrap();
    assert_eq!((&entry["outcome"], &entry["uid"]), (&json!("refused"), &json!(65_534)));
    assert_eq!(vault.request("POST", "/v1/backup", "").code(), "not_found", "not on the API's socket");
}

#[test]
fn a_token_that_is_older_than_the_backup_is_refused() {
    let mut vault = fast_vault();
    assert_eq!(rotate(&vault, "envelope"), 2);
    let backup = made(&vault, "a.backup");
    assert!(vault.stop().success());
    destroy_store(&vault);
    let deleted =
        vault.pkcs11_tool(&["--delete-object", "--type", "secrkey", "--label", "vaultd-envelope-v2"]);
    assert!(deleted.status.success(), "{deleted:?}");
    refused(&check(&vault, &backup), "lacks key envelope-v2, which the vault worked with");
    refused(&restore(&vault, &backup), "make a key envelope-v3 with the vendor's tools");
}

#[test]
fn keys_that_have_signed_the_log_since_a_backup_are_not_forgotten() {
    let mut vault = fast_vault();
    let backup = made(&vault, "a.backup");
    for version in 2..=3 {
        assert_eq!(rotate(&vault, "audit"), version);
        // Which signs the end of the log.
        assert!(vault.stop().success());
        vault.restart();
    }
    assert!(vault.stop().success());
    destroy_store(&vault);
    said(&restore(&vault, &backup));
    vault.restart();
    assert!(vault.stop().success());
    said(&vault_tests::run(&["audit", "verify", vault.path("audit").to_str().unwrap()]));
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_came_and_went_since_are_taken_over() {
    let mut vault = fast_vault();
    let cards = fill(&vault.client(), &Pans::new().take(200)).await;
    let early = made(&vault, "early.backup");
    for purpose in ["record", "fingerprint", "envelope"] {
        assert_eq!(rotate(&vault, purpose), 2);
    }
    let between = made(&vault, "between.backup");
    assert_eq!(rotate(&vault, "jwt"), 2);
    assert_eq!(rewrap(&vault)["state"], "done");

    // While the old keys are there, the early backup is good, and the store learns of the new ones.
    assert!(vault.stop().success());
    destroy_store(&vault);
    let ran = said(&restore(&vault, &early));
    assert!(ran.contains("made since the backup: record-v2, fingerprint-v2, envelope-v2, jwt-v2"), "{ran}");
    assert!(ran.contains("encrypt nothing more"), "{ran}");
    vault.restart();
    let spent = keys(&vault).into_iter().find(|key| key["purpose"] == "record" && key["state"] == "active");
    assert!(spent.as_ref().unwrap()["warning"].as_str().unwrap().contains("vaultd makes a new"), "{spent:?}");
    assert_all_there(&vault.client(), &cards).await;
    let (pan, token) = &cards[0];
    let again = vault.client().tokenize(&TokenizeRequest::new(pan.as_str())).await.unwrap();
    assert_eq!(&again.token, token, "the same card keeps its token");
    fill(&vault.client(), &Pans::new().take(10)).await;
    assert!(
        keys(&vault).iter().any(|key| key["purpose"] == "record" && key["version"] == 3),
        "a key whose encryptions nobody has counted is not used"
    );

    // Once they are destroyed, what was sealed with them is worthless, as it should be.
    assert_eq!(rewrap(&vault)["state"], "done");
    destroy_retired(&vault);
    let late = made(&vault, "late.backup");
    refused(&check(&vault, &early), "the token holds no key record-v1");
    refused(&check(&vault, &between), "the token holds no key record-v2");
    said(&check(&vault, &late));
    assert_eq!(rotate(&vault, "jwt"), 3);
    tokio::time::sleep(Duration::from_secs(2)).await;
    destroy_retired(&vault);
    assert!(vault.stop().success());
    destroy_store(&vault);
    let ran = said(&restore(&vault, &late));
    assert!(ran.contains("destroyed since the backup: jwt-v2"), "{ran}");
    vault.restart();
    assert_all_there(&vault.client(), &cards).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_audit_log_is_accepted_on_the_record_only() {
    let mut vault = Vault::start();
    let cards = fill(&vault.client(), &Pans::new().take(10)).await;
    let path = made(&vault, "the.backup");
    vault.kill();
    destroy_store(&vault);
    fs::remove_dir_all(vault.path("audit")).unwrap();
    let ran = said(&restore(&vault, &path));
    assert!(ran.contains("the audit log does not go as far as the backup"), "{ran}");
    let served = vault.run("serve");
    let why = String::from_utf8_lossy(&served.stderr).into_owned();
    assert!(!served.status.success() && why.contains("vaultd audit resume"), "{why}");
    said(&vault.run_with(&["audit", "resume", "--reason", "the disk of the log was lost"]));
    vault.restart();
    assert_all_there(&vault.client(), &cards).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_stops_while_a_backup_is_read_by_nobody() {
    let mut vault = Vault::start_with(|config| format!("{config}\n[limits]\nshutdown_grace_seconds = 2\n"));
    let client: VaultClient = vault.client();
    fill(&client, &Pans::new().take(20_000)).await;
    let mut stream = connect(&vault.path("admin.sock")).unwrap();
    stream.write_all(b"POST /v1/backup HTTP/1.1\r\nhost: vault\r\ncontent-length: 0\r\n\r\n").unwrap();
    let mut first = [0; 1_000];
    stream.read_exact(&mut first).unwrap();
    assert!(first.starts_with(b"HTTP/1.1 200 OK"));
    fill(&client, &Pans::new().take(1_000)).await;
    assert_eq!(vault.stop().code(), Some(0));
    vault.restart();
}

/// The blocks of shell in docs/backup.md that begin with `start`.
fn manual(start: &str) -> String {
    let manual = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/backup.md")).unwrap();
    let block = manual.split("```sh\n").find(|block| block.starts_with(start)).unwrap();
    block.split("```").next().unwrap().to_owned()
}

#[test]
fn the_drill_of_the_manual_works_as_it_stands_there() {
    if Module::of_this_run() != Module::Softhsm2 {
        not_run("it makes a SoftHSM2 token");
        return;
    }
    let place = tempfile::Builder::new().prefix("vt").tempdir_in("/tmp").unwrap();
    let vaultd = vault_tests::vaultd();
    let path = format!("{}:{}", vaultd.parent().unwrap().display(), std::env::var("PATH").unwrap());
    // Whatever happens, no daemon stays, and none is waited for without end.
    let script = format!("set -eu\ntrap 'kill $! 2>/dev/null || :' EXIT\n{}", manual("D=$(mktemp -d)"));
    let mut drill = Command::new("timeout");
    let ran = drill
        .args(["120", "sh", "-c", &script])
        .env("TMPDIR", place.path())
        .env("PATH", path)
        .output()
        .unwrap();
    let said = said(&ran);
    assert!(said.contains("can be restored: 1 records") && said.contains("restored: 1 records"), "{ran:?}");
    assert!(said.ends_with(r#"{"pan":"4111111111111111"}"#), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_log_says_what_has_happened_since() {
    let vault = Vault::start_with(|config| {
        config.replace("[audit]\n", "[audit]\nrotate_entries = 10\ncheckpoint_entries = 5\n")
    });
    let tokens = fill(&vault.client(), &Pans::new().take(2)).await;
    let paths = [0, 1].map(|card| format!("/v1/tokens/{}", tokens[card].1));
    let (header, _) = header(&made(&vault, "the.backup"));
    let file = |number: u32| vault.path(&format!("audit/audit-{number:08}.jsonl"));
    let fill_file = |number| {
        let since = Instant::now();
        while !file(number + 1).exists() {
            assert!(since.elapsed() < PATIENCE, "file {number} is never full");
            assert_eq!(vault.request("GET", &paths[1], "").status, 200);
        }
    };
    // Who may not has deleted nothing.
    let jwt = vault.minter().with_scope("detokenize");
    assert_eq!(vault.request_as(&jwt, "DELETE", &paths[1], "").status, 403);
    assert_eq!(vault.request("DELETE", &paths[0], "").status, 204);
    let in_file = (1..100).find(|number| !file(number + 1).exists()).unwrap();
    fill_file(in_file);
    assert_eq!(vault.request("PATCH", &paths[1], r#"{"expires_in":3600}"#).status, 200);
    fill_file(in_file + 1);
    // Finished files were compressed, and one just is.
    assert!(Command::new("gzip").args((1..=in_file).map(file)).status().unwrap().success());
    fs::write(file(in_file + 1).with_extension("jsonl.gz"), "half").unwrap();

    let script = manual("for number").replace("1234", &header["audit"]["seq"].to_string());
    let script = script.replace("/var/lib/vaultd", vault.path("").to_str().unwrap());
    let ran = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(ran.stderr, b"", "{ran:?}");
    let entries: Vec<Value> = said(&ran).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let found: Vec<_> = entries.iter().map(|entry| (&entry["op"], &entry["tokens"])).collect();
    let (deleted, changed) = (json!([tokens[0].1]), json!([tokens[1].1]));
    assert_eq!(found, [(&json!("tokens.delete"), &deleted), (&json!("tokens.change"), &changed)]);
}
