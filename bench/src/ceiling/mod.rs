//! What the vault is compared with: each of its parts alone, doing nothing but the work that cannot be left
//! out.
//!
//! A ceiling is measured in the same run as the vault, on the same disk and the same cores, because absolute
//! times drift and ratios hold.

pub(crate) mod disk;
pub(crate) mod empty_handler;
pub(crate) mod hsm;
pub(crate) mod redb;

pub(crate) use self::{disk::Disk, empty_handler::EmptyHandler, hsm::Hsm, redb::Redb};
