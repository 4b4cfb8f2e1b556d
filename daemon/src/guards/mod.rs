//! Guards on reveals: how many cards a caller may take, and who may take none any more.
//!
//! The door is [`Guards::admit`], which counts cards before they are revealed, for the caller's subject, its tenant and its
//! user id, over sliding windows that outlast a restart. Whoever goes far over a line is locked until an operator
//! unlocks it ([`Guards::unlock`]). Cards are known here by hashes only.

mod admission;
mod locks;
mod meter;
mod rate;
mod recent;
mod rows;
mod rules;
mod window;
#[cfg(test)]
mod window_trial;

use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sha2::{Digest, Sha256};
use tokio::task::JoinHandle;

pub use admission::{Admitted, Caller, Card, Quota, Refused};
use locks::Locks;
use meter::{Meter, MeterName};
pub use rules::{GuardRules, RevealLimits};

use crate::{
    metrics::GuardStats,
    store::{Store, StoreError, StoredLock, WindowRows},
    vault::{now_ms, now_s},
};

/// Subjects, tenants and user ids that are counted at a time. Bounds memory; those that are idle make room.
const MOST_METERS: usize = 100_000;
/// A process that ended before this one began cannot have answered within a window of one second that this one
/// serves in, once so much time has passed.
const QUIET_START: Duration = Duration::from_secs(1);

/// The guards. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Guards {
    inner: Arc<Inner>,
}

struct Inner {
    rules: GuardRules,
    store: Store,
    key: [u8; 16],
    meters: RwLock<HashMap<MeterName, Arc<Meter>>>,
    /// Above the number of every row of a window.
    next_row: AtomicU64,
    locks: Locks,
    stats: Arc<GuardStats>,
    opened: Instant,
    /// The same, in milliseconds of Unix time.
    opened_ms: u64,
    /// Guesses at PANs so far.
    guesses: AtomicU64,
    closed: AtomicBool,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Guards").field("rules", &self.rules).finish_non_exhaustive()
    }
}

/// Whom a meter counts for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Subject,
    Tenant,
    Uid,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Subject, Self::Tenant, Self::Uid];

    fn limits(self, rules: &GuardRules) -> &RevealLimits {
        match self {
            Self::Subject => &rules.subject,
            Self::Tenant => &rules.tenant,
            Self::Uid => &rules.uid,
        }
    }

    /// What the names of its meters begin with.
    const fn letter(self) -> u8 {
        match self {
            Self::Subject => b's',
            Self::Tenant => b't',
            Self::Uid => b'u',
        }
    }
}

impl Guards {
    /// Guards by `rules`, with the locks and counts that `store` has. Blocks.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn open(rules: GuardRules, store: Store) -> Result<Self, StoreError> {
        let stats = Arc::new(GuardStats::default());
        let locks = Locks::new(store.locks()?, Arc::clone(&stats));
        let key = store.vault_id();
        let inner = Inner {
            rules,
            store,
            key,
            meters: RwLock::default(),
            next_row: AtomicU64::new(0),
            locks,
            stats,
            opened: Instant::now(),
            opened_ms: now_ms(),
            guesses: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        };
        let guards = Self { inner: Arc::new(inner) };
        guards.load()?;
        Ok(guards)
    }

    /// What is counted, for `GET /metrics`.
    pub fn stats(&self) -> &Arc<GuardStats> {
        &self.inner.stats
    }

    /// Whether `subject` of `issuer` is locked.
    pub fn is_locked(&self, issuer: &str, subject: &str) -> bool {
        self.inner.locks.contains(issuer, subject)
    }

    /// Every lock, by issuer and subject.
    pub fn locks(&self) -> Vec<StoredLock> {
        self.inner.locks.list()
    }

    /// Locks the caller from this moment on, for `reason`, unless it is locked.
    ///
    /// It is in force at once, and is written down by the task that is given back: nobody has to wait for it.
    pub fn lock(&self, caller: &Caller<'_>, reason: &str) -> Option<JoinHandle<()>> {
        let [issuer, subject, tenant, reason] =
            [caller.issuer, caller.subject, caller.tenant, reason].map(ToOwned::to_owned);
        let lock = StoredLock { issuer, subject, tenant, reason, locked_at_ms: now_ms() };
        let new = self.inner.locks.add(&lock);
        new.then(|| {
            let guards = self.clone();
            tokio::spawn(async move {
                let StoredLock { issuer, subject, tenant, reason, .. } = &lock;
                tracing::warn!(
                    issuer,
                    subject,
                    tenant,
                    reason,
                    "locked a subject until an operator unlocks it"
                );
                guards.inner.locks.write_down(&guards.inner.store, lock).await;
            })
        })
    }

    /// Unlocks `subject` of `issuer`; says whether it was locked. What it has taken still counts.
    ///
    /// # Errors
    /// [`StoreError`]; then it stays locked.
    pub async fn unlock(&self, issuer: &str, subject: &str) -> Result<bool, StoreError> {
        let unlocked = self.inner.locks.remove(&self.inner.store, issuer, subject).await?;
        let name = self.meter_name(Kind::Subject, &[issuer.as_bytes(), subject.as_bytes()]);
        let meter = self.inner.meters.read().unwrap_or_else(PoisonError::into_inner).get(&name).cloned();
        if let Some(meter) = meter {
            meter.counts().forgive();
        }
        Ok(unlocked)
    }

    /// Waits until no window of one second can have begun in the process before this one.
    pub async fn settle(&self) {
        if self.inner.rules.limit_requests() {
            tokio::time::sleep(QUIET_START.saturating_sub(self.inner.opened.elapsed())).await;
        }
    }

    /// Forgets whom nothing counts for any more, in memory and in the store.
    ///
    /// # Errors
    /// [`StoreError`]; then rows stay that nobody needs, until the next start.
    pub async fn tidy(&self) -> Result<(), StoreError> {
        let rows = self.forget_idle();
        if rows == WindowRows::default() { Ok(()) } else { self.inner.store.change_windows(rows).await }
    }

    /// Writes down locks and which cards were counted, so that a clean restart loses nothing. Nothing is admitted
    /// afterwards.
    ///
    /// # Errors
    /// [`StoreError`]; then the next start goes by the blocks, as after a crash.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.locks.flush(&self.inner.store).await?;
        // Whoever counts meanwhile has the counts, and is done before they are read here.
        self.inner.closed.store(true, Ordering::SeqCst);
        let mut rows = WindowRows::default();
        for meter in self.inner.meters.read().unwrap_or_else(PoisonError::into_inner).values() {
            rows.append(meter.written_down());
        }
        if rows == WindowRows::default() { Ok(()) } else { self.inner.store.change_windows(rows).await }
    }

    fn forget_idle(&self) -> WindowRows {
        let (step, now_s) = (self.step(), now_s());
        let mut rows = WindowRows::default();
        let mut meters = self.inner.meters.write().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|_, meter| {
            // Nobody else can come to have it while the map is held.
            let idle = if Arc::strong_count(meter) == 1 { meter.idle_rows(step, now_s) } else { None };
            idle.map(|gone| rows.append(gone)).is_none()
        });
        rows
    }

    /// Takes over what counts still, and settles what was in use when the last process ended.
    fn load(&self) -> Result<(), StoreError> {
        let now_s = now_s();
        let mut settled = WindowRows::default();
        for (key, value) in self.inner.store.window_rows()? {
            let loaded = rows::parse(&key, &value).and_then(|(name, number, row)| {
                let (meter, _) = name.split_first_chunk()?;
                let kind = Kind::ALL.into_iter().find(|kind| Some(&kind.letter()) == name.first())?;
                self.inner.next_row.fetch_max(number.saturating_add(1), Ordering::Relaxed);
                // What counted must go on to count, however many there are.
                self.meter(kind, *meter, usize::MAX)?.load(&name, number, row, now_s)
            });
            match loaded {
                Some(rows) => settled.append(rows),
                // Not limited any more.
                None => settled.remove.push(key),
            }
        }
        if settled == WindowRows::default() { Ok(()) } else { self.inner.store.settle_windows(&settled) }
    }

    /// The step of a second that this moment is in, counted from the opening.
    fn step(&self) -> u64 {
        u64::try_from(self.inner.opened.elapsed().as_millis()).unwrap_or(u64::MAX) / rate::STEP_MS
    }

    /// The meter `name`; `None` if there are `most` others.
    fn meter(&self, kind: Kind, name: MeterName, most: usize) -> Option<Arc<Meter>> {
        if let Some(meter) = self.inner.meters.read().unwrap_or_else(PoisonError::into_inner).get(&name) {
            return Some(Arc::clone(meter));
        }
        let mut meters = self.inner.meters.write().unwrap_or_else(PoisonError::into_inner);
        if meters.len() >= most && !meters.contains_key(&name) {
            return None;
        }
        let limits = kind.limits(&self.inner.rules);
        let meter = || Arc::new(Meter::new(name, limits, self.inner.next_row.load(Ordering::Relaxed)));
        Some(Arc::clone(meters.entry(name).or_insert_with(meter)))
    }

    fn meter_name(&self, kind: Kind, parts: &[&[u8]]) -> MeterName {
        let mut name = [kind.letter(); meter::METER_NAME_BYTES];
        let hash = self.hash(b"vaultd guard v1", parts);
        for (place, byte) in name.iter_mut().skip(1).zip(hash) {
            *place = byte;
        }
        name
    }

    /// A hash of `parts` for `purpose` that is this vault's own.
    fn hash(&self, purpose: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        let mut hash = Sha256::new().chain_update(purpose).chain_update(self.inner.key);
        for part in parts {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}
