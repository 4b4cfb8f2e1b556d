//! Changes on their way to the writer, and their answers.

use crossbeam_channel::{Sender, TrySendError};
use tokio::sync::oneshot;

use super::{
    FingerprintKey, KeyMove, KeyMoved, Record, RecordError, RewrapJob, StoreError, TokenKey,
    guards::GuardChange,
    rewrap::Replacement,
    schema::{TenantId, USE_ID_BYTES},
    tables::Encoded,
    uses::{Use, UseKind},
};

/// A record that is to be stored under a new token.
#[derive(Clone, Debug)]
pub struct NewRecord {
    /// The token it is for.
    pub token: TokenKey,
    /// The record.
    pub record: Record,
    /// Where its card may be found besides: its fingerprints under key versions that are retired and still hold
    /// records.
    pub older: Vec<FingerprintKey>,
}

/// What became of a [`NewRecord`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// It is stored.
    Created,
    /// The same card has a token already, made before or by another caller at the same time.
    Seen(TokenKey, Record),
    /// Another card has this token: mint another one.
    TokenTaken,
    /// It depends on keys that are no longer active, or was not looked for under all the older ones: make it anew.
    Stale,
    /// The record this card has already is damaged: nothing can be said about it.
    Damaged(RecordError),
}

/// What became of a replacement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It is stored.
    Done,
    /// Somebody changed the record meanwhile: read it again.
    Changed,
    /// The token is gone, or it has made room for another of its card and would get another end.
    Gone,
    /// The new record depends on keys that are no longer active: make it anew.
    Stale,
}

/// A [`NewRecord`] on its way to the writer.
pub(super) struct Incoming {
    pub(super) token: TokenKey,
    pub(super) new: Encoded,
    pub(super) older: Vec<FingerprintKey>,
}

/// A change and the way to answer it.
pub(super) enum Change {
    Insert {
        tenant: String,
        records: Vec<Incoming>,
        now_s: u64,
        answer: Answer<Vec<Inserted>>,
    },
    Replace {
        tenant: TenantId,
        token: TokenKey,
        old: Box<Record>,
        new: Box<Encoded>,
        answer: Answer<Replaced>,
    },
    Remove {
        tenant: TenantId,
        token: TokenKey,
        answer: Answer<bool>,
    },
    Sweep {
        ended_before_s: u64,
        most: usize,
        answer: Answer<usize>,
    },
    UseUp {
        kind: UseKind,
        id: [u8; USE_ID_BYTES],
        until_s: u64,
        now_s: u64,
        most: usize,
        answer: Answer<Use>,
    },
    Rewrap {
        records: Vec<Replacement>,
        job: RewrapJob,
        answer: Answer<(Vec<Replaced>, RewrapJob)>,
    },
    TakeCensus {
        answer: Answer<()>,
    },
    /// Changes nothing.
    Nothing {
        answer: Answer<()>,
    },
    MoveKey {
        name: String,
        step: KeyMove,
        now_ms: u64,
        answer: Answer<KeyMoved>,
    },
    PutNote {
        name: &'static str,
        value: Vec<u8>,
        answer: Answer<()>,
    },
    ReserveSeals {
        key_name: String,
        reserved: u64,
        answer: Answer<()>,
    },
    Guard {
        change: GuardChange,
        answer: Answer<bool>,
    },
    Stop,
}

pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// Sends `change` to the writer without waiting for room.
pub(super) fn submit(queue: &Sender<Change>, change: Change) -> Result<(), StoreError> {
    queue.try_send(change).map_err(|error| match error {
        TrySendError::Full(_) => StoreError::Busy,
        TrySendError::Disconnected(_) => StoreError::Failed("the writer has ended".to_owned()),
    })
}

/// What one change came to.
pub(super) enum Outcome {
    Inserted(Vec<Inserted>),
    Replaced(Replaced),
    Removed(bool),
    Swept(usize),
    Used(Use),
    Rewrapped(Vec<Replaced>, RewrapJob),
    Moved(KeyMoved),
    Guarded(bool),
    Done,
    Refused(StoreError),
}

impl Change {
    /// How many records it is about; a change of another kind counts as one.
    pub(super) fn size(&self) -> usize {
        match self {
            Self::Insert { records, .. } => records.len(),
            Self::Rewrap { records, .. } => records.len().max(1),
            _ => 1,
        }
    }

    /// Tells the waiting caller. One that has gone away is not missed.
    pub(super) fn answer(self, outcome: Outcome) {
        match (self, outcome) {
            (Self::Insert { answer, .. }, Outcome::Inserted(done)) => drop(answer.send(Ok(done))),
            (Self::Replace { answer, .. }, Outcome::Replaced(done)) => drop(answer.send(Ok(done))),
            (Self::Remove { answer, .. }, Outcome::Removed(done))
            | (Self::Guard { answer, .. }, Outcome::Guarded(done)) => drop(answer.send(Ok(done))),
            (Self::Sweep { answer, .. }, Outcome::Swept(done)) => drop(answer.send(Ok(done))),
            (Self::UseUp { answer, .. }, Outcome::Used(done)) => drop(answer.send(Ok(done))),
            (Self::Rewrap { answer, .. }, Outcome::Rewrapped(done, job)) => {
                drop(answer.send(Ok((done, job))));
            }
            (Self::MoveKey { answer, .. }, Outcome::Moved(done)) => drop(answer.send(Ok(done))),
            (
                Self::TakeCensus { answer }
                | Self::Nothing { answer }
                | Self::ReserveSeals { answer, .. }
                | Self::PutNote { answer, .. },
                Outcome::Done,
            ) => {
                drop(answer.send(Ok(())));
            }
            (change, Outcome::Refused(error)) => change.refuse(&error),
            (change, _) => change.refuse(&StoreError::Failed("the writer mixed up its answers".to_owned())),
        }
    }

    pub(super) fn refuse(self, error: &StoreError) {
        match self {
            Self::Insert { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Replace { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Remove { answer, .. } | Self::Guard { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Sweep { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::UseUp { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::Rewrap { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::MoveKey { answer, .. } => drop(answer.send(Err(error.clone()))),
            Self::TakeCensus { answer }
            | Self::Nothing { answer }
            | Self::ReserveSeals { answer, .. }
            | Self::PutNote { answer, .. } => {
                drop(answer.send(Err(error.clone())));
            }
            Self::Stop => {}
        }
    }
}
