//! The group-commit writer: one thread, one transaction for all that is waiting, answers after it is durable.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use crossbeam_channel::Receiver;
use sha2::{Digest, Sha256};

use super::{
    StoreError,
    batch::Batch,
    change::Change,
    group::Group,
    handle::Handle,
    notes,
    schema::TenantId,
    tables::{TENANTS, read_tenants},
};

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

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn tenants_of_a_commit_that_failed_and_was_kept_are_learnt() {
        let (_dir, handle) = Handle::empty();
        let kept = handle.change(|transaction| Batch::open(transaction)?.tenant("shop"));
        handle.reopen();
        let learnt = Mutex::new(HashMap::new());
        recover(&handle, &|tenants| learnt.lock().unwrap().extend(tenants.clone()));
        assert_eq!(*learnt.lock().unwrap(), HashMap::from([("shop".to_owned(), kept.unwrap())]));
        assert!(!handle.failing());
    }
}
