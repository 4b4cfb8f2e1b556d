//! The daemon and power failures: whatever a failure leaves of the store and the audit log, the vault starts by itself, every
//! token that it has given out gives its card, every one that it has deleted is gone, and every answer has its entry
//! in an audit log that verifies.
//!
//! `VAULT_CRASH_POINTS` says how many moments are tried. To see it fail: leave `sync_data` out of `CurrentFile::append`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vault_tests::{
    Answer, Caller, Disk, Left, Pans, Recording, Vault, crash_points, rewrap, rotate, run, seeded_random,
};

const CALLERS: usize = 6;
const LOAD: Duration = Duration::from_secs(3);
/// Tokens of a batch.
const BATCH: usize = 1_000;

/// A card that was given a token, and where the record was when that and its end were known.
#[derive(Debug)]
struct Card {
    pan: String,
    token: String,
    given: u64,
    deletion_asked: Option<u64>,
    deleted: Option<u64>,
}

/// What callers have heard.
#[derive(Debug, Default)]
struct Heard {
    cards: Vec<Card>,
    /// The ids of answers.
    answers: Vec<(u64, String)>,
}

/// Callers at work for a while.
fn load(vault: &Vault, random: &mut fastrand::Rng, time: Duration, heard: &Mutex<Heard>) {
    let end = Instant::now() + time;
    thread::scope(|scope| {
        for random in (0..CALLERS).map(|_| random.fork()).collect::<Vec<_>>() {
            scope.spawn(move || work(vault, random, end, heard));
        }
    });
}

/// One caller's work until `end`.
fn work(vault: &Vault, mut random: fastrand::Rng, end: Instant, heard: &Mutex<Heard>) {
    let recording = vault.recording();
    let mut pans = Pans::with(random.fork());
    let mut caller = Caller::new(vault, random.fork());
    let mut mine: Vec<usize> = Vec::new();
    let mut send = |method: &str, path: &str, body: &Value| -> (u64, Answer) {
        let answer = caller.send(method, path, &body.to_string());
        let at = recording.position();
        heard.lock().unwrap().answers.push((at, answer.headers["x-request-id"].clone()));
        (at, answer)
    };
    while Instant::now() < end {
        let card = (!mine.is_empty()).then(|| random.usize(..mine.len()));
        match (card, random.u8(..10)) {
            (Some(place), 0) => {
                let card = mine.swap_remove(place);
                let token = {
                    let mut heard = heard.lock().unwrap();
                    heard.cards[card].deletion_asked = Some(recording.position());
                    heard.cards[card].token.clone()
                };
                let (at, answer) = send("DELETE", &format!("/v1/tokens/{token}"), &json!({}));
                assert_eq!(answer.status, 204, "{answer:?}");
                heard.lock().unwrap().cards[card].deleted = Some(at);
            }
            (Some(place), 1..5) => {
                let token = heard.lock().unwrap().cards[mine[place]].token.clone();
                let (_, answer) = send("POST", "/v1/detokenize", &json!({ "token": token }));
                assert_eq!(answer.status, 200, "{answer:?}");
            }
            _ => {
                let pan = pans.next_pan();
                let (given, answer) = send("POST", "/v1/tokenize", &json!({ "pan": pan, "holder": "A B" }));
                assert_eq!(answer.status, 201, "{answer:?}");
                let token = answer.json()["token"].as_str().unwrap().to_owned();
                let mut heard = heard.lock().unwrap();
                mine.push(heard.cards.len());
                heard.cards.push(Card { pan, token, given, deletion_asked: None, deleted: None });
            }
        }
    }
}

/// What callers have heard when the record was so long.
fn heard_by(heard: &Heard, at: u64) -> (Vec<&Card>, Vec<&Card>, Vec<&str>) {
    let by = |position: Option<u64>| position.is_some_and(|position| position <= at);
    let given = |card: &&Card| card.given <= at;
    let alive = heard.cards.iter().filter(given).filter(|card| !by(card.deletion_asked)).collect();
    let deleted = heard.cards.iter().filter(given).filter(|card| by(card.deleted)).collect();
    let answers = heard.answers.iter().filter(|(heard, _)| *heard <= at).map(|(_, id)| id.as_str()).collect();
    (alive, deleted, answers)
}

async fn check_tokens(vault: &Vault, alive: &[&Card], deleted: &[&Card]) {
    let client = vault.client();
    for (cards, are_there) in [(alive, true), (deleted, false)] {
        for cards in cards.chunks(BATCH) {
            let tokens: Vec<_> = cards.iter().map(|card| card.token.as_str()).collect();
            let found = client.detokenize_batch(&tokens).await.unwrap();
            for (card, found) in cards.iter().zip(found) {
                let found = found.ok().map(|found| found.pan.expose().to_owned());
                assert_eq!(found, are_there.then(|| card.pan.clone()), "{card:?}");
            }
        }
    }
    // The index leads there, too.
    if let Some(card) = alive.last() {
        let answer = vault.request("POST", "/v1/tokenize", &json!({ "pan": card.pan }).to_string());
        assert_eq!(answer.json()["token"], card.token, "a second token for one card");
    }
}

fn check_entries(vault: &Vault, answers: &[&str]) {
    let files = fs::read_dir(vault.path("audit")).unwrap().map(|entry| entry.unwrap().path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"));
    let log: String = logs.map(|path| fs::read_to_string(path).unwrap()).collect();
    let entries = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let written: HashSet<_> =
        entries.filter_map(|entry| Some(entry["request_id"].as_str()?.to_owned())).collect();
    let missing: Vec<_> = answers.iter().filter(|id| !written.contains(**id)).collect();
    assert!(missing.is_empty(), "answers without an entry: {missing:?}");
}

fn verify(vault: &Vault) -> std::process::Output {
    run(&["audit", "verify", vault.path("audit").to_str().unwrap()])
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_left_the_vault_goes_on_with_all_that_it_has_said() {
    let mut random = seeded_random();
    let mut vault = Vault::start_recorded();
    assert!(vault.stop().success());
    vault.change_config(|config| {
        config.replace("[audit]\n", "[audit]\nrotate_entries = 150\ncheckpoint_entries = 40\n")
    });
    vault.restart();
    let heard = Mutex::new(Heard::default());
    load(&vault, &mut random, LOAD / 4, &heard);
    // The token stands aside: it has its own files, and must not have keys that the store has not heard of yet.
    for purpose in ["record", "holder", "audit"] {
        rotate(&vault, purpose);
    }
    let ready = vault.recording().position();
    thread::scope(|scope| {
        scope.spawn(|| assert_eq!(rewrap(&vault)["state"], "done"));
        load(&vault, &mut random, LOAD, &heard);
    });
    vault.kill();
    let (recording, heard): (Recording, Heard) = (vault.recorded(), heard.into_inner().unwrap());
    let trace = recording.trace();
    recording.assert_whole(&trace);

    let first = trace.changes_before(ready);
    let mut points = BTreeMap::<usize, usize>::new();
    for _ in 0..crash_points(8) {
        *points.entry(random.usize(first..=trace.len())).or_default() += 1;
    }
    let (mut disk, mut tried, mut tokens, mut entries, mut torn) = (Disk::default(), 0, 0, 0, 0);
    for (point, times) in points {
        disk.advance(&trace, point);
        let (alive, deleted, answers) = heard_by(&heard, trace.end_of(point));
        for _ in 0..times {
            let left = Left::any(&mut random);
            println!("a power failure after change {point} of {}, with {left:?} left", trace.len());
            disk.restore(left, &mut random);
            torn += usize::from(!verify(&vault).status.success());
            vault.restart();
            check_tokens(&vault, &alive, &deleted).await;
            check_entries(&vault, &answers);
            assert!(vault.stop().success());
            let verified = verify(&vault);
            assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
            (tried, tokens, entries) =
                (tried + 1, tokens + alive.len() + deleted.len(), entries + answers.len());
        }
    }
    println!(
        "{tried} power failures in {} changes: {tokens} tokens and {entries} entries looked for, none missing; \
         {torn} logs did not verify before the vault had repaired them",
        trace.len()
    );
    assert!(tokens > 0 && entries > 0, "nothing was looked for");
}
