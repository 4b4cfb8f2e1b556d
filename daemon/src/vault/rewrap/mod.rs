//! Rewrap: brings every record to the active keys, while callers go on.
//!
//! The job walks over the records a few at a time, opens them, seals and fingerprints them anew, and replaces them
//! unless somebody changed them meanwhile. Where it is stands in the store, so that a crash costs it nothing. When it
//! comes to the end and old keys still hold records, it starts over: keys may have been rotated on its way.

mod step;

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{Vault, VaultError, now_ms};
use crate::{
    hsm::KeyName,
    store::{KeyRole, KeyState, RewrapJob, StoreError},
};

/// Records that are opened, sealed and committed together: few, so that no caller waits long behind them.
const RECORDS_AT_ONCE: usize = 32;
/// How far behind its pace the job may be and still catch up.
const CREDIT: Duration = Duration::from_millis(100);
/// How long after a fault the job goes on.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// How the job is paced, and how it stands.
#[derive(Clone, Default)]
pub(super) struct Rewrapping {
    running: Arc<Mutex<Option<Running>>>,
}

#[derive(Clone, Copy)]
struct Running {
    since: Instant,
    done_before: u64,
    fault: bool,
    /// Somebody has asked for it since the current pass was looked back on.
    asked: bool,
}

/// How far the job is. Times are milliseconds of Unix time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RewrapReport {
    /// Whether it is on its way.
    pub running: bool,
    /// Whether it waits for the HSM or the store to come back.
    pub waiting: bool,
    /// When it was started; `None` if there never was one.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
    /// Records it has brought to the active keys.
    pub done: u64,
    /// Records it could not open.
    pub failed: u64,
    /// Records that retired keys still hold, of the role that has most left.
    pub left: u64,
    /// Records a second since it was started or resumed.
    pub rate: f64,
}

impl RewrapReport {
    /// How many seconds it will take at this rate; `None` if it does not run, or has not begun to.
    pub fn eta_s(&self) -> Option<u64> {
        if !self.running || self.rate <= 0.0 {
            return None;
        }
        let left = u32::try_from(self.left).unwrap_or(u32::MAX);
        let seconds = Duration::try_from_secs_f64(f64::from(left) / self.rate).ok()?;
        Some(seconds.as_secs())
    }
}

impl Vault {
    /// Starts the job, unless it is on its way; says how it stands.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub async fn start_rewrap(&self) -> Result<RewrapReport, VaultError> {
        if self.rewrapping.begin(0) {
            let vault = self.clone();
            // Whoever asked may go away while it is written down, and nobody else could begin then.
            let started = tokio::spawn(async move {
                let job = RewrapJob { started_at_ms: now_ms(), ..RewrapJob::default() };
                // On disk before it is acknowledged.
                match vault.store.rewrap(Vec::new(), job).await {
                    Ok((_, job)) => vault.spawn_rewrap(job),
                    Err(error) => {
                        vault.rewrapping.end();
                        return Err(error);
                    }
                }
                Ok(())
            });
            let ended = |_| Err(StoreError::Failed("the rewrap ended before it began".to_owned()));
            started.await.unwrap_or_else(ended)?;
        }
        self.rewrap_report()
    }

    /// Goes on with a job that the last process did not end.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub fn resume_rewrap(&self) -> Result<(), VaultError> {
        if let Some(job) = self.store.rewrap_job()?.filter(|job| job.finished_at_ms == 0)
            && self.rewrapping.begin(job.done)
        {
            tracing::info!(done = job.done, "going on with the rewrap");
            self.spawn_rewrap(job);
        }
        Ok(())
    }

    /// How the job stands.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub fn rewrap_report(&self) -> Result<RewrapReport, VaultError> {
        let job = self.store.rewrap_job()?;
        let running = self.rewrapping.running();
        let (started, finished) = job.as_ref().map_or((0, 0), |job| (job.started_at_ms, job.finished_at_ms));
        let (done, failed) = job.as_ref().map_or((0, 0), |job| (job.done, job.failed));
        let rate = running.map_or(0.0, |running| {
            let fresh = u32::try_from(done.saturating_sub(running.done_before)).unwrap_or(u32::MAX);
            f64::from(fresh) / running.since.elapsed().as_secs_f64().max(f64::EPSILON)
        });
        Ok(RewrapReport {
            running: running.is_some(),
            waiting: running.is_some_and(|running| running.fault),
            started_at_ms: Some(started).filter(|at| *at != 0),
            finished_at_ms: Some(finished).filter(|at| *at != 0),
            done,
            failed,
            left: self.left_to_rewrap()?,
            rate,
        })
    }

    /// Records that retired keys hold, of the role that has most.
    fn left_to_rewrap(&self) -> Result<u64, VaultError> {
        let keys = self.store.keys()?;
        let left = |role: KeyRole| -> u64 {
            let is_of = |name: &str| {
                KeyName::parse(name).is_some_and(|name| KeyRole::of(name.purpose.as_str()) == Some(role))
            };
            let retired = keys.iter().filter(|(name, key)| key.state == KeyState::Retired && is_of(name));
            retired.map(|(_, key)| key.records).sum()
        };
        Ok(KeyRole::ALL.into_iter().map(left).max().unwrap_or(0))
    }

    fn spawn_rewrap(&self, mut job: RewrapJob) {
        let vault = self.clone();
        tokio::spawn(async move {
            loop {
                vault.run_rewrap(job).await;
                if !vault.rewrapping.end_unless_asked() {
                    return;
                }
                job = RewrapJob { started_at_ms: now_ms(), ..RewrapJob::default() };
            }
        });
    }

    async fn run_rewrap(&self, mut job: RewrapJob) {
        // A pass that changes nothing, under keys that stay, ends the job: what is left then cannot be opened. Of one
        // that another process has begun nobody knows.
        let mut moved = !job.position.is_empty();
        let mut began_under = self.keys.view();
        let mut next = tokio::time::Instant::now();
        loop {
            tokio::time::sleep_until(next).await;
            let keys = self.keys.view();
            match self.rewrap_some(&keys, &job).await {
                Ok(step) => {
                    self.rewrapping.fault(false);
                    let pause = self
                        .rewrap_pace
                        .mul_f64(f64::from(u32::try_from(step.looked_at).unwrap_or(u32::MAX)));
                    let now = tokio::time::Instant::now();
                    next = next.max(now.checked_sub(CREDIT).unwrap_or(now)) + pause;
                    moved |= step.moved;
                    job = step.job;
                    if step.last {
                        self.rewrapping.look_back();
                        let now_under = self.keys.view();
                        moved |= !now_under.has_active_of(&began_under);
                        match self.end_pass(&mut job, moved).await {
                            Ok(true) => return,
                            Ok(false) => (moved, began_under) = (false, now_under),
                            Err(error) => {
                                tracing::warn!(%error, "the rewrap waits for the store");
                                next = now + FAULT_PAUSE;
                            }
                        }
                    }
                }
                // Not at once: whether the keys have moved on for good is not known.
                Err(error) if self.keys.moved_on(&error) => next = tokio::time::Instant::now() + CREDIT,
                Err(error) => {
                    if !self.rewrapping.fault(true) {
                        tracing::warn!(%error, "the rewrap waits for the HSM and the store");
                    }
                    next = tokio::time::Instant::now() + FAULT_PAUSE;
                }
            }
        }
    }

    /// What is to be done at the end of the table: true if the job is over.
    async fn end_pass(&self, job: &mut RewrapJob, moved: bool) -> Result<bool, VaultError> {
        if self.left_to_rewrap()? > 0 && !moved {
            // The census may count records that were removed damaged.
            self.store.take_census().await?;
        }
        let left = self.left_to_rewrap()?;
        if left > 0 && moved {
            let again = RewrapJob { position: Vec::new(), failed: 0, ..job.clone() };
            *job = self.store.rewrap(Vec::new(), again).await?.1;
            return Ok(false);
        }
        let over = RewrapJob { finished_at_ms: now_ms(), ..job.clone() };
        *job = self.store.rewrap(Vec::new(), over).await?.1;
        self.keys.refresh()?;
        if left > 0 {
            tracing::error!(
                records = left,
                "the rewrap ends with records that cannot be opened: run `vaultd check --deep`"
            );
        } else {
            tracing::info!(done = job.done, "the rewrap is done");
        }
        Ok(true)
    }
}

impl Rewrapping {
    /// False if it has begun already.
    fn begin(&self, done_before: u64) -> bool {
        let mut running = self.lock();
        if let Some(running) = running.as_mut() {
            running.asked = true;
            return false;
        }
        *running = Some(Running { since: Instant::now(), done_before, fault: false, asked: false });
        true
    }

    fn end(&self) {
        *self.lock() = None;
    }

    /// Ends, unless somebody was told meanwhile that the job goes on: then another begins, and this says `true`.
    fn end_unless_asked(&self) -> bool {
        let mut running = self.lock();
        let asked = running.is_some_and(|running| running.asked);
        let again = || Running { since: Instant::now(), done_before: 0, fault: false, asked: false };
        *running = asked.then(again);
        asked
    }

    /// Whoever has asked until now is served by what this pass finds left.
    fn look_back(&self) {
        if let Some(running) = self.lock().as_mut() {
            running.asked = false;
        }
    }

    fn running(&self) -> Option<Running> {
        *self.lock()
    }

    /// Says whether a fault was known before.
    fn fault(&self, is: bool) -> bool {
        self.lock().as_mut().is_some_and(|running| std::mem::replace(&mut running.fault, is))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
