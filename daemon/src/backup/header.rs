//! The head of a backup: what it is of, in clear, and its data key, sealed.
#![deny(clippy::indexing_slicing)]

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::BackupError;
use crate::{
    audit::Mark,
    hsm::{CheckValue, KeyName, NONCE_BYTES, Sealed, TAG_BYTES},
    store::SCHEMA_VERSION,
};

/// The version of the format.
pub(super) const FORMAT: u16 = 1;
/// What a backup begins with.
const MAGIC: &[u8; 8] = b"vaultdBK";
/// The most bytes of a header: a few hundred keys fit.
const MAX_HEADER_BYTES: usize = 65_536;
/// Bytes of the data key (AES-256).
pub(super) const DATA_KEY_BYTES: usize = 32;
/// Bytes of a SHA-256.
const HASH_BYTES: usize = 32;
/// What the data key is bound to begins with this. The AAD of a record begins with `c` or `p`, so none equals it.
const DOMAIN: &[u8] = b"vaultd backup data key v1\0";

/// What a backup is of. In clear: it is read before the HSM is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The vault's id, in hexadecimal.
    vault: String,
    /// When the snapshot was taken.
    pub time: Timestamp,
    /// The version of the vaultd that made it.
    pub vaultd: String,
    /// The schema of the store in it.
    schema: u32,
    /// The key that sealed its data key, as in `record-v1`.
    sealed_by: String,
    /// That key's check value, in hexadecimal.
    check_value: String,
    /// The keys of the token without which what is in it is of no use.
    pub keys: Vec<String>,
    /// How many rows of each table it holds.
    pub rows: BTreeMap<String, u64>,
    /// The last line of the audit log that was durable before the snapshot: what any line up to it tells of is in the backup.
    pub audit: Place,
    /// The last line that was signed by then, if any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Place>,
}

/// A line of the audit log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Its number.
    pub seq: u64,
    /// Its SHA-256, in hexadecimal.
    pub hash: String,
    /// The number of its file.
    pub file: u64,
    /// Where in the uncompressed file it starts, in bytes.
    pub offset: u64,
}

impl From<Mark> for Place {
    fn from(mark: Mark) -> Self {
        Self { seq: mark.seq, hash: hex(&mark.hash), file: mark.file, offset: mark.offset }
    }
}

impl Place {
    /// The line, as the audit log knows it; `None` if it is none.
    pub fn mark(&self) -> Option<Mark> {
        let hash = unhex(&self.hash)?.try_into().ok()?;
        Some(Mark { seq: self.seq, hash, file: self.file, offset: self.offset }).filter(|mark| mark.seq > 0)
    }
}

/// What [`Header::new`] is told.
pub(super) struct Facts<'a> {
    pub(super) vault_id: [u8; 16],
    pub(super) sealed_by: KeyName,
    pub(super) check_value: &'a CheckValue,
    pub(super) keys: Vec<String>,
    pub(super) rows: BTreeMap<String, u64>,
    pub(super) audit: Mark,
    pub(super) signed: Option<Mark>,
}

impl Header {
    pub(super) fn new(facts: Facts<'_>) -> Self {
        Self {
            vault: hex(&facts.vault_id),
            time: Timestamp::now(),
            vaultd: env!("CARGO_PKG_VERSION").to_owned(),
            schema: SCHEMA_VERSION,
            sealed_by: facts.sealed_by.to_string(),
            check_value: hex(&facts.check_value.0),
            keys: facts.keys,
            rows: facts.rows,
            audit: facts.audit.into(),
            signed: facts.signed.map(Place::from),
        }
    }

    /// The vault's id.
    pub fn vault_id(&self) -> Option<[u8; 16]> {
        unhex(&self.vault)?.try_into().ok()
    }

    /// The key that sealed its data key.
    pub fn sealed_by(&self) -> Option<KeyName> {
        KeyName::parse(&self.sealed_by)
    }

    /// Its name, whatever it is.
    pub fn sealed_by_name(&self) -> &str {
        &self.sealed_by
    }

    /// In a few words: how much is in it, and how far the audit log went.
    pub fn summary(&self) -> String {
        format!("{} records; the audit log up to line {}", self.records(), self.audit.seq)
    }

    /// That key's check value.
    pub fn check_value(&self) -> Option<CheckValue> {
        unhex(&self.check_value).map(CheckValue)
    }

    /// How many tokens it holds.
    pub fn records(&self) -> u64 {
        self.rows.get("records").copied().unwrap_or(0)
    }

    /// Reads a header; `None` for what is none.
    pub fn parse(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }

    /// Its bytes in the file, up to the sealed data key, and the SHA-256 that ends them.
    pub(super) fn encode(&self) -> (Vec<u8>, [u8; HASH_BYTES]) {
        // Structs and maps with string keys: there is nothing to fail.
        let text = serde_json::to_vec(self).unwrap_or_default();
        let len = u32::try_from(text.len()).unwrap_or(u32::MAX);
        let mut bytes = [MAGIC, FORMAT.to_be_bytes().as_slice(), &len.to_be_bytes(), &text].concat();
        let hash: [u8; HASH_BYTES] = Sha256::digest(&bytes).into();
        bytes.extend(hash);
        (bytes, hash)
    }
}

/// What the data key is sealed and opened with as AAD.
pub(super) fn bound_to(hash: &[u8; HASH_BYTES]) -> Vec<u8> {
    [DOMAIN, hash].concat()
}

/// The head of a backup as it was read.
#[derive(Debug)]
pub struct Head {
    /// What it is of.
    pub header: Header,
    /// SHA-256 of the header's bytes: what everything that is sealed is bound to.
    pub(super) hash: [u8; HASH_BYTES],
    pub(super) data_key: Sealed,
    /// Bytes before the first chunk.
    pub(super) bytes: u64,
}

impl Head {
    /// Reads the head of a backup.
    ///
    /// # Errors
    /// [`BackupError`] if it is none, or of no use to this version.
    pub fn read(input: &mut impl Read) -> Result<Self, BackupError> {
        let mut magic = [0; MAGIC.len()];
        let read = fill(input, &mut magic)?;
        if magic.get(..read) != MAGIC.get(..read) || read == 0 {
            return Err(BackupError::NotABackup);
        }
        if read < MAGIC.len() {
            return Err(in_the_head());
        }
        let format = u16::from_be_bytes(array(input)?);
        if format != FORMAT {
            return Err(BackupError::Format(format));
        }
        let len = array::<4>(input)?;
        let bytes = usize::try_from(u32::from_be_bytes(len)).unwrap_or(usize::MAX);
        if bytes > MAX_HEADER_BYTES {
            return Err(BackupError::Header);
        }
        let mut text = vec![0; bytes];
        if fill(input, &mut text)? < bytes {
            return Err(in_the_head());
        }
        let hash = array::<HASH_BYTES>(input)?;
        let hashed = [MAGIC, format.to_be_bytes().as_slice(), &len, &text].concat();
        // No protection, which the seal is, but a better word for what is wrong.
        if hash != <[u8; HASH_BYTES]>::from(Sha256::digest(&hashed)) {
            return Err(BackupError::Header);
        }
        let header = Header::parse(&text).ok_or(BackupError::Header)?;
        if header.schema > SCHEMA_VERSION {
            return Err(BackupError::Schema(header.schema));
        }
        let nonce = array(input)?;
        let ciphertext = array::<{ DATA_KEY_BYTES + TAG_BYTES }>(input)?.to_vec();
        let bytes = hashed.len() + HASH_BYTES + NONCE_BYTES + ciphertext.len();
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        Ok(Self { header, hash, data_key: Sealed { nonce, ciphertext }, bytes })
    }
}

fn in_the_head() -> BackupError {
    BackupError::CutShort("before its first chunk".to_owned())
}

fn array<const N: usize>(input: &mut impl Read) -> Result<[u8; N], BackupError> {
    let mut bytes = [0; N];
    if fill(input, &mut bytes)? < N { Err(in_the_head()) } else { Ok(bytes) }
}

/// Reads until `out` is full or there is no more; says how much it was.
pub(super) fn fill(input: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match input.read(rest) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// `bytes` in lower-case hexadecimal.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let digits = digits?;
    let (pairs, rest) = digits.as_chunks::<2>();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;
    use crate::hsm::Purpose;

    pub(crate) fn header() -> Header {
        Header::new(Facts {
            vault_id: *b"the vault of us!",
            sealed_by: KeyName { purpose: Purpose::Record, version: 3 },
            check_value: &CheckValue(vec![7; 60]),
            keys: vec!["record-v3".to_owned()],
            rows: BTreeMap::from([("records".to_owned(), 5)]),
            audit: Mark { seq: 9, hash: [1; 32], file: 2, offset: 40 },
            signed: None,
        })
    }

    fn head() -> Vec<u8> {
        let (mut bytes, _) = header().encode();
        bytes.extend([5; NONCE_BYTES + DATA_KEY_BYTES + TAG_BYTES]);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let written = header();
        let (mut bytes, hash) = written.encode();
        bytes.extend([5; NONCE_BYTES + DATA_KEY_BYTES + TAG_BYTES]);
        let head = Head::read(&mut bytes.as_slice()).unwrap();
        assert_eq!((head.header, head.hash), (written.clone(), hash));
        assert_eq!(head.bytes, u64::try_from(bytes.len()).unwrap());
        assert_eq!(written.vault_id(), Some(*b"the vault of us!"));
        assert_eq!(written.sealed_by().unwrap().to_string(), "record-v3");
        assert_eq!(written.audit.mark(), Some(Mark { seq: 9, hash: [1; 32], file: 2, offset: 40 }));
        assert_eq!(written.check_value(), Some(CheckValue(vec![7; 60])));
    }

    #[test]
    fn what_is_cut_short_says_so() {
        let bytes = head();
        assert!(matches!(Head::read(&mut [].as_slice()), Err(BackupError::NotABackup)));
        for len in 1..bytes.len() {
            let found = Head::read(&mut &bytes[..len]);
            assert!(matches!(found, Err(BackupError::CutShort(_))), "{len}: {found:?}");
        }
    }

    #[test]
    fn every_altered_byte_is_found_or_bound() {
        let bytes = head();
        let (_, hash) = header().encode();
        let clear = bytes.len() - NONCE_BYTES - DATA_KEY_BYTES - TAG_BYTES;
        for place in 0..clear {
            let mut altered = bytes.clone();
            altered[place] ^= 1 << (place % 8);
            let found = Head::read(&mut altered.as_slice());
            let is_named = matches!(
                found,
                Err(BackupError::NotABackup
                    | BackupError::Format(_)
                    | BackupError::Header
                    | BackupError::CutShort(_))
            );
            assert!(is_named, "{place}: {found:?}");
        }
        assert!(bound_to(&hash).ends_with(&hash));
    }

    proptest! {
        #[test]
        fn other_bytes_fail_in_peace(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let whole = [MAGIC.as_slice(), &bytes].concat();
            prop_assert!(Head::read(&mut whole.as_slice()).is_err());
        }

        #[test]
        fn hexadecimal_goes_both_ways(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(unhex(&hex(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn what_is_no_hexadecimal_is_none() {
        assert_eq!(unhex("abc"), None);
        assert_eq!(unhex("zz"), None);
    }
}
