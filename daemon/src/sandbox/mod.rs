//! What the daemon takes from itself, and what it takes from the operating system at a low level.
//!
//! Beside [`crate::hsm`] the only module with `unsafe`. Every block says why it is sound.

mod activation;
mod confine;
mod identity;
mod landlock;
mod memory;
mod peer;
mod permissions;
mod process;
mod syscalls;
mod violation;

pub use activation::{InheritedSockets, inherited_sockets};
pub use confine::{ConfineError, Confinement, confine};
pub use identity::{Identity, IdentityError, drop_privileges, refuse_root};
pub use landlock::View;
pub use memory::{allow_locked_memory, lock_memory};
pub use peer::{peer_process, unit_of};
pub use permissions::{
    PermissionError, check_private_dir, check_private_file, check_unalterable_file, make_private_dir,
};
pub use process::{exit_without_handlers, harden, ignore_hangups, make_files_private, raise_open_files};
pub use syscalls::OnViolation;
