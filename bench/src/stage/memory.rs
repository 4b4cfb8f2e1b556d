//! Memory of a vault that nobody has asked anything, and of one to which ten thousand callers are connected: to its two
//! sockets, between which the daemon shares out the files that it may open.

use std::{sync::Arc, thread::sleep, time::Duration};

use anyhow::{Context as _, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::{
    load::{Door, Route},
    payload::{self, Random},
    run::{Run, say},
    side::Side,
    vault::Place,
};

/// Bytes of resident memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// Before the first request.
    pub(crate) idle: u64,
    /// While [`CONNECTIONS`] are open, each of which has had an answer.
    pub(crate) connected: u64,
}

/// Measures both on one vault with the default page cache.
pub(crate) fn measure(run: &Run<'_>) -> Result<Memory> {
    say("memory when idle and with 10,000 connections")?;
    allow_files()?;
    let limits =
        format!("\n[limits]\nmax_connections = {0}\nmax_connections_per_uid = {0}\n", CONNECTIONS + 100);
    let place = Place::make(run.program, run.dir, "m", |config| Ok(config + &limits))?;
    let vault = place.serve()?;
    sleep(IDLE);
    let idle = vault.resident()?;
    vault.stop()?;
    let tokens = Arc::new(place.fill(run.seed, TOKENS, 1)?);
    let vault = place.serve()?;
    let route = Side::Detokenize.route().context("a detokenize is a request")?;
    let body = payload::detokenize(&tokens, Random::new(run.seed, 0));
    let health = Route { path: "/healthz", expected: 200, connections: CONNECTIONS - API };
    let doors = vec![
        Door {
            target: vault.target()?,
            method: "POST",
            route: Route { connections: API, ..route },
            body: Box::new(body),
        },
        Door { target: vault.admin()?, method: "GET", route: health, body: Box::new(|_: &mut Vec<u8>| {}) },
    ];
    let connected = run.load.hold_open(doors, || vault.resident());
    let connected = connected.map_err(|error| vault.explain(error))?;
    Ok(Memory { idle, connected })
}

/// Lets this process have a file for each connection.
fn allow_files() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("asking for the limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).context("raising the limit of open files")
}

/// The budget's number.
pub(crate) const CONNECTIONS: u64 = 10_000;
/// Those to the socket of the API: as many as a daemon takes that may open 20,000 files.
const API: u64 = 9_900;
const TOKENS: u64 = 1_000;
/// How long the vault rests before its idle memory is read.
const IDLE: Duration = Duration::from_secs(1);
