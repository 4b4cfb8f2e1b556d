//! One run: everything is started, then every side is sampled in turn, round after round.
//!
//! A side is sampled right beside its ceiling, in short samples, and every second round goes backwards: a
//! machine that slows down or speeds up in the meantime hits both.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
    thread::sleep,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;
use hdrhistogram::Histogram;
use serde::Serialize;

use crate::{
    Options,
    ceiling::{EmptyHandler, Hsm, Redb, hsm::Operation},
    connection::Target,
    cpu::Ticks,
    load::{Load, Route, Seen, histogram},
    machine::Machine,
    number::{float, median},
    oha::{self, Oha},
    payload::{self, BATCH, Body, Pans, Random},
    rotation::{self, Rotation},
    slow::SlowVault,
    vault::{StoreSize, TOKENIZE_BATCH, Vault},
};

/// Something whose rate is sampled: a request to the vault, or a ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
#[value(rename_all = "snake_case")]
pub(crate) enum Side {
    Detokenize,
    DetokenizeUnaudited,
    EmptyHandler,
    TokenizeSeen,
    TokenizeNew,
    RedbBy64,
    TokenizeBatch,
    TokenizeBatchWide,
    RedbBy1000,
    HsmPair,
    DetokenizeBatch,
    DetokenizeBatchWide,
    HsmOpen,
    DetokenizeAlone,
    UnknownToken,
    ForeignToken,
    DetokenizeSlowHsm,
    /// Not sampled but measured once, at the end.
    Rotation,
}

/// What a run found.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) machine: Machine,
    /// Requests, records, PANs, tokens or operations a second: every sample of every side.
    pub(crate) samples: BTreeMap<Side, Vec<f64>>,
    /// Nanoseconds of a detokenize with [`CONNECTIONS`].
    pub(crate) latency: Histogram<u64>,
    /// Nanoseconds of a detokenize with one connection.
    pub(crate) latency_alone: Histogram<u64>,
    /// Who had the processor during [`Side::DetokenizeSlowHsm`].
    pub(crate) slow_cpu: Ticks,
    /// Bytes of memory before the first request and after the last.
    pub(crate) resident: (u64, u64),
    /// Tokens in the store when the samples began and when they ended.
    pub(crate) tokens: (u64, u64),
    pub(crate) store: StoreSize,
    pub(crate) rotation: Option<Rotation>,
    /// The vault's and the empty handler's detokenize by oha, samples of both.
    pub(crate) oha: Option<(Vec<f64>, Vec<f64>)>,
}

impl Findings {
    /// Whether `side` was measured.
    pub(crate) fn has(&self, side: Side) -> bool {
        self.samples.contains_key(&side)
    }

    /// The median of the samples of `side`.
    pub(crate) fn rate(&self, side: Side) -> f64 {
        self.samples.get(&side).map_or(f64::NAN, |samples| median(samples))
    }
}

/// Measures everything.
pub(crate) fn run(options: &Options, seed: u64) -> Result<Findings> {
    fs::create_dir_all(&options.out).with_context(|| format!("making {}", options.out.display()))?;
    let out = fs::canonicalize(&options.out).context("the path of --out")?;
    let machine = Machine::read(&out)?;
    let dir = tempfile::Builder::new().prefix("v").tempdir_in(&out).context("making a directory")?;

    say("starting the ceilings and the vault")?;
    // First, because the signals that it listens to must not end the bench with children running.
    let load = Load::new()?;
    let mut bench = Bench::start(options, seed, load, dir.path())?;
    let found = bench.measure(options);
    bench.load.check_interrupt()?;
    let Bench { vault, pans, load, .. } = bench;
    let found = found.map_err(|error| vault.explain(error))?;
    let resident = (found.idle, vault.resident()?);
    say("stopping the vault, compacting its store")?;
    let store = vault.stop()?;
    let mut rotation = None;
    if options.wants(Side::Rotation) {
        say("rotating keys and rewrapping records under load")?;
        rotation = Some(rotation::measure(&options.vaultd()?, dir.path(), &load, seed, options.quick)?);
    }
    Ok(Findings {
        machine,
        samples: found.samples,
        latency: found.latency,
        latency_alone: found.latency_alone,
        slow_cpu: found.slow_cpu,
        resident,
        tokens: (found.preloaded, pans.drawn()),
        store,
        rotation,
        oha: found.oha,
    })
}

/// Everything that runs while it is measured.
struct Bench {
    seed: u64,
    time: Duration,
    load: Load,
    vault: Vault,
    target: Target,
    /// The same vault for another tenant, which has none of the tokens.
    stranger: Target,
    empty: EmptyHandler,
    hsm: Option<Hsm>,
    redb: Option<Redb>,
    slow: Option<SlowVault>,
    unaudited: Option<Unaudited>,
    oha: Option<Oha>,
    pans: Arc<Pans>,
    tokens: Arc<Vec<String>>,
}

/// The same vault without its audit log.
struct Unaudited {
    vault: Vault,
    tokens: Arc<Vec<String>>,
}

/// What is found while everything runs.
struct Found {
    idle: u64,
    preloaded: u64,
    samples: BTreeMap<Side, Vec<f64>>,
    latency: Histogram<u64>,
    latency_alone: Histogram<u64>,
    slow_cpu: Ticks,
    oha: Option<(Vec<f64>, Vec<f64>)>,
}

impl Bench {
    fn start(options: &Options, seed: u64, load: Load, dir: &Path) -> Result<Self> {
        let oha = if options.oha { Some(Oha::find(dir)?) } else { None };
        let empty = EmptyHandler::start(dir)?;
        let any = |sides: &[Side]| sides.iter().any(|side| options.wants(*side));
        let mut hsm = None;
        if any(&[Side::HsmPair, Side::HsmOpen]) {
            hsm = Some(Hsm::start(options.module.as_deref(), dir)?);
        }
        let program = options.vaultd()?;
        let vault = Vault::start(&program, dir, "d", |config| Ok(measured(&config, options.cache_mib)))?;
        let target = vault.target()?;
        let stranger = vault.stranger(&load)?;
        let (mut slow, mut unaudited, mut redb) = (None, None, None);
        if any(&[Side::DetokenizeSlowHsm]) {
            slow = Some(SlowVault::start(&program, dir, &load, seed)?);
        }
        if any(&[Side::DetokenizeUnaudited]) {
            let server = program.with_file_name("vaultd-unaudited");
            let config = |config: String| Ok(measured(&config, options.cache_mib));
            let vault = Vault::start_as(&program, &server, dir, "u", config)?;
            unaudited = Some(Unaudited { vault, tokens: Arc::default() });
        }
        if any(&[Side::RedbBy64, Side::RedbBy1000]) {
            say(&format!("filling redb alone with {} records", options.records))?;
            redb = Some(Redb::create(dir, seed, options.records)?);
        }
        let pans = Arc::new(Pans::new(seed));
        let tokens = Arc::default();
        Ok(Self {
            seed,
            time: options.time(),
            load,
            vault,
            target,
            stranger,
            empty,
            hsm,
            redb,
            slow,
            unaudited,
            oha,
            pans,
            tokens,
        })
    }

    fn measure(&mut self, options: &Options) -> Result<Found> {
        sleep(IDLE);
        let mut found = Found {
            idle: self.vault.resident()?,
            preloaded: 0,
            samples: BTreeMap::new(),
            latency: histogram()?,
            latency_alone: histogram()?,
            slow_cpu: Ticks::default(),
            oha: self.oha.is_some().then(Default::default),
        };
        say(&format!("filling the vault with {} tokens", options.records))?;
        self.tokens = Arc::new(self.vault.fill(&self.load, &self.pans, options.records)?);
        found.preloaded = self.pans.drawn();
        if let Some(unaudited) = &mut self.unaudited {
            say("filling the vault without an audit log as well")?;
            let others = Arc::new(Pans::new(self.seed));
            unaudited.tokens = Arc::new(unaudited.vault.fill(&self.load, &others, options.records)?);
        }
        for round in 1..=options.samples() {
            say(&format!("round {round} of {}", options.samples()))?;
            let mut order: Vec<_> = Side::value_variants().to_vec();
            order.retain(|side| options.wants(*side) && *side != Side::Rotation);
            if round % 2 == 0 {
                order.reverse();
            }
            for side in order {
                let rate = self.sample(side, &mut found)?;
                found.samples.entry(side).or_default().push(rate);
            }
            self.sample_with_oha(&mut found)?;
        }
        Ok(found)
    }

    /// One sample of `side`, as a rate.
    fn sample(&mut self, side: Side, found: &mut Found) -> Result<f64> {
        self.load.check_interrupt()?;
        let (pans, tokens) = (Arc::clone(&self.pans), Arc::clone(&self.tokens));
        // Another choice of tokens in every round: each round draws new PANs.
        let choice = self.seed ^ self.pans.drawn();
        let random = |lane| Random::new(choice, lane);
        let batched = float(BATCH);
        Ok(match side {
            Side::Detokenize => {
                let seen = self.ask(DETOKENIZE, |lane| payload::detokenize(&tokens, random(lane)))?;
                found.latency.add(seen.latency)?;
                seen.rate
            }
            Side::DetokenizeUnaudited => {
                let Unaudited { vault, tokens } = self.unaudited.as_ref().context(NOT_STARTED)?;
                let bodies = |lane| payload::detokenize(tokens, random(lane));
                let seen = self.load.run(&vault.target()?, DETOKENIZE, self.time, bodies);
                seen.map_err(|error| vault.explain(error))?.rate
            }
            Side::DetokenizeAlone => {
                let route = Route { connections: 1, ..DETOKENIZE };
                let seen = self.ask(route, |lane| payload::detokenize(&tokens, random(lane)))?;
                found.latency_alone.add(seen.latency)?;
                seen.rate
            }
            Side::UnknownToken => {
                let bodies = |lane| payload::detokenize_unknown(random(lane));
                self.load.run(&self.stranger, UNKNOWN, self.time, bodies)?.rate
            }
            Side::ForeignToken => {
                let bodies = |lane| payload::detokenize(&tokens, random(lane));
                self.load.run(&self.stranger, UNKNOWN, self.time, bodies)?.rate
            }
            Side::EmptyHandler => {
                let bodies = |lane| payload::detokenize(&tokens, random(lane));
                self.load.run(&self.empty_target(), DETOKENIZE, self.time, bodies)?.rate
            }
            Side::TokenizeSeen => {
                let known = found.preloaded;
                self.ask(TOKENIZE_SEEN, |lane| payload::tokenize_seen(&pans, known, random(lane)))?.rate
            }
            Side::TokenizeNew => self.ask(TOKENIZE_NEW, |_| payload::tokenize_new(&pans))?.rate,
            Side::TokenizeBatch => {
                batched * self.ask(TOKENIZE_BATCH, |_| payload::tokenize_batch(&pans))?.rate
            }
            Side::TokenizeBatchWide => {
                batched * self.ask(wide(TOKENIZE_BATCH), |_| payload::tokenize_batch(&pans))?.rate
            }
            Side::DetokenizeBatch => {
                let bodies = |lane| payload::detokenize_batch(&tokens, random(lane));
                batched * self.ask(DETOKENIZE_BATCH, bodies)?.rate
            }
            Side::DetokenizeBatchWide => {
                let bodies = |lane| payload::detokenize_batch(&tokens, random(lane));
                batched * self.ask(wide(DETOKENIZE_BATCH), bodies)?.rate
            }
            Side::DetokenizeSlowHsm => {
                let slow = self.slow.as_ref().context(NOT_STARTED)?;
                slow.sample(&self.load, self.time, choice, &mut found.slow_cpu)?.rate
            }
            Side::RedbBy64 => self.redb.as_mut().context(NOT_STARTED)?.sample(64, self.time)?,
            Side::RedbBy1000 => self.redb.as_mut().context(NOT_STARTED)?.sample(BATCH, self.time)?,
            Side::HsmPair => self.hsm.as_mut().context(NOT_STARTED)?.sample(Operation::Pair, self.time)?,
            Side::HsmOpen => self.hsm.as_mut().context(NOT_STARTED)?.sample(Operation::Open, self.time)?,
            Side::Rotation => bail!(NOT_STARTED),
        })
    }

    /// The vault and the empty handler once more, by a load generator that is not ours.
    fn sample_with_oha(&self, found: &mut Found) -> Result<()> {
        if let (Some(oha), Some((vault, empty))) = (&self.oha, &mut found.oha) {
            let bodies = self.tokens.iter().take(oha::MAX_BODIES);
            oha.write_bodies(bodies.map(|token| format!(r#"{{"token":"{token}"}}"#)))?;
            self.load.check_interrupt()?;
            vault.push(oha.sample(&self.target, DETOKENIZE, self.time)?);
            empty.push(oha.sample(&self.empty_target(), DETOKENIZE, self.time)?);
        }
        Ok(())
    }

    fn ask<B: Body>(&self, route: Route, bodies: impl Fn(u64) -> B) -> Result<Seen> {
        self.load.run(&self.target, route, self.time, bodies)
    }

    fn empty_target(&self) -> Target {
        Target { socket: PathBuf::from(self.empty.socket()), jwt: None }
    }
}

/// The configuration of the vault that is measured: with the page cache of the run, and a tenant without tokens.
fn measured(config: &str, cache_mib: u64) -> String {
    let config = config.replace("[store]", &format!("[store]\ncache_mib = {cache_mib}"));
    config.replace("tenant = \"dev\"", "tenant = \"dev\"\nclients = { stranger = \"stranger\" }")
}

/// Tells whoever waits what is being done.
fn say(what: &str) -> Result<()> {
    writeln!(io::stderr(), "bench: {what}").context("writing to stderr")
}

/// The route with several batches on their way, so that one can be parsed while another is committed.
fn wide(route: Route) -> Route {
    Route { connections: WIDE, ..route }
}

/// What is not wanted is neither started nor sampled.
const NOT_STARTED: &str = "this side was not started";
/// The budget's number of connections.
pub(crate) const CONNECTIONS: u64 = 64;
/// Batches at once in a wide run.
pub(crate) const WIDE: u64 = 4;
const DETOKENIZE: Route = Route { path: "/v1/detokenize", expected: 200, connections: CONNECTIONS };
const TOKENIZE_SEEN: Route = Route { path: "/v1/tokenize", expected: 200, connections: CONNECTIONS };
const TOKENIZE_NEW: Route = Route { path: "/v1/tokenize", expected: 201, connections: CONNECTIONS };
const DETOKENIZE_BATCH: Route = Route { path: "/v1/detokenize/batch", expected: 200, connections: 1 };
const UNKNOWN: Route = Route { path: "/v1/detokenize", expected: 404, connections: 1 };
/// How long the vault rests before its idle memory is read.
const IDLE: Duration = Duration::from_secs(1);
