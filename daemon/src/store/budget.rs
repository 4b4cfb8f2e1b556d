//! How many times a sealing key may still seal.
//!
//! With random 96-bit nonces a GCM key must stay far below 2^32 encryptions (SP 800-38D, 8.3). The count is durable
//! without a write per encryption: blocks are reserved on disk ahead of use, and a restart skips what is left of one.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

/// The most encryptions that may be allowed under one key: half of what SP 800-38D allows.
pub const MAX_SEALS_PER_KEY: u64 = 1 << 31;
/// How many encryptions are reserved at a time: small beside the limit, large beside a commit.
pub(super) const BLOCK: u64 = 1 << 16;

/// The counts of every sealing key, by its name in the store.
pub(super) struct SealBudget {
    keys: Mutex<HashMap<String, Count>>,
}

#[derive(Clone, Copy)]
struct Count {
    used: u64,
    reserved: u64,
}

/// What [`SealBudget::spend`] says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Spent {
    /// Go ahead; so many are used now.
    Granted(u64),
    /// First make this many durable, then call [`SealBudget::reserved`] and ask again.
    Reserve(u64),
    /// The key may not seal any more.
    Exhausted,
}

impl SealBudget {
    /// Starts from what is reserved on disk: whatever of it was not used is lost.
    pub(super) fn new(reserved: impl IntoIterator<Item = (String, u64)>) -> Self {
        let keys = reserved.into_iter().map(|(key, n)| (key, Count { used: n, reserved: n })).collect();
        Self { keys: Mutex::new(keys) }
    }

    pub(super) fn spend(&self, key: &str, seals: u64, limit: u64) -> Spent {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let count = entry(&mut keys, key);
        let after = count.used.saturating_add(seals);
        if after > limit.min(MAX_SEALS_PER_KEY) {
            Spent::Exhausted
        } else if after > count.reserved {
            Spent::Reserve(after.div_ceil(BLOCK) * BLOCK)
        } else {
            count.used = after;
            Spent::Granted(after)
        }
    }

    pub(super) fn used(&self, key: &str) -> u64 {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.get(key).map_or(0, |count| count.used)
    }

    pub(super) fn reserved(&self, key: &str, durable: u64) {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let count = entry(&mut keys, key);
        count.reserved = count.reserved.max(durable);
    }
}

fn entry<'k>(keys: &'k mut HashMap<String, Count>, key: &str) -> &'k mut Count {
    keys.entry(key.to_owned()).or_insert(Count { used: 0, reserved: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_reserved_before_it_is_used() {
        let budget = SealBudget::new([]);
        assert_eq!(budget.spend("a", 3, MAX_SEALS_PER_KEY), Spent::Reserve(BLOCK));
        budget.reserved("a", BLOCK);
        assert_eq!(budget.spend("a", BLOCK, MAX_SEALS_PER_KEY), Spent::Granted(BLOCK));
        assert_eq!(budget.spend("a", 1, MAX_SEALS_PER_KEY), Spent::Reserve(2 * BLOCK));
        assert_eq!(
            budget.spend("b", 1, MAX_SEALS_PER_KEY),
            Spent::Reserve(BLOCK),
            "each key counts for itself"
        );
    }

    #[test]
    fn a_restart_skips_what_was_reserved() {
        let budget = SealBudget::new([("a".to_owned(), BLOCK)]);
        assert_eq!(budget.spend("a", 1, MAX_SEALS_PER_KEY), Spent::Reserve(2 * BLOCK));
    }

    #[test]
    fn the_limit_holds() {
        let budget = SealBudget::new([("a".to_owned(), MAX_SEALS_PER_KEY)]);
        assert_eq!(budget.spend("a", 1, MAX_SEALS_PER_KEY), Spent::Exhausted);
        assert_eq!(budget.spend("a", u64::MAX, MAX_SEALS_PER_KEY), Spent::Exhausted);
    }
}
