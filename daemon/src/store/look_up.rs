//! Reading: the record of a token, and the token of a card.

use redb::ReadableDatabase;

use super::{
    FingerprintKey, Record, RecordError, Store, StoreError, TokenKey,
    schema::shared_fingerprint_key,
    tables::{FINGERPRINTS, RECORDS, read_record},
};

/// What a look-up of a card gave: its token and record if it has one.
pub type Found = Result<Option<(TokenKey, Record)>, StoreError>;

impl Store {
    /// The record of each token, in order; `None` where the tenant has no such token. One that is damaged fails alone.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn get(
        &self,
        tenant: &str,
        tokens: &[TokenKey],
    ) -> Result<Vec<Result<Option<Record>, StoreError>>, StoreError> {
        let tenant = self.tenant(tenant);
        self.inner.handle.with(|database| {
            let records = database.begin_read()?.open_table(RECORDS)?;
            tokens
                .iter()
                .map(|token| Ok(read_record(&records, tenant, token)?.map_err(StoreError::from)))
                .collect()
        })
    }

    /// The token and record each card got before, in order. One that is damaged fails alone. A card has a key for each
    /// version it may be found under.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn find(&self, tenant: &str, cards: &[&[FingerprintKey]]) -> Result<Vec<Found>, StoreError> {
        let tenant = self.tenant(tenant);
        self.inner.handle.with(|database| {
            let snapshot = database.begin_read()?;
            let (fingerprints, records) = (snapshot.open_table(FINGERPRINTS)?, snapshot.open_table(RECORDS)?);
            let find = |key: &FingerprintKey| -> Result<Found, StoreError> {
                let row = fingerprints.get(shared_fingerprint_key(tenant, key).as_slice())?;
                let Some(token) = row.and_then(|token| TokenKey::new(token.value())) else {
                    return Ok(Ok(None));
                };
                Ok(match read_record(&records, tenant, &token)? {
                    Ok(Some(record)) if !record.is_of(key) => Err(RecordError::OtherCard.into()),
                    Ok(record) => Ok(record.map(|record| (token, record))),
                    Err(error) => Err(error.into()),
                })
            };
            let find_first = |keys: &&[FingerprintKey]| {
                let mut found = keys.iter().map(find).filter(|found| !matches!(found, Ok(Ok(None))));
                found.next().unwrap_or(Ok(Ok(None)))
            };
            cards.iter().map(find_first).collect()
        })
    }
}
