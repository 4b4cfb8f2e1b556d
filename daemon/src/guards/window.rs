//! A sliding window that counts different cards, and outlasts a restart.
//!
//! The count is exact in memory. On disk it runs ahead in blocks: a block of the allowance is made durable before any of
//! it is used, and the cards that used it are written down when the next one is. After a crash the last block counts
//! as used up. So nobody gets more than the limit whatever happens, and an honest caller loses one block at most
//! (ADR 16).

use std::collections::VecDeque;

use super::{
    recent::{Recent, bring_back},
    rows::Row,
};

/// A block is this part of the limit: small beside it, and few commits for many cards.
pub(super) const BLOCKS_PER_LIMIT: usize = 20;
/// The largest block that is reserved ahead.
const MOST_AHEAD: usize = 1_024;

/// What a window says of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// It counts already.
    Known,
    /// There is room for it.
    Room,
    /// There may be room: reserve a block first.
    Reserve,
    /// There is none.
    Full,
}

/// Different cards that may be revealed within a span.
#[derive(Debug)]
pub(super) struct Window {
    span_s: u64,
    limit: usize,
    /// So many different cards asked for, refused ones included, are far over it.
    lock_at: Option<usize>,
    counted: Recent,
    /// Blocks that a crash has left: since when, in seconds of Unix time, and how many cards they count as.
    lost: VecDeque<(u64, usize)>,
    refused: Recent,
    block: Option<Block>,
    /// Numbers of the rows on disk, and when the last card of each stops to count.
    rows: VecDeque<(u64, u64)>,
    next_row: u64,
}

/// The block that is being used.
#[derive(Debug)]
struct Block {
    row: u64,
    room: usize,
    /// Cards and since when they count.
    used: Vec<(u64, u64)>,
}

/// Changes to the rows of a window, by their numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct RowChanges {
    pub(super) put: Vec<(u64, Row)>,
    pub(super) remove: Vec<u64>,
}

/// A block that is to be made durable.
#[derive(Debug)]
pub(super) struct Plan {
    row: u64,
    size: usize,
    removed: Vec<u64>,
}

impl Window {
    /// `first_row`: a number above that of every row this window may have on disk.
    pub(super) fn new(span_s: u64, limit: usize, lock_at: Option<usize>, first_row: u64) -> Self {
        Self {
            span_s,
            limit,
            lock_at,
            counted: Recent::new(span_s),
            lost: VecDeque::new(),
            refused: Recent::new(span_s),
            block: None,
            rows: VecDeque::new(),
            next_row: first_row,
        }
    }

    /// Takes over a row that was on disk at the start; rows come in the order of their numbers. `now_s` stands for the
    /// latest moment at which a block that was in use can have been used.
    pub(super) fn load(&mut self, number: u64, row: Row, now_s: u64) -> RowChanges {
        let mut changes = RowChanges::default();
        self.next_row = self.next_row.max(number.saturating_add(1));
        let last_s = match &row {
            Row::Used(cards) => cards.iter().map(|(since_s, _)| *since_s).max().unwrap_or(0),
            Row::Lost { since_s, .. } => *since_s,
            Row::Open { .. } => now_s,
        };
        // A clock that was wrong must not make a row stay for ever.
        let end_s = Recent::end_s(last_s.min(now_s), self.span_s);
        if end_s <= now_s {
            changes.remove.push(number);
            return changes;
        }
        self.rows.push_back((number, end_s));
        match row {
            Row::Used(cards) => {
                for (since_s, card) in cards {
                    if Recent::end_s(since_s, self.span_s) > now_s {
                        self.counted.insert(card, since_s.min(now_s));
                    }
                }
            }
            Row::Lost { since_s, cards } => self.lost.push_back((since_s.min(now_s), cards)),
            Row::Open { cards } => {
                self.lost.push_back((now_s, cards));
                changes.put.push((number, Row::Lost { since_s: now_s, cards }));
            }
        }
        changes
    }

    /// What there is to say of `card` now.
    pub(super) fn look(&mut self, card: u64, now_s: u64) -> Look {
        self.forget(now_s);
        if self.counted.contains(card) {
            Look::Known
        } else if self.block.as_ref().is_some_and(|block| block.room > 0) {
            Look::Room
        } else if self.used() < self.limit {
            Look::Reserve
        } else {
            Look::Full
        }
    }

    /// Counts `card`, for which there is room or which counts already.
    pub(super) fn take(&mut self, card: u64, now_s: u64) {
        let Some(block) = &mut self.block else { return };
        if let Some(taken) = self.counted.insert(card, now_s) {
            block.room = block.room.saturating_sub(1);
            block.used.push(taken);
            self.refused.remove(card);
        }
    }

    /// Notes that `card` was refused, by this window or another; says whether its caller is far over the limit now.
    pub(super) fn refuse(&mut self, card: u64, now_s: u64) -> bool {
        let Some(lock_at) = self.lock_at else { return false };
        if self.look(card, now_s) != Look::Known && self.asked() < lock_at {
            self.refused.insert(card, now_s);
        }
        self.asked() >= lock_at
    }

    /// Forgets what was refused: an operator has unlocked the caller.
    pub(super) fn forgive(&mut self) {
        self.refused.clear();
    }

    /// How many cards more there is room for.
    pub(super) fn left(&self) -> usize {
        self.limit.saturating_sub(self.used())
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// In how many seconds there is more room than now.
    pub(super) fn more_in_s(&self, now_s: u64) -> u64 {
        let lost = self.lost.front().map(|(since_s, _)| Recent::end_s(*since_s, self.span_s));
        let next = self.counted.next_end_s().into_iter().chain(lost).min();
        next.map_or(self.span_s, |end_s| end_s.saturating_sub(now_s)).max(1)
    }

    /// Whether nothing counts any more.
    pub(super) fn is_idle(&mut self, now_s: u64) -> bool {
        self.forget(now_s);
        self.used() == 0 && self.refused.len() == 0
    }

    /// A block of room for `wanted` cards or more, if there is none and there may be one.
    pub(super) fn plan(&mut self, wanted: usize, now_s: u64) -> Option<(Plan, RowChanges)> {
        self.forget(now_s);
        let left = self.left();
        if left == 0 || self.block.as_ref().is_some_and(|block| block.room > 0) {
            return None;
        }
        let ahead = (self.limit / BLOCKS_PER_LIMIT).clamp(1, MOST_AHEAD);
        let size = ahead.max(wanted).min(left);
        let mut changes = self.written_down();
        let ended = self.rows.iter().filter(|(_, end_s)| *end_s <= now_s).map(|(row, _)| *row);
        changes.remove.extend(ended);
        changes.put.push((self.next_row, Row::Open { cards: size }));
        Some((Plan { row: self.next_row, size, removed: changes.remove.clone() }, changes))
    }

    /// Uses the block of `plan`, which is durable now.
    pub(super) fn begin(&mut self, plan: &Plan) {
        if let Some(block) = self.block.take()
            && let Some((last_s, _)) = block.used.last()
        {
            self.rows.push_back((block.row, Recent::end_s(*last_s, self.span_s)));
        }
        self.rows.retain(|(row, _)| !plan.removed.contains(row));
        self.block = Some(Block { row: plan.row, room: plan.size, used: Vec::new() });
        self.next_row = plan.row.saturating_add(1);
    }

    /// What is to be on disk when no more cards are counted.
    pub(super) fn written_down(&self) -> RowChanges {
        let mut changes = RowChanges::default();
        if let Some(block) = &self.block {
            if block.used.is_empty() {
                changes.remove.push(block.row);
            } else {
                changes.put.push((block.row, Row::Used(block.used.clone())));
            }
        }
        changes
    }

    /// A number above that of every row.
    pub(super) fn next_row(&self) -> u64 {
        self.next_row
    }

    /// Every row that may be on disk.
    pub(super) fn every_row(&self) -> Vec<u64> {
        self.rows.iter().map(|(row, _)| *row).chain(self.block.as_ref().map(|block| block.row)).collect()
    }

    fn used(&self) -> usize {
        self.counted.len() + self.lost.iter().map(|(_, cards)| cards).sum::<usize>()
    }

    fn asked(&self) -> usize {
        self.used() + self.refused.len()
    }

    fn forget(&mut self, now_s: u64) {
        self.counted.forget(now_s);
        self.refused.forget(now_s);
        bring_back(self.rows.iter_mut().map(|(_, end_s)| end_s), Recent::end_s(now_s, self.span_s));
        bring_back(self.lost.iter_mut().map(|(since_s, _)| since_s), now_s);
        while self.lost.front().is_some_and(|(since_s, _)| Recent::end_s(*since_s, self.span_s) <= now_s) {
            self.lost.pop_front();
        }
    }
}
