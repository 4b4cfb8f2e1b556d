//! One run: the stages in order, and what they found.

use std::{
    fs,
    io::{self, Write as _},
    path::Path,
};

use anyhow::{Context as _, Result};
use clap::ValueEnum as _;

use crate::{
    Options,
    load::Load,
    machine::Machine,
    number::{float, grouped},
    side::Side,
    stage::{
        alternatives::{self, Alternatives},
        connections::{self, Curves},
        memory::{self, Memory},
        open_loop::{self, OpenLoop},
        restarts::{self, Big, Restarts},
        rotation::{self, Rotation},
        rounds::{self, Rounds},
        store_sizes,
    },
    subjects::Subjects,
    vault::StoreSize,
};

/// What every stage needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run<'r> {
    pub(crate) options: &'r Options,
    /// Where data lies while it is needed.
    pub(crate) dir: &'r Path,
    /// `vaultd`.
    pub(crate) program: &'r Path,
    pub(crate) load: &'r Load,
    pub(crate) seed: u64,
}

/// What a run found; what was not wanted is empty.
#[derive(Debug)]
pub(crate) struct Findings {
    pub(crate) machine: Machine,
    pub(crate) sampled: Option<Sampled>,
    pub(crate) store_sizes: Vec<store_sizes::Point>,
    pub(crate) restarts: Option<Restarts>,
    /// The store with ten million tokens.
    pub(crate) big_store: Option<StoreSize>,
    pub(crate) memory: Option<Memory>,
    pub(crate) rotation: Option<Rotation>,
}

/// What was found on one vault beside its ceilings.
#[derive(Debug)]
pub(crate) struct Sampled {
    /// Tokens in the store when the samples began and when they ended.
    pub(crate) tokens: (u64, u64),
    pub(crate) rounds: Rounds,
    pub(crate) connections: Curves,
    pub(crate) open_loop: Option<OpenLoop>,
    pub(crate) alternatives: Option<Alternatives>,
    pub(crate) store: StoreSize,
    /// Bytes of memory at the end.
    pub(crate) resident: u64,
}

impl Run<'_> {
    /// What `measure` finds, if `side` is wanted.
    fn if_wanted<T>(&self, side: Side, measure: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        if self.options.wants(side) { measure().map(Some) } else { Ok(None) }
    }
}

/// Measures everything that `options` want.
pub(crate) fn run(options: &Options, seed: u64) -> Result<Findings> {
    fs::create_dir_all(&options.out).with_context(|| format!("making {}", options.out.display()))?;
    let out = fs::canonicalize(&options.out).context("the path of --out")?;
    let machine = Machine::read(&out)?;
    let dir = tempfile::Builder::new().prefix("v").tempdir_in(&out).context("making a directory")?;
    // First, because the signals that it listens to must not end the bench with children running.
    let (load, program) = (Load::new()?, options.vaultd()?);
    let run = Run { options, dir: dir.path(), program: &program, load: &load, seed };

    // The slow part comes first: whoever waits for it may want to go away.
    let big = run.if_wanted(Side::Restarts, || Big::prepare(&run))?;
    let memory = run.if_wanted(Side::Memory, || memory::measure(&run))?;
    let restarts = big.as_ref().map(|big| restarts::measure(&run, big)).transpose()?;
    let mut store_sizes = Vec::new();
    if options.wants(Side::StoreSizes) {
        store_sizes = store_sizes::measure(&run, big.as_ref())?;
    }
    let rotation = run.if_wanted(Side::Rotation, || rotation::measure(&run))?;

    let is_sampled = |side| side <= Side::OpenLoop || side == Side::Alternatives;
    let any = Side::value_variants().iter().any(|side| is_sampled(*side) && options.wants(*side));
    let sampled = any.then(|| sample(&run)).transpose()?;
    let big_store = big.map(|big| big.store);
    Ok(Findings { machine, sampled, store_sizes, restarts, big_store, memory, rotation })
}

/// Measures what takes the vault and its ceilings.
fn sample(run: &Run<'_>) -> Result<Sampled> {
    say("starting the vault and its ceilings")?;
    let mut subjects = Subjects::start(run)?;
    let before = subjects.pans.drawn();
    let rounds = rounds::measure(run, &mut subjects)?;
    let connections = run.if_wanted(Side::Connections, || connections::measure(run, &subjects))?;
    let connections = connections.unwrap_or_default();
    let open_loop = run.if_wanted(Side::OpenLoop, || open_loop::measure(run, &mut subjects))?;
    let alternatives = run.if_wanted(Side::Alternatives, || alternatives::measure(run, &mut subjects))?;
    let tokens = (before, subjects.pans.drawn());
    let resident = subjects.vault.resident()?;
    say(&format!("stopping the vault, compacting its store of {} tokens", grouped(float(tokens.1))))?;
    let store = subjects.vault.stop()?.compact()?;
    Ok(Sampled { tokens, rounds, connections, open_loop, alternatives, store, resident })
}

/// Tells whoever waits what is being done.
pub(crate) fn say(what: &str) -> Result<()> {
    writeln!(io::stderr(), "bench: {what}").context("writing to stderr")
}
