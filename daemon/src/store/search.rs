//! Searching: index rows with a common beginning, and the records they lead to.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadableDatabase, Value};

use super::{
    Lookup, Record, Store, StoreError, TokenKey,
    schema::TenantId,
    tables::{Bytes, FINGERPRINTS, HOLDERS, RECORDS, read_record},
};

/// A record that was found, and where: the next page starts after it.
#[derive(Debug)]
pub struct Hit {
    /// The place in the index; opaque.
    pub position: Vec<u8>,
    /// The token.
    pub token: TokenKey,
    /// Its record.
    pub record: Record,
}

impl Store {
    /// Up to `most` records that `lookup` finds, in the order of the index, after `position` (empty for the start).
    ///
    /// Rows that lead to no such record are passed over.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn search(
        &self,
        tenant: &str,
        lookup: &Lookup,
        after: &[u8],
        most: usize,
    ) -> Result<Vec<Hit>, StoreError> {
        let tenant = self.tenant(tenant);
        self.inner.handle.with(|database| {
            let snapshot = database.begin_read()?;
            let records = snapshot.open_table(RECORDS)?;
            let mut scan = Scan { lookup, tenant, after, most, records, hits: Vec::new() };
            match lookup {
                Lookup::Card { .. } => scan.run(&snapshot.open_table(FINGERPRINTS)?, |_, token| token)?,
                Lookup::Holder(_) => scan.run(&snapshot.open_table(HOLDERS)?, |position, ()| position)?,
            }
            Ok(scan.hits)
        })
    }
}

/// A search on its way.
struct Scan<'s> {
    lookup: &'s Lookup,
    tenant: TenantId,
    after: &'s [u8],
    most: usize,
    records: ReadOnlyTable<Bytes, Bytes>,
    hits: Vec<Hit>,
}

impl Scan<'_> {
    /// Goes through the rows of one index; `token_of` says where a row, by its position and value, has its token.
    fn run<V: Value + 'static>(
        &mut self,
        index: &ReadOnlyTable<Bytes, V>,
        token_of: impl for<'r> Fn(&'r [u8], V::SelfType<'r>) -> &'r [u8],
    ) -> Result<(), StoreError> {
        let prefix = self.lookup.prefix(self.tenant);
        let start = [&prefix, self.after].concat();
        for row in index.range::<&[u8]>((Bound::Excluded(start.as_slice()), Bound::Unbounded))? {
            let (key, value) = row?;
            let Some(position) = key.value().strip_prefix(prefix.as_slice()) else { break };
            let Some(token) = TokenKey::new(token_of(position, value.value())) else { continue };
            let record = read_record(&self.records, self.tenant, &token)?.ok().flatten();
            if let Some(record) = record.filter(|record| record.fits(self.lookup)) {
                self.hits.push(Hit { position: position.to_vec(), token, record });
            }
            if self.hits.len() >= self.most {
                break;
            }
        }
        Ok(())
    }
}
