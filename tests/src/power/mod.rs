//! Power failures: what a program wrote to some directories is recorded (`tests/power-recorder`), and what a power failure at
//! any moment might have left of it is made of the record.
//!
//! What is counted on is what POSIX and disks promise, and no more. A change to a file is durable once a wait for that
//! file has ended that began after it; a name, once a wait for its directory has. Of everything else any part may be
//! there: each sector of 512 bytes as it was at any moment since it was last durable, each with its own moment; a file
//! as long as it ever was since; each name as it was at any moment since.

mod disk;
mod file;
mod recording;
mod trace;

pub use disk::{Disk, Left};
pub use recording::{Recording, memory_dir};
pub use trace::Trace;

/// How many power failures are tried: `VAULT_CRASH_POINTS`, or `few` where somebody waits for the end.
pub fn crash_points(few: usize) -> usize {
    std::env::var("VAULT_CRASH_POINTS").ok().and_then(|text| text.parse().ok()).unwrap_or(few)
}
