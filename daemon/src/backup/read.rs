//! Reading a backup back.

use std::{collections::BTreeMap, io::Read};

use super::{
    BackupError, Head, Header,
    chunks::{ChunkKey, ChunkReader},
    header::bound_to,
    rows::RowReader,
};
use crate::{
    hsm::{Hsm, OpenRequest},
    store::{Row, table_names},
};

/// A backup of which the head was read.
pub struct Locked<R> {
    head: Head,
    input: R,
}

/// A backup whose data key was opened.
pub struct Unlocked<R> {
    header: Header,
    chunks: ChunkReader<R>,
}

impl<R: Read> Locked<R> {
    /// Reads the head of the backup that `input` is.
    ///
    /// # Errors
    /// [`BackupError`] if it is none, or of no use to this version.
    pub fn read(mut input: R) -> Result<Self, BackupError> {
        let head = Head::read(&mut input)?;
        Ok(Self { head, input })
    }

    /// What it says of itself. Nothing vouches for that before it is unlocked.
    pub fn header(&self) -> &Header {
        &self.head.header
    }

    /// Opens its data key in `hsm`, which must be the one of the vault that made it.
    ///
    /// # Errors
    /// [`BackupError`] if it is another one, or the head was altered.
    pub async fn unlock(self, hsm: &Hsm) -> Result<Unlocked<R>, BackupError> {
        let Self { head, input } = self;
        let header = head.header;
        let (name, vault) = header.sealed_by().zip(header.vault_id()).ok_or(BackupError::Header)?;
        let check_value = header.check_value().ok_or(BackupError::Header)?;
        if !hsm.keys()?.iter().any(|key| key.name == name) {
            return Err(BackupError::NoKey(name));
        }
        if !hsm.check_key(name, &check_value, &vault)? {
            return Err(BackupError::OtherVault(name));
        }
        let request = OpenRequest { key: name, aad: bound_to(&head.hash), sealed: head.data_key };
        let opened = hsm.open_sealed(vec![request]).await?.into_iter().next().flatten();
        let key = opened.and_then(|data_key| ChunkKey::new(&data_key, head.hash));
        let key = key.ok_or(BackupError::DataKey(name))?;
        Ok(Unlocked { header, chunks: ChunkReader::new(input, key, head.bytes)? })
    }
}

impl<R: Read> Unlocked<R> {
    /// What it says of itself; the HSM vouches for it.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads it to its end and gives `each` every row. Only when this returns without an error it was a whole backup.
    ///
    /// # Errors
    /// [`BackupError`], or what `each` says.
    pub fn read_rows(
        mut self,
        mut each: impl FnMut(Row) -> Result<(), BackupError>,
    ) -> Result<Header, BackupError> {
        let names = table_names();
        let mut counts = names.iter().map(|(number, name)| (*number, (name, 0))).collect::<BTreeMap<_, _>>();
        let mut rows = RowReader::default();
        loop {
            let (chunk, is_last) = self.chunks.next()?;
            rows.push(&chunk, &mut |row| {
                match counts.get_mut(&row.table) {
                    Some((_, count)) => *count += 1,
                    None => return Err(content(format!("it has rows of a table {}", row.table))),
                }
                each(row)
            })?;
            if is_last {
                break;
            }
        }
        rows.finish()?;
        let counts: BTreeMap<_, u64> =
            counts.into_values().map(|(name, count)| (name.clone(), count)).collect();
        if counts.iter().any(|(name, count)| self.header.rows.get(name).copied().unwrap_or(0) != *count) {
            return Err(content("it has other rows than its header says".to_owned()));
        }
        Ok(self.header)
    }
}

fn content(what: String) -> BackupError {
    BackupError::Content(what)
}
