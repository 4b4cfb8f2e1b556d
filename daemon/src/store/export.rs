//! Reading the store out as it was at one moment, while others go on writing.

use std::collections::BTreeMap;

use redb::{
    Key, ReadTransaction, ReadableDatabase, ReadableTableMetadata, TableDefinition, TableError, TableHandle,
};

use super::{
    Row, Store, StoreError,
    cells::{Cell, Visitor, visit_tables},
    handle::soundly,
};

/// The rows of one table.
type Rows = Box<dyn Iterator<Item = Result<Row, StoreError>> + Send>;

/// The store as it was at one moment.
///
/// Nobody waits for it: the database keeps the pages of that moment as long as this or its rows are there, and cannot use
/// them again, so the file grows by what is changed meanwhile. If the database has to be opened anew, the rows that are
/// left are errors.
pub struct Snapshot {
    counts: BTreeMap<String, u64>,
    tables: Vec<Rows>,
}

impl Store {
    /// A snapshot of everything that is committed.
    ///
    /// # Errors
    /// [`StoreError::Failed`], [`StoreError::Panicked`].
    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.inner.handle.with(|database| {
            let transaction = database.begin_read()?;
            let mut gather =
                Gather { transaction: &transaction, counts: BTreeMap::new(), tables: Vec::new() };
            visit_tables(&mut gather)?;
            let Gather { counts, tables, .. } = gather;
            Ok(Snapshot { counts, tables })
        })
    }
}

impl Snapshot {
    /// How many rows each table has, by its name.
    pub fn counts(&self) -> &BTreeMap<String, u64> {
        &self.counts
    }

    /// Every row, table by table.
    pub fn rows(self) -> impl Iterator<Item = Result<Row, StoreError>> + Send + 'static {
        self.tables.into_iter().flatten()
    }
}

struct Gather<'t> {
    transaction: &'t ReadTransaction,
    counts: BTreeMap<String, u64>,
    tables: Vec<Rows>,
}

impl Visitor for Gather<'_> {
    fn table<K: Key + Cell + 'static, V: Cell + 'static>(
        &mut self,
        number: u8,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError> {
        let table = match self.transaction.open_table(definition) {
            // In a store of before each kind of use had its tables: one comes with its first use.
            Err(TableError::TableDoesNotExist(name)) => {
                self.counts.insert(name, 0);
                return Ok(());
            }
            table => table?,
        };
        self.counts.insert(definition.name().to_owned(), table.len()?);
        // These keep the transaction alive by themselves.
        let rows = table.range::<K::SelfType<'_>>(..)?.map(move |row| {
            let (key, value) = row?;
            let mut row = Row { table: number, key: Vec::new(), value: Vec::new() };
            K::put(&key.value(), &mut row.key);
            V::put(&value.value(), &mut row.value);
            Ok(row)
        });
        self.tables.push(Box::new(soundly(rows)));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::store::{KeyState, Store, StoredKey};

    #[test]
    fn a_snapshot_is_not_in_the_way_of_a_store_that_is_opened_anew() {
        let dir = tempfile::tempdir().unwrap();
        // Without room for pages in memory.
        let store = Store::create(dir.path(), [1; 16], 0, 1).unwrap();
        let key = |state| StoredKey::new(state, 1, vec![0; 4_000]);
        for number in 0..200 {
            store.put_key(&format!("record-v{number}"), &key(KeyState::Active)).unwrap();
        }
        let mut rows = store.snapshot().unwrap().rows();
        assert!(rows.next().unwrap().is_ok());
        store.inner.handle.reopen();
        assert!(rows.any(|row| row.is_err()), "whoever reads on is told");
        store.put_key("record-v0", &key(KeyState::Retired)).unwrap();
        assert_eq!(store.keys().unwrap().len(), 200);
        store.close();
    }
}
