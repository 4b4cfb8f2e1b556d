//! One of those who change the store at the same time. Each has tokens and other things of its own, so that it knows what
//! they must be.

use std::collections::BTreeMap;

use vaultd::store::{
    Inserted, KeyMove, KeyMoved, KeyState, NewRecord, Replaced, RewrapJob, Rewrapped, Store, StoredLock, Use,
    UseKind, WindowRows,
};

use super::{
    facts::{Card, TENANT},
    journal::{Change, Journal},
};

pub(super) const LANES: u32 = 8;
const TOKENS: u32 = 40;
const NOW_S: u64 = 1_000;
/// A record may be this long: the file has to grow.
const MOST_BYTES: usize = 60_000;

pub(super) struct Lane<'s> {
    number: u32,
    store: &'s Store,
    journal: &'s Journal,
    random: fastrand::Rng,
    cards: BTreeMap<u32, Card>,
    marks: u32,
    things: u8,
    rewraps: u64,
}

impl<'s> Lane<'s> {
    pub(super) fn new(number: u32, store: &'s Store, journal: &'s Journal, random: fastrand::Rng) -> Self {
        let cards = BTreeMap::new();
        Self { number, store, journal, random, cards, marks: 0, things: 0, rewraps: 0 }
    }

    /// Makes the change number `step` of `steps`. First the store grows, then it shrinks, then it grows again.
    pub(super) async fn step(&mut self, step: usize, steps: usize) {
        let shrinks = step * 3 / steps == 1;
        match self.random.u8(..10) {
            // The same lane, so that what is rewrapped is for the active key.
            0 if self.number == 0 => self.rotate().await,
            1 if self.number == 0 => self.rewrap().await,
            0 => self.other().await,
            1..=2 => self.replace().await,
            3..8 if shrinks => self.remove().await,
            3 => self.remove().await,
            _ => self.insert(if shrinks { 100 } else { MOST_BYTES }).await,
        }
    }

    /// A card with what a record of it may have by chance.
    fn card(&mut self, token: u32, most_bytes: usize) -> Card {
        self.marks += 1;
        Card {
            token,
            mark: self.marks,
            size: if self.random.u8(..3) == 0 { self.random.usize(..most_bytes) } else { 0 },
            expires_at_s: self.random.bool().then_some(NOW_S + 9),
            version: self.version(),
        }
    }

    /// The version of the active record key, which may be another one in a moment.
    fn version(&self) -> u32 {
        let keys = self.store.keys().unwrap();
        let active =
            keys.iter().find(|(name, key)| name.starts_with("record") && key.state == KeyState::Active);
        active.unwrap().0.rsplit_once("-v").unwrap().1.parse().unwrap()
    }

    fn answered(&mut self, number: u64, is_made: bool, cards: Vec<Card>) {
        self.journal.answered(number, is_made);
        if is_made {
            self.cards.extend(cards.into_iter().map(|card| (card.token, card)));
        }
    }

    async fn insert(&mut self, most_bytes: usize) {
        let mine = (0..TOKENS).map(|token| token * LANES + self.number);
        let absent: Vec<_> = mine.filter(|token| !self.cards.contains_key(token)).collect();
        let many = self.random.usize(1..=6);
        // One key for all of them, whatever becomes of it meanwhile.
        let version = self.version();
        let of_version = |card: Card| Card { version, ..card };
        let cards: Vec<_> =
            absent.into_iter().take(many).map(|token| of_version(self.card(token, most_bytes))).collect();
        if cards.is_empty() {
            return;
        }
        let number = self.journal.asks(&becomes(&cards));
        let new = |card: &Card| NewRecord { token: card.key(), record: card.record(), older: Vec::new() };
        let inserted = self.store.insert(TENANT, cards.iter().map(new).collect(), NOW_S).await.unwrap();
        // Stale ones were made for a key that has been rotated meanwhile.
        let is_made = inserted[0] == Inserted::Created;
        assert!(inserted.iter().all(|one| *one == if is_made { Inserted::Created } else { Inserted::Stale }));
        self.answered(number, is_made, cards);
    }

    async fn replace(&mut self) {
        let Some(old) = self.any() else { return };
        let new = self.card(old.token, MOST_BYTES / 10);
        let number = self.journal.asks(&becomes(&[new]));
        let replaced = self.store.replace(TENANT, old.key(), old.record(), new.record()).await.unwrap();
        assert!(matches!(replaced, Replaced::Done | Replaced::Stale), "{replaced:?}");
        self.answered(number, replaced == Replaced::Done, vec![new]);
    }

    async fn remove(&mut self) {
        let Some(card) = self.any() else { return };
        let number = self.journal.asks(&Change::from([(card.name(), None)]));
        assert_eq!(self.store.remove(TENANT, card.key()).await, Ok(true));
        self.cards.remove(&card.token);
        self.journal.answered(number, true);
    }

    /// Brings records to the active key, together with the note of the job.
    async fn rewrap(&mut self) {
        let version = self.version();
        let old: Vec<_> =
            self.cards.values().filter(|card| card.version != version).take(8).copied().collect();
        let new: Vec<_> = old.iter().map(|card| Card { version, ..*card }).collect();
        if old.is_empty() {
            return;
        }
        self.rewraps += 1;
        let mut change = becomes(&new);
        change.insert("rewrap".to_owned(), Some(self.rewraps.to_string()));
        let number = self.journal.asks(&change);
        let job = RewrapJob { started_at_ms: self.rewraps, ..RewrapJob::default() };
        let records = old.iter().zip(&new).map(|(old, new)| Rewrapped {
            tenant: TENANT.to_owned(),
            token: old.key(),
            old: old.record(),
            new: new.record(),
        });
        let (replaced, _) = self.store.rewrap(records.collect(), job).await.unwrap();
        assert!(replaced.iter().all(|one| *one == Replaced::Done), "{replaced:?}");
        self.answered(number, true, new);
    }

    async fn rotate(&mut self) {
        let old = format!("record-v{}", self.version());
        let new = format!("record-v{}", self.version() + 1);
        let (key_of_old, key_of_new) = (format!("key {old}"), format!("key {new}"));
        let number = self.journal.asks(&state(&[(&key_of_new, KeyState::Pending)]));
        assert_eq!(self.store.move_key(&new, KeyMove::Begin, 1).await, Ok(KeyMoved::Done));
        self.journal.answered(number, true);
        let change = state(&[(&key_of_new, KeyState::Active), (&key_of_old, KeyState::Retired)]);
        let number = self.journal.asks(&change);
        let step = KeyMove::Activate { check_value: vec![1; 32], needed_until_s: 0 };
        assert_eq!(self.store.move_key(&new, step, 2).await, Ok(KeyMoved::Done));
        self.journal.answered(number, true);
    }

    /// What the guards keep, and what may be used once.
    async fn other(&mut self) {
        let Some(things) = self.things.checked_add(u8::try_from(LANES).unwrap()) else { return };
        self.things = things;
        let thing = things - u8::try_from(LANES - self.number).unwrap();
        let (name, value) = match self.random.u8(..3) {
            0 => (format!("lock {thing}"), "honey".to_owned()),
            1 => (format!("window {thing}"), format!("{:?}", vec![thing; 500])),
            _ => (format!("use {thing}"), "used".to_owned()),
        };
        let number = self.journal.asks(&Change::from([(name.clone(), Some(value))]));
        match &name[..4] {
            "lock" => {
                let lock = StoredLock {
                    issuer: "issuer".to_owned(),
                    subject: thing.to_string(),
                    tenant: TENANT.to_owned(),
                    reason: "honey".to_owned(),
                    locked_at_ms: 1,
                };
                self.store.lock(lock).await.unwrap();
            }
            "wind" => {
                let rows = WindowRows { put: vec![(vec![thing], vec![thing; 500])], remove: Vec::new() };
                self.store.change_windows(rows).await.unwrap();
            }
            _ => assert_eq!(
                self.store.use_up(UseKind::Envelope, [thing; 32], NOW_S + 9, NOW_S, 1_000).await,
                Ok(Use::First)
            ),
        }
        self.journal.answered(number, true);
    }

    fn any(&mut self) -> Option<Card> {
        let place = self.random.usize(..self.cards.len().max(1));
        self.cards.values().nth(place).copied()
    }
}

fn becomes(cards: &[Card]) -> Change {
    cards.iter().map(|card| (card.name(), Some(card.fact()))).collect()
}

fn state(keys: &[(&str, KeyState)]) -> Change {
    keys.iter().map(|(name, state)| ((*name).to_owned(), Some(state.as_str().to_owned()))).collect()
}
