//! Rows as they follow one another inside of the chunks.
//!
//! Table's number u8 ‖ bytes of the key u16 ‖ bytes of the value u32 ‖ key ‖ value; after the last a zero, and zeros to
//! the end of the chunk.
#![deny(clippy::indexing_slicing)]

use super::BackupError;
use crate::store::{Row, StoreError};

/// The largest value that is believed: far above a block of a window or a record with all its metadata.
const MAX_VALUE_BYTES: u32 = 16 << 20;
const END: u8 = 0;

/// Appends `row` to `out`.
///
/// # Errors
/// [`StoreError::Failed`] for one that is larger than any can be.
pub fn put_row(row: &Row, out: &mut Vec<u8>) -> Result<(), StoreError> {
    let too_large = || StoreError::Failed(format!("a row of table {} is too large", row.table));
    let key = u16::try_from(row.key.len()).map_err(|_| too_large())?;
    let value = u32::try_from(row.value.len()).ok().filter(|bytes| *bytes <= MAX_VALUE_BYTES);
    out.push(row.table);
    out.extend(key.to_be_bytes());
    out.extend(value.ok_or_else(too_large)?.to_be_bytes());
    out.extend_from_slice(&row.key);
    out.extend_from_slice(&row.value);
    Ok(())
}

/// Appends the end of all rows to `out`.
pub fn put_end(out: &mut Vec<u8>) {
    out.push(END);
}

/// Takes rows out of bytes that come piece by piece.
#[derive(Debug, Default)]
pub struct RowReader {
    rest: Vec<u8>,
    has_ended: bool,
}

impl RowReader {
    /// Takes the next bytes, and gives `each` every row that is whole by now.
    ///
    /// # Errors
    /// [`BackupError::Content`] for what are no rows, or what `each` says.
    pub fn push(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(Row) -> Result<(), BackupError>,
    ) -> Result<(), BackupError> {
        self.rest.extend_from_slice(bytes);
        let mut input = self.rest.as_slice();
        while !self.has_ended {
            match take_row(input)? {
                Taken::Row(row, rest) => {
                    input = rest;
                    each(row)?;
                }
                Taken::End(rest) => {
                    input = rest;
                    self.has_ended = true;
                }
                Taken::More => break,
            }
        }
        if self.has_ended && input.iter().any(|byte| *byte != 0) {
            return Err(content("something follows its last row"));
        }
        let left = if self.has_ended { 0 } else { input.len() };
        self.rest.drain(..self.rest.len() - left);
        Ok(())
    }

    /// That these were all.
    ///
    /// # Errors
    /// [`BackupError::Content`] if they are not.
    pub fn finish(&self) -> Result<(), BackupError> {
        if self.has_ended { Ok(()) } else { Err(content("it ends in the middle of its rows")) }
    }
}

enum Taken<'a> {
    Row(Row, &'a [u8]),
    End(&'a [u8]),
    /// There is no whole row yet.
    More,
}

fn take_row(input: &[u8]) -> Result<Taken<'_>, BackupError> {
    let Some((table, rest)) = input.split_first() else { return Ok(Taken::More) };
    if *table == END {
        return Ok(Taken::End(rest));
    }
    let lengths = rest.split_first_chunk().and_then(|(key, rest)| Some((key, rest.split_first_chunk()?)));
    let Some((key, (value, rest))) = lengths else { return Ok(Taken::More) };
    let value = u32::from_be_bytes(*value);
    if value > MAX_VALUE_BYTES {
        return Err(content("a row is larger than any can be"));
    }
    let value = usize::try_from(value).unwrap_or(usize::MAX);
    let cells = rest
        .split_at_checked(usize::from(u16::from_be_bytes(*key)))
        .and_then(|(key, rest)| Some((key, rest.split_at_checked(value)?)));
    Ok(match cells {
        Some((key, (value, rest))) => {
            Taken::Row(Row { table: *table, key: key.to_vec(), value: value.to_vec() }, rest)
        }
        None => Taken::More,
    })
}

fn content(what: &str) -> BackupError {
    BackupError::Content(what.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        fn row()(
            table in 1_u8..,
            key in prop::collection::vec(any::<u8>(), 0..40),
            value in prop::collection::vec(any::<u8>(), 0..300),
        ) -> Row {
            Row { table, key, value }
        }
    }

    fn read(pieces: &[&[u8]]) -> Result<Vec<Row>, BackupError> {
        let (mut reader, mut rows) = (RowReader::default(), Vec::new());
        for piece in pieces {
            reader.push(piece, &mut |row| {
                rows.push(row);
                Ok(())
            })?;
        }
        reader.finish().map(|()| rows)
    }

    proptest! {
        #[test]
        fn rows_come_back_however_they_are_cut(
            rows in prop::collection::vec(row(), 0..20),
            size in 1_usize..500,
            zeros in 0_usize..20,
        ) {
            let mut bytes = Vec::new();
            for row in &rows {
                put_row(row, &mut bytes).unwrap();
            }
            put_end(&mut bytes);
            bytes.extend(vec![0; zeros]);
            let pieces: Vec<_> = bytes.chunks(size).collect();
            prop_assert_eq!(read(&pieces).unwrap(), rows);
        }

        #[test]
        fn other_bytes_fail_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = read(&[&bytes]);
        }
    }

    #[test]
    fn what_does_not_end_well_is_refused() {
        let (mut whole, row) = (Vec::new(), Row { table: 1, key: vec![1], value: vec![2] });
        put_row(&row, &mut whole).unwrap();
        assert!(read(&[&whole]).is_err(), "no end");
        put_end(&mut whole);
        assert_eq!(read(&[&whole]).unwrap(), [row]);
        assert!(read(&[&whole, &[0, 0, 1]]).is_err(), "something behind the end");
        assert!(read(&[&[1, 0, 0, 0xff, 0xff, 0xff, 0xff]]).is_err(), "a row without measure");
        let large = Row { table: 1, key: vec![0; 65_536], value: Vec::new() };
        assert!(put_row(&large, &mut Vec::new()).is_err());
    }
}
