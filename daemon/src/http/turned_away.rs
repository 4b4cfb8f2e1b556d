//! Requests that are refused for their caller: no valid JWT, no login, locked, without the scope, over its tenant's limit. Each
//! refusal has an entry in the audit log, as long as one user id does not make so many that they would fill the disk, and with
//! that stop service for everybody: then they are counted.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::runtime::Handle;

use super::{app::App, bucket::Bucket};
use crate::audit::Event;

/// Refusals a second of one user id that are written, and how many at once: some ten kilobytes a second.
const WRITTEN_PER_S: u32 = 50;
const AT_ONCE: f64 = 500.0;
/// User ids that are counted for themselves; those after them are counted together.
const MOST_UIDS: usize = 10_000;
/// How long refusals are only counted before their number is written.
const TOLD_AFTER: Duration = Duration::from_mins(1);

/// What each user id has left.
#[derive(Default)]
pub(super) struct TurnedAway {
    by_uid: Mutex<HashMap<Option<u32>, Refusals>>,
}

struct Refusals {
    bucket: Bucket,
    /// Refusals that were only counted, and are to be told of.
    unwritten: u64,
}

/// What becomes of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Written,
    Counted,
    /// As `Counted`, and the first of a while.
    CountedFirst,
}

impl TurnedAway {
    fn place(&self, uid: &mut Option<u32>, now: Instant) -> Place {
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        if by_uid.len() >= MOST_UIDS && !by_uid.contains_key(uid) {
            *uid = None;
        }
        let full = || Refusals { bucket: Bucket::full(AT_ONCE, now), unwritten: 0 };
        let refusals = by_uid.entry(*uid).or_insert_with(full);
        if refusals.bucket.take(f64::from(WRITTEN_PER_S), AT_ONCE, now) {
            return Place::Written;
        }
        refusals.unwritten += 1;
        if refusals.unwritten == 1 { Place::CountedFirst } else { Place::Counted }
    }

    fn take_unwritten(&self, uid: Option<u32>) -> u64 {
        let mut by_uid = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        by_uid.get_mut(&uid).map_or(0, |refusals| std::mem::take(&mut refusals.unwritten))
    }

    fn uids(&self) -> Vec<Option<u32>> {
        self.by_uid.lock().unwrap_or_else(PoisonError::into_inner).keys().copied().collect()
    }
}

impl App {
    /// Whether the refusal of a caller with the user id `uid` is written, and not only counted.
    pub(super) fn writes_refusal(&self, uid: Option<u32>) -> bool {
        let mut uid = uid;
        let place = self.turned_away().place(&mut uid, Instant::now());
        if place == Place::CountedFirst
            // Without one it is the end, where what was counted is told.
            && let Ok(runtime) = Handle::try_current()
        {
            let app = self.clone();
            runtime.spawn(async move {
                tokio::time::sleep(TOLD_AFTER).await;
                app.tell_unwritten(uid);
            });
        }
        place == Place::Written
    }

    /// Tells the audit log what was counted and not told yet. For the end.
    pub fn tell_refusals(&self) {
        for uid in self.turned_away().uids() {
            self.tell_unwritten(uid);
        }
    }

    fn tell_unwritten(&self, uid: Option<u32>) {
        let count = self.turned_away().take_unwritten(uid);
        if count == 0 {
            return;
        }
        let who = uid.map_or_else(|| "other user ids".to_owned(), |uid| format!("user id {uid}"));
        let detail =
            format!("{count} requests of {who} were refused for their caller and not written one by one");
        tracing::warn!(
            count,
            uid,
            "requests that were refused for their caller and are not in the audit log one by one"
        );
        self.audit().event(&Event { event: "refusals.counted", detail: Some(&detail), ..Event::default() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_others_are_written() {
        let (turned_away, start) = (TurnedAway::default(), Instant::now());
        let place =
            |uid, after_ms| turned_away.place(&mut Some(uid), start + Duration::from_millis(after_ms));
        let written = (0..600).filter(|_| place(1, 0) == Place::Written).count();
        assert_eq!(written, 500);
        assert_eq!(place(2, 0), Place::Written);
        assert_eq!(place(1, 20), Place::Written, "one more after a fiftieth of a second");
        assert_eq!(place(1, 20), Place::Counted);
        assert_eq!(turned_away.take_unwritten(Some(1)), 101);
        assert_eq!(place(1, 20), Place::CountedFirst);
    }

    #[test]
    fn user_ids_without_end_are_counted_together() {
        let (turned_away, now) = (TurnedAway::default(), Instant::now());
        for uid in 0..20_000 {
            turned_away.place(&mut Some(uid), now);
        }
        assert!(turned_away.by_uid.lock().unwrap().len() <= MOST_UIDS + 1);
    }
}
