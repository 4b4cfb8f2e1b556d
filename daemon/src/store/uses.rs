//! What may be used once: ids that are remembered until they could not be used any more.

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    StoreError,
    schema::{USE_ID_BYTES, use_end_key},
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
    /// No more uses can be remembered for now.
    Full,
}

/// Uses up `id`, unless it was used before or `most` uses are remembered.
pub(super) fn use_up(
    transaction: &WriteTransaction,
    id: &[u8; USE_ID_BYTES],
    until_s: u64,
    now_s: u64,
    most: usize,
) -> Result<Use, StoreError> {
    let known = transaction.open_table(USES)?.get(id.as_slice())?.map(|until_s| until_s.value());
    if known.is_some_and(|until_s| until_s > now_s) {
        return Ok(Use::Again);
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
        if let Some((until_s, id)) = key.split_first_chunk() {
            // Used again since: the later end has a row of its own.
            let until_s = u64::from_be_bytes(*until_s);
            if uses.get(id)?.is_some_and(|known| known.value() == until_s) {
                uses.remove(id)?;
            }
        }
    }
    Ok(())
}
