//! Backups: a copy of the store that only the vault's own HSM opens again, and that cannot be changed unnoticed.
//!
//! [`begin`] takes a snapshot of a store that others go on writing to, and gives a [`Sealing`]: pieces of the file, one
//! after the other. [`Locked`] and [`Unlocked`] read one back. The format is `docs/backup-format.md`. What is inside is
//! what the store holds, sealed cards and keyed indexes, once more sealed as a whole.
//!
//! Nothing here names a file or a socket: whoever makes or restores a backup brings a reader and takes bytes.

mod chunks;
mod error;
mod header;
mod make;
mod read;
mod rows;

pub use error::BackupError;
pub use header::{Head, Header, Place};
pub use make::{Sealing, begin};
pub use read::{Locked, Unlocked};
pub use rows::{RowReader, put_end, put_row};
