//! The changes that become one transaction.

use crossbeam_channel::Receiver;

use super::change::Change;

/// The most changes in one transaction: bounds how long the first of them waits.
const MAX_CHANGES_PER_COMMIT: usize = 4_096;

/// What becomes one transaction, and the queue that it comes from.
pub(super) struct Group<'q> {
    waiting: &'q Receiver<Change>,
    pub(super) changes: Vec<Change>,
    /// Whether the writer stops after it.
    pub(super) is_last: bool,
}

impl<'q> Group<'q> {
    /// `first` and what is `waiting` behind it.
    pub(super) fn begin(first: Change, waiting: &'q Receiver<Change>) -> Self {
        let mut group = Self { waiting, changes: Vec::new(), is_last: false };
        group.add(first);
        group.gather();
        group
    }

    fn add(&mut self, change: Change) {
        if matches!(change, Change::Stop) {
            self.is_last = true;
        } else {
            self.changes.push(change);
        }
    }

    /// Takes in what waits.
    pub(super) fn gather(&mut self) {
        while !self.is_last && self.changes.len() < MAX_CHANGES_PER_COMMIT {
            let Ok(change) = self.waiting.try_recv() else { break };
            self.add(change);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    fn nothing() -> Change {
        Change::Nothing { answer: oneshot::channel().0 }
    }

    #[test]
    fn what_comes_after_the_end_is_not_taken_in() {
        let (queue, waiting) = crossbeam_channel::unbounded();
        queue.send(nothing()).unwrap();
        let mut group = Group::begin(nothing(), &waiting);
        assert_eq!((group.changes.len(), group.is_last), (2, false));
        for change in [nothing(), Change::Stop, nothing()] {
            queue.send(change).unwrap();
        }
        group.gather();
        assert_eq!((group.changes.len(), group.is_last, waiting.len()), (3, true, 1));
    }

    #[test]
    fn a_group_has_a_most() {
        let (queue, waiting) = crossbeam_channel::unbounded();
        (0..=MAX_CHANGES_PER_COMMIT).for_each(|_| queue.send(nothing()).unwrap());
        let mut group = Group::begin(nothing(), &waiting);
        group.gather();
        assert_eq!((group.changes.len(), waiting.len()), (MAX_CHANGES_PER_COMMIT, 2));
    }
}
