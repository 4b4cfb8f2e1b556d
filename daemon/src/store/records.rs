//! The table of records, as one transaction sees and changes it.
//!
//! New records wait until the transaction's end and are written in the order of their keys. Keys of `UUIDv7` tokens grow
//! (RFC 9562, 6.11): most of a group go behind all that are there, as one run that fills its pages to the end. Written one by
//! one, each would cost a way down the tree, and every other page would be left half empty.

use std::{collections::BTreeMap, ops::Bound};

use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    Header, Record, RecordError, StoreError,
    tables::{Bytes, RECORDS, record_at},
};

/// Records by key, of which some may not be in the table yet.
pub(super) struct Records<'t> {
    table: Table<'t, Bytes, Bytes>,
    new: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl<'t> Records<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self { table: transaction.open_table(RECORDS)?, new: BTreeMap::new() })
    }

    /// The record at `key`. The inner error is that of a record that does not decode, which concerns nobody else.
    pub(super) fn get(&self, key: &[u8]) -> Result<Result<Option<Record>, RecordError>, StoreError> {
        match self.new.get(key) {
            Some(new) => Ok(Record::decode(new).map(Some)),
            None => record_at(&self.table, key),
        }
    }

    pub(super) fn contains(&self, key: &[u8]) -> Result<bool, StoreError> {
        Ok(self.new.contains_key(key) || self.table.get(key)?.is_some())
    }

    /// Puts a record where there is none.
    pub(super) fn add(&mut self, key: Vec<u8>, bytes: &[u8]) {
        self.new.insert(key, bytes.to_vec());
    }

    /// Puts a record where there was one, or has been a moment ago.
    pub(super) fn put(&mut self, key: &[u8], bytes: &[u8]) -> Result<(), StoreError> {
        if let Some(new) = self.new.get_mut(key) {
            *new = bytes.to_vec();
        } else {
            self.table.insert(key, bytes)?;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, key: &[u8]) -> Result<(), StoreError> {
        if self.new.remove(key).is_none() {
            self.table.remove(key)?;
        }
        Ok(())
    }

    /// Shows `visit` the header of every record that decodes.
    pub(super) fn each_header(&mut self, mut visit: impl FnMut(&Header)) -> Result<(), StoreError> {
        self.write()?;
        for row in self.table.iter()? {
            if let Ok(record) = Record::decode(row?.1.value()) {
                visit(&record.header);
            }
        }
        Ok(())
    }

    /// Writes what is waiting. Nothing counts before.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        while let Some((first, bytes)) = self.new.pop_first() {
            let mut cursor = self.table.lower_bound_mut(Bound::Included(first.as_slice()))?;
            let next = cursor.peek_next()?.map(|(key, _)| key.value().to_vec());
            let is_before_next = |key: &[u8]| next.as_deref().is_none_or(|next| key < next);
            if !self.new.first_key_value().is_some_and(|(key, _)| is_before_next(key)) {
                // A run of one is dearer than an insertion.
                drop(cursor);
                self.table.insert(first.as_slice(), bytes.as_slice())?;
                continue;
            }
            cursor.insert_before(first.as_slice(), bytes.as_slice())?;
            while let Some(entry) = self.new.first_entry().filter(|entry| is_before_next(entry.key())) {
                let (key, bytes) = entry.remove_entry();
                cursor.insert_before(key.as_slice(), bytes.as_slice())?;
            }
            cursor.close()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableStats, backends::InMemoryBackend};

    use super::*;

    fn database() -> Database {
        Database::builder().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    fn within<T>(database: &Database, work: impl FnOnce(&mut Records<'_>) -> T) -> T {
        let transaction = database.begin_write().unwrap();
        let mut records = Records::open(&transaction).unwrap();
        let done = work(&mut records);
        records.write().unwrap();
        drop(records);
        transaction.commit().unwrap();
        done
    }

    fn rows(database: &Database) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let table = database.begin_read().unwrap().open_table(RECORDS).unwrap();
        let rows = table.iter().unwrap().map(Result::unwrap);
        rows.map(|(key, bytes)| (key.value().to_vec(), bytes.value().to_vec())).collect()
    }

    /// How 20,000 records of 100 bytes lie there, written 25 at a time, of which each group is a little out of order.
    fn stats_of(write: impl Fn(&mut Records<'_>, Vec<u8>)) -> TableStats {
        let database = database();
        let keys: Vec<u64> = (0..20_000).map(|number| number ^ 5).collect();
        for group in keys.chunks(25) {
            within(&database, |records| {
                for key in group {
                    write(records, [0; 13].into_iter().chain(key.to_be_bytes()).collect());
                }
            });
        }
        database.begin_read().unwrap().open_table(RECORDS).unwrap().stats().unwrap()
    }

    #[test]
    fn growing_keys_fill_their_pages() {
        let one_by_one = stats_of(|records, key| records.put(&key, &[7; 100]).unwrap());
        let together = stats_of(|records, key| records.add(key, &[7; 100]));
        assert_eq!(together.stored_bytes(), one_by_one.stored_bytes());
        assert!(together.leaf_pages() * 4 < one_by_one.leaf_pages() * 3, "{together:?} {one_by_one:?}");
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u8),
        Put(u8),
        Remove(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => any::<u8>().prop_map(Step::Add),
            1 => any::<u8>().prop_map(Step::Put),
            2 => any::<u8>().prop_map(Step::Remove),
        ]
    }

    proptest! {
        #[test]
        fn it_is_a_map(transactions in vec(vec(step(), 0..40), 1..12)) {
            let (database, mut model) = (database(), BTreeMap::new());
            for (number, steps) in transactions.iter().enumerate() {
                within(&database, |records| {
                    for (place, step) in steps.iter().enumerate() {
                        let bytes = format!("{number} {place}").into_bytes();
                        let (Step::Add(key) | Step::Put(key) | Step::Remove(key)) = *step;
                        let key = vec![key];
                        prop_assert_eq!(records.contains(&key).unwrap(), model.contains_key(&key));
                        match step {
                            Step::Add(_) if model.contains_key(&key) => {}
                            Step::Add(_) => {
                                records.add(key.clone(), &bytes);
                                model.insert(key, bytes);
                            }
                            Step::Put(_) => {
                                records.put(&key, &bytes).unwrap();
                                model.insert(key, bytes);
                            }
                            Step::Remove(_) => {
                                records.remove(&key).unwrap();
                                model.remove(&key);
                            }
                        }
                    }
                    Ok(())
                })?;
                prop_assert_eq!(rows(&database), model.clone());
            }
        }
    }
}
