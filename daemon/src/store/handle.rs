//! The database file, and how it is opened again after it failed.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::{Database, WriteTransaction};

use super::{OpenError, StoreError, error::opening, stats::StoreStats};

/// An open database. After an I/O error redb refuses every write until the file is closed and opened again, which
/// also undoes whatever the failed commit left behind.
pub(super) struct Handle {
    path: PathBuf,
    cache_bytes: usize,
    database: RwLock<Option<Database>>,
    failing: AtomicBool,
    quick_recovery_bytes: AtomicU64,
    stats: StoreStats,
}

impl Handle {
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, OpenError> {
        let database = builder(cache_bytes).open(path).map_err(|error| opening(path, error))?;
        let database = RwLock::new(Some(database));
        let (failing, stats) = (AtomicBool::new(false), StoreStats::default());
        let quick_recovery_bytes = AtomicU64::new(u64::MAX);
        Ok(Self { path: path.to_owned(), cache_bytes, database, failing, quick_recovery_bytes, stats })
    }

    /// Makes an empty database.
    pub(super) fn create(path: &Path, cache_bytes: usize) -> Result<Database, OpenError> {
        builder(cache_bytes).create(path).map_err(|error| opening(path, error))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What is counted of its writer.
    pub(super) fn stats(&self) -> &StoreStats {
        &self.stats
    }

    /// Runs `work` on the database. It must not wait for anything: nobody can reopen the file meanwhile.
    pub(super) fn with<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let database = self.database.read().unwrap_or_else(PoisonError::into_inner);
        work(
            database
                .as_ref()
                .ok_or_else(|| StoreError::Failed("the file cannot be opened again".to_owned()))?,
        )
    }

    /// Runs `work` in a transaction and commits it: when this returns, what it changed is durable.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.with(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_quick_repair(self.is_large());
            let done = work(&transaction)?;
            transaction.commit()?;
            Ok(done)
        })
    }

    /// From which size of the file in bytes each commit notes which pages are in use.
    pub(super) fn recover_quickly_from(&self, bytes: u64) {
        self.quick_recovery_bytes.store(bytes, Ordering::Relaxed);
    }

    fn is_large(&self) -> bool {
        let most = self.quick_recovery_bytes.load(Ordering::Relaxed);
        fs::metadata(&self.path).map_or(true, |file| file.len() >= most)
    }

    /// Whether the last commit failed.
    pub(super) fn failing(&self) -> bool {
        self.failing.load(Ordering::Relaxed)
    }

    pub(super) fn committed(&self) {
        if self.failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the store can be written again");
        }
    }

    /// Closes the file and opens it again after a commit failed.
    pub(super) fn reopen(&self) {
        self.failing.store(true, Ordering::Relaxed);
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file is locked while it is open.
        *database = None;
        match builder(self.cache_bytes).open(&self.path) {
            Ok(opened) => *database = Some(opened),
            Err(error) => tracing::error!(%error, "the store cannot be opened again; trying again soon"),
        }
    }
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}
