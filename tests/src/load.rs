//! Callers who do everything at once, and know what the right answer is.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::net::UnixStream,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{Answer, Pans, Vault, read_answer, seeded_random};

/// How long a caller waits after a 503. Less than it is told to, for the sake of the load.
const AFTER_REFUSAL: Duration = Duration::from_millis(5);

/// What was answered since the last look.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Right answers.
    pub done: u64,
    /// Answers with status 503, by code.
    pub refused: BTreeMap<String, u64>,
    /// The slowest answer.
    pub slowest: Duration,
    /// Everything that must not be.
    pub wrong: Vec<String>,
}

/// A 503 and its code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal(pub String);

/// One caller on one connection, and what it remembers.
pub struct Caller {
    socket: PathBuf,
    stream: UnixStream,
    jwt: String,
    pans: Pans,
    /// Cards with their tokens, and cards with an envelope they are in.
    tokens: Vec<(String, String)>,
    envelopes: Vec<(String, String)>,
    slowest: Duration,
}

/// What a caller does.
type Step = fn(&mut Caller) -> Result<(), Refusal>;

const STEPS: [Step; 7] = [
    Caller::tokenize_new,
    Caller::tokenize_known,
    Caller::detokenize,
    Caller::search,
    Caller::seal,
    Caller::open,
    Caller::login,
];

impl Caller {
    /// A caller whose cards follow from `random`.
    pub fn new(vault: &Vault, random: fastrand::Rng) -> Self {
        Self {
            socket: vault.socket(),
            stream: UnixStream::connect(vault.socket()).unwrap(),
            jwt: vault.jwt(),
            pans: Pans::with(random),
            tokens: Vec::new(),
            envelopes: Vec::new(),
            slowest: Duration::ZERO,
        }
    }

    /// Does each thing once, in an order in which each can be done.
    ///
    /// # Errors
    /// The first [`Refusal`].
    ///
    /// # Panics
    /// If an answer is wrong.
    pub fn everything(&mut self) -> Result<(), Refusal> {
        STEPS.iter().try_for_each(|step| step(self))?;
        match self.send("GET", "/readyz", "").status {
            200 => Ok(()),
            _ => Err(Refusal("not ready".to_owned())),
        }
    }

    /// Every card number it has sent.
    pub fn pans(&self) -> impl Iterator<Item = &str> {
        self.tokens.iter().chain(&self.envelopes).map(|(pan, _)| pan.as_str())
    }

    fn tokenize_new(&mut self) -> Result<(), Refusal> {
        let pan = self.pans.next_pan();
        let answer = self.post("/v1/tokenize", &json!({ "pan": pan }))?;
        self.tokens.push((pan, text(&answer["token"])));
        Ok(())
    }

    fn tokenize_known(&mut self) -> Result<(), Refusal> {
        let Some((pan, token)) = pick(&self.tokens) else { return Ok(()) };
        let answer = self.post("/v1/tokenize", &json!({ "pan": pan }))?;
        assert_eq!(answer["token"], token, "the same card has another token");
        Ok(())
    }

    fn detokenize(&mut self) -> Result<(), Refusal> {
        let Some((pan, token)) = pick(&self.tokens) else { return Ok(()) };
        let answer = self.post("/v1/detokenize", &json!({ "token": token }))?;
        assert_eq!(answer["pan"], pan, "another card was given back");
        Ok(())
    }

    fn search(&mut self) -> Result<(), Refusal> {
        let Some((pan, token)) = pick(&self.tokens) else { return Ok(()) };
        let answer = self.post("/v1/tokens/search", &json!({ "pan": pan }))?;
        let found: Vec<_> =
            answer["tokens"].as_array().unwrap().iter().map(|record| &record["token"]).collect();
        assert_eq!(found, [&token], "the search found something else");
        Ok(())
    }

    fn seal(&mut self) -> Result<(), Refusal> {
        let pan = self.pans.next_pan();
        let card = json!({ "meta_data": { "card_number": pan, "expiry_date": "12/31" } });
        let answer = self.post("/v1/envelopes", &card)?;
        self.envelopes.push((pan, text(&answer["jwt"])));
        Ok(())
    }

    fn open(&mut self) -> Result<(), Refusal> {
        let Some((pan, jwt)) = pick(&self.envelopes) else { return Ok(()) };
        let answer = self.post("/v1/envelopes/open", &json!({ "jwt": jwt }))?;
        assert_eq!(answer["meta_data"]["card_number"], pan, "another card was given back");
        Ok(())
    }

    /// The JWT is used from then on, so a bad signature shows.
    fn login(&mut self) -> Result<(), Refusal> {
        let answer = self.post("/v1/login", &json!({}))?;
        self.jwt = text(&answer["access_token"]);
        Ok(())
    }

    fn post(&mut self, path: &str, body: &Value) -> Result<Value, Refusal> {
        let answer = self.send("POST", path, &body.to_string());
        match answer.status {
            200 | 201 => Ok(answer.json()),
            503 => Err(Refusal(answer.code())),
            _ => panic!("{path}: {answer:?}"),
        }
    }

    /// Sends one request with the caller's JWT.
    pub fn send(&mut self, method: &str, path: &str, body: &str) -> Answer {
        let began = Instant::now();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nhost: vault\r\nauthorization: Bearer {}\r\ncontent-type: \
             application/json\r\ncontent-length: {}\r\n\r\n{body}",
            self.jwt,
            body.len()
        );
        self.stream.write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut self.stream);
        if answer.headers.get("connection").is_some_and(|value| value == "close") {
            self.stream = UnixStream::connect(&self.socket).unwrap();
        }
        self.slowest = self.slowest.max(began.elapsed());
        answer
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn pick(pairs: &[(String, String)]) -> Option<(String, String)> {
    (!pairs.is_empty()).then(|| pairs[fastrand::usize(..pairs.len())].clone())
}

/// Callers at work, each in a thread of its own, until this is dropped.
pub struct Load {
    stop: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// So many callers, and one more who asks all the time whether the daemon is alive.
    pub fn start(vault: &Vault, callers: u64) -> Self {
        let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Tally::default())));
        let mut random = seeded_random();
        let mut threads = Vec::new();
        for _ in 0..callers {
            let mut caller = Caller::new(vault, random.fork());
            let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
            threads.push(thread::spawn(move || {
                let mut random = fastrand::Rng::new();
                while !stop.load(Ordering::Relaxed) {
                    let next = STEPS[random.usize(..STEPS.len())];
                    count(&tally, &mut caller, next);
                }
            }));
        }
        let mut prober = Caller::new(vault, random.fork());
        let (stopped, tallied) = (Arc::clone(&stop), Arc::clone(&tally));
        threads.push(thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let answer = prober.send("GET", "/healthz", "");
                if answer.status != 200 {
                    tallied.lock().unwrap().wrong.push(format!("/healthz: {answer:?}"));
                }
                thread::sleep(AFTER_REFUSAL);
            }
        }));
        Self { stop, tally, threads }
    }

    /// What was answered since the last time.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut self.tally.lock().unwrap())
    }
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
    }
}
