//! The commands: each puts the rooms together for one purpose. The only place that knows all of them.

mod audit;
mod boot;
mod check;
mod confinement;
mod dev;
mod error;
mod init;
mod issuers;
mod logging;
mod measure;
mod peers;
mod serve;
mod watchdog;

pub use audit::{audit_resume, audit_verify};
pub use boot::become_user;
pub use check::{CheckOptions, check};
pub use dev::{DevOptions, dev};
pub use error::CommandError;
pub use init::init;
pub use serve::{serve, serve_unaudited};
