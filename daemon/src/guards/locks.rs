//! Subjects that are locked until an operator unlocks them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{
    metrics::GuardStats,
    store::{Store, StoreError, StoredLock},
};

/// How long after a lock could not be written down it is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Issuer → subject → lock.
type ByIssuer = HashMap<String, HashMap<String, StoredLock>>;

/// Every lock, in memory to be looked at by each request, and in the store.
#[derive(Debug)]
pub(super) struct Locks {
    current: ArcSwap<ByIssuer>,
    /// Whoever replaces `current` holds this.
    replacing: Mutex<()>,
    /// Changes in the store and in memory come in the same order.
    changing: tokio::sync::Mutex<()>,
    stats: Arc<GuardStats>,
}

impl Locks {
    pub(super) fn new(stored: Vec<StoredLock>, stats: Arc<GuardStats>) -> Self {
        let locks = Self {
            current: ArcSwap::default(),
            replacing: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            stats,
        };
        locks.replace(|by_issuer| {
            for lock in stored {
                by_issuer.entry(lock.issuer.clone()).or_default().insert(lock.subject.clone(), lock);
            }
        });
        locks
    }

    pub(super) fn contains(&self, issuer: &str, subject: &str) -> bool {
        let current = self.current.load();
        !current.is_empty() && current.get(issuer).is_some_and(|subjects| subjects.contains_key(subject))
    }

    /// Every lock, by issuer and subject.
    pub(super) fn list(&self) -> Vec<StoredLock> {
        let current = self.current.load();
        let mut locks: Vec<_> = current.values().flat_map(HashMap::values).cloned().collect();
        locks.sort_unstable_by(|a, b| (&a.issuer, &a.subject).cmp(&(&b.issuer, &b.subject)));
        locks
    }

    /// Locks from this moment on; says whether that is new. It is still to be written down.
    pub(super) fn add(&self, lock: &StoredLock) -> bool {
        let mut new = false;
        self.replace(|by_issuer| {
            let subjects = by_issuer.entry(lock.issuer.clone()).or_default();
            new = !subjects.contains_key(&lock.subject);
            subjects.entry(lock.subject.clone()).or_insert_with(|| lock.clone());
        });
        new
    }

    /// Writes a lock down, for as long as it takes; ends early if it is removed meanwhile.
    pub(super) async fn write_down(&self, store: &Store, lock: StoredLock) {
        loop {
            let written = {
                let _turn = self.changing.lock().await;
                if !self.contains(&lock.issuer, &lock.subject) {
                    return;
                }
                store.lock(lock.clone()).await
            };
            let Err(error) = written else { return };
            tracing::error!(%error, "a lock is in force but cannot be written down; trying on");
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Writes down every lock once more: a task that was to do so may be ended.
    pub(super) async fn flush(&self, store: &Store) -> Result<(), StoreError> {
        let _turn = self.changing.lock().await;
        for lock in self.list() {
            store.lock(lock).await?;
        }
        Ok(())
    }

    /// Unlocks, in the store first; says whether there was a lock.
    pub(super) async fn remove(
        &self,
        store: &Store,
        issuer: &str,
        subject: &str,
    ) -> Result<bool, StoreError> {
        let _turn = self.changing.lock().await;
        let stored = store.unlock(issuer, subject).await?;
        let known = self.contains(issuer, subject);
        self.replace(|by_issuer| {
            if let Some(subjects) = by_issuer.get_mut(issuer) {
                subjects.remove(subject);
            }
            by_issuer.retain(|_, subjects| !subjects.is_empty());
        });
        Ok(stored || known)
    }

    fn replace(&self, change: impl FnOnce(&mut ByIssuer)) {
        let _turn = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut locks = ByIssuer::clone(&self.current.load());
        change(&mut locks);
        self.stats.locked(locks.values().map(HashMap::len).sum());
        self.current.store(Arc::new(locks));
    }
}
