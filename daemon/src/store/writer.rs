//! The group-commit writer: one thread, one transaction for all that is waiting, answers after it is durable.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use redb::{ReadableTable, Table, WriteTransaction};
use sha2::{Digest, Sha256};

use super::{
    FingerprintKey, Record, RecordError, StoreError, TokenKey,
    change::{Change, Incoming, Inserted, Outcome, Replaced},
    group::Group,
    handle::Handle,
    notes,
    rewrap::write_job,
    schema::{TenantId, parse_expiry_key},
    tables::{Clash, Encoded, RecordTables, TENANTS, ended, read_tenants},
    uses,
};

/// How long a transaction takes in what comes while it is applied, such as the next parts of a batch: each would wait for a
/// transaction, and the disk, of its own. Bounds the same wait.
const MOST_GATHERED: Duration = Duration::from_millis(10);

/// How long after a failed commit the next one is tried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// What is written and removed again to see whether there is room: 64 KiB.
const TRIAL: &str = "trial";
const TRIAL_HASHES: u32 = 2_048;

/// The writer's loop; ends at [`Change::Stop`], after everything that came before it.
///
/// `on_tenants` learns the numbers of new tenants as soon as they are durable and before anybody is answered.
pub(super) fn serve(
    handle: &Handle,
    changes: &Receiver<Change>,
    on_tenants: impl Fn(&HashMap<String, TenantId>),
) {
    let mut stopping = false;
    while !stopping {
        if handle.failing() {
            // One try a second, so that a full disk is not answered with a storm of repairs. Nobody has to send a
            // change for the store to recover.
            std::thread::sleep(RETRY_PAUSE);
            refuse_waiting(changes, &mut stopping);
            recover(handle, &on_tenants);
            continue;
        }
        let Ok(first) = changes.recv() else { return };
        let mut group = Group::begin(first, changes);
        if !group.changes.is_empty() {
            commit(handle, &mut group, &on_tenants);
        }
        stopping = group.is_last;
    }
}

/// Applies a group as one transaction and answers each of its changes.
fn commit(handle: &Handle, group: &mut Group<'_>, on_tenants: &impl Fn(&HashMap<String, TenantId>)) {
    let began = Instant::now();
    let applied = handle.change(|transaction| Batch::open(transaction)?.apply(group));
    let group = std::mem::take(&mut group.changes);
    match applied {
        Ok((outcomes, new_tenants)) => {
            handle.stats().committed(group.iter().map(Change::size).sum(), began.elapsed());
            if !new_tenants.is_empty() {
                on_tenants(&new_tenants);
            }
            for (change, outcome) in group.into_iter().zip(outcomes) {
                change.answer(outcome);
            }
        }
        Err(error) => {
            handle.stats().failed();
            tracing::error!(%error, changes = group.len(), "a store transaction failed; none of it is acknowledged");
            // First, so that whoever is refused sees what was kept: a commit that failed may have been.
            if error != StoreError::Panicked {
                handle.reopen();
            }
            for change in group {
                change.refuse(&error);
            }
        }
    }
}

/// Refuses what waits while the store cannot be written.
fn refuse_waiting(changes: &Receiver<Change>, stopping: &mut bool) {
    let error = StoreError::Failed("the last commit failed; it is tried again every second".to_owned());
    for change in changes.try_iter() {
        *stopping |= matches!(change, Change::Stop);
        change.refuse(&error);
    }
}

/// Tries whether the store can be written: with as much as a small group of changes needs, for on a full disk there is always
/// room for nothing. `on_tenants` learns of all tenants: the commit that failed may have been kept, and with it a tenant whose
/// caller was refused.
fn recover(handle: &Handle, on_tenants: &impl Fn(&HashMap<String, TenantId>)) {
    let tried = handle.change(|transaction| notes::write(transaction, TRIAL, &trial()));
    let recovered = tried.and_then(|()| {
        handle.change(|transaction| {
            notes::remove(transaction, TRIAL)?;
            read_tenants(&transaction.open_table(TENANTS)?)
        })
    });
    match recovered {
        Ok(tenants) => {
            on_tenants(&tenants);
            handle.committed();
        }
        Err(error) => {
            handle.stats().failed();
            tracing::error!(%error, "the store still cannot be written");
            handle.reopen();
        }
    }
}

/// Bytes that take the room they say, whatever the file system compresses.
fn trial() -> Vec<u8> {
    (0..TRIAL_HASHES).flat_map(|number| Sha256::digest(number.to_be_bytes())).collect()
}

/// The open tables of one transaction.
struct Batch<'t> {
    transaction: &'t WriteTransaction,
    tables: RecordTables<'t>,
    tenants: Table<'t, &'static str, TenantId>,
    new_tenants: HashMap<String, TenantId>,
}

impl<'t> Batch<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, StoreError> {
        Ok(Self {
            transaction,
            tables: RecordTables::open(transaction)?,
            tenants: transaction.open_table(TENANTS)?,
            new_tenants: HashMap::new(),
        })
    }

    /// A damaged record fails the change that met it, before it has written anything; every other error fails the
    /// transaction. What comes meanwhile is applied as well, for a while: it would wait for the disk twice.
    fn apply(
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

    fn tenant(&mut self, name: &str) -> Result<TenantId, StoreError> {
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
    use std::sync::Mutex;

    use tokio::sync::oneshot;

    use super::*;

    #[test]
    fn tenants_of_a_commit_that_failed_and_was_kept_are_learnt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        drop(Handle::create(&path, 1 << 20).unwrap());
        let handle = Handle::open(&path, 1 << 20).unwrap();
        let kept = handle.change(|transaction| Batch::open(transaction)?.tenant("shop"));
        handle.reopen();
        let learnt = Mutex::new(HashMap::new());
        recover(&handle, &|tenants| learnt.lock().unwrap().extend(tenants.clone()));
        assert_eq!(*learnt.lock().unwrap(), HashMap::from([("shop".to_owned(), kept.unwrap())]));
        assert!(!handle.failing());
    }

    #[test]
    fn what_comes_while_a_group_is_applied_is_of_the_same_transaction() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        drop(Handle::create(&path, 1 << 20).unwrap());
        let handle = Handle::open(&path, 1 << 20).unwrap();
        let (queue, waiting) = crossbeam_channel::unbounded();
        let nothing = || Change::Nothing { answer: oneshot::channel().0 };
        let mut group = Group::begin(nothing(), &waiting);
        queue.send(nothing()).unwrap();
        let applied = handle.change(|transaction| Batch::open(transaction)?.apply(&mut group));
        assert_eq!((applied.unwrap().0.len(), group.changes.len()), (2, 2));
    }
}
