//! Requests of the last second.

/// A second is counted in steps of 50 ms, so that a window is never shorter than a second, and at most a step longer.
const STEPS: usize = 20;
/// Milliseconds of a step.
pub(super) const STEP_MS: u64 = 50;

/// A sliding window of one second, and a step.
#[derive(Debug)]
pub(super) struct Rate {
    limit: u32,
    /// Requests in each step; the step `n` is at place `n` modulo their number.
    steps: [u32; STEPS + 1],
    newest: u64,
}

impl Rate {
    pub(super) fn new(limit: u32) -> Self {
        Self { limit, steps: [0; STEPS + 1], newest: 0 }
    }

    /// How many requests more may come in `step`, counted from any beginning.
    pub(super) fn left(&mut self, step: u64) -> u32 {
        let passed = step.saturating_sub(self.newest);
        self.newest = self.newest.max(step);
        let places = u64::try_from(self.steps.len()).unwrap_or(u64::MAX);
        for passed in 0..passed.min(places) {
            if let Some(place) = self.place(self.newest.saturating_sub(passed)) {
                *place = 0;
            }
        }
        self.limit.saturating_sub(self.steps.iter().sum())
    }

    pub(super) fn limit(&self) -> u32 {
        self.limit
    }

    /// Counts a request in the newest step.
    pub(super) fn take(&mut self) {
        if let Some(place) = self.place(self.newest) {
            *place += 1;
        }
    }

    fn place(&mut self, step: u64) -> Option<&mut u32> {
        let places = u64::try_from(self.steps.len()).ok()?;
        self.steps.get_mut(usize::try_from(step % places).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const A_SECOND: u64 = 20;

    proptest! {
        #[test]
        fn no_second_sees_more_than_the_limit(
            limit in 1_u32..20,
            pauses in prop::collection::vec(prop_oneof![8 => Just(0_u64), 4 => 1_u64..4, 1 => 0_u64..60], 1..300),
        ) {
            let mut rate = Rate::new(limit);
            let (mut step, mut taken) = (1_000, Vec::<u64>::new());
            for pause in pauses {
                step += pause;
                let counted = taken.iter().filter(|at| **at + A_SECOND >= step).count();
                let expected = usize::try_from(limit).unwrap() - counted;
                prop_assert_eq!(usize::try_from(rate.left(step)).unwrap(), expected);
                if expected > 0 {
                    rate.take();
                    taken.push(step);
                }
            }
        }
    }
}
