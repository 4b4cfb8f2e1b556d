//! Bringing records to the active keys: which ones are not there yet, and how far the job has come.
//!
//! The job's place is written in the transaction of the records it has brought so far: after a crash it goes on there.

use std::ops::Bound;

use redb::{ReadableDatabase, ReadableTableMetadata, WriteTransaction};

use super::{
    KeyRole, Record, Replaced, Store, StoreError, TokenKey,
    change::Change,
    schema::{TenantId, parse_record_key},
    tables::{Encoded, META, RECORDS, TENANTS, read_tenants},
};

const META_REWRAP: &str = "rewrap";

/// How far the job is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RewrapJob {
    /// When it was started, in milliseconds of Unix time.
    pub started_at_ms: u64,
    /// When it ended, in milliseconds of Unix time; 0 while it is on its way.
    pub finished_at_ms: u64,
    /// Records that were brought to the active keys.
    pub done: u64,
    /// Records that could not be opened in the current pass, and stay as they are.
    pub failed: u64,
    /// The last record that was looked at; opaque.
    pub position: Vec<u8>,
}

impl RewrapJob {
    fn encode(&self) -> Vec<u8> {
        let numbers = [self.started_at_ms, self.finished_at_ms, self.done, self.failed];
        [numbers.map(u64::to_be_bytes).as_flattened(), &self.position].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (numbers, position) = bytes.split_first_chunk::<32>()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [started_at_ms, finished_at_ms, done, failed] = numbers else { return None };
        Some(Self {
            started_at_ms: u64::from_be_bytes(*started_at_ms),
            finished_at_ms: u64::from_be_bytes(*finished_at_ms),
            done: u64::from_be_bytes(*done),
            failed: u64::from_be_bytes(*failed),
            position: position.to_vec(),
        })
    }
}

/// A record in its place.
#[derive(Clone, Debug)]
pub struct Place {
    /// Whose it is.
    pub tenant: String,
    /// Its token.
    pub token: TokenKey,
    /// What is there; an error for what does not decode.
    pub record: Result<Record, super::RecordError>,
}

/// A stretch of the table of records.
#[derive(Clone, Debug, Default)]
pub struct Stretch {
    /// The records that were asked for.
    pub places: Vec<Place>,
    /// The last record that was looked at; opaque.
    pub position: Vec<u8>,
    /// Whether the table ends here.
    pub last: bool,
}

/// A record, and what is to be in its place.
#[derive(Clone, Debug)]
pub struct Rewrapped {
    /// Whose it is.
    pub tenant: String,
    /// Its token.
    pub token: TokenKey,
    /// What is there.
    pub old: Record,
    /// What is to be there.
    pub new: Record,
}

/// A [`Rewrapped`] on its way to the writer.
pub(super) struct Replacement {
    pub(super) tenant: TenantId,
    pub(super) token: TokenKey,
    pub(super) old: Record,
    pub(super) new: Encoded,
}

impl Store {
    /// How many records there are.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn records(&self) -> Result<u64, StoreError> {
        self.inner.handle.with(|database| Ok(database.begin_read()?.open_table(RECORDS)?.len()?))
    }

    /// The job as it is on disk, if there ever was one.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn rewrap_job(&self) -> Result<Option<RewrapJob>, StoreError> {
        self.inner.handle.with(|database| {
            let meta = database.begin_read()?.open_table(META)?;
            let bytes = meta.get(META_REWRAP)?;
            Ok(bytes.and_then(|bytes| RewrapJob::decode(bytes.value())))
        })
    }

    /// Looks at up to `most_seen` records after `position` (empty for the start), and gives up to `most` of those that
    /// `wanted` picks by their versions in the roles of [`KeyRole::ALL`]; one that does not decode is always given.
    ///
    /// # Errors
    /// [`StoreError::Failed`].
    pub fn stretch(
        &self,
        position: &[u8],
        most: usize,
        most_seen: usize,
        wanted: impl Fn([Option<u32>; 3]) -> bool,
    ) -> Result<Stretch, StoreError> {
        self.inner.handle.with(|database| {
            let snapshot = database.begin_read()?;
            let names: Vec<_> = read_tenants(&snapshot.open_table(TENANTS)?)?;
            let records = snapshot.open_table(RECORDS)?;
            let mut stretch = Stretch { position: position.to_vec(), ..Stretch::default() };
            let mut rows = records.range::<&[u8]>((Bound::Excluded(position), Bound::Unbounded))?;
            for _ in 0..most_seen {
                if stretch.places.len() >= most {
                    return Ok(stretch);
                }
                let Some(row) = rows.next() else {
                    stretch.last = true;
                    return Ok(stretch);
                };
                let (key, bytes) = row?;
                stretch.position = key.value().to_vec();
                let Some((id, token)) = parse_record_key(key.value()) else { continue };
                let record = Record::decode(bytes.value());
                let versions = |record: &Record| KeyRole::ALL.map(|role| role.version(&record.header));
                if record.as_ref().is_ok_and(|record| !wanted(versions(record))) {
                    continue;
                }
                let name = names.iter().find(|(_, known)| *known == id).map(|(name, _)| name.clone());
                stretch.places.push(Place { tenant: name.unwrap_or_default(), token, record });
            }
            Ok(stretch)
        })
    }

    /// Replaces records, and writes down in the same transaction that `job` has come so far; `job.done` grows by those
    /// that were replaced.
    ///
    /// # Errors
    /// [`StoreError`]; then nothing changed.
    pub async fn rewrap(
        &self,
        records: Vec<Rewrapped>,
        job: RewrapJob,
    ) -> Result<(Vec<Replaced>, RewrapJob), StoreError> {
        let replacement = |Rewrapped { tenant, token, old, new }: Rewrapped| {
            Ok(Replacement { tenant: self.tenant(&tenant), token, old, new: Encoded::new(new)? })
        };
        let records = records.into_iter().map(replacement).collect::<Result<_, StoreError>>()?;
        self.change(|answer| Change::Rewrap { records, job, answer }).await
    }

    /// Counts the records of each key version anew.
    ///
    /// # Errors
    /// [`StoreError`]; then the counts stay as they are.
    pub async fn take_census(&self) -> Result<(), StoreError> {
        self.change(|answer| Change::TakeCensus { answer }).await
    }
}

pub(super) fn write_job(transaction: &WriteTransaction, job: &RewrapJob) -> Result<(), StoreError> {
    transaction.open_table(META)?.insert(META_REWRAP, job.encode().as_slice())?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_read_as_it_was_written() {
        let job =
            RewrapJob { started_at_ms: 1, finished_at_ms: 2, done: 3, failed: 4, position: b"here".to_vec() };
        assert_eq!(RewrapJob::decode(&job.encode()), Some(job));
        assert_eq!(RewrapJob::decode(&[0; 31]), None);
    }
}
