//! One transaction of the writer: what each change of a group comes to.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redb::{ReadableTable, Table, WriteTransaction};

use super::{
    FingerprintKey, Record, RecordError, StoreError, TokenKey,
    change::{Change, Incoming, Inserted, Outcome, Replaced},
    group::Group,
    notes,
    rewrap::write_job,
    schema::{TenantId, parse_expiry_key},
    tables::{Clash, Encoded, RecordTables, TENANTS, ended},
    uses,
};

/// How long a transaction takes in what comes while it is applied, such as the next parts of a batch: each would wait for a
/// transaction, and the disk, of its own. Bounds the same wait.
const MOST_GATHERED: Duration = Duration::from_millis(10);

/// The open tables of one transaction.
pub(super) struct Batch<'t> {
    transaction: &'t WriteTransaction,
    tables: RecordTables<'t>,
    tenants: Table<'t, &'static str, TenantId>,
    new_tenants: HashMap<String, TenantId>,
}

impl<'t> Batch<'t> {
    pub(super) fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            transaction,
            tables: RecordTables::open(transaction)?,
            tenants: transaction.open_table(TENANTS)?,
            new_tenants: HashMap::new(),
        })
    }

    /// A damaged record fails the change that met it, before it has written anything; every other error fails the
    /// transaction. What comes meanwhile is applied as well, for a while: it would wait for the disk twice.
    pub(super) fn apply(
        mut self,
        group: &mut Group<'_>,
    ) -> Result<(Vec<Outcome>, HashMap<String, TenantId>), StoreError> {
        let began = Instant::now();
        let mut outcomes = Vec::new();
        while outcomes.len() < group.changes.len() {
            for change in group.changes.iter().skip(outcomes.len()) {
                outcomes.push(match self.apply_one(change) {
                    Err(error @ StoreError::Damaged(_)) => Outcome::Refused(error),
                    other => other?,
                });
            }
            if began.elapsed() < MOST_GATHERED {
                group.gather();
            }
        }
        self.tables.finish(self.transaction)?;
        Ok((outcomes, self.new_tenants))
    }

    fn apply_one(&mut self, change: &Change) -> Result<Outcome, StoreError> {
        match change {
            Change::Insert { tenant, records, now_s, .. } => {
                let tenant = self.tenant(tenant)?;
                let inserted = records
                    .iter()
                    .map(|incoming| self.insert(tenant, incoming, *now_s))
                    .collect::<Result<_, _>>()?;
                Ok(Outcome::Inserted(inserted))
            }
            Change::Replace { tenant, token, old, new, .. } => {
                self.replace(*tenant, token, old, new).map(Outcome::Replaced)
            }
            Change::Remove { tenant, token, .. } => {
                let existed = match self.tables.record(*tenant, token) {
                    Ok(None) => false,
                    Ok(Some(record)) => {
                        self.tables.remove(*tenant, token, &record)?;
                        true
                    }
                    Err(StoreError::Damaged(error)) => {
                        tracing::warn!(
                            %error,
                            "removing a damaged record; its index rows are not found, its keys count it until the next rewrap"
                        );
                        self.tables.remove_damaged(*tenant, token)?;
                        true
                    }
                    Err(error) => return Err(error),
                };
                Ok(Outcome::Removed(existed))
            }
            Change::Sweep { ended_before_s, most, .. } => {
                self.sweep(*ended_before_s, *most).map(Outcome::Swept)
            }
            Change::UseUp { kind, id, until_s, now_s, most, .. } => {
                uses::use_up(self.transaction, *kind, id, *until_s, *now_s, *most).map(Outcome::Used)
            }
            Change::ReserveSeals { key_name, reserved, .. } => {
                self.tables.keys.reserve_seals(key_name, *reserved)?;
                Ok(Outcome::Done)
            }
            Change::PutNote { name, value, .. } => {
                notes::write(self.transaction, name, value)?;
                Ok(Outcome::Done)
            }
            Change::Rewrap { records, job, .. } => {
                let replaced = records
                    .iter()
                    .map(|record| {
                        match self.replace(record.tenant, &record.token, &record.old, &record.new) {
                            Err(StoreError::Damaged(_)) => Ok(Replaced::Changed),
                            other => other,
                        }
                    })
                    .collect::<Result<Vec<_>, _>>()?;
                let done = replaced.iter().filter(|replaced| **replaced == Replaced::Done).count();
                let mut job = job.clone();
                job.done = job.done.saturating_add(u64::try_from(done).unwrap_or(u64::MAX));
                write_job(self.transaction, &job)?;
                Ok(Outcome::Rewrapped(replaced, job))
            }
            Change::Guard { change, .. } => change.apply(self.transaction).map(Outcome::Guarded),
            Change::TakeCensus { .. } => {
                self.tables.take_census()?;
                Ok(Outcome::Done)
            }
            Change::Nothing { .. } => Ok(Outcome::Done),
            Change::MoveKey { name, step, now_ms, .. } => {
                self.tables.keys.step(self.transaction, name, step, *now_ms).map(Outcome::Moved)
            }
            Change::Stop => Err(StoreError::Failed("the writer is stopping".to_owned())),
        }
    }

    fn insert(&mut self, tenant: TenantId, incoming: &Incoming, now_s: u64) -> Result<Inserted, StoreError> {
        let Incoming { token, new, older } = incoming;
        let keys = &self.tables.keys;
        let asked = |version| older.iter().any(|key| key.version == version);
        if !keys.takes(&new.record.header, None) || !keys.covers_fingerprints(asked) {
            return Ok(Inserted::Stale);
        }
        if new.record.header.reusable {
            for card in older {
                let Some(seen) = self.tables.token_of(tenant, card)? else { continue };
                if let Some(settled) = self.settle(tenant, &seen, card, now_s)? {
                    return Ok(settled);
                }
            }
        }
        let seen = match self.tables.put_new(tenant, token, new)? {
            None => return Ok(Inserted::Created),
            Some(Clash::Token) => return Ok(Inserted::TokenTaken),
            Some(Clash::Card(token)) => token,
        };
        // Nothing of the new record is in the tables at this point.
        if let Some(settled) = self.settle(tenant, &seen, &new.record.fingerprint_key(), now_s)? {
            return Ok(settled);
        }
        self.tables.put(tenant, token, new)?;
        Ok(Inserted::Created)
    }

    /// What becomes of a new record whose card has the token `seen`, unless that token has ended: then it makes room, and the
    /// sweeper removes it, which does not believe every clock.
    fn settle(
        &mut self,
        tenant: TenantId,
        seen: &TokenKey,
        card: &FingerprintKey,
        now_s: u64,
    ) -> Result<Option<Inserted>, StoreError> {
        Ok(match self.tables.record(tenant, seen) {
            Ok(Some(record)) if !record.is_of(card) => Some(Inserted::Damaged(RecordError::OtherCard)),
            Ok(Some(record)) if !record.header.expired(now_s) => Some(Inserted::Seen(*seen, record)),
            Ok(Some(ended)) => {
                self.tables.set_aside(tenant, seen, &ended)?;
                None
            }
            Ok(None) => {
                // Under a retired key nothing would overwrite it.
                self.tables.forget_card(tenant, card)?;
                None
            }
            Err(StoreError::Damaged(error)) => Some(Inserted::Damaged(error)),
            Err(error) => return Err(error),
        })
    }

    fn replace(
        &mut self,
        tenant: TenantId,
        token: &TokenKey,
        old: &Record,
        new: &Encoded,
    ) -> Result<Replaced, StoreError> {
        match self.tables.record(tenant, token)? {
            None => Ok(Replaced::Gone),
            Some(now) if now != *old => Ok(Replaced::Changed),
            // Its card has another token, or had: to bring it back would be to give the card two.
            Some(now)
                if now.header.expires_at_s != new.record.header.expires_at_s
                    && self.tables.is_aside(tenant, token, &now)? =>
            {
                Ok(Replaced::Gone)
            }
            Some(_) if !self.tables.keys.takes(&new.record.header, Some(&old.header)) => Ok(Replaced::Stale),
            Some(now) => {
                self.tables.replace(tenant, token, &now, new)?;
                Ok(Replaced::Done)
            }
        }
    }

    pub(super) fn tenant(&mut self, name: &str) -> Result<TenantId, StoreError> {
        if let Some(id) = self.tenants.get(name)? {
            return Ok(id.value());
        }
        let mut last = 0;
        for entry in self.tenants.iter()? {
            last = last.max(entry?.1.value());
        }
        self.tenants.insert(name, last + 1)?;
        self.new_tenants.insert(name.to_owned(), last + 1);
        Ok(last + 1)
    }

    fn sweep(&mut self, ended_before_s: u64, most: usize) -> Result<usize, StoreError> {
        uses::forget(self.transaction, ended_before_s)?;
        let ended = ended(&self.tables.expiries, ended_before_s, most)?;
        for key in &ended {
            // Whatever becomes of its record: a row that stayed would be met again by every sweep.
            self.tables.expiries.remove(key.as_slice())?;
            let Some((end_s, tenant, token)) = parse_expiry_key(key) else { continue };
            match self.tables.record(tenant, &token) {
                Ok(Some(record)) if record.header.expires_at_s == Some(end_s) => {
                    self.tables.remove(tenant, &token, &record)?;
                }
                // The row is of a record that was there before, and damaged.
                Ok(_) => {}
                Err(StoreError::Damaged(error)) => {
                    tracing::error!(%error, "a record that has ended is damaged and stays in the store");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(ended.len())
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::store::handle::Handle;

    #[test]
    fn what_comes_while_a_group_is_applied_is_of_the_same_transaction() {
        let (_dir, handle) = Handle::empty();
        let (queue, waiting) = crossbeam_channel::unbounded();
        let nothing = || Change::Nothing { answer: oneshot::channel().0 };
        let mut group = Group::begin(nothing(), &waiting);
        queue.send(nothing()).unwrap();
        let applied = handle.change(|transaction| Batch::open(transaction)?.apply(&mut group));
        assert_eq!((applied.unwrap().0.len(), group.changes.len()), (2, 2));
    }
}
