//! What may be used once: ids that are remembered until they could not be used any more.

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    StoreError,
    schema::{USE_END_BYTES, USE_ID_BYTES, use_end_key},
    tables::{USE_ENDS, USES, ended},
};

/// The most uses that one transaction forgets: keeps it short.
const MOST_FORGOTTEN: usize = 10_000;

/// What became of something that may be used once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// This was the first use.
    First,
    /// It was used before.
    Again,
    /// Its time is over, and whether it was used may be forgotten.
    Over,
    /// No more uses can be remembered for now.
    Full,
}

/// Uses up `id`, unless it was used before, its time is over at `now_s`, or `most` uses are remembered.
pub(super) fn use_up(
    transaction: &WriteTransaction,
    id: &[u8; USE_ID_BYTES],
    until_s: u64,
    now_s: u64,
    most: usize,
) -> Result<Use, StoreError> {
    if transaction.open_table(USES)?.get(id.as_slice())?.is_some() {
        return Ok(Use::Again);
    }
    // Whoever vetted it may have looked at the clock a while ago.
    if until_s <= now_s {
        return Ok(Use::Over);
    }
    let full = || {
        Ok::<_, StoreError>(transaction.open_table(USES)?.len()? >= u64::try_from(most).unwrap_or(u64::MAX))
    };
    if full()? {
        forget(transaction, now_s)?;
        if full()? {
            return Ok(Use::Full);
        }
    }
    transaction.open_table(USES)?.insert(id.as_slice(), until_s)?;
    transaction.open_table(USE_ENDS)?.insert(use_end_key(until_s, id).as_slice(), ())?;
    Ok(Use::First)
}

/// Forgets uses that ended at `now_s` or before.
pub(super) fn forget(transaction: &WriteTransaction, now_s: u64) -> Result<(), StoreError> {
    let (mut uses, mut ends) = (transaction.open_table(USES)?, transaction.open_table(USE_ENDS)?);
    for key in &ended(&ends, now_s.saturating_add(1), MOST_FORGOTTEN)? {
        ends.remove(key.as_slice())?;
        if let Some((_, id)) = key.split_first_chunk::<USE_END_BYTES>() {
            uses.remove(id)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use redb::{Database, backends::InMemoryBackend};

    use super::*;

    fn database() -> Database {
        Database::builder().create_with_backend(InMemoryBackend::new()).unwrap()
    }

    #[test]
    fn what_was_used_stays_used_to_its_last_instant() {
        let transaction = database().begin_write().unwrap();
        let at = |now_s| use_up(&transaction, &[1; USE_ID_BYTES], 100, now_s, 10).unwrap();
        assert_eq!(at(50), Use::First);
        assert_eq!(at(99), Use::Again);
        assert_eq!(at(100), Use::Again, "as long as it is known");
        forget(&transaction, 100).unwrap();
        assert_eq!(at(100), Use::Over);
    }
}
