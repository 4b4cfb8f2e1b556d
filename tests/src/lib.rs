//! What the end-to-end tests share: a vault in one line, raw HTTP, JWTs of any kind, card numbers.
//!
//! Everything is real: the `vaultd` binary of this build, a PKCS#11 token, files, sockets and signals. A test that fails
//! prints the daemon's log.
#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::missing_panics_doc,
    reason = "test support: a panic is how it reports"
)]

mod audit_log;
mod bait;
mod caller;
mod ctl;
mod disk;
mod http;
mod jwt;
mod kernel_audit;
mod ledger;
mod load;
mod made_log;
mod memory;
mod model;
mod module;
mod not_run;
mod operator;
mod pans;
mod power;
mod refusal;
mod tamper;
mod vault;
mod wait;

pub mod store_load;

pub use audit_log::AuditLog;
pub use bait::Bait;
pub use caller::Caller;
pub use ctl::{Limit, Ran, finish};
pub use disk::SmallDisk;
pub use http::{
    Answer, connect, exchange, exchange_if_whole, read_answer, read_answer_if_whole, read_answers,
    read_answers_until_silent,
};
pub use jwt::Minter;
pub use kernel_audit::KernelAudit;
pub use load::{Load, Settled, Tally};
pub use made_log::{AuditKey, MadeLog};
pub use memory::{Hit, Spelling, by_place, find_pans};
pub use model::{Model, Step, Template};
pub use module::Module;
pub use not_run::not_run;
pub use operator::{
    PURPOSES, assert_all_there, destroy_retired, fast_vault, fast_vault_with, fill, keys, rewrap, rotate,
    short_lived,
};
pub use pans::{Pans, luhn_valid, seeded_random};
pub use power::{Disk, Left, Recording, Trace, crash_points, memory_dir};
pub use refusal::{NO_ANSWER, Refusal};
pub use tamper::{Edit, Tamperer};
pub use vault::{Vault, built, chaotic, run, signal, vaultd};
pub use wait::{Pulse, until};
