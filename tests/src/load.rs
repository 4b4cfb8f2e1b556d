//! Callers at work, all at once, and a check at the end that nothing they were told has become untrue.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    AuditLog, Caller, Pans, Refusal, Vault,
    caller::{STEPS, Shared, Step},
    seeded_random, until,
};

/// How long a caller waits after a refusal. Less than it is told to, for the sake of the load.
const AFTER_REFUSAL: Duration = Duration::from_millis(5);
/// A caller that is so far behind its pace does not make up for it.
const FAR_BEHIND: Duration = Duration::from_secs(1);
/// Cards that everybody tokenizes.
const COMMON: usize = 32;
const BATCH: usize = 1_000;

/// What was answered since the last look.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Right answers.
    pub done: u64,
    /// Refusals, by code.
    pub refused: BTreeMap<String, u64>,
    /// The slowest answer.
    pub slowest: Duration,
    /// Everything that must not be.
    pub wrong: Vec<String>,
}

impl Tally {
    /// Panics if anything was wrong, or refused with another code than these.
    pub fn assert_only(&self, name: &str, codes: &[&str]) {
        assert!(self.wrong.is_empty(), "{name}: {:#?}", self.wrong);
        for code in self.refused.keys() {
            assert!(codes.contains(&code.as_str()), "{name}: {code} does not fit: {:?}", self.refused);
        }
    }
}

/// What was true at the end.
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    /// Tokens that were acknowledged and gave their card.
    pub living: usize,
    /// Tokens whose deletion was acknowledged and which are unknown.
    pub gone: usize,
    /// Answers that were heard and have their entry in the audit log.
    pub entries: usize,
}

/// Callers at work, each in a thread of its own, until this is dropped or [`Load::settle`]d.
pub struct Load {
    stop: Arc<AtomicBool>,
    /// Steps a second of all callers; 0 for as many as they can.
    pace: Arc<AtomicU64>,
    tally: Arc<Mutex<Tally>>,
    /// How many steps each caller has ended.
    steps: Vec<Arc<AtomicU64>>,
    threads: Vec<JoinHandle<Caller>>,
    prober: Option<JoinHandle<()>>,
    shared: Shared,
    audit: AuditLog,
    /// Ids of entries that nobody has heard the answer of, so far.
    written: HashSet<String>,
    /// Ids of answers whose entry has not been seen, so far.
    heard: HashSet<String>,
    entries: usize,
}

impl Load {
    /// So many callers, and one more who asks all the time whether the daemon is alive.
    pub fn start(vault: &Vault, callers: u64) -> Self {
        let mut load = Self::without_prober(vault, callers);
        let (stop, tally) = (Arc::clone(&load.stop), Arc::clone(&load.tally));
        let mut prober = Caller::new(vault, fastrand::Rng::new());
        load.prober = Some(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                // A connection that ends is for the callers to tell of.
                match prober.try_send("GET", "/healthz", "") {
                    Ok(answer) if answer.status != 200 => {
                        tally.lock().unwrap().wrong.push(format!("/healthz: {answer:?}"));
                    }
                    _ => {}
                }
                thread::sleep(AFTER_REFUSAL);
            }
        }));
        load
    }

    /// So many callers, and nobody else.
    pub fn without_prober(vault: &Vault, callers: u64) -> Self {
        let mut random = seeded_random();
        let common = Pans::in_lane(random.fork(), callers).take(COMMON);
        let mut load = Self {
            stop: Arc::default(),
            pace: Arc::default(),
            tally: Arc::default(),
            steps: Vec::new(),
            threads: Vec::new(),
            prober: None,
            shared: Shared::default(),
            audit: AuditLog::of(vault),
            written: HashSet::new(),
            heard: HashSet::new(),
            entries: 0,
        };
        for lane in 0..callers {
            let pans = Pans::in_lane(random.fork(), lane);
            let caller = Caller::with(vault, pans, common.clone(), load.shared.clone());
            let (stop, pace, tally) =
                (Arc::clone(&load.stop), Arc::clone(&load.pace), Arc::clone(&load.tally));
            let steps = Arc::<AtomicU64>::default();
            load.steps.push(Arc::clone(&steps));
            load.threads.push(thread::spawn(move || work(caller, &stop, &pace, callers, &tally, &steps)));
        }
        load
    }

    /// Sets how many steps a second all callers do together; 0 for as many as they can.
    pub fn pace(&self, per_second: u64) {
        self.pace.store(per_second, Ordering::Relaxed);
    }

    /// Waits, at most for `patience`, until each caller has ended what it is at: what it tells of afterwards began after
    /// this call.
    pub fn end_what_is_begun(&self, patience: Duration) {
        let ended = || self.steps.iter().map(|steps| steps.load(Ordering::Relaxed)).collect::<Vec<_>>();
        let before = ended();
        until(patience, "each caller ends what it is at", || {
            ended().iter().zip(&before).all(|(now, before)| now > before)
        });
    }

    /// What was answered since the last time.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap())
    }

    /// The same, which stays to be taken.
    pub fn so_far(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Reads on in the audit log, and lets entries and answers meet. Gives how many answers still wait for their entry,
    /// which is none unless they came meanwhile.
    pub fn meet(&mut self) -> usize {
        // In this order: an entry is written before its answer is heard.
        let heard = std::mem::take(&mut *self.shared.heard.lock().unwrap());
        self.entries += heard.len();
        self.heard.extend(heard);
        for entry in self.audit.follow_live() {
            let Some(id) = entry["request_id"].as_str() else { continue };
            if entry["outcome"] == "granted" && !self.heard.remove(id) {
                self.written.insert(id.to_owned());
            }
        }
        let written = &mut self.written;
        self.heard.retain(|id| !written.remove(id));
        self.heard.len()
    }

    /// The number of the file of the audit log that is read.
    pub fn audit_file(&self) -> u32 {
        self.audit.file()
    }

    /// Ends all callers and asks `vault`, which has to be well, for everything they were told.
    ///
    /// # Panics
    /// If anything of it is not true.
    pub fn settle(mut self, vault: &Vault) -> Settled {
        self.stop.store(true, Ordering::Relaxed);
        let callers: Vec<_> = self.threads.drain(..).map(|thread| thread.join().unwrap()).collect();
        let wrong = self.take().wrong;
        assert!(wrong.is_empty(), "{wrong:#?}");
        let mut settled = Settled { living: 0, gone: 0, entries: 0 };
        let common: Vec<_> = self.shared.tokens.lock().unwrap().clone().into_iter().collect();
        for living in callers.iter().map(|caller| caller.ledger.living()).chain([common.as_slice()]) {
            for cards in living.chunks(BATCH) {
                let results = reveal(vault, cards.iter().map(|(_, token)| token.as_str()));
                for ((pan, token), result) in cards.iter().zip(results) {
                    assert_eq!(result["pan"], *pan, "{token}: {result}");
                }
            }
            settled.living += living.len();
        }
        for caller in &callers {
            let gone = caller.ledger.gone();
            for tokens in gone.chunks(BATCH) {
                for result in reveal(vault, tokens.iter().map(String::as_str)) {
                    assert_eq!(result["error"]["code"], "unknown_token", "deleted, and back: {result}");
                }
            }
            settled.gone += gone.len();
        }
        assert_eq!(self.meet(), 0, "answers without an entry in the audit log: {:?}", self.heard);
        settled.entries = self.entries;
        settled
    }
}

fn reveal<'t>(vault: &Vault, tokens: impl Iterator<Item = &'t str>) -> Vec<Value> {
    let body = json!({ "tokens": tokens.collect::<Vec<_>>() }).to_string();
    let answer = vault.request("POST", "/v1/detokenize/batch", &body);
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["results"].as_array().unwrap().clone()
}

fn work(
    mut caller: Caller,
    stop: &AtomicBool,
    pace: &AtomicU64,
    callers: u64,
    tally: &Mutex<Tally>,
    steps: &AtomicU64,
) -> Caller {
    let mut random = fastrand::Rng::new();
    let all: u32 = STEPS.iter().map(|(_, weight)| weight).sum();
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let per_second = pace.load(Ordering::Relaxed);
        if per_second > 0 {
            due += Duration::from_secs(callers) / u32::try_from(per_second).unwrap();
            let now = Instant::now();
            if now > due + FAR_BEHIND {
                due = now;
            }
            thread::sleep(due.saturating_duration_since(now));
        } else {
            due = Instant::now();
        }
        let mut left = random.u32(..all);
        let next = STEPS.iter().find(|(_, weight)| {
            let found = left < *weight;
            left = left.saturating_sub(*weight);
            found
        });
        count(tally, &mut caller, next.unwrap().0);
        steps.fetch_add(1, Ordering::Relaxed);
    }
    caller
}

fn count(tally: &Mutex<Tally>, caller: &mut Caller, step: Step) {
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| step(caller)));
    let slowest = std::mem::take(&mut caller.slowest);
    let refused = matches!(result, Ok(Err(_)));
    let mut tally = tally.lock().unwrap();
    tally.slowest = tally.slowest.max(slowest);
    match result {
        Ok(Ok(())) => tally.done += 1,
        Ok(Err(Refusal(code))) => *tally.refused.entry(code).or_default() += 1,
        Err(panic) => {
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            tally.wrong.push(message.unwrap_or_else(|| "a panic without a message".to_owned()));
        }
    }
    drop(tally);
    if refused {
        thread::sleep(AFTER_REFUSAL);
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Some(prober) = self.prober.take() {
            let _ = prober.join();
        }
    }
}
