//! Rows of windows as they are in the store. Integers are big-endian.
#![deny(clippy::indexing_slicing)]

use super::window::RowChanges;
use crate::store::WindowRows;

/// Bytes that name a window: whom it counts for, and its span.
pub(super) const WINDOW_NAME_BYTES: usize = 18;
/// A window's name.
pub(super) type WindowName = [u8; WINDOW_NAME_BYTES];

const OPEN: u8 = 0;
const USED: u8 = 1;
const LOST: u8 = 2;

/// A block of a window's allowance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Row {
    /// It may be in use, for so many cards.
    Open {
        /// The most cards.
        cards: usize,
    },
    /// These cards used it: since when each counts, in seconds of Unix time, and its hash.
    Used(Vec<(u64, u64)>),
    /// It was in use when the daemon was killed: counts as so many cards.
    Lost {
        /// Since when, in seconds of Unix time.
        since_s: u64,
        /// How many.
        cards: usize,
    },
}

impl Row {
    fn encode(&self) -> Vec<u8> {
        let number = |cards: usize| u64::try_from(cards).unwrap_or(u64::MAX).to_be_bytes();
        match self {
            Self::Open { cards } => [&[OPEN], number(*cards).as_slice()].concat(),
            Self::Lost { since_s, cards } => {
                [&[LOST], number(*cards).as_slice(), &since_s.to_be_bytes()].concat()
            }
            Self::Used(cards) => {
                let numbers = cards.iter().flat_map(|(since_s, card)| [*since_s, *card]);
                std::iter::once(USED).chain(numbers.flat_map(u64::to_be_bytes)).collect()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        let (numbers, []) = rest.as_chunks::<8>() else { return None };
        let numbers: Vec<_> = numbers.iter().map(|bytes| u64::from_be_bytes(*bytes)).collect();
        match (*kind, numbers.as_slice()) {
            (OPEN, [cards]) => Some(Self::Open { cards: usize::try_from(*cards).ok()? }),
            (LOST, [cards, since_s]) => {
                Some(Self::Lost { since_s: *since_s, cards: usize::try_from(*cards).ok()? })
            }
            (USED, numbers) => {
                let (pairs, []) = numbers.as_chunks::<2>() else { return None };
                Some(Self::Used(pairs.iter().map(|[since_s, card]| (*since_s, *card)).collect()))
            }
            _ => None,
        }
    }
}

/// The row `number` of the window `name`, as the store keeps it.
pub(super) fn store_rows(name: &WindowName, changes: RowChanges) -> WindowRows {
    let key = |number: u64| [name.as_slice(), &number.to_be_bytes()].concat();
    WindowRows {
        put: changes.put.into_iter().map(|(number, row)| (key(number), row.encode())).collect(),
        remove: changes.remove.into_iter().map(key).collect(),
    }
}

/// Reads what [`store_rows`] wrote: whose row it is, its number, and what it says; `None` for anything else.
pub(super) fn parse(key: &[u8], value: &[u8]) -> Option<(WindowName, u64, Row)> {
    let (name, number) = key.split_first_chunk::<WINDOW_NAME_BYTES>()?;
    let number = u64::from_be_bytes(number.try_into().ok()?);
    Some((*name, number, Row::decode(value)?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn row() -> impl Strategy<Value = Row> {
        prop_oneof![
            any::<usize>().prop_map(|cards| Row::Open { cards }),
            any::<(u64, usize)>().prop_map(|(since_s, cards)| Row::Lost { since_s, cards }),
            any::<Vec<(u64, u64)>>().prop_map(Row::Used),
        ]
    }

    proptest! {
        #[test]
        fn a_row_is_read_as_it_was_written(name: WindowName, number: u64, row in row()) {
            let rows = store_rows(&name, RowChanges { put: vec![(number, row.clone())], remove: Vec::new() });
            let (key, value) = rows.put.first().unwrap();
            prop_assert_eq!(parse(key, value), Some((name, number, row)));
        }

        #[test]
        fn no_bytes_make_it_fail(key: Vec<u8>, value: Vec<u8>) {
            let _ = parse(&key, &value);
        }
    }
}
