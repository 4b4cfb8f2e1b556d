//! Tokens and their sealed cards, in an embedded redb database.
//!
//! The door is [`Store`]. Reads run on a snapshot and never wait; every change goes through one writer thread that
//! commits whatever is waiting as one durable transaction and answers afterwards. Whether a card was seen before is
//! decided inside that transaction, so that two callers with the same new card get one token.
//!
//! The store knows bytes, not cards: what it holds is sealed by the HSM, and its indexes are keyed. The format is
//! described in `docs/store-format.md`.

mod batch;
mod budget;
mod cells;
mod change;
mod error;
mod export;
mod group;
mod guards;
mod handle;
mod import;
mod inspect;
mod key_book;
mod keys;
mod layout;
mod look_up;
mod notes;
mod record;
mod records;
mod rewrap;
mod schema;
mod search;
mod stats;
mod tables;
mod uses;
mod writer;

mod database;

pub use budget::MAX_SEALS_PER_KEY;
pub use cells::{Row, table_names};
pub use change::{Inserted, NewRecord, Replaced};
pub use database::Store;
pub use error::{OpenError, StoreError};
pub use export::Snapshot;
pub use guards::{StoredLock, WindowRow, WindowRows};
pub use import::Importer;
pub use inspect::RowCounts;
pub use keys::{KeyMove, KeyMoved, KeyRole, KeyState, StoredKey};
pub use look_up::Found;
pub use record::{FINGERPRINT_CUT_BYTES, Header, Record, RecordError, SealedPart};
pub use rewrap::{Place, RewrapJob, Rewrapped, Stretch};
pub use schema::{
    BlindKey, FingerprintKey, Lookup, MAX_TOKEN_KEY_BYTES, SCHEMA_VERSION, TokenKey, USE_ID_BYTES,
};
pub use search::Hit;
pub use uses::{Use, UseKind};
