//! Making a store from the rows of another.

use std::{ops::Bound, path::Path};

use redb::{CursorError, Database, Key, TableDefinition, WriteTransaction};

use super::{
    OpenError, Row, Store, StoreError, StoredKey,
    cells::{Cell, KEYS_TABLE, Visitor, visit_tables},
    error::failed,
    handle::Handle,
};

/// The most that is kept in memory and committed at once.
const BATCH_ROWS: usize = 32_768;
const BATCH_BYTES: usize = 8 << 20;

/// A store that is being made. It is of no use before [`Importer::finish`].
pub struct Importer {
    database: Database,
    waiting: Vec<Row>,
    bytes: usize,
}

impl Importer {
    /// Begins a store in `dir`, where there must be none.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn create(dir: &Path, cache_bytes: usize) -> Result<Self, OpenError> {
        let path = Store::file(dir);
        let database = Handle::create(&path, cache_bytes)?;
        let importer = Self { database, waiting: Vec::new(), bytes: 0 };
        // Every table, so that a reader never meets a missing one.
        importer.write(&[]).map_err(|error| failed(&path, &error))?;
        Ok(importer)
    }

    /// Adds a row.
    ///
    /// # Errors
    /// [`StoreError::Failed`], also for one that cannot be, or is there already.
    pub fn add(&mut self, row: Row) -> Result<(), StoreError> {
        let is_other = self.waiting.first().is_some_and(|first| first.table != row.table);
        if is_other || self.waiting.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES {
            self.commit()?;
        }
        self.bytes += row.key.len() + row.value.len();
        self.waiting.push(row);
        Ok(())
    }

    /// Makes everything durable and closes the file.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.commit()
    }

    fn commit(&mut self) -> Result<(), StoreError> {
        self.bytes = 0;
        let rows = std::mem::take(&mut self.waiting);
        self.write(&rows)
    }

    /// Writes rows of one table.
    fn write(&self, rows: &[Row]) -> Result<(), StoreError> {
        let transaction = self.database.begin_write()?;
        let mut put = Put { transaction: &transaction, rows, written: 0 };
        visit_tables(&mut put)?;
        if put.written < rows.len() {
            return Err(StoreError::Failed("a row belongs to no table that this vaultd knows".to_owned()));
        }
        Ok(transaction.commit()?)
    }
}

impl Row {
    /// The key that this row records, if it is one of that table.
    ///
    /// # Errors
    /// [`StoreError::Failed`] for one that cannot be read.
    pub fn as_key(&self) -> Result<Option<(String, StoredKey)>, StoreError> {
        if self.table != KEYS_TABLE {
            return Ok(None);
        }
        let name = std::str::from_utf8(&self.key).ok();
        let key = name.and_then(|name| Some((name.to_owned(), StoredKey::decode(&self.value)?)));
        key.map(Some).ok_or_else(|| StoreError::Failed("the entry of a key is damaged".to_owned()))
    }
}

struct Put<'t> {
    transaction: &'t WriteTransaction,
    rows: &'t [Row],
    written: usize,
}

impl Visitor for Put<'_> {
    fn table<K: Key + Cell + 'static, V: Cell + 'static>(
        &mut self,
        number: u8,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        let mut table = self.transaction.open_table(definition)?;
        // Rows come in the order of their keys: as a run they fill their pages.
        let mut cursor = table.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?;
        for row in self.rows.iter().filter(|row| row.table == number) {
            let wrong = |what| StoreError::Failed(format!("a row of table {number} {what}"));
            let cells = K::take(&row.key).zip(V::take(&row.value));
            let (key, value) = cells.ok_or_else(|| wrong("is not what it must be"))?;
            match cursor.insert_before(&key, &value) {
                Ok(()) => {}
                Err(CursorError::UnorderedKey) => {
                    cursor.close()?;
                    if table.insert(key, value)?.is_some() {
                        return Err(wrong("comes twice"));
                    }
                    cursor = table.upper_bound_mut(Bound::<K::SelfType<'_>>::Unbounded)?;
                }
                Err(error) => return Err(error.into()),
            }
            self.written += 1;
        }
        Ok(cursor.close()?)
    }
}
