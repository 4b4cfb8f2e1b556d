//! The body of a backup: chunks of one size, each sealed for its place (STREAM; Hoang, Reyhanitabar, Rogaway, Vizár 2015).
//!
//! The nonce of a chunk is its number and whether it is the last, so that a chunk opens in its place only, and the end is
//! known. The data key is of one backup alone, so no nonce comes twice. All chunks are of one size, the last one filled
//! up: so where the file ends tells whether it was cut inside of a chunk.
#![deny(clippy::indexing_slicing)]

use std::io::Read;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use zeroize::Zeroizing;

use super::{
    BackupError,
    header::{DATA_KEY_BYTES, fill},
};
use crate::hsm::TAG_BYTES;

/// Bytes of a chunk before it is sealed.
pub(super) const CHUNK_BYTES: usize = 65_536;
/// Bytes of a chunk in the file.
const SEALED_BYTES: usize = CHUNK_BYTES + TAG_BYTES;

/// A data key in use, bound to the header whose SHA-256 is `hash`.
pub(super) struct ChunkKey {
    key: LessSafeKey,
    hash: [u8; 32],
}

impl ChunkKey {
    /// `None` for what is no key.
    pub(super) fn new(data_key: &Zeroizing<Vec<u8>>, hash: [u8; 32]) -> Option<Self> {
        if data_key.len() != DATA_KEY_BYTES {
            return None;
        }
        let key = UnboundKey::new(&AES_256_GCM, data_key).ok()?;
        Some(Self { key: LessSafeKey::new(key), hash })
    }

    /// Seals `chunk`, the one with this number from 0; fills it up to the size of all.
    pub(super) fn seal(&self, number: u64, is_last: bool, mut chunk: Vec<u8>) -> Option<Vec<u8>> {
        chunk.resize(CHUNK_BYTES, 0);
        self.key.seal_in_place_append_tag(nonce(number, is_last), Aad::from(self.hash), &mut chunk).ok()?;
        Some(chunk)
    }

    /// Opens what [`ChunkKey::seal`] made.
    fn open(&self, number: u64, is_last: bool, sealed: &[u8]) -> Option<Vec<u8>> {
        let mut chunk = sealed.to_vec();
        let opened = self.key.open_in_place(nonce(number, is_last), Aad::from(self.hash), &mut chunk);
        let bytes = opened.ok()?.len();
        chunk.truncate(bytes);
        Some(chunk)
    }
}

/// Number u64, three zeros, and 1 for the last chunk.
fn nonce(number: u64, is_last: bool) -> Nonce {
    let mut bytes = [0; NONCE_LEN];
    let (front, back) = bytes.split_at_mut(size_of::<u64>());
    front.copy_from_slice(&number.to_be_bytes());
    if let Some(flag) = back.last_mut() {
        *flag = u8::from(is_last);
    }
    Nonce::assume_unique_for_key(bytes)
}

/// Reads chunks back, one after the other.
pub(super) struct ChunkReader<R> {
    input: R,
    key: ChunkKey,
    /// What was read ahead: whether a chunk is the last is known when there is no other.
    ahead: Vec<u8>,
    number: u64,
    /// Where the next chunk begins in the file.
    offset: u64,
}

impl<R: Read> ChunkReader<R> {
    /// Chunks from `input`, which has been read up to `offset`.
    pub(super) fn new(mut input: R, key: ChunkKey, offset: u64) -> Result<Self, BackupError> {
        let ahead = sealed_chunk(&mut input)?;
        Ok(Self { input, key, ahead, number: 0, offset })
    }

    /// The next chunk, and whether it is the last.
    pub(super) fn next(&mut self) -> Result<(Vec<u8>, bool), BackupError> {
        let here = std::mem::take(&mut self.ahead);
        let (number, offset) = (self.number, self.offset);
        if here.is_empty() {
            return Err(BackupError::CutShort("before its first chunk".to_owned()));
        }
        if here.len() < SEALED_BYTES {
            return Err(BackupError::CutShort(format!("inside of chunk {}", number + 1)));
        }
        self.ahead = sealed_chunk(&mut self.input)?;
        self.number += 1;
        self.offset += u64::try_from(SEALED_BYTES).unwrap_or(u64::MAX);
        let is_last = self.ahead.is_empty();
        if let Some(chunk) = self.key.open(number, is_last, &here) {
            return Ok((chunk, is_last));
        }
        // Whether it would open as the other tells what happened behind it.
        Err(match (self.key.open(number, !is_last, &here), is_last) {
            (Some(_), true) => {
                BackupError::CutShort(format!("after chunk {}, which is not the last", number + 1))
            }
            (Some(_), false) => BackupError::Appended(self.offset),
            (None, _) => BackupError::Chunk { chunk: number + 1, offset },
        })
    }
}

fn sealed_chunk(input: &mut impl Read) -> Result<Vec<u8>, BackupError> {
    let mut bytes = vec![0; SEALED_BYTES];
    let read = fill(input, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests")]

    use proptest::prelude::*;

    use super::*;

    const HASH: [u8; 32] = [3; 32];

    fn key(byte: u8) -> ChunkKey {
        ChunkKey::new(&Zeroizing::new(vec![byte; DATA_KEY_BYTES]), HASH).unwrap()
    }

    fn sealed(chunks: usize) -> Vec<u8> {
        let key = key(1);
        (0..chunks)
            .flat_map(|number| {
                let text = vec![u8::try_from(number).unwrap(); 100];
                key.seal(u64::try_from(number).unwrap(), number + 1 == chunks, text).unwrap()
            })
            .collect()
    }

    fn open_with(key: ChunkKey, bytes: &[u8]) -> Result<usize, BackupError> {
        let mut reader = ChunkReader::new(bytes, key, 0)?;
        let mut chunks = 1;
        while !reader.next()?.1 {
            chunks += 1;
        }
        Ok(chunks)
    }

    fn open(bytes: &[u8]) -> Result<usize, BackupError> {
        open_with(key(1), bytes)
    }

    #[test]
    fn chunks_come_back() {
        for chunks in 1..4 {
            assert_eq!(open(&sealed(chunks)).unwrap(), chunks);
        }
        let mut bytes = sealed(2);
        let mut reader = ChunkReader::new(bytes.as_slice(), key(1), 0).unwrap();
        assert_eq!(reader.next().unwrap().0[..101], [vec![0; 100], vec![0]].concat());
        assert_eq!(reader.next().unwrap().0[..101], [vec![1; 100], vec![0]].concat());
        bytes.truncate(SEALED_BYTES);
        assert!(matches!(open(&bytes), Err(BackupError::CutShort(_))));
    }

    #[test]
    fn what_was_done_to_chunks_is_told_apart() {
        let bytes = sealed(3);
        let chunk = |n: usize| &bytes[n * SEALED_BYTES..(n + 1) * SEALED_BYTES];
        let swapped = [chunk(1), chunk(0), chunk(2)].concat();
        assert!(matches!(open(&swapped), Err(BackupError::Chunk { chunk: 1, offset: 0 })));
        let repeated = [chunk(0), chunk(0), chunk(1), chunk(2)].concat();
        assert!(matches!(open(&repeated), Err(BackupError::Chunk { chunk: 2, offset: 65_552 })));
        let missing = [chunk(0), chunk(2)].concat();
        assert!(matches!(open(&missing), Err(BackupError::Chunk { chunk: 2, .. })));
        let appended = [&bytes, b"x".as_slice()].concat();
        assert!(matches!(open(&appended), Err(BackupError::Appended(at)) if at == 3 * 65_552));
        assert!(matches!(open_with(key(2), &bytes), Err(BackupError::Chunk { chunk: 1, .. })));
        let other = ChunkKey { hash: [4; 32], ..key(1) };
        assert!(matches!(open_with(other, &bytes), Err(BackupError::Chunk { chunk: 1, .. })));
        assert!(ChunkKey::new(&Zeroizing::new(vec![1; 31]), HASH).is_none());
    }

    #[test]
    fn every_cut_is_one() {
        let bytes = sealed(3);
        for len in [
            0,
            1,
            15,
            16,
            SEALED_BYTES - 1,
            SEALED_BYTES,
            SEALED_BYTES + 1,
            2 * SEALED_BYTES,
            bytes.len() - 1,
        ] {
            let found = open(&bytes[..len]);
            assert!(matches!(found, Err(BackupError::CutShort(_))), "{len}: {found:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn an_altered_byte_is_found_in_its_chunk(place in 0..3 * SEALED_BYTES, with in 1_u8..) {
            let mut bytes = sealed(3);
            bytes[place] ^= with;
            let expected = u64::try_from(place / SEALED_BYTES).unwrap() + 1;
            let found = open(&bytes);
            prop_assert!(matches!(found, Err(BackupError::Chunk { chunk, .. }) if chunk == expected), "{:?}", found);
        }

        #[test]
        fn a_cut_is_found(len in 0..3 * SEALED_BYTES) {
            let bytes = sealed(3);
            prop_assert!(matches!(open(&bytes[..len]), Err(BackupError::CutShort(_))));
        }
    }
}
