//! The database file, and how it is opened again after it failed.

use std::{
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, Ordering},
    },
};

use redb::Database;

use super::{OpenError, StoreError, error::opening, stats::StoreStats};

/// An open database. After an I/O error redb refuses every write until the file is closed and opened again, which
/// also undoes whatever the failed commit left behind.
pub(super) struct Handle {
    path: PathBuf,
    cache_bytes: usize,
    database: RwLock<Option<Database>>,
    failing: AtomicBool,
    stats: StoreStats,
}

impl Handle {
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, OpenError> {
        let database = builder(cache_bytes).open(path).map_err(|error| opening(path, error))?;
        let database = RwLock::new(Some(database));
        let (failing, stats) = (AtomicBool::new(false), StoreStats::default());
        Ok(Self { path: path.to_owned(), cache_bytes, database, failing, stats })
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
