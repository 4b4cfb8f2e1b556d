//! The ceiling of an insert: redb alone, with tables like the store's and nothing around them.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use ::redb::{Database, TableDefinition};
use anyhow::{Context as _, Result};

use crate::{number::rate, payload::Random};

/// Two tables as in the store, filled by one thread.
#[derive(Debug)]
pub(crate) struct Redb {
    database: Database,
    random: Random,
    /// The next record's place in the order of growing keys.
    next: u64,
    record: [u8; RECORD_BYTES],
}

impl Redb {
    /// A new database in `dir` that already holds `records`.
    pub(crate) fn create(dir: &Path, seed: u64, records: u64) -> Result<Self> {
        let database = Database::create(dir.join("ceiling.redb")).context("creating the redb ceiling")?;
        let mut random = Random::new(seed, u64::MAX);
        let record = random.bytes();
        let mut redb = Self { database, random, next: 0, record };
        while redb.next < records {
            redb.commit(PRELOAD_GROUP.min(records - redb.next))?;
        }
        Ok(redb)
    }

    /// Inserts in groups of `group` for `time`: records a second, each durable.
    pub(crate) fn sample(&mut self, group: u64, time: Duration) -> Result<f64> {
        let (begin, already) = (Instant::now(), self.next);
        while begin.elapsed() < time {
            self.commit(group)?;
        }
        Ok(rate(self.next - already, begin.elapsed()))
    }

    /// One durable transaction (redb's default: one fsync at the end of it) with `group` new records.
    fn commit(&mut self, group: u64) -> Result<()> {
        let transaction = self.database.begin_write()?;
        {
            let mut records = transaction.open_table(RECORDS)?;
            let mut fingerprints = transaction.open_table(FINGERPRINTS)?;
            for _ in 0..group {
                let key = self.growing_key();
                records.insert(&key, self.record.as_slice())?;
                fingerprints.insert(&self.random.bytes(), &key)?;
            }
        }
        transaction.commit().context("committing")
    }

    /// Four bytes for the tenant, then the order of a `UUIDv7`: a growing part and a random one.
    fn growing_key(&mut self) -> Key {
        let mut key = [0; KEY_BYTES];
        key[4..12].copy_from_slice(&self.next.to_be_bytes());
        key[12..].copy_from_slice(&self.random.bits().to_be_bytes());
        self.next += 1;
        key
    }
}

type Key = [u8; KEY_BYTES];

/// Sealed records, by tenant and token.
const RECORDS: TableDefinition<'_, &Key, &[u8]> = TableDefinition::new("records");
/// Tokens, by tenant, key version and fingerprint.
const FINGERPRINTS: TableDefinition<'_, &[u8; FINGERPRINT_BYTES], &Key> =
    TableDefinition::new("fingerprints");

const KEY_BYTES: usize = 20;
const FINGERPRINT_BYTES: usize = 30;
/// A sealed PAN (nonce, 22 bytes, tag), times, key version, masked PAN and some room.
const RECORD_BYTES: usize = 130;
/// Large, so that filling the database takes seconds and not minutes.
const PRELOAD_GROUP: u64 = 10_000;
