//! The rows of keys as one transaction sees and changes them.
//!
//! They are read at its start and written at its end, so that the census is of the same transaction as the records it
//! counts.

use redb::{ReadableTable, WriteTransaction};

use super::{Header, KeyMove, KeyMoved, KeyRole, KeyState, StoreError, StoredKey, tables::KEYS};

/// Every key's row, as one transaction sees and changes it.
pub(super) struct KeyBook {
    rows: Vec<Row>,
}

struct Row {
    name: String,
    role: Option<(KeyRole, u32)>,
    key: StoredKey,
    changed: bool,
}

impl Row {
    fn new(name: String, key: StoredKey) -> Self {
        let role = parse_name(&name).and_then(|(purpose, version)| Some((KeyRole::of(purpose)?, version)));
        Self { name, role, key, changed: false }
    }
}

impl KeyBook {
    pub(super) fn read(transaction: &WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            rows: read_rows(&transaction.open_table(KEYS)?)?
                .into_iter()
                .map(|(name, key)| Row::new(name, key))
                .collect(),
        })
    }

    /// Writes what has changed. Nothing counts before.
    pub(super) fn write(&self, transaction: &WriteTransaction) -> Result<(), StoreError> {
        let mut table = transaction.open_table(KEYS)?;
        for row in self.rows.iter().filter(|row| row.changed) {
            table.insert(row.name.as_str(), row.key.encode().as_slice())?;
        }
        Ok(())
    }

    /// Counts a record that is written.
    pub(super) fn add(&mut self, header: &Header) {
        self.count(header, |records| records.saturating_add(1));
    }

    /// Counts a record that is removed.
    pub(super) fn remove(&mut self, header: &Header) {
        self.count(header, |records| records.saturating_sub(1));
    }

    fn count(&mut self, header: &Header, change: impl Fn(u64) -> u64) {
        for row in &mut self.rows {
            if row.role.is_some_and(|(role, version)| role.version(header) == Some(version)) {
                row.key.records = change(row.key.records);
                row.changed = true;
            }
        }
    }

    /// Sets every count to nothing, for a census that starts anew.
    pub(super) fn forget_counts(&mut self) {
        for row in self.rows.iter_mut().filter(|row| row.role.is_some()) {
            row.key.records = 0;
            row.changed = true;
        }
    }

    /// The version of the key that new work in `role` is done with.
    pub(super) fn active(&self, role: KeyRole) -> Option<u32> {
        self.rows.iter().find_map(|row| match row.role {
            Some((is, version)) if is == role && row.key.state == KeyState::Active => Some(version),
            _ => None,
        })
    }

    /// Whether a record may be written that depends on these versions: new work is for active keys, or a census of
    /// an old one would never come to nothing. What `before` depended on already it may keep, but for its sealing.
    pub(super) fn takes(&self, header: &Header, before: Option<&Header>) -> bool {
        KeyRole::ALL.into_iter().all(|role| match role.version(header) {
            None => true,
            Some(version) if self.active(role) == Some(version) => true,
            kept => role != KeyRole::Record && before.is_some_and(|before| role.version(before) == kept),
        })
    }

    /// Whether `versions` are all the old ones under which a card may have a fingerprint.
    pub(super) fn covers_fingerprints(&self, versions: impl Fn(u32) -> bool) -> bool {
        self.rows.iter().all(|row| match row.role {
            Some((KeyRole::Fingerprint, version)) if row.key.state == KeyState::Retired => {
                row.key.records == 0 || versions(version)
            }
            _ => true,
        })
    }

    pub(super) fn reserve_seals(&mut self, name: &str, reserved: u64) -> Result<(), StoreError> {
        let row = self.rows.iter_mut().find(|row| row.name == name);
        let row = row.ok_or_else(|| StoreError::Failed(format!("key {name} is not recorded")))?;
        row.key.reserved_seals = row.key.reserved_seals.max(reserved);
        row.changed = true;
        Ok(())
    }

    /// Makes `step` of the key `name` at `now_ms`. Abandoning is the one that removes a row, and is left to the table.
    pub(super) fn step(
        &mut self,
        transaction: &WriteTransaction,
        name: &str,
        step: &KeyMove,
        now_ms: u64,
    ) -> Result<KeyMoved, StoreError> {
        let place = self.rows.iter().position(|row| row.name == name);
        let state = place.and_then(|place| self.rows.get(place)).map(|row| row.key.state);
        let possible = match step {
            KeyMove::Begin => state.is_none(),
            KeyMove::Abandon => state == Some(KeyState::Pending),
            KeyMove::Activate { .. } => state.is_some_and(|state| state.may_become(KeyState::Active)),
            KeyMove::Destroy => state.is_some_and(|state| state.may_become(KeyState::Destroyed)),
        };
        if !possible {
            return Ok(KeyMoved::Impossible(state));
        }
        match step {
            KeyMove::Begin => {
                let mut row =
                    Row::new(name.to_owned(), StoredKey::new(KeyState::Pending, now_ms, Vec::new()));
                row.changed = true;
                self.rows.push(row);
            }
            KeyMove::Abandon => {
                transaction.open_table(KEYS)?.remove(name)?;
                self.rows.retain(|row| row.name != name);
            }
            KeyMove::Activate { check_value, needed_until_s } => {
                self.retire(name, now_ms, *needed_until_s);
                if let Some(row) = place.and_then(|place| self.rows.get_mut(place)) {
                    row.key.state = KeyState::Active;
                    row.key.check_value.clone_from(check_value);
                    row.changed = true;
                }
            }
            KeyMove::Destroy => {
                if let Some(row) = place.and_then(|place| self.rows.get_mut(place)) {
                    if row.key.records > 0 {
                        return Ok(KeyMoved::HoldsRecords(row.key.records));
                    }
                    if row.key.needed_until_s > now_ms / 1_000 {
                        return Ok(KeyMoved::NeededUntil(row.key.needed_until_s));
                    }
                    row.key.state = KeyState::Destroyed;
                    row.key.destroyed_at_ms = Some(now_ms);
                    row.changed = true;
                }
            }
        }
        Ok(KeyMoved::Done)
    }

    /// Retires the active key of the purpose that `name` has.
    fn retire(&mut self, name: &str, now_ms: u64, needed_until_s: u64) {
        let purpose = parse_name(name).map(|(purpose, _)| purpose);
        for row in &mut self.rows {
            let is_of = parse_name(&row.name).map(|(purpose, _)| purpose) == purpose;
            if is_of && row.key.state.may_become(KeyState::Retired) {
                row.key.state = KeyState::Retired;
                row.key.retired_at_ms = Some(now_ms);
                row.key.needed_until_s = row.key.needed_until_s.max(needed_until_s);
                row.changed = true;
            }
        }
    }
}

/// The rows of the table of keys, by name.
pub(super) fn read_rows(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Vec<(String, StoredKey)>, StoreError> {
    table
        .iter()?
        .map(|row| {
            let (name, bytes) = row?;
            let key = StoredKey::decode(bytes.value());
            let key = key
                .ok_or_else(|| StoreError::Failed(format!("the entry of key {} is damaged", name.value())))?;
            Ok((name.value().to_owned(), key))
        })
        .collect()
}

/// Purpose and version of a key's name, as in `record-v1`.
pub(super) fn parse_name(name: &str) -> Option<(&str, u32)> {
    let (purpose, version) = name.rsplit_once("-v")?;
    Some((purpose, version.parse().ok()?))
}
