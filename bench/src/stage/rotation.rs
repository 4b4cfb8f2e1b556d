//! A third vault, whose keys are rotated and whose records are rewrapped while callers go on: whether they feel it.
//!
//! The load never rests between the first rotation and the end of the job; its latencies are compared with those right
//! before. A request that fails, at any time, fails the bench.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use hdrhistogram::Histogram;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::sleep;
use vault_api::{Rewrap, RewrapState};

use crate::{
    connection::{Connection, Target},
    load::{Lane, Load, Route},
    payload::{self, Pans, Random},
    run::{Run, say},
    side::CONNECTIONS,
    vault::Place,
};

/// What callers noticed.
#[derive(Debug)]
pub(crate) struct Rotation {
    /// Nanoseconds of a request before the first rotation.
    pub(crate) before: Histogram<u64>,
    /// From the first rotation to the end of the rewrap.
    pub(crate) during: Histogram<u64>,
    /// Once it had ended.
    pub(crate) after: Histogram<u64>,
    /// Records that the job brought to the new keys.
    pub(crate) records: u64,
    /// `keys.rewrap_records_per_second`.
    pub(crate) pace: u64,
    /// What all rotations took together.
    pub(crate) rotating: Duration,
    /// What the rewrap took.
    pub(crate) rewrapping: Duration,
}

impl Rotation {
    /// Requests that were counted, of which none failed: one that fails ends the run.
    pub(crate) fn requests(&self) -> u64 {
        self.before.len() + self.during.len() + self.after.len()
    }
}

/// The vault, full, and what to ask it.
#[derive(Debug)]
struct Asked {
    api: Target,
    admin: Target,
    pans: Arc<Pans>,
    tokens: Arc<Vec<String>>,
}

/// Makes a vault, fills it, and changes its keys under load.
pub(crate) fn measure(run: &Run<'_>) -> Result<Rotation> {
    say("rotating keys and rewrapping records under load")?;
    let (records, pace) = run.options.pick(QUICK, FULL, FULL);
    let keys = format!("\n[keys]\nrewrap_records_per_second = {pace}\n");
    let home = Place::make(run.program, run.dir, "k", |config| Ok(config + &keys))?;
    let tokens = Arc::new(home.fill(run.seed, records, 1)?);
    let pans = Arc::new(Pans::after(run.seed, records));
    let vault = home.serve()?;
    let (api, admin) = (vault.target()?, vault.admin()?);
    let asked = Asked { api, admin, pans, tokens };
    asked.measure(run.load, run.seed, pace).map_err(|error| vault.explain(error))
}

impl Asked {
    fn measure(&self, load: &Load, seed: u64, pace: u64) -> Result<Rotation> {
        let calm = |choice, time| {
            let rest = async move {
                sleep(time).await;
                Ok(())
            };
            load.run_during(&self.api, self.lanes(choice), rest).map(|(latency, ())| latency)
        };
        calm(seed, WARM_UP)?;
        let before = calm(seed ^ 1, CALM)?;
        let (during, (rotating, rewrapping, records)) =
            load.run_during(&self.api, self.lanes(seed ^ 2), self.change_keys())?;
        let after = calm(seed ^ 3, CALM)?;
        Ok(Rotation { before, during, after, records, pace, rotating, rewrapping })
    }

    /// Half of the callers detokenize, half tokenize cards that are known.
    fn lanes(&self, choice: u64) -> Vec<Lane> {
        let known = self.pans.drawn();
        let lane = |lane: u64| -> Lane {
            let random = Random::new(choice, lane);
            if lane.is_multiple_of(2) {
                Lane::new(DETOKENIZE, payload::detokenize(&self.tokens, random))
            } else {
                Lane::new(TOKENIZE, payload::tokenize_seen(&self.pans, known, random))
            }
        };
        (0..CONNECTIONS).map(lane).collect()
    }

    /// Rotates every purpose and rewraps every record: what each took, and how many records there were.
    async fn change_keys(&self) -> Result<(Duration, Duration, u64)> {
        let begin = Instant::now();
        for purpose in PURPOSES {
            let path = format!("/v1/keys/{purpose}/rotate");
            self.ask::<Value>("POST", &path, 201).await.with_context(|| format!("rotating {purpose}"))?;
        }
        let rotated = Instant::now();
        self.ask::<Rewrap>("POST", "/v1/rewrap", 202).await.context("asking for a rewrap")?;
        loop {
            sleep(POLL).await;
            let job: Rewrap = self.ask("GET", "/v1/rewrap", 200).await.context("watching the rewrap")?;
            match job.state {
                RewrapState::Done => {
                    let all = u64::try_from(self.tokens.len())?;
                    ensure!(job.done >= all, "the rewrap is done with {} of {all} records", job.done);
                    return Ok((rotated - begin, rotated.elapsed(), job.done));
                }
                RewrapState::Running | RewrapState::Waiting => {}
                state => bail!("the rewrap is {state:?} with {} records left", job.left),
            }
            ensure!(rotated.elapsed() < PATIENCE, "{} records are left after {PATIENCE:?}", job.left);
        }
    }

    async fn ask<T: DeserializeOwned>(&self, method: &str, path: &str, expected: u16) -> Result<T> {
        let mut connection = Connection::open_for(&self.admin, method, path).await?;
        let answer = connection.post(&mut |_: &mut Vec<u8>| {}, expected).await?;
        serde_json::from_slice(answer).context("reading an answer of the admin socket")
    }
}

/// Records, and how many of them are rewrapped in a second: the number, in about a minute.
const FULL: (u64, u64) = (200_000, 4_000);
/// A tenth, at the pace of a vault whose configuration names none.
const QUICK: (u64, u64) = (20_000, 1_000);
const PURPOSES: [&str; 6] = ["record", "fingerprint", "holder", "envelope", "jwt", "audit"];
const DETOKENIZE: Route = Route { path: "/v1/detokenize", expected: 200, connections: CONNECTIONS / 2 };
const TOKENIZE: Route = Route { path: "/v1/tokenize", expected: 200, connections: CONNECTIONS / 2 };
/// Uncounted.
const WARM_UP: Duration = Duration::from_secs(1);
/// How long latencies are measured before and after.
const CALM: Duration = Duration::from_secs(5);
/// How often the job is looked at.
const POLL: Duration = Duration::from_millis(100);
/// Several times what the pace wants.
const PATIENCE: Duration = Duration::from_mins(10);
