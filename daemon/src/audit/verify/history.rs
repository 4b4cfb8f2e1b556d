//! The hashes of the lines that no checkpoint has signed yet.

use std::collections::VecDeque;

use super::line::Hash;

/// The most lines that a checkpoint may lag behind. Far more than are written while an HSM makes one signature.
const MAX_LINES: usize = 1 << 20;

/// Hashes of consecutive lines, the last of which is the line read last.
#[derive(Debug, Default)]
pub(super) struct History {
    lines: VecDeque<Unsigned>,
    /// Lines of which no hash was kept.
    dropped: u64,
}

#[derive(Debug)]
struct Unsigned {
    seq: u64,
    hash: Hash,
    is_checkpoint: bool,
}

impl History {
    /// Adds a line.
    pub(super) fn push(&mut self, seq: u64, hash: Hash, is_checkpoint: bool) {
        if self.lines.len() >= MAX_LINES
            && let Some(oldest) = self.lines.pop_front()
        {
            self.dropped += u64::from(!oldest.is_checkpoint);
        }
        self.lines.push_back(Unsigned { seq, hash, is_checkpoint });
    }

    /// The hash of the line `seq`, unless it is signed or too long ago.
    pub(super) fn hash(&self, seq: u64) -> Option<Hash> {
        let place = self.lines.partition_point(|line| line.seq < seq);
        self.lines.get(place).filter(|line| line.seq == seq).map(|line| line.hash)
    }

    /// Forgets the lines up to `seq`: they are signed.
    pub(super) fn sign(&mut self, seq: u64) {
        self.dropped = 0;
        while self.lines.pop_front_if(|line| line.seq <= seq).is_some() {}
    }

    /// Forgets the hashes: what comes next does not follow.
    pub(super) fn interrupt(&mut self) {
        self.dropped += self.count();
        self.lines.clear();
    }

    /// Lines that are not signed, other than checkpoints.
    pub(super) fn unsigned(&self) -> u64 {
        self.dropped + self.count()
    }

    fn count(&self) -> u64 {
        let lines = self.lines.iter().filter(|line| !line.is_checkpoint).count();
        u64::try_from(lines).unwrap_or(u64::MAX)
    }
}
