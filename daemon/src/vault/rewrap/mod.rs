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
/// How long whoever asks for a job that begins or ends just now waits before he looks again.
const TURN: Duration = Duration::from_millis(20);

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
    /// Whether it is on disk that it runs, and it will look back on what is left: whoever asks for it is served by it.
    goes_on: bool,
}

/// What becomes of somebody's wish that it runs.
enum Wish {
    /// It is to be started.
    Start,
    /// It runs.
    Runs,
    /// It begins or ends: that is not known yet.
    Wait,
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
        loop {
            match self.rewrapping.begin() {
                Wish::Runs => break,
                Wish::Wait => tokio::time::sleep(TURN).await,
                Wish::Start => {
                    let vault = self.clone();
                    // Whoever asked may go away while it is written down, and nobody else could begin then.
                    let started = tokio::spawn(async move {
                        let job = RewrapJob { started_at_ms: now_ms(), ..RewrapJob::default() };
                        // On disk before it is acknowledged.
                        let job = vault.store.rewrap(Vec::new(), job).await;
                        let job = job.inspect_err(|_| vault.rewrapping.end())?.1;
                        vault.spawn_rewrap(job);
                        Ok(())
                    });
                    let ended = |_| Err(StoreError::Failed("the rewrap ended before it began".to_owned()));
                    started.await.unwrap_or_else(ended)?;
                    break;
                }
            }
        }
        self.rewrap_report()
    }

    /// Goes on with a job that the last process did not end.
    ///
    /// # Errors
    /// [`VaultError::Store`].
    pub fn resume_rewrap(&self) -> Result<(), VaultError> {
        if let Some(job) = self.store.rewrap_job()?.filter(|job| job.finished_at_ms == 0)
            && matches!(self.rewrapping.begin(), Wish::Start)
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

    fn spawn_rewrap(&self, job: RewrapJob) {
        self.rewrapping.runs(job.done);
        let vault = self.clone();
        tokio::spawn(async move {
            vault.run_rewrap(job).await;
            vault.rewrapping.end();
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
                        self.rewrapping.goes_on(false);
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
                        self.rewrapping.goes_on(true);
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
    fn begin(&self) -> Wish {
        let mut running = self.lock();
        match *running {
            Some(Running { goes_on: true, .. }) => Wish::Runs,
            Some(_) => Wish::Wait,
            None => {
                *running =
                    Some(Running { since: Instant::now(), done_before: 0, fault: false, goes_on: false });
                Wish::Start
            }
        }
    }

    /// It runs from now on, and had brought so many records to the active keys before.
    fn runs(&self, done_before: u64) {
        *self.lock() = Some(Running { since: Instant::now(), done_before, fault: false, goes_on: true });
    }

    fn goes_on(&self, is: bool) {
        if let Some(running) = self.lock().as_mut() {
            running.goes_on = is;
        }
    }

    fn end(&self) {
        *self.lock() = None;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_told_that_it_runs_while_that_may_be_lost() {
        let rewrapping = Rewrapping::default();
        assert!(matches!(rewrapping.begin(), Wish::Start));
        assert!(matches!(rewrapping.begin(), Wish::Wait), "it is not on disk yet");
        rewrapping.end();
        assert!(matches!(rewrapping.begin(), Wish::Start), "that failed");
        rewrapping.runs(0);
        assert!(matches!(rewrapping.begin(), Wish::Runs));
        rewrapping.goes_on(false);
        assert!(matches!(rewrapping.begin(), Wish::Wait), "it has looked back, and may end");
        rewrapping.goes_on(true);
        assert!(matches!(rewrapping.begin(), Wish::Runs), "it begins another pass");
    }
}
