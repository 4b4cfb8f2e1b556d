//! The database file, and how it is opened again after it failed.

use std::{
    fs, iter,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::{Database, WriteTransaction};

use super::{
    OpenError, StoreError,
    error::{failed, opening},
    stats::StoreStats,
};

/// An open database. After an I/O error redb refuses every write until the file is closed and opened again, which
/// also undoes whatever the failed commit left behind.
pub(super) struct Handle {
    path: PathBuf,
    cache_bytes: usize,
    database: RwLock<Option<Database>>,
    failing: AtomicBool,
    panicked: AtomicBool,
    quick_recovery_bytes: AtomicU64,
    stats: StoreStats,
}

impl Handle {
    pub(super) fn open(path: &Path, cache_bytes: usize) -> Result<Self, OpenError> {
        let database = open(path, cache_bytes)?;
        let database = RwLock::new(Some(database));
        Ok(Self {
            path: path.to_owned(),
            cache_bytes,
            database,
            failing: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
            quick_recovery_bytes: AtomicU64::new(u64::MAX),
            stats: StoreStats::default(),
        })
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
        let database = database
            .as_ref()
            .ok_or_else(|| StoreError::Failed("the file cannot be opened again".to_owned()))?;
        sound(|| work(database)).inspect_err(|_| self.panicked.store(true, Ordering::Relaxed)).flatten()
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

    /// Closes the file and opens it again after a commit failed. Not where a page was met that is none: redb looks at every
    /// page then, and what could still be read is closed for good.
    pub(super) fn reopen(&self) {
        self.failing.store(true, Ordering::Relaxed);
        if self.panicked.load(Ordering::Relaxed) {
            return;
        }
        let mut database = self.database.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file is locked while it is open. A panic there would leave whoever waits without an answer.
        let _ = sound(|| *database = None);
        match open(&self.path, self.cache_bytes) {
            Ok(opened) => *database = Some(opened),
            Err(error) => tracing::error!(%error, "the store cannot be opened again; trying again soon"),
        }
    }
}

fn open(path: &Path, cache_bytes: usize) -> Result<Database, OpenError> {
    let opened = sound(|| builder(cache_bytes).open(path));
    let opened = opened.map_err(|_| failed(path, &"the file is damaged: restore a backup"))?;
    opened.map_err(|error| opening(path, error))
}

/// redb panics at a page that is none. That is an error of the file, and no reason for the thread that met it to end, be it
/// the writer or one of the HSM's. The transaction is undone; the database can be used further.
fn sound<T>(work: impl FnOnce() -> T) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|_| StoreError::Panicked)
}

/// `rows` up to the first that cannot be read for that reason.
pub(super) fn soundly<T>(
    mut rows: impl Iterator<Item = Result<T, StoreError>>,
) -> impl Iterator<Item = Result<T, StoreError>> {
    let mut has_ended = false;
    iter::from_fn(move || {
        if has_ended {
            return None;
        }
        sound(|| rows.next()).unwrap_or_else(|panicked| {
            has_ended = true;
            Some(Err(panicked))
        })
    })
}

fn builder(cache_bytes: usize) -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(cache_bytes);
    builder
}

#[cfg(test)]
mod tests {
    use redb::{ReadableDatabase, TableDefinition};
    use tempfile::TempDir;

    use super::*;

    impl Handle {
        /// One of an empty database, and its directory.
        pub(in crate::store) fn empty() -> (TempDir, Self) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("store");
            drop(Self::create(&path, 1 << 20).unwrap());
            let handle = Self::open(&path, 1 << 20).unwrap();
            (dir, handle)
        }
    }

    #[test]
    fn what_can_be_read_stays_so_after_a_page_that_is_none() {
        const TABLE: TableDefinition<'static, u64, u64> = TableDefinition::new("numbers");
        let put =
            |transaction: &WriteTransaction| Ok(transaction.open_table(TABLE)?.insert(1, 1).map(drop)?);
        let (_dir, handle) = Handle::empty();
        handle.change(put).unwrap();
        let failed = handle.change(|transaction| -> Result<(), _> {
            put(transaction)?;
            unreachable!("as redb says")
        });
        assert_eq!(failed, Err(StoreError::Panicked));
        handle.change(put).unwrap();
        fs::write(handle.path(), fs::read(handle.path()).unwrap().iter().map(|_| 9).collect::<Vec<u8>>())
            .unwrap();
        handle.reopen();
        let read = handle.with(|database| Ok(database.begin_read()?.open_table(TABLE)?.get(1)?.is_some()));
        assert_eq!(read, Ok(true), "from memory, in this test");
    }

    #[test]
    fn rows_end_at_one_that_cannot_be_read() {
        let mut rows =
            soundly((0..3).map(|row| if row == 1 { unreachable!("as redb says") } else { Ok(row) }));
        assert_eq!(rows.by_ref().collect::<Vec<_>>(), [Ok(0), Err(StoreError::Panicked)]);
    }

    #[test]
    fn a_page_that_is_none_costs_no_thread() {
        const PAGE_BYTES: usize = 4_096;
        let (_dir, handle) = Handle::empty();
        let failed = handle.with(|_| -> Result<(), _> { unreachable!("as redb says") }).unwrap_err();
        assert!(failed.to_string().contains("damaged"), "{failed}");
        assert!(handle.with(|database| Ok(database.begin_read()?)).is_ok(), "and what is sound can be read");
        let path = handle.path().to_owned();
        drop(handle);

        let mut file = fs::read(&path).unwrap();
        file.chunks_mut(PAGE_BYTES).skip(1).for_each(|page| page[0] = 9);
        fs::write(&path, file).unwrap();
        let refused = Handle::open(&path, 1 << 20).map(drop).unwrap_err();
        assert!(refused.to_string().contains("restore a backup"), "{refused}");
    }
}
