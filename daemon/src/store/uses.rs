//! What may be used once: ids that are remembered until they could not be used any more.

use redb::{ReadableTable, ReadableTableMetadata, WriteTransaction};

use super::{
    StoreError,
    schema::{USE_END_BYTES, USE_ID_BYTES, use_end_key},
    tables::{
        APPROVAL_USE_ENDS, APPROVAL_USES, Bytes, JWT_USE_ENDS, JWT_USES, USE_ENDS, USES, UseEndTable,
        UseTable, ended,
    },
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

/// What may be used once. Each kind is remembered in tables of its own: none fills the memory of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UseKind {
    /// A caller's JWT.
    Jwt,
    /// A second person's JWT.
    Approval,
    /// An envelope.
    Envelope,
}

impl UseKind {
    /// Every kind.
    pub const ALL: [Self; 3] = [Self::Jwt, Self::Approval, Self::Envelope];

    fn tables(self) -> (UseTable, UseEndTable) {
        match self {
            Self::Jwt => (JWT_USES, JWT_USE_ENDS),
            Self::Approval => (APPROVAL_USES, APPROVAL_USE_ENDS),
            Self::Envelope => (USES, USE_ENDS),
        }
    }
}

/// Uses up `id`, unless it was used before, its time is over at `now_s`, or `most` uses of its kind are remembered.
pub(super) fn use_up(
    transaction: &WriteTransaction,
    kind: UseKind,
    id: &[u8; USE_ID_BYTES],
    until_s: u64,
    now_s: u64,
    most: usize,
) -> Result<Use, StoreError> {
    let (uses, ends) = kind.tables();
    let knows =
        |uses| Ok::<_, StoreError>(transaction.open_table::<Bytes, u64>(uses)?.get(id.as_slice())?.is_some());
    // The latter may be of before each kind had its tables.
    if knows(uses)? || knows(USES)? {
        return Ok(Use::Again);
    }
    // Whoever vetted it may have looked at the clock a while ago.
    if until_s <= now_s {
        return Ok(Use::Over);
    }
    let full = || {
        Ok::<_, StoreError>(transaction.open_table(uses)?.len()? >= u64::try_from(most).unwrap_or(u64::MAX))
    };
    if full()? {
        forget_kind(transaction, kind, now_s)?;
        if full()? {
            return Ok(Use::Full);
        }
    }
    transaction.open_table(uses)?.insert(id.as_slice(), until_s)?;
    transaction.open_table(ends)?.insert(use_end_key(until_s, id).as_slice(), ())?;
    Ok(Use::First)
}

/// Forgets uses that ended at `now_s` or before.
pub(super) fn forget(transaction: &WriteTransaction, now_s: u64) -> Result<(), StoreError> {
    UseKind::ALL.into_iter().try_for_each(|kind| forget_kind(transaction, kind, now_s))
}

fn forget_kind(transaction: &WriteTransaction, kind: UseKind, now_s: u64) -> Result<(), StoreError> {
    let (uses, ends) = kind.tables();
    let (mut uses, mut ends) = (transaction.open_table(uses)?, transaction.open_table(ends)?);
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
        for kind in UseKind::ALL {
            let at = |now_s| use_up(&transaction, kind, &[1; USE_ID_BYTES], 100, now_s, 10).unwrap();
            assert_eq!(at(50), Use::First);
            assert_eq!(at(99), Use::Again);
            assert_eq!(at(100), Use::Again, "as long as it is known");
            forget(&transaction, 100).unwrap();
            assert_eq!(at(100), Use::Over);
        }
    }

    #[test]
    fn each_kind_has_room_of_its_own() {
        let transaction = database().begin_write().unwrap();
        let at = |kind, id, now_s| use_up(&transaction, kind, &[id; USE_ID_BYTES], 100, now_s, 2).unwrap();
        for kind in UseKind::ALL {
            assert_eq!([1, 2, 3].map(|id| at(kind, id, 50)), [Use::First, Use::First, Use::Full], "{kind:?}");
        }
    }

    #[test]
    fn what_was_used_before_there_were_kinds_stays_used() {
        let transaction = database().begin_write().unwrap();
        let id = [1; USE_ID_BYTES];
        transaction.open_table(USES).unwrap().insert(id.as_slice(), 100).unwrap();
        for kind in UseKind::ALL {
            assert_eq!(use_up(&transaction, kind, &id, 100, 50, 1).unwrap(), Use::Again, "{kind:?}");
        }
        let another = use_up(&transaction, UseKind::Jwt, &[2; USE_ID_BYTES], 100, 50, 1);
        assert_eq!(another.unwrap(), Use::First, "and takes no room of theirs");
    }
}
