//! Whether tables and indexes agree. For an operator's check, on a store that nobody writes to.

use redb::{ReadableDatabase, ReadableTableMetadata};

use super::{
    Place, Store, StoreError,
    schema::{expiry_key, holder_key},
    tables::{EXPIRIES, FINGERPRINTS, HOLDERS, RECORDS, row_of_token},
};

/// How many rows tables have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RowCounts {
    /// Records.
    pub records: u64,
    /// Rows by which cards are found.
    pub fingerprints: u64,
    /// Rows by which holders are found.
    pub holders: u64,
    /// Rows by which the end of a token is found.
    pub expiries: u64,
}

impl RowCounts {
    /// Adds the rows of `other`.
    pub fn add(&mut self, other: Self) {
        self.records += other.records;
        self.fingerprints += other.fingerprints;
        self.holders += other.holders;
        self.expiries += other.expiries;
    }
}

impl Store {
    /// How many rows tables have.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn row_counts(&self) -> Result<RowCounts, StoreError> {
        self.inner.handle.with(|database| {
            let snapshot = database.begin_read()?;
            Ok(RowCounts {
                records: snapshot.open_table(RECORDS)?.len()?,
                fingerprints: snapshot.open_table(FINGERPRINTS)?.len()?,
                holders: snapshot.open_table(HOLDERS)?.len()?,
                expiries: snapshot.open_table(EXPIRIES)?.len()?,
            })
        })
    }

    /// How many rows lead to each of `places` that decodes: one for its card, one for its holder and its end if it has
    /// them. A place whose card leads elsewhere counts none for it.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn index_rows(&self, places: &[Place]) -> Result<RowCounts, StoreError> {
        let mut counts = RowCounts::default();
        self.inner.handle.with(|database| {
            let snapshot = database.begin_read()?;
            let (fingerprints, holders, expiries) = (
                snapshot.open_table(FINGERPRINTS)?,
                snapshot.open_table(HOLDERS)?,
                snapshot.open_table(EXPIRIES)?,
            );
            for Place { tenant, token, record } in places {
                let Ok(record) = record else { continue };
                let tenant = self.tenant(tenant);
                counts.records += 1;
                let row = row_of_token(&fingerprints, tenant, token, record)?;
                let row = fingerprints.get(row.as_slice())?;
                counts.fingerprints += u64::from(row.is_some_and(|row| row.value() == token.as_bytes()));
                if let Some(holder) = &record.header.holder {
                    let row = holders.get(holder_key(tenant, holder, token).as_slice())?;
                    counts.holders += u64::from(row.is_some());
                }
                if let Some(end_s) = record.header.expires_at_s {
                    let row = expiries.get(expiry_key(end_s, tenant, token).as_slice())?;
                    counts.expiries += u64::from(row.is_some());
                }
            }
            Ok(counts)
        })
    }
}
