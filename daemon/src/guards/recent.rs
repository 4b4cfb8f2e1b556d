//! Different cards of the last hour or day.

use std::collections::{HashSet, VecDeque};

/// Cards, by a keyed hash each, for as long as they count. A card that counts already is not counted again.
#[derive(Debug)]
pub(super) struct Recent {
    span_s: u64,
    /// When each began to count, in seconds of Unix time; the oldest first.
    by_time: VecDeque<(u64, u64)>,
    known: HashSet<u64>,
}

impl Recent {
    pub(super) fn new(span_s: u64) -> Self {
        Self { span_s, by_time: VecDeque::new(), known: HashSet::new() }
    }

    /// The first second at which what began to count in second `since_s` counts no more: it may have begun at that
    /// second's end.
    pub(super) fn end_s(since_s: u64, span_s: u64) -> u64 {
        since_s.saturating_add(span_s).saturating_add(1)
    }

    /// Forgets what counts no more at `now_s`. What began to count later, by a clock that was ahead, begins now.
    pub(super) fn forget(&mut self, now_s: u64) {
        bring_back(self.by_time.iter_mut().map(|(since_s, _)| since_s), now_s);
        while let Some((since_s, card)) = self.by_time.front().copied() {
            if Self::end_s(since_s, self.span_s) > now_s {
                break;
            }
            self.by_time.pop_front();
            self.known.remove(&card);
        }
    }

    pub(super) fn contains(&self, card: u64) -> bool {
        self.known.contains(&card)
    }

    /// Counts `card` from `now_s` on. Time does not go back: a clock that does is taken to stand still.
    pub(super) fn insert(&mut self, card: u64, now_s: u64) -> Option<(u64, u64)> {
        let since_s = self.by_time.back().map_or(now_s, |(last_s, _)| now_s.max(*last_s));
        self.known.insert(card).then(|| {
            self.by_time.push_back((since_s, card));
            (since_s, card)
        })
    }

    /// Counts `card` no longer.
    pub(super) fn remove(&mut self, card: u64) {
        self.known.remove(&card);
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn clear(&mut self) {
        self.by_time.clear();
        self.known.clear();
    }

    /// When the oldest stops to count, in seconds of Unix time.
    pub(super) fn next_end_s(&self) -> Option<u64> {
        self.by_time.front().map(|(since_s, _)| Self::end_s(*since_s, self.span_s))
    }
}

/// Sets what is later than `latest_s` back to it; `times_s` are in order. A clock that was ahead must not keep anything for longer
/// than its span from now.
pub(super) fn bring_back<'t>(times_s: impl DoubleEndedIterator<Item = &'t mut u64>, latest_s: u64) {
    for time_s in times_s.rev().take_while(|time_s| **time_s > latest_s) {
        *time_s = latest_s;
    }
}
