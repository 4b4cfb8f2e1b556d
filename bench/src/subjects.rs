//! Everything that runs while it is measured, and a sample of each.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use crate::{
    Options,
    ceiling::{EmptyHandler, Hsm, Redb, hsm::Operation},
    connection::Target,
    cpu::Ticks,
    load::{Load, Route, Seen},
    number::float,
    oha::{self, Oha},
    payload::{self, BATCH, Body, Pans, Random},
    run::{Run, say},
    side::Side,
    slow::SlowVault,
    vault::{Place, Vault},
};

/// What runs; what is not wanted is not there.
pub(crate) struct Subjects {
    time: Duration,
    seed: u64,
    /// Tokens in the store, and records in the redb beside it, before the first sample.
    records: u64,
    pub(crate) vault: Vault,
    pub(crate) target: Target,
    /// The same vault for another tenant, which has none of the tokens.
    stranger: Target,
    pub(crate) pans: Arc<Pans>,
    pub(crate) tokens: Arc<Vec<String>>,
    empty: EmptyHandler,
    hsm: Option<Hsm>,
    redb: Option<Redb>,
    slow: Option<SlowVault>,
    unaudited: Option<Unaudited>,
    oha: Option<Oha>,
}

/// The same vault without its audit log.
struct Unaudited {
    vault: Vault,
    tokens: Arc<Vec<String>>,
}

/// One sample.
#[derive(Debug)]
pub(crate) struct Sample {
    /// Requests, records, PANs, tokens or operations a second.
    pub(crate) rate: f64,
    /// Nanoseconds of each request, where there are any.
    pub(crate) latency: Option<Histogram<u64>>,
    /// Who had the processor, where it matters.
    pub(crate) cpu: Option<Ticks>,
}

impl Subjects {
    /// Starts what `run` wants.
    pub(crate) fn start(run: &Run<'_>) -> Result<Self> {
        let Run { options, dir, program, seed, .. } = *run;
        let any = |sides: &[Side]| sides.iter().any(|side| options.wants(*side));
        let oha = if options.oha { Some(Oha::find(dir)?) } else { None };
        let empty = EmptyHandler::start(dir)?;
        let mut hsm = None;
        if any(&[Side::HsmPair, Side::HsmOpen]) {
            hsm = Some(Hsm::start(options.module.as_deref(), dir)?);
        }
        let records = options.records();
        say(&format!("filling the vault with {records} tokens"))?;
        let (vault, tokens) = filled(run, "d", records, Place::serve)?;
        let mut unaudited = None;
        if any(&[Side::DetokenizeUnaudited]) {
            say("filling the vault without an audit log as well")?;
            let server = program.with_file_name("vaultd-unaudited");
            let (vault, tokens) = filled(run, "u", records, |place| place.serve_with(&server))?;
            unaudited = Some(Unaudited { vault, tokens: Arc::new(tokens) });
        }
        let mut slow = None;
        if any(&[Side::DetokenizeSlowHsm]) {
            slow = Some(SlowVault::start(program, dir, seed)?);
        }
        let mut redb = None;
        if any(&[Side::RedbBy64, Side::RedbBy1000]) {
            say(&format!("filling redb alone with {records} records"))?;
            redb = Some(Redb::create(dir, seed, records)?);
        }
        let (target, stranger) = (vault.target()?, vault.stranger(run.load)?);
        Ok(Self {
            time: options.time(),
            seed,
            records,
            vault,
            target,
            stranger,
            pans: Arc::new(Pans::after(seed, records)),
            tokens: Arc::new(tokens),
            empty,
            hsm,
            redb,
            slow,
            unaudited,
            oha,
        })
    }

    /// One sample of `side`, with the budget's number of connections.
    pub(crate) fn sample(&mut self, load: &Load, side: Side) -> Result<Sample> {
        load.check_interrupt()?;
        let time = self.time;
        let not_started = || format!("{side:?} was not started");
        match side {
            Side::RedbBy64 | Side::RedbBy1000 => {
                let group = if side == Side::RedbBy64 { 64 } else { BATCH };
                self.redb.as_mut().with_context(not_started)?.sample(group, time).map(Sample::of_rate)
            }
            Side::HsmPair | Side::HsmOpen => {
                let operation = if side == Side::HsmPair { Operation::Pair } else { Operation::Open };
                self.hsm.as_mut().with_context(not_started)?.sample(operation, time).map(Sample::of_rate)
            }
            Side::DetokenizeSlowHsm => {
                let slow = self.slow.as_ref().with_context(not_started)?;
                let (seen, used) = slow.sample(load, time, self.choice())?;
                Ok(Sample { cpu: Some(used), ..Sample::from(seen) })
            }
            side => {
                let route = side.route().with_context(not_started)?;
                self.sample_over(load, side, route, time)
            }
        }
    }

    /// One sample of `side`, which is a request, as `route` says, for `time`.
    pub(crate) fn sample_over(
        &self,
        load: &Load,
        side: Side,
        route: Route,
        time: Duration,
    ) -> Result<Sample> {
        let (pans, choice) = (&self.pans, self.choice());
        let random = |lane| Random::new(choice, lane);
        let ask = |target: &Target, tokens: &Arc<Vec<String>>| {
            load.run(target, route, time, |lane| payload::detokenize(tokens, random(lane)))
        };
        let seen = match side {
            Side::DetokenizeUnaudited => {
                let Unaudited { vault, tokens } =
                    self.unaudited.as_ref().context("the vault without an audit log was not started")?;
                ask(&vault.target()?, tokens).map_err(|error| vault.explain(error))
            }
            Side::EmptyHandler => ask(&self.empty_target(), &self.tokens),
            Side::ForeignToken => ask(&self.stranger, &self.tokens),
            Side::UnknownToken => {
                let bodies = |lane| payload::detokenize_unknown(random(lane));
                load.run(&self.stranger, route, time, bodies)
            }
            Side::TokenizeSeen => {
                let bodies = |lane| payload::tokenize_seen(pans, self.records, random(lane));
                self.ask(load, route, time, bodies)
            }
            Side::TokenizeNew => self.ask(load, route, time, |_| payload::tokenize_new(pans)),
            Side::TokenizeBatch | Side::TokenizeBatchWide => {
                self.ask(load, route, time, |_| payload::tokenize_batch(pans)).map(per_item)
            }
            Side::DetokenizeBatch | Side::DetokenizeBatchWide => {
                let bodies = |lane| payload::detokenize_batch(&self.tokens, random(lane));
                self.ask(load, route, time, bodies).map(per_item)
            }
            _ => ask(&self.target, &self.tokens).map_err(|error| self.vault.explain(error)),
        };
        seen.map(Sample::from)
    }

    /// The vault's and the empty handler's detokenize once more, by a load generator that is not ours.
    pub(crate) fn sample_with_oha(&self, load: &Load) -> Result<Option<(f64, f64)>> {
        let Some((oha, route)) = self.oha.as_ref().zip(Side::Detokenize.route()) else { return Ok(None) };
        let bodies = self.tokens.iter().take(oha::MAX_BODIES);
        oha.write_bodies(bodies.map(|token| format!(r#"{{"token":"{token}"}}"#)))?;
        load.check_interrupt()?;
        let vault = oha.sample(&self.target, route, self.time)?;
        Ok(Some((vault, oha.sample(&self.empty_target(), route, self.time)?)))
    }

    /// Another choice of tokens in every round: each round draws new PANs.
    pub(crate) fn choice(&self) -> u64 {
        self.seed ^ self.pans.drawn()
    }

    fn ask<B: Body>(
        &self,
        load: &Load,
        route: Route,
        time: Duration,
        bodies: impl Fn(u64) -> B,
    ) -> Result<Seen> {
        load.run(&self.target, route, time, bodies).map_err(|error| self.vault.explain(error))
    }

    fn empty_target(&self) -> Target {
        Target { socket: PathBuf::from(self.empty.socket()), jwt: None }
    }
}

impl Sample {
    fn of_rate(rate: f64) -> Self {
        Self { rate, latency: None, cpu: None }
    }
}

impl From<Seen> for Sample {
    fn from(seen: Seen) -> Self {
        Self { rate: seen.rate, latency: Some(seen.latency), cpu: None }
    }
}

/// A vault with tokens, served as `serve` does, and its tokens.
fn filled(
    run: &Run<'_>,
    name: &str,
    records: u64,
    serve: impl FnOnce(&Place) -> Result<Vault>,
) -> Result<(Vault, Vec<String>)> {
    let change = |config: String| Ok(measured(&config, run.options));
    let place = Place::make(run.program, run.dir, name, change)?;
    let tokens = place.fill(run.seed, records, 1)?;
    Ok((serve(&place)?, tokens))
}

/// The configuration of a vault that is measured: with the page cache of the run, room for all connections of one user,
/// and a tenant without tokens.
fn measured(config: &str, options: &Options) -> String {
    let config = config.replace("[store]", &format!("[store]\ncache_mib = {}", options.cache_mib));
    let config =
        config.replace("tenant = \"dev\"", "tenant = \"dev\"\nclients = { stranger = \"stranger\" }");
    config + "\n[limits]\nmax_connections_per_uid = 1024\n"
}

/// Items a second for batches a second.
fn per_item(seen: Seen) -> Seen {
    Seen { rate: seen.rate * float(BATCH), ..seen }
}
