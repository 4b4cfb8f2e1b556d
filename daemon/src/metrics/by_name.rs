//! Counts by a name of the code.

use std::sync::OnceLock;

/// The most names: more than the code has in any one place. What comes after them is counted with the last.
const MOST_NAMES: usize = 64;

/// A `T` for each name that was asked for, without a lock. Names are words of the code, so there are few.
#[derive(Debug)]
pub struct ByName<T> {
    slots: Box<[OnceLock<(&'static str, T)>]>,
}

impl<T> Default for ByName<T> {
    fn default() -> Self {
        Self { slots: std::iter::repeat_with(OnceLock::new).take(MOST_NAMES).collect() }
    }
}

impl<T: Default> ByName<T> {
    /// Does `work` with the `T` of `name`.
    pub fn with(&self, name: &'static str, work: impl FnOnce(&T)) {
        let last = self.slots.len().saturating_sub(1);
        for (place, slot) in self.slots.iter().enumerate() {
            let (known, counts) = slot.get_or_init(|| (name, T::default()));
            if *known == name || place == last {
                return work(counts);
            }
        }
    }
}

impl<T> ByName<T> {
    /// The `T` of `name`, if it was asked for.
    pub fn get(&self, name: &str) -> Option<&T> {
        let mut known = self.slots.iter().map_while(OnceLock::get);
        known.find(|(is, _)| *is == name).map(|(_, counts)| counts)
    }

    /// Every name so far and its `T`, by name.
    pub fn sorted(&self) -> Vec<(&'static str, &T)> {
        let mut all: Vec<_> =
            self.slots.iter().map_while(OnceLock::get).map(|(name, counts)| (*name, counts)).collect();
        all.sort_unstable_by_key(|(name, _)| *name);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Counter;

    #[test]
    fn each_name_has_its_own_count() {
        let counts = ByName::<Counter>::default();
        for name in ["b", "a", "b"] {
            counts.with(name, Counter::increment);
        }
        let counted: Vec<_> =
            counts.sorted().into_iter().map(|(name, count)| (name, count.value())).collect();
        assert_eq!(counted, [("a", 1), ("b", 2)]);
    }

    #[test]
    fn names_beyond_the_most_are_counted_too() {
        let counts = ByName::<Counter>::default();
        for n in 0..MOST_NAMES + 9 {
            counts.with(Box::leak(n.to_string().into_boxed_str()), Counter::increment);
        }
        let counted: Vec<_> = counts.sorted().iter().map(|(_, count)| count.value()).collect();
        assert_eq!((counted.len(), counted.iter().sum::<u64>()), (MOST_NAMES, 73));
    }
}
