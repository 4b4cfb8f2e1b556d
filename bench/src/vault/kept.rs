//! Vaults that take minutes to fill, kept for later runs.
//!
//! A run works on a copy: what it adds, or spoils with a `kill -9`, is not there the next time.

use std::{
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use vaultd::store::SCHEMA_VERSION;

use super::{Place, StoreSize};
use crate::{
    fill::read_tokens,
    number::{float, grouped},
    run::say,
};

/// A vault that does not run and has many tokens.
#[derive(Debug)]
pub(crate) struct Kept {
    place: Place,
    note: Note,
}

/// What is known of it; written when it is whole.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
struct Note {
    seed: u64,
    records: u64,
    closed_bytes: u64,
    compacted_bytes: u64,
}

impl Kept {
    /// The vault with `records` tokens in `dir`, made with `program` unless it is there.
    pub(crate) fn open_or_make(program: &Path, dir: &Path, records: u64, seed: u64) -> Result<Self> {
        // A format of the store of its own has a vault of its own.
        let dir = dir.join(format!("{records}-v{SCHEMA_VERSION}"));
        let place = Place::at(program, &dir.join(VAULT))?;
        match fs::read_to_string(dir.join(NOTE)) {
            Ok(text) => {
                let note = serde_json::from_str(&text).context("reading the note of a kept vault")?;
                Ok(Self { place, note })
            }
            Err(_) => Self::make(place, &dir, records, seed),
        }
    }

    fn make(place: Place, dir: &Path, records: u64, seed: u64) -> Result<Self> {
        let what = grouped(float(records));
        say(&format!("making a vault with {what} tokens in {}, once: this takes minutes", dir.display()))?;
        if dir.exists() {
            // Without a note it is what an interrupted run has left.
            fs::remove_dir_all(dir).with_context(|| format!("removing {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let begin = Instant::now();
        place.make_with_dev()?;
        place.fill(seed, records, EVERY)?;
        say(&format!("filled in {:.0} s, compacting it", begin.elapsed().as_secs_f64()))?;
        let StoreSize { closed, compacted } = place.compact()?;
        let note = Note { seed, records, closed_bytes: closed, compacted_bytes: compacted };
        fs::write(dir.join(NOTE), serde_json::to_string(&note)? + "\n").context("writing a note")?;
        Ok(Self { place, note })
    }

    /// A copy named `name` in `dir`, with some of its tokens, evenly spread over the store.
    pub(crate) fn copy(&self, program: &Path, dir: &Path, name: &str) -> Result<(Place, Vec<String>)> {
        let place = Place::at(program, &dir.join(name))?;
        say(&format!("copying the vault with {} tokens", grouped(float(self.note.records))))?;
        copy(self.place.dir(), place.dir())?;
        // As they stand in its files.
        let (from, to) = (absolute(self.place.dir())?, absolute(place.dir())?);
        for file in ["vaultd.toml", "softhsm/softhsm2.conf"] {
            let path = place.dir().join(file);
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            fs::write(&path, text.replace(&from, &to))
                .with_context(|| format!("writing {}", path.display()))?;
        }
        // The JWT that was made with the vault may have ended.
        place.make_with_dev()?;
        let tokens = read_tokens(&place.dir().join("tokens"))?;
        Ok((place, tokens))
    }

    /// The deck of its PANs.
    pub(crate) fn seed(&self) -> u64 {
        self.note.seed
    }

    /// How much disk its store takes.
    pub(crate) fn store(&self) -> StoreSize {
        StoreSize { closed: self.note.closed_bytes, compacted: self.note.compacted_bytes }
    }
}

/// Copies a directory that is its owner's alone.
fn copy(from: &Path, to: &Path) -> Result<()> {
    let failed = || format!("copying {} to {}", from.display(), to.display());
    DirBuilder::new().mode(0o700).create(to).with_context(failed)?;
    for entry in fs::read_dir(from).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let (source, target): (PathBuf, _) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().with_context(failed)?;
        if kind.is_dir() {
            copy(&source, &target)?;
        } else if kind.is_file() {
            fs::copy(&source, &target).with_context(failed)?;
        }
    }
    Ok(())
}

fn absolute(path: &Path) -> Result<String> {
    let path = fs::canonicalize(path).with_context(|| format!("looking for {}", path.display()))?;
    path.into_os_string().into_string().ok().context("a path that is not UTF-8")
}

/// The vault itself.
const VAULT: &str = "vault";
/// What is known of it.
const NOTE: &str = "note.json";
/// Every how manieth token is kept for reading: with 20 records on a page, requests for them still come to every page.
const EVERY: u64 = 10;
