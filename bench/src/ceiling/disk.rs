//! The ceiling of an answer that waits for its entry: appending to a file and waiting for the disk, and nothing else.

use std::{
    fs::File,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;

use crate::load::histogram;

/// A file that only grows.
#[derive(Debug)]
pub(crate) struct Disk(File);

impl Disk {
    /// A new file in `dir`.
    pub(crate) fn create(dir: &Path) -> Result<Self> {
        File::create(dir.join("ceiling.log")).map(Self).context("creating the disk's ceiling")
    }

    /// Appends for `time`, again and again: nanoseconds that callers wait who come every `interval` and find this going on.
    pub(crate) fn sample(&mut self, time: Duration, interval: Duration) -> Result<Histogram<u64>> {
        let (begin, mut waits) = (Instant::now(), histogram()?);
        let interval = u64::try_from(interval.as_nanos())?.max(1);
        while begin.elapsed() < time {
            let one = Instant::now();
            self.0.write_all(&[b'x'; GROUP_BYTES]).and_then(|()| self.0.sync_data()).context("appending")?;
            // Who comes while it lasts waits for the rest of it.
            waits.record_correct(u64::try_from(one.elapsed().as_nanos())?, interval)?;
        }
        Ok(waits)
    }
}

/// Some ten entries of the audit log.
const GROUP_BYTES: usize = 4_096;
