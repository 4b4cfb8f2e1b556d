//! What is left of card numbers in the memory of vaultd after 10,000 requests.
//!
//! Every byte of the process that can be read at all is searched, the PKCS#11 module's own memory among them, as a
//! debugger would with every right there is. That takes root.
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests")]

use std::{collections::HashSet, fs, io::Write, os::unix::fs::MetadataExt, thread, time::Duration};

use nix::unistd::geteuid;
use serde_json::{Value, json};
use vault_tests::{
    Answer, Caller, Hit, Pans, Vault, by_place, connect, find_pans, not_run, seeded_random, until,
};

const CALLERS: usize = 8;
/// Eight requests each, among them logins and envelopes.
const ROUNDS: usize = 120;
/// Seven requests each.
const ODD_ROUNDS: usize = 30;
/// Two requests each.
const BATCHES: usize = 70;
const BATCH: usize = 40;
/// More than a connection reads at a time.
const LARGEST_BATCH: usize = 1_000;
const LAST: usize = 4;
/// For a daemon to notice what became of a connection.
const NOTICED: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(10);

/// A caller's connection, still open, and the card numbers that went over it.
struct Client {
    caller: Caller,
    pans: HashSet<String>,
}

impl Client {
    /// Does everything many times over one connection.
    fn at_work(vault: &Vault, mut random: fastrand::Rng) -> Self {
        let (mut caller, mut fresh) = (Caller::new(vault, random.fork()), Pans::with(random));
        for _ in 0..ROUNDS {
            caller.everything().unwrap();
        }
        let mut client = Self { caller, pans: HashSet::new() };
        for _ in 0..ODD_ROUNDS {
            client.ask_odd_things(&fresh.next_pan());
        }
        for _ in 0..BATCHES {
            client.send_batch(fresh.take(BATCH));
        }
        client.send_batch(fresh.take(LARGEST_BATCH));
        // Small ones where there was room for a large one.
        for pan in fresh.take(LAST) {
            assert_eq!(client.post("/v1/tokenize", &json!({ "pan": pan })).status, 201);
            client.pans.insert(pan);
        }
        let pans: Vec<_> = client.caller.pans().map(ToOwned::to_owned).collect();
        client.pans.extend(pans);
        client
    }

    fn post(&mut self, path: &str, body: &Value) -> Answer {
        self.caller.send("POST", path, &body.to_string())
    }

    /// What is rarer, and what is refused.
    fn ask_odd_things(&mut self, pan: &str) {
        self.pans.insert(pan.to_owned());
        let numeric = self.post("/v1/tokenize", &json!({ "pan": pan, "template": "numeric" })).json();
        let token = &numeric["token"];
        let compared = self.post("/v1/tokens/compare", &json!({ "token": token, "pan": pan }));
        assert_eq!(compared.json()["equal"], true);
        let masked = self.post("/v1/detokenize", &json!({ "token": token, "reveal": "masked" }));
        assert_eq!(masked.status, 200);
        for (body, code) in [
            (format!("{{\"pan\":\"{pan}\""), "malformed_json"),
            (format!("{{\"pan\":\"{pan}\",\"{pan}\":1}}"), "invalid_request"),
            (format!("{{\"pan\":\"{pan}x\"}}"), "invalid_pan"),
            (format!("{{\"pan\":{pan}}}"), "invalid_request"),
        ] {
            assert_eq!(self.caller.send("POST", "/v1/tokenize", &body).code(), code);
        }
    }

    fn send_batch(&mut self, batch: Vec<String>) {
        let items: Vec<_> = batch.iter().map(|pan| json!({ "pan": grouped(pan) })).collect();
        let answer = self.post("/v1/tokenize/batch", &json!({ "items": items })).json();
        let tokens = answer["results"].as_array().unwrap().iter().map(|item| item["token"].clone());
        let answer =
            self.post("/v1/detokenize/batch", &json!({ "tokens": tokens.collect::<Value>() })).json();
        assert_eq!(answer["results"][batch.len() - 1]["pan"], *batch[batch.len() - 1]);
        self.pans.extend(batch);
    }
}

/// As it is printed on a card.
fn grouped(pan: &str) -> String {
    [&pan[..4], &pan[4..8], &pan[8..12], &pan[12..]].join(" ")
}

fn report(when: &str, hits: &[Hit]) {
    let different: HashSet<_> = hits.iter().map(|hit| &hit.pan).collect();
    eprintln!("{when}: {} card numbers, in {} places: {:?}", different.len(), hits.len(), by_place(hits));
    if std::env::var_os("VAULT_TEST_SHOW").is_some() {
        hits.iter().take(12).for_each(|hit| eprintln!("  {} {}", hit.mapping, hit.around));
    }
}

#[test]
fn ten_thousand_requests_leave_no_card_number_behind() {
    if !geteuid().is_root() {
        not_run("only root may look into another process");
        return;
    }
    let vault = Vault::start();
    let mut random = seeded_random();
    let clients: Vec<Client> = thread::scope(|scope| {
        let threads: Vec<_> = (0..CALLERS)
            .map(|_| {
                let (vault, random) = (&vault, random.fork());
                scope.spawn(move || Client::at_work(vault, random))
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let pans: HashSet<_> = clients.iter().flat_map(|client| client.pans.iter().cloned()).collect();
    let requests = CALLERS * (ROUNDS * 8 + LAST + ODD_ROUNDS * 7 + BATCHES * 2 + 2);
    eprintln!("{requests} requests with {} card numbers", pans.len());
    thread::sleep(NOTICED);
    let idle = find_pans(vault.pid(), &pans);
    report("connections open and idle", &idle);
    drop(clients);
    thread::sleep(NOTICED);
    let closed = find_pans(vault.pid(), &pans);
    report("connections closed", &closed);

    // A request that is still on its way is where it must be, which also shows that the search finds what is there.
    let pan = Pans::with(random).next_pan();
    let (mut stream, jwt) = (connect(&vault.socket()).unwrap(), vault.jwt());
    write!(
        stream,
        "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
         application/json\r\ncontent-length: 300\r\n\r\n{{\"pan\":\"{pan}\""
    )
    .unwrap();
    until(PATIENCE, "the half of a request is found", || !find_pans(vault.pid(), [&pan]).is_empty());
    let live = find_pans(vault.pid(), [&pan]);
    report("half of a request has come", &live);
    drop(stream);
    thread::sleep(NOTICED);
    let cut_off = find_pans(vault.pid(), [&pan]);
    report("and no more will", &cut_off);

    for hits in [idle, closed, cut_off] {
        assert!(hits.is_empty(), "{:?}", by_place(&hits));
    }
}

#[test]
fn nothing_is_ever_dumped() {
    let vault = Vault::start();
    let about = |name: &str| fs::read_to_string(format!("/proc/{}/{name}", vault.pid()));
    let limits = about("limits").unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().collect::<Vec<_>>()[4..6], ["0", "0"], "{core}");
    // What is not dumpable is root's in /proc (proc(5)), and nobody else's to look at.
    let owner = fs::metadata(format!("/proc/{}/environ", vault.pid())).unwrap().uid();
    assert_eq!(owner, 0);
    match about("coredump_filter") {
        Ok(filter) => assert_eq!(filter.trim(), "00000000"),
        Err(error) => assert!(!geteuid().is_root(), "{error}"),
    }
}
