//! Searching: index rows with a common beginning, and the records they lead to.

use redb::{ReadOnlyTable, ReadableDatabase};

use super::{
    Lookup, Record, Store, StoreError, TokenKey,
    schema::record_key,
    tables::{FINGERPRINTS, HOLDERS, RECORDS},
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
        let prefix = lookup.prefix(tenant);
        let start = [&prefix, after].concat();
        self.inner.handle.with(|database| {
            let snapshot = database.begin_read()?;
            let records = snapshot.open_table(RECORDS)?;
            let hit = |position: &[u8], token: &[u8]| -> Result<Option<Hit>, StoreError> {
                let Some(token) = TokenKey::new(token).filter(|_| position > after) else { return Ok(None) };
                let bytes = records.get(record_key(tenant, &token).as_slice())?;
                let record = bytes.and_then(|bytes| Record::decode(bytes.value()).ok());
                let record = record.filter(|record| record.fits(lookup));
                Ok(record.map(|record| Hit { position: position.to_vec(), token, record }))
            };
            let mut hits = Vec::new();
            match lookup {
                Lookup::Card { .. } => {
                    let rows: ReadOnlyTable<&[u8], &[u8]> = snapshot.open_table(FINGERPRINTS)?;
                    for row in rows.range(start.as_slice()..)? {
                        let (key, token) = row?;
                        let Some(position) = key.value().strip_prefix(prefix.as_slice()) else { break };
                        hits.extend(hit(position, token.value())?);
                        if hits.len() >= most {
                            break;
                        }
                    }
                }
                Lookup::Holder(_) => {
                    let rows: ReadOnlyTable<&[u8], ()> = snapshot.open_table(HOLDERS)?;
                    for row in rows.range(start.as_slice()..)? {
                        let key = row?.0;
                        let Some(token) = key.value().strip_prefix(prefix.as_slice()) else { break };
                        hits.extend(hit(token, token)?);
                        if hits.len() >= most {
                            break;
                        }
                    }
                }
            }
            Ok(hits)
        })
    }
}
