//! What was asked of the store and what it has answered, in the order in which that was known.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write as _,
    path::Path,
    sync::{Mutex, PoisonError},
};

use serde_json::{Value, json};

/// The journal's name, beside the store's file.
pub(super) const JOURNAL: &str = "journal";

/// What a store holds under each name; see [`super::facts`].
pub(super) type Facts = BTreeMap<String, String>;
/// A change that is made as a whole or not at all. `None` removes.
pub(super) type Change = BTreeMap<String, Option<String>>;

/// A journal that is being written. Its lines need not be durable: they are read from the record of all writes.
pub struct Journal {
    state: Mutex<(File, u64)>,
}

impl Journal {
    pub(super) fn begin(path: &Path) -> Self {
        Self { state: Mutex::new((File::create_new(path).unwrap(), 0)) }
    }

    /// Notes that `change` is about to be asked for; gives its number.
    pub(super) fn asks(&self, change: &Change) -> u64 {
        let (file, last) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *last += 1;
        let line = format!("{}\n", json!({ "asked": last, "change": change }));
        file.write_all(line.as_bytes()).unwrap();
        *last
    }

    /// Notes the answer: whether the change was made.
    pub(super) fn answered(&self, number: u64, is_made: bool) {
        let (file, _) = &mut *self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{}\n", json!({ "answered": number, "is_made": is_made }));
        file.write_all(line.as_bytes()).unwrap();
    }
}

/// What is known of a store from its journal.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// What it must hold, as far as `open` leaves that alone.
    pub(super) facts: Facts,
    /// Changes that were asked for and not answered. No two concern the same name.
    pub(super) open: BTreeMap<u64, Change>,
    /// How many changes were acknowledged.
    pub(super) acknowledged: usize,
}

impl Known {
    /// What the lines of `journal` tell.
    pub(super) fn from(journal: &[u8]) -> Self {
        let mut known = Self::default();
        known.facts.insert("key record-v1".to_owned(), "active".to_owned());
        for line in std::str::from_utf8(journal).unwrap().lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            if let Some(number) = line["asked"].as_u64() {
                known.open.insert(number, serde_json::from_value(line["change"].clone()).unwrap());
                continue;
            }
            let change = known.open.remove(&line["answered"].as_u64().unwrap()).unwrap();
            if line["is_made"] == true {
                known.acknowledged += 1;
                known.apply(change);
            }
        }
        known
    }

    pub(super) fn apply(&mut self, change: Change) {
        for (name, value) in change {
            match value {
                Some(value) => self.facts.insert(name, value),
                None => self.facts.remove(&name),
            };
        }
    }
}
