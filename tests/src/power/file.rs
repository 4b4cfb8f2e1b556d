//! A file: what of it is durable, and every state it has been in since.

use std::collections::BTreeMap;

use super::Left;

const SECTOR_BYTES: usize = 512;

type Sector = [u8; SECTOR_BYTES];

/// A change that is not known to be durable.
#[derive(Clone, Debug)]
enum Pending {
    Write(usize, Vec<u8>),
    Resize(usize),
}

/// A file on a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct File {
    durable: Vec<u8>,
    pending: Vec<Pending>,
    /// Waits for the disk that are on their way, and how many of the changes that are pending each covers.
    syncs: BTreeMap<u64, usize>,
}

impl Pending {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Write(offset, bytes) => {
                let end = offset + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
            Self::Resize(len) => content.resize(*len, 0),
        }
    }
}

impl File {
    pub(super) fn write(&mut self, offset: usize, bytes: Vec<u8>) {
        self.pending.push(Pending::Write(offset, bytes));
    }

    pub(super) fn resize(&mut self, len: usize) {
        self.pending.push(Pending::Resize(len));
    }

    pub(super) fn sync_begins(&mut self, number: u64) {
        self.syncs.insert(number, self.pending.len());
    }

    pub(super) fn synced(&mut self, number: u64) {
        let covered = self.syncs.remove(&number).unwrap();
        for change in self.pending.drain(..covered) {
            change.apply(&mut self.durable);
        }
        for other in self.syncs.values_mut() {
            *other = other.saturating_sub(covered);
        }
    }

    /// What a power failure leaves of it.
    pub(super) fn left(&self, left: Left, random: &mut fastrand::Rng) -> Vec<u8> {
        let kept = match left {
            Left::Durable => 0,
            Left::All => self.pending.len(),
            Left::Beginning => random.usize(..=self.pending.len()),
            Left::Sectors => return self.sectors(random),
        };
        let mut content = self.durable.clone();
        self.pending[..kept].iter().for_each(|change| change.apply(&mut content));
        content
    }

    /// Each sector as it was at a moment of its own, and a length that it had at any.
    fn sectors(&self, random: &mut fastrand::Rng) -> Vec<u8> {
        let (mut now, mut lens) = (self.durable.clone(), vec![self.durable.len()]);
        let mut versions: BTreeMap<usize, Vec<Sector>> = BTreeMap::new();
        for change in &self.pending {
            let before = now.len();
            let touched = match change {
                // What lies between the end and a write behind it are zeros that are new, too.
                Pending::Write(offset, bytes) => before.min(*offset)..offset + bytes.len(),
                Pending::Resize(len) => before.min(*len)..before.max(*len),
            };
            let sectors = touched.start / SECTOR_BYTES..touched.end.div_ceil(SECTOR_BYTES);
            for sector in sectors.clone() {
                versions.entry(sector).or_insert_with(|| vec![read(&now, sector)]);
            }
            change.apply(&mut now);
            lens.push(now.len());
            for sector in sectors {
                versions.get_mut(&sector).unwrap().push(read(&now, sector));
            }
        }
        // Now and then nearly all is there, or nearly nothing: what is missing then is missed by less.
        let bias = random.choice([0.05, 0.5, 0.95]).unwrap();
        let mut content = self.durable.clone();
        let len = random.choice(lens).unwrap();
        content.resize(len.max(content.len()).max(now.len()), 0);
        for (sector, versions) in versions {
            let version =
                if random.f64() < bias { versions.len() - 1 } else { random.usize(..versions.len()) };
            let start = sector * SECTOR_BYTES;
            let end = content.len().min(start + SECTOR_BYTES);
            if start < end {
                content[start..end].copy_from_slice(&versions[version][..end - start]);
            }
        }
        content.truncate(len);
        content
    }
}

/// A sector of `content`; zeros behind its end.
fn read(content: &[u8], sector: usize) -> Sector {
    let mut bytes = [0; SECTOR_BYTES];
    let start = content.len().min(sector * SECTOR_BYTES);
    let there = &content[start..content.len().min(start + SECTOR_BYTES)];
    bytes[..there.len()].copy_from_slice(there);
    bytes
}
