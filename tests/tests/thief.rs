//! A thief with a valid JWT takes as many cards as it can, as fast as it can.
//!
//! `VAULT_TEST_RECORDS` cards are in the vault, 100,000 unless it is set. A tenth of them is the limit, six tenths lock. The
//! thief asks for a million, or until it is locked, over many connections, single and in batches, while the vault is stopped, killed and started again under it.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "tests")]

use std::{
    collections::HashSet,
    io::Write,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use vault_tests::{Answer, Vault, connect, luhn_valid, read_answer_if_whole, seeded_random};

/// What the thief asks for, first ones again where there are fewer.
const WANTED: usize = 1_000_000;
const CONNECTIONS: usize = 16;
const BATCH: usize = 100;
/// Blocks of an allowance: what a kill may cost is one.
const BLOCKS: usize = 20;
const MOST_IN_A_BLOCK: usize = 1_024;
const HONEST: usize = 4;
const PATIENCE: Duration = Duration::from_mins(1);

/// A vault with `count` cards, of which a subject may see `limit` an hour, and their tokens.
fn filled(count: usize, limit: usize) -> (Vault, Vec<String>) {
    let lock_at = count / 10 * 6;
    let vault = Vault::start_with(|config| {
        config
            + &format!(
                "\n[guards.subject]\npans_per_hour = {limit}\nlock_at_pans_per_hour = {lock_at}\n[limits]\n\
                 max_batch_items = 1000\n"
            )
    });
    let numbers: Vec<_> = (0..count).collect();
    let tokens = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for part in numbers.chunks(count.div_ceil(4)) {
            let (vault, tokens) = (&vault, &tokens);
            scope.spawn(move || {
                for numbers in part.chunks(1_000) {
                    let items: Vec<_> = numbers.iter().map(|number| json!({ "pan": pan(*number) })).collect();
                    let body = json!({ "items": items }).to_string();
                    let made = vault.request("POST", "/v1/tokenize/batch", &body).json();
                    let made = made["results"].as_array().unwrap().iter();
                    tokens
                        .lock()
                        .unwrap()
                        .extend(made.map(|made| made["token"].as_str().unwrap().to_owned()));
                }
            });
        }
    });
    (vault, tokens.into_inner().unwrap())
}

/// The card number `number`: each another, each with a valid check digit.
fn pan(number: usize) -> String {
    let body = format!("4{number:014}");
    let check = ('0'..='9').find(|check| luhn_valid(&format!("{body}{check}"))).unwrap();
    format!("{body}{check}")
}

/// A connection that comes back when the vault does.
struct Line {
    socket: PathBuf,
    jwt: String,
    stream: Option<UnixStream>,
}

impl Line {
    fn new(vault: &Vault, jwt: &str) -> Self {
        Self { socket: vault.socket(), jwt: jwt.to_owned(), stream: None }
    }

    /// Asks for the cards of `tokens`; `None` if the vault went away before it answered.
    fn ask(&mut self, tokens: &[&String]) -> Option<Answer> {
        let (path, body) = match tokens {
            [token] => ("/v1/detokenize", json!({ "token": token })),
            tokens => ("/v1/detokenize/batch", json!({ "tokens": tokens })),
        };
        let (jwt, body) = (&self.jwt, body.to_string());
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        if self.stream.is_none() {
            self.stream = connect(&self.socket).ok();
        }
        let stream = self.stream.as_mut()?;
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let sent = stream.write_all(request.as_bytes()).is_ok();
        let answer = if sent { read_answer_if_whole(stream) } else { None };
        let closing =
            |answer: &Answer| answer.headers.get("connection").is_some_and(|value| value == "close");
        if answer.as_ref().is_none_or(closing) {
            self.stream = None;
        }
        answer
    }
}

/// The cards that an answer gives.
fn cards(answer: &Answer) -> Vec<String> {
    let body: Value = answer.json();
    let one = |card: &Value| card["pan"].as_str().map(ToOwned::to_owned);
    body["results"]
        .as_array()
        .map_or_else(|| one(&body).into_iter().collect(), |all| all.iter().filter_map(one).collect())
}

/// What the thief has got, and how far it is.
#[derive(Default)]
struct Theft {
    stolen: Mutex<HashSet<String>>,
    asked: AtomicUsize,
    locked: AtomicBool,
}

impl Theft {
    /// One of the thief's connections: singles and batches in turn, until everything was asked for or it is locked.
    fn steal(&self, mut line: Line, tokens: &[String]) {
        for turn in 0_usize.. {
            let size = if turn.is_multiple_of(2) { BATCH } else { 1 };
            let from = self.asked.fetch_add(size, Ordering::Relaxed);
            if from >= WANTED || self.locked.load(Ordering::Relaxed) {
                return;
            }
            let wanted: Vec<_> = (from..from + size).map(|number| &tokens[number % tokens.len()]).collect();
            let since = Instant::now();
            loop {
                assert!(since.elapsed() < PATIENCE * 2, "no answer but 503");
                match line.ask(&wanted) {
                    Some(answer) if [200, 429].contains(&answer.status) => {
                        self.stolen.lock().unwrap().extend(cards(&answer));
                        break;
                    }
                    Some(answer) if answer.status == 403 => {
                        assert_eq!(answer.code(), "caller_locked");
                        self.locked.store(true, Ordering::Relaxed);
                        return;
                    }
                    Some(answer) => assert_eq!(answer.status, 503, "{answer:?}"),
                    // Killed: what it was sent may have been on its way.
                    None => {}
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn stolen(&self) -> usize {
        self.stolen.lock().unwrap().len()
    }
}

/// Honest callers, who notice nothing.
#[derive(Default)]
struct Honest {
    stop: AtomicBool,
    /// Whether the vault is meant to be there.
    away: AtomicBool,
    times: Mutex<Vec<Duration>>,
    failed: Mutex<Vec<String>>,
}

impl Honest {
    /// Sees its own few cards again and again.
    fn work(&self, mut line: Line, tokens: &[String]) {
        while !self.stop.load(Ordering::Relaxed) {
            for token in tokens {
                let began = Instant::now();
                let answer = line.ask(&[token]);
                match answer {
                    Some(answer) if answer.status == 200 => self.times.lock().unwrap().push(began.elapsed()),
                    // Stopped, killed or starting: nobody is served then.
                    _ if self.away.load(Ordering::SeqCst) => {}
                    answer => self.failed.lock().unwrap().push(format!("{answer:?}")),
                }
                thread::sleep(Duration::from_millis(5));
            }
        }
    }

    fn report(&self) -> String {
        let mut times = std::mem::take(&mut *self.times.lock().unwrap());
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        format!("{} requests, median {:?}, 99th of a hundred {:?}", times.len(), at(50), at(99))
    }
}

#[test]
fn a_thief_gets_what_is_configured_and_others_notice_nothing() {
    let records = std::env::var("VAULT_TEST_RECORDS").ok().and_then(|text| text.parse().ok());
    let records: usize = records.unwrap_or(100_000);
    let limit = records / 10;
    let mut random = seeded_random();
    let began = Instant::now();
    let (mut vault, tokens) = filled(records, limit);
    eprintln!("{records} cards after {:?}", began.elapsed());

    let minter = vault.minter();
    let jwt = |subject: &str| minter.mint(&json!({ "sub": subject, "scope": "detokenize" }));
    let thief = jwt("thief");
    let (theft, honest) = (Arc::new(Theft::default()), Arc::new(Honest::default()));
    let mut honest_threads = Vec::new();
    for number in 0..HONEST {
        let line = Line::new(&vault, &jwt(&format!("honest {number}")));
        let (honest, tokens) = (Arc::clone(&honest), tokens[number * 10..number * 10 + 10].to_vec());
        honest_threads.push(thread::spawn(move || honest.work(line, &tokens)));
    }
    thread::sleep(Duration::from_secs(1));
    eprintln!("honest callers alone: {}", honest.report());

    let began = Instant::now();
    let tokens = Arc::new(tokens);
    let thief_threads: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let line = Line::new(&vault, &thief);
            let (theft, tokens) = (Arc::clone(&theft), Arc::clone(&tokens));
            thread::spawn(move || theft.steal(line, &tokens))
        })
        .collect();

    // Stopped and killed under the thief while it still gets something, and after that.
    let mut kills = 0;
    for restart in 0..4 {
        let at = theft.stolen() + random.usize(1..limit / 5);
        let patience = Instant::now() + Duration::from_secs(20);
        while theft.stolen() < at && !theft.locked.load(Ordering::Relaxed) && Instant::now() < patience {
            thread::sleep(Duration::from_millis(1));
        }
        honest.away.store(true, Ordering::SeqCst);
        if restart % 2 == 0 {
            vault.kill();
            kills += 1;
        } else {
            assert!(vault.stop().success());
        }
        vault.restart();
        // Whoever was on its way hears of it.
        thread::sleep(Duration::from_millis(100));
        honest.away.store(false, Ordering::SeqCst);
        assert!(theft.stolen() <= limit);
    }
    for thread in thief_threads {
        thread.join().unwrap();
    }
    eprintln!(
        "the thief asked for {} cards in {:?}, got {} of {limit}, and is {}locked; {kills} kills",
        theft.asked.load(Ordering::Relaxed),
        began.elapsed(),
        theft.stolen(),
        if theft.locked.load(Ordering::Relaxed) { "" } else { "not " },
    );
    eprintln!("honest callers meanwhile: {}", honest.report());
    assert!(theft.locked.load(Ordering::Relaxed), "it asked for far more than it may have");
    let lost_at_most = kills * (limit / BLOCKS).clamp(BATCH, MOST_IN_A_BLOCK);
    assert!(theft.stolen() <= limit && theft.stolen() + lost_at_most >= limit, "{}", theft.stolen());
    honest.stop.store(true, Ordering::Relaxed);
    for thread in honest_threads {
        thread.join().unwrap();
    }

    // Locked it stays.
    vault.kill();
    vault.restart();
    let mut line = Line::new(&vault, &thief);
    assert_eq!(line.ask(&[&tokens[0]]).unwrap().code(), "caller_locked");
    let failed = honest.failed.lock().unwrap();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn without_kills_the_thief_gets_the_number_to_the_card() {
    const LIMIT: usize = 4_000;
    let (mut vault, tokens) = filled(10_000, LIMIT);
    let thief = vault.minter().mint(&json!({ "sub": "thief", "scope": "detokenize" }));
    let mut stolen = HashSet::new();
    for (number, part) in tokens[..LIMIT + 1_500].chunks(250).enumerate() {
        let mut line = Line::new(&vault, &thief);
        let wanted: Vec<_> = part.iter().collect();
        let answer = line.ask(&wanted).unwrap();
        assert!([200, 429].contains(&answer.status), "{answer:?}");
        stolen.extend(cards(&answer));
        if number % 8 == 5 {
            assert!(vault.stop().success());
            vault.restart();
        }
    }
    assert_eq!(stolen.len(), LIMIT);
}
