//! Searching: index rows with a common beginning, and the records they lead to.

use std::ops::Bound;

use redb::{ReadOnlyTable, ReadableDatabase, Value};

use super::{
    BlindKey, Lookup, Record, Store, StoreError, TokenKey,
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
            let scan = Scan { lookup, tenant, after, most, records };
            match lookup {
                Lookup::Card(keys) => scan.run(keys, &snapshot.open_table(FINGERPRINTS)?, |_, token| token),
                Lookup::Holder(keys) => {
                    scan.run(keys, &snapshot.open_table(HOLDERS)?, |position, ()| position)
                }
            }
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
}

impl Scan<'_> {
    /// Goes through the rows of one index; `token_of` says where a row, by its position and value, has its token.
    ///
    /// A position is what follows a key's prefix, the same under every key version: so a page starts where the one
    /// before it ended, even if a record has gone from one version to another in between.
    fn run<V: Value + 'static>(
        &self,
        keys: &[BlindKey],
        index: &ReadOnlyTable<Bytes, V>,
        token_of: impl for<'r> Fn(&'r [u8], V::SelfType<'r>) -> &'r [u8],
    ) -> Result<Vec<Hit>, StoreError> {
        let mut hits = Vec::new();
        for key in keys {
            self.run_one(key, index, &token_of, &mut hits)?;
        }
        hits.sort_by(|a, b| a.position.cmp(&b.position));
        hits.truncate(self.most);
        Ok(hits)
    }

    fn run_one<V: Value + 'static>(
        &self,
        key: &BlindKey,
        index: &ReadOnlyTable<Bytes, V>,
        token_of: &impl for<'r> Fn(&'r [u8], V::SelfType<'r>) -> &'r [u8],
        hits: &mut Vec<Hit>,
    ) -> Result<(), StoreError> {
        let prefix = key.prefix(self.tenant);
        let start = [&prefix, self.after].concat();
        let most = hits.len() + self.most;
        for row in index.range::<&[u8]>((Bound::Excluded(start.as_slice()), Bound::Unbounded))? {
            let (key, value) = row?;
            let Some(position) = key.value().strip_prefix(prefix.as_slice()) else { break };
            let Some(token) = TokenKey::new(token_of(position, value.value())) else { continue };
            let record = read_record(&self.records, self.tenant, &token)?.ok().flatten();
            if let Some(record) = record.filter(|record| record.fits(self.lookup)) {
                hits.push(Hit { position: position.to_vec(), token, record });
            }
            if hits.len() >= most {
                break;
            }
        }
        Ok(())
    }
}
