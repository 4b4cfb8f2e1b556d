//! Rows as plain bytes, the same for every table: how a backup carries them, whatever the database does inside.
//!
//! The list of tables in [`visit_tables`] is the only one: whoever copies, counts or makes tables goes by it.
#![deny(clippy::indexing_slicing)]

use std::collections::BTreeMap;

use redb::{Key, TableDefinition, TableHandle, Value};

use super::{
    StoreError,
    tables::{
        APPROVAL_USE_ENDS, APPROVAL_USES, EXPIRIES, FINGERPRINTS, HOLDERS, JWT_USE_ENDS, JWT_USES, KEYS,
        LOCKS, META, RECORDS, TENANTS, USE_ENDS, USES, WINDOWS,
    },
};

/// A row of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The table's number in `docs/backup-format.md`, from 1.
    pub table: u8,
    /// The key.
    pub key: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// The number of the table of keys.
pub(super) const KEYS_TABLE: u8 = 11;

/// A key or value of a table as bytes: integers are big-endian, of several texts each but the last stands after its
/// length as u16.
pub(super) trait Cell: Value + Send {
    fn put(value: &Self::SelfType<'_>, out: &mut Vec<u8>);

    /// Reads what [`Cell::put`] wrote; `None` for anything else.
    fn take<'a>(bytes: &'a [u8]) -> Option<Self::SelfType<'a>>
    where
        Self: 'a;
}

/// Works on each table in turn.
pub(super) trait Visitor {
    fn table<K: Key + Cell + 'static, V: Cell + 'static>(
        &mut self,
        number: u8,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<(), StoreError>;
}

/// Leads `visitor` through every table, by number.
pub(super) fn visit_tables(visitor: &mut impl Visitor) -> Result<(), StoreError> {
    visitor.table(1, META)?;
    visitor.table(2, TENANTS)?;
    visitor.table(3, RECORDS)?;
    visitor.table(4, FINGERPRINTS)?;
    visitor.table(5, HOLDERS)?;
    visitor.table(6, USES)?;
    visitor.table(7, USE_ENDS)?;
    visitor.table(8, EXPIRIES)?;
    visitor.table(9, LOCKS)?;
    visitor.table(10, WINDOWS)?;
    visitor.table(KEYS_TABLE, KEYS)?;
    visitor.table(12, JWT_USES)?;
    visitor.table(13, JWT_USE_ENDS)?;
    visitor.table(14, APPROVAL_USES)?;
    visitor.table(15, APPROVAL_USE_ENDS)
}

/// The name of each table, by its number.
pub fn table_names() -> BTreeMap<u8, String> {
    struct Names(BTreeMap<u8, String>);
    impl Visitor for Names {
        fn table<K: Key + Cell + 'static, V: Cell + 'static>(
            &mut self,
            number: u8,
            definition: TableDefinition<'static, K, V>,
        ) -> Result<(), StoreError> {
            self.0.insert(number, definition.name().to_owned());
            Ok(())
        }
    }
    let mut names = Names(BTreeMap::new());
    // It only notes names: there is nothing to fail.
    let _ = visit_tables(&mut names);
    names.0
}

impl Cell for &'static [u8] {
    fn put(value: &&[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(value);
    }

    fn take<'a>(bytes: &'a [u8]) -> Option<&'a [u8]>
    where
        Self: 'a,
    {
        Some(bytes)
    }
}

impl Cell for &'static str {
    fn put(value: &&str, out: &mut Vec<u8>) {
        out.extend_from_slice(value.as_bytes());
    }

    fn take<'a>(bytes: &'a [u8]) -> Option<&'a str>
    where
        Self: 'a,
    {
        std::str::from_utf8(bytes).ok()
    }
}

impl Cell for () {
    fn put((): &(), _: &mut Vec<u8>) {}

    fn take<'a>(bytes: &'a [u8]) -> Option<()>
    where
        Self: 'a,
    {
        bytes.is_empty().then_some(())
    }
}

impl Cell for u32 {
    fn put(value: &u32, out: &mut Vec<u8>) {
        out.extend(value.to_be_bytes());
    }

    fn take<'a>(bytes: &'a [u8]) -> Option<u32>
    where
        Self: 'a,
    {
        bytes.try_into().ok().map(u32::from_be_bytes)
    }
}

impl Cell for u64 {
    fn put(value: &u64, out: &mut Vec<u8>) {
        out.extend(value.to_be_bytes());
    }

    fn take<'a>(bytes: &'a [u8]) -> Option<u64>
    where
        Self: 'a,
    {
        bytes.try_into().ok().map(u64::from_be_bytes)
    }
}

impl Cell for (&'static str, &'static str) {
    fn put((first, last): &(&str, &str), out: &mut Vec<u8>) {
        put_text(first, out);
        out.extend_from_slice(last.as_bytes());
    }

    fn take<'a>(bytes: &'a [u8]) -> Option<(&'a str, &'a str)>
    where
        Self: 'a,
    {
        let (first, last) = take_text(bytes)?;
        Some((first, std::str::from_utf8(last).ok()?))
    }
}

impl Cell for (u64, &'static str, &'static str) {
    fn put((number, first, last): &(u64, &str, &str), out: &mut Vec<u8>) {
        out.extend(number.to_be_bytes());
        <(&str, &str)>::put(&(first, last), out);
    }

    fn take<'a>(bytes: &'a [u8]) -> Option<(u64, &'a str, &'a str)>
    where
        Self: 'a,
    {
        let (number, texts) = bytes.split_first_chunk()?;
        let (first, last) = <(&str, &str)>::take(texts)?;
        Some((u64::from_be_bytes(*number), first, last))
    }
}

/// A text after its length. Names come from JWTs, whose size is bounded far below 64 KiB.
fn put_text(text: &str, out: &mut Vec<u8>) {
    out.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn take_text(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*len)))?;
    Some((std::str::from_utf8(text).ok()?, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]

    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use redb::ReadableDatabase;

    use super::*;
    use crate::store::Store;

    #[test]
    fn no_table_is_left_out() {
        let names = table_names();
        assert_eq!(names.keys().copied().collect::<Vec<_>>(), (1..=15).collect::<Vec<_>>());
        assert_eq!(names[&KEYS_TABLE], KEYS.name());
        let dir = tempfile::tempdir().unwrap();
        let store = Store::create(dir.path(), [1; 16], 1 << 20, 1).unwrap();
        let there = store.inner.handle.with(|database| {
            let snapshot = database.begin_read()?;
            Ok(snapshot.list_tables()?.map(|table| table.name().to_owned()).collect::<BTreeSet<_>>())
        });
        assert_eq!(names.into_values().collect::<BTreeSet<_>>(), there.unwrap());
        store.close();
    }

    proptest! {
        #[test]
        fn a_lock_comes_back(number: u64, first in "\\PC{0,40}", last in "\\PC{0,40}") {
            let mut bytes = Vec::new();
            <(u64, &str, &str)>::put(&(number, &first, &last), &mut bytes);
            prop_assert_eq!(<(u64, &str, &str)>::take(&bytes), Some((number, first.as_str(), last.as_str())));
        }

        #[test]
        fn other_bytes_fail_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(value) = <(u64, &str, &str)>::take(&bytes) {
                let mut again = Vec::new();
                <(u64, &str, &str)>::put(&value, &mut again);
                prop_assert_eq!(again, bytes);
            }
        }
    }
}
