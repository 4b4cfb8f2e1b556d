//! What outlasts a restart of the guards: locked subjects, and the rows of their sliding windows.
//!
//! A row of a window is bytes here; `guards` knows what they say.

use redb::{ReadableDatabase, ReadableTable, WriteTransaction};

use super::{
    Store, StoreError,
    change::Change,
    tables::{LOCKS, WINDOWS},
};

/// A subject that is locked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLock {
    /// The `iss` of its JWTs.
    pub issuer: String,
    /// Their `sub`.
    pub subject: String,
    /// The tenant it acted for.
    pub tenant: String,
    /// Why it was locked.
    pub reason: String,
    /// When, in milliseconds of Unix time.
    pub locked_at_ms: u64,
}

/// Key and value of a row of a window.
pub type WindowRow = (Vec<u8>, Vec<u8>);

/// Rows of windows that change together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WindowRows {
    /// Keys, and what they are to hold.
    pub put: Vec<WindowRow>,
    /// Keys whose rows go.
    pub remove: Vec<Vec<u8>>,
}

impl WindowRows {
    /// Adds the changes of `other`.
    pub fn append(&mut self, mut other: Self) {
        self.put.append(&mut other.put);
        self.remove.append(&mut other.remove);
    }

    fn write(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = transaction.open_table(WINDOWS)?;
        for key in &self.remove {
            table.remove(key.as_slice())?;
        }
        for (key, value) in &self.put {
            table.insert(key.as_slice(), value.as_slice())?;
        }
        Ok(())
    }
}

/// A change to what the guards keep.
pub(super) enum GuardChange {
    Windows(WindowRows),
    Lock(StoredLock),
    Unlock { issuer: String, subject: String },
}

impl GuardChange {
    /// Makes the change; says whether there was a lock before.
    pub(super) fn apply(&self, transaction: &WriteTransaction) -> Result<bool, StoreError> {
        match self {
            Self::Windows(rows) => rows.write(transaction).map(|()| false),
            Self::Lock(lock) => {
                let StoredLock { issuer, subject, tenant, reason, locked_at_ms } = lock;
                let mut table = transaction.open_table(LOCKS)?;
                let value = (*locked_at_ms, tenant.as_str(), reason.as_str());
                let before = table.insert((issuer.as_str(), subject.as_str()), value)?;
                Ok(before.is_some())
            }
            Self::Unlock { issuer, subject } => {
                let mut table = transaction.open_table(LOCKS)?;
                Ok(table.remove((issuer.as_str(), subject.as_str()))?.is_some())
            }
        }
    }
}

impl Store {
    /// Every subject that is locked.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn locks(&self) -> Result<Vec<StoredLock>, StoreError> {
        self.inner.handle.with(|database| {
            let table = database.begin_read()?.open_table(LOCKS)?;
            table
                .iter()?
                .map(|row| {
                    let (key, value) = row?;
                    let ((issuer, subject), (locked_at_ms, tenant, reason)) = (key.value(), value.value());
                    let [issuer, subject, tenant, reason] =
                        [issuer, subject, tenant, reason].map(ToOwned::to_owned);
                    Ok(StoredLock { issuer, subject, tenant, reason, locked_at_ms })
                })
                .collect()
        })
    }

    /// Every row of every window, by key.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn window_rows(&self) -> Result<Vec<WindowRow>, StoreError> {
        self.inner.handle.with(|database| {
            let table = database.begin_read()?.open_table(WINDOWS)?;
            table
                .iter()?
                .map(|row| {
                    let (key, value) = row?;
                    Ok((key.value().to_vec(), value.value().to_vec()))
                })
                .collect()
        })
    }

    /// Changes rows of windows. Blocks; for the start only.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn settle_windows(&self, rows: &WindowRows) -> Result<(), StoreError> {
        self.inner.handle.change(|transaction| rows.write(transaction))
    }

    /// Changes rows of windows; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then it is not known whether they changed.
    pub async fn change_windows(&self, rows: WindowRows) -> Result<(), StoreError> {
        self.change_guards(GuardChange::Windows(rows)).await.map(drop)
    }

    /// Keeps a lock; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn lock(&self, lock: StoredLock) -> Result<(), StoreError> {
        self.change_guards(GuardChange::Lock(lock)).await.map(drop)
    }

    /// Removes the lock of `subject`; says whether there was one.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn unlock(&self, issuer: &str, subject: &str) -> Result<bool, StoreError> {
        let (issuer, subject) = (issuer.to_owned(), subject.to_owned());
        self.change_guards(GuardChange::Unlock { issuer, subject }).await
    }

    async fn change_guards(&self, change: GuardChange) -> Result<bool, StoreError> {
        self.change(|answer| Change::Guard { change, answer }).await
    }
}
