//! How many connections there are, in all and per user id.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::metrics::Counter;

/// Counts open connections and says when there are too many.
pub(super) struct Connections {
    most: usize,
    most_per_uid: usize,
    open: Mutex<Open>,
    refused: Counter,
    closed: Notify,
}

#[derive(Default)]
struct Open {
    all: usize,
    by_uid: HashMap<u32, usize>,
}

/// One connection's place; given back on drop.
pub(super) struct Place {
    connections: Arc<Connections>,
    uid: u32,
}

impl Connections {
    pub(super) fn new(most: usize, most_per_uid: usize) -> Arc<Self> {
        let (open, refused) = (Mutex::default(), Counter::default());
        Arc::new(Self { most, most_per_uid, open, refused, closed: Notify::new() })
    }

    /// A place for a connection of `uid`, or `None` if there are too many.
    pub(super) fn enter(self: &Arc<Self>, uid: u32) -> Option<Place> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let of_uid = open.by_uid.get(&uid).copied().unwrap_or(0);
        if open.all >= self.most || of_uid >= self.most_per_uid {
            self.refused.increment();
            return None;
        }
        open.all += 1;
        open.by_uid.insert(uid, of_uid + 1);
        Some(Place { connections: Arc::clone(self), uid })
    }

    /// Waits until every connection is closed.
    pub(super) async fn all_closed(&self) {
        loop {
            let closed = self.closed.notified();
            if self.count() == 0 {
                return;
            }
            closed.await;
        }
    }

    /// How many were one too many.
    pub(super) fn refused(&self) -> u64 {
        self.refused.value()
    }

    /// How many are open.
    pub(super) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).all
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.connections.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.all -= 1;
        if let Some(count) = open.by_uid.get_mut(&self.uid) {
            *count -= 1;
            if *count == 0 {
                open.by_uid.remove(&self.uid);
            }
        }
        if open.all == 0 {
            self.connections.closed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_uid_cannot_take_every_place() {
        let connections = Connections::new(3, 2);
        let first = connections.enter(1);
        let second = connections.enter(1);
        assert!(first.is_some() && second.is_some());
        assert!(connections.enter(1).is_none(), "two are the most for one uid");
        let other = connections.enter(2);
        assert!(other.is_some());
        assert!(connections.enter(3).is_none(), "three are the most in all");
        assert_eq!(connections.refused(), 2);
        drop(first);
        assert!(connections.enter(1).is_some(), "a place that is given back is free");
    }
}
