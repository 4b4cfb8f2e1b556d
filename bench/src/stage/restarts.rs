//! A vault with ten million tokens: how soon it answers after a start, and what memory it has when it has been asked.
//!
//! Its file is in the page cache, as it is on a machine where only the daemon was started anew.

use std::{sync::Arc, time::Instant};

use anyhow::{Context as _, Result};
use tokio::time::sleep;

use crate::{
    load::{Lane, Load, Route},
    payload::{self, Pans, Random},
    run::{Run, say},
    side::Side,
    vault::{Kept, Place, StoreSize, Vault},
};

/// A copy of the kept vault.
#[derive(Debug)]
pub(crate) struct Big {
    pub(crate) place: Place,
    /// Some of its tokens.
    pub(crate) tokens: Arc<Vec<String>>,
    /// The deck of its PANs, of which [`RECORDS`] were drawn.
    pub(crate) seed: u64,
    pub(crate) store: StoreSize,
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Restarts {
    /// Seconds from the start of the process to the first answer, after the last one was told to end.
    pub(crate) after_stop: Vec<f64>,
    /// The same after it was killed in the middle of writing.
    pub(crate) after_kill: Vec<f64>,
    /// Bytes of memory after reads all over the store.
    pub(crate) resident: u64,
}

impl Big {
    /// Has the vault made if it is not kept already, and copies it.
    pub(crate) fn prepare(run: &Run<'_>) -> Result<Self> {
        let kept = Kept::open_or_make(run.program, &run.options.kept, RECORDS, run.seed)?;
        let (place, tokens) = kept.copy(run.program, run.dir, "b")?;
        Ok(Self { place, tokens: Arc::new(tokens), seed: kept.seed(), store: kept.store() })
    }
}

/// Starts it again and again.
pub(crate) fn measure(run: &Run<'_>, big: &Big) -> Result<Restarts> {
    let rounds = run.options.pick(1, 5, 9);
    say(&format!("starting the vault with ten million tokens {rounds} times, and as often after kill -9"))?;
    let (mut after_stop, mut after_kill, mut resident) = (Vec::new(), Vec::new(), 0);
    // PANs that nobody has drawn: from far behind those of the store, and others in every run.
    let pans = Arc::new(Pans::after(big.seed, FAR + run.seed));
    for round in 0..rounds {
        let (vault, took) = start(run.load, big)?;
        after_stop.push(took);
        if round == 0 {
            let time = run.options.time() * 4;
            let route = Side::Detokenize.route().context("a detokenize is a request")?;
            let bodies = |lane| payload::detokenize(&big.tokens, Random::new(run.seed, lane));
            let asked = run.load.run(&vault.target()?, route, time, bodies);
            asked.map_err(|error| vault.explain(error))?;
            resident = vault.resident()?;
        }
        kill_while_writing(run, vault, &pans)?;
        let (vault, took) = start(run.load, big)?;
        after_kill.push(took);
        vault.stop()?;
    }
    Ok(Restarts { after_stop, after_kill, resident })
}

/// Starts the vault: the seconds until it has answered.
fn start(load: &Load, big: &Big) -> Result<(Vault, f64)> {
    let begin = Instant::now();
    let vault = big.place.launch()?;
    let body = payload::detokenize(&big.tokens, Random::new(0, 0));
    let route = Side::DetokenizeAlone.route().context("a detokenize is a request")?;
    let took = load.first_answer(&vault.target()?, route, body, begin);
    let took = took.map_err(|error| vault.explain(error))?;
    Ok((vault, took.as_secs_f64()))
}

/// Kills the vault while it makes tokens for many callers.
fn kill_while_writing(run: &Run<'_>, mut vault: Vault, pans: &Arc<Pans>) -> Result<()> {
    let (target, time) = (vault.target()?, run.options.time());
    let route = Side::TokenizeNew.route().context("a tokenize is a request")?;
    let lane = |_| Lane::new(Route { connections: 1, ..route }, payload::tokenize_new(pans));
    let mut killed = None;
    let kill = async {
        sleep(time).await;
        killed = Some(vault.kill());
        Ok(())
    };
    let cut_off = run.load.run_during(&target, (0..route.connections).map(lane).collect(), kill);
    // Every caller is cut off; an error before that is one.
    match killed {
        Some(killed) => killed,
        None => cut_off.map(drop),
    }
}

/// Tokens in the store.
pub(crate) const RECORDS: u64 = 10_000_000;
/// Between the PANs in the store and those that a run adds to its copy.
pub(crate) const FAR: u64 = 1_000_000_000;
