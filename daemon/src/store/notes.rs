//! Notes: single values that others keep in the store, by name.

use redb::{ReadableDatabase as _, WriteTransaction};

use super::{Store, StoreError, change::Change, tables::META};

impl Store {
    /// The note `name`, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn note(&self, name: &'static str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.handle.with(|database| {
            let meta = database.begin_read()?.open_table(META)?;
            Ok(meta.get(key(name).as_str())?.map(|value| value.value().to_vec()))
        })
    }

    /// Keeps `value` as the note `name`; durable when it returns.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn put_note(&self, name: &'static str, value: Vec<u8>) -> Result<(), StoreError> {
        self.change(|answer| Change::PutNote { name, value, answer }).await
    }

    /// The same. Blocks; for what is changed once in a while.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn put_note_now(&self, name: &'static str, value: &[u8]) -> Result<(), StoreError> {
        self.inner.handle.change(|transaction| write(transaction, name, value))
    }
}

pub(super) fn write(transaction: &WriteTransaction, name: &str, value: &[u8]) -> Result<(), StoreError> {
    transaction.open_table(META)?.insert(key(name).as_str(), value)?;
    Ok(())
}

pub(super) fn remove(transaction: &WriteTransaction, name: &str) -> Result<(), StoreError> {
    transaction.open_table(META)?.remove(key(name).as_str())?;
    Ok(())
}

/// Apart from the store's own values in the same table.
fn key(name: &str) -> String {
    format!("note/{name}")
}
