//! The commands: each puts the rooms together for one purpose. The only place that knows all of them.

mod audit;
mod backup;
mod boot;
mod check;
mod confinement;
mod deadline;
mod dev;
mod draft;
mod error;
mod init;
mod issuers;
mod lines;
mod logging;
mod measure;
mod peers;
mod progress;
mod reload;
mod restore;
mod restore_keys;
mod serve;
mod signals;
mod tasks;
mod watchdog;

pub use audit::{audit_resume, audit_verify};
pub use backup::backup;
pub use boot::become_user;
pub use check::{CheckOptions, check};
pub use dev::{DevOptions, dev};
pub use error::CommandError;
pub use init::init;
pub use logging::tell_panics;
pub use restore::{RestoreOptions, restore};
pub use serve::{serve, serve_unaudited};
