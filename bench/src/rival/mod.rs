//! What a user might take instead of the vault: each started, filled and asked for the same three things.
//!
//! Neither has an HSM, authorization or an audit log; both keep their keys in memory. `bench/alternatives` has them.

mod flask;
mod postgres;

use std::{
    env,
    path::{Path, PathBuf},
    process::Child,
    time::Duration,
};

use anyhow::Result;

pub(crate) use self::{flask::Flask, postgres::Postgres};
use crate::{load::Load, process::terminate};

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum What {
    /// A token for a card that was never seen.
    New,
    /// The token of a card that was.
    Known,
    /// The card of a token.
    Read,
}

impl What {
    /// In the order of all samples.
    pub(crate) const ALL: [Self; 3] = [Self::New, Self::Known, Self::Read];
}

/// An alternative that runs.
pub(crate) trait Rival {
    /// Answers a second over `time`, with the budget's number of connections.
    fn sample(&mut self, load: &Load, what: What, time: Duration) -> Result<f64>;
}

/// A process that ends when this is dropped.
#[derive(Debug)]
struct Guarded(Child);

impl Drop for Guarded {
    fn drop(&mut self) {
        // There is nobody left to tell; `terminate` has killed what would not end.
        let _ = terminate(&mut self.0);
    }
}

/// The program `name` on the path or in one of `places`.
fn find(name: &str, places: impl IntoIterator<Item = PathBuf>) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut places = env::split_paths(&path).chain(places).map(|place| place.join(name));
    places.find(|program| program.is_file())
}

/// An absolute path that a command line can hold.
fn text(path: &Path) -> String {
    path.display().to_string()
}
