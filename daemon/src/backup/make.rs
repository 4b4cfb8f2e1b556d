//! Making a backup.

use zeroize::Zeroizing;

use super::{
    Header,
    chunks::{CHUNK_BYTES, ChunkKey},
    header::{DATA_KEY_BYTES, Facts, bound_to},
    rows::{put_end, put_row},
};
use crate::{
    audit::Audit,
    hsm::{CheckValue, HsmError, KeyName, SealRequest},
    store::{Row, StoreError, StoredKey},
    vault::{Keys, VaultError, last_signed},
};

/// How often a backup is begun anew because its key was rotated meanwhile.
const MAX_ATTEMPTS: usize = 8;

/// A backup on its way: the pieces of the file, in order. Reads the store and works: not for threads that serve others.
///
/// A caller that meets an error must not keep what came before it; it would be refused as cut short.
pub struct Sealing {
    header: Header,
    head: Option<Vec<u8>>,
    key: ChunkKey,
    rows: Box<dyn Iterator<Item = Result<Row, StoreError>> + Send>,
    waiting: Vec<u8>,
    /// The number of the next chunk.
    number: u64,
    rows_left: bool,
    is_over: bool,
}

/// Begins a backup of the store of `keys`: takes the snapshot, and has the HSM make and seal the data key.
///
/// What any line of `audit` tells of that is durable when this is called is in the snapshot.
///
/// # Errors
/// [`VaultError`].
pub async fn begin(keys: &Keys, audit: &Audit) -> Result<Sealing, VaultError> {
    let store = keys.store();
    let last = audit.last();
    // A change that nobody waited for has its line before it is committed.
    if !store.writer_lives().await {
        return Err(StoreError::Failed("the writer has ended".to_owned()).into());
    }
    let snapshot = store.snapshot()?;
    let signed = last_signed(store)?;
    let mut data_key = Zeroizing::new(vec![0; DATA_KEY_BYTES]);
    keys.hsm().random(&mut data_key).await?;
    for _ in 0..MAX_ATTEMPTS {
        let (recorded, sealed_by) = (store.keys()?, keys.record_key());
        let check_value = check_value(&recorded, sealed_by)?;
        let live = recorded.iter().filter(|(_, key)| key.state.is_live());
        let header = Header::new(Facts {
            vault_id: store.vault_id(),
            sealed_by,
            check_value: &check_value,
            keys: live.map(|(name, _)| name.clone()).collect(),
            rows: snapshot.counts().clone(),
            audit: last,
            signed,
        });
        let (mut head, hash) = header.encode();
        let request = SealRequest { key: sealed_by, aad: bound_to(&hash), plaintext: data_key.clone() };
        let sealed = match keys.seal_one(request).await {
            Err(error) if keys.moved_on(&error) => continue,
            sealed => sealed?,
        };
        head.extend(sealed.nonce);
        head.extend(sealed.ciphertext);
        let no_key = || HsmError::Unavailable("it makes no random key".to_owned());
        return Ok(Sealing {
            header,
            head: Some(head),
            key: ChunkKey::new(&data_key, hash).ok_or_else(no_key)?,
            rows: Box::new(snapshot.rows()),
            waiting: Vec::with_capacity(2 * CHUNK_BYTES),
            number: 0,
            rows_left: true,
            is_over: false,
        });
    }
    Err(VaultError::KeysChanged)
}

fn check_value(recorded: &[(String, StoredKey)], name: KeyName) -> Result<CheckValue, VaultError> {
    let name = name.to_string();
    let key = recorded.iter().find(|(known, _)| *known == name);
    let key = key.ok_or(HsmError::NoKey(name))?;
    Ok(CheckValue(key.1.check_value.clone()))
}

impl Sealing {
    /// What it will say of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    fn chunk(&mut self) -> Result<Vec<u8>, StoreError> {
        // One byte more than a chunk holds: only then is there another after it.
        while self.rows_left && self.waiting.len() <= CHUNK_BYTES {
            if let Some(row) = self.rows.next() {
                put_row(&row?, &mut self.waiting)?;
            } else {
                put_end(&mut self.waiting);
                self.rows_left = false;
            }
        }
        let is_last = self.waiting.len() <= CHUNK_BYTES;
        let rest = self.waiting.split_off(self.waiting.len().min(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.waiting, rest);
        let sealed = self.key.seal(self.number, is_last, chunk);
        self.number += 1;
        self.is_over = is_last;
        sealed.ok_or_else(|| StoreError::Failed("a chunk of the backup cannot be sealed".to_owned()))
    }
}

impl Iterator for Sealing {
    type Item = Result<Vec<u8>, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(head) = self.head.take() {
            return Some(Ok(head));
        }
        if self.is_over {
            return None;
        }
        let chunk = self.chunk();
        self.is_over |= chunk.is_err();
        Some(chunk)
    }
}
