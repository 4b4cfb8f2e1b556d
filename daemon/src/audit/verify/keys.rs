//! The public keys that checkpoints are verified with.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::jose::KeySet;

/// The largest file of keys that is looked at, in bytes.
const MAX_KEY_FILE_BYTES: u64 = 1_048_576;

/// The longest `kid` that is repeated. Thumbprints have 43 characters.
const MAX_KID_CHARS: usize = 64;

/// What keys say about a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is of the key.
    Good,
    /// It is not of the key that it names.
    Bad,
    /// There is no such key.
    UnknownKey,
}

/// The keys of one file, by RFC 7638 thumbprint, and how many signatures each of them has verified.
pub(super) struct Keys {
    path: PathBuf,
    /// Whether the file may have gained a key meanwhile: it is the one that the daemon writes.
    is_live: bool,
    set: KeySet,
    pub(super) used: BTreeMap<String, u64>,
}

impl Keys {
    /// The keys of the file at `path`, which is a JWK set or PEM. `is_live` says whether it is read again when a key
    /// is missing.
    pub(super) fn load(path: &Path, is_live: bool) -> Result<Self, String> {
        let set = read(path)?;
        let used = set.kids().map(|kid| (kid.to_owned(), 0)).collect();
        Ok(Self { path: path.to_owned(), is_live, set, used })
    }

    /// Counts a checkpoint of the key `kid`, which has been checked.
    pub(super) fn count(&mut self, kid: &str) {
        *self.used.entry(kid.to_owned()).or_default() += 1;
    }

    /// Whether the key `kid` made `signature` (RS256, base64url) over `statement`.
    pub(super) fn check(&mut self, kid: &str, statement: &str, signature: &str) -> Verdict {
        if self.is_live
            && self.set.key(kid).is_none()
            && let Ok(set) = read(&self.path)
        {
            self.set = set;
        }
        let Some(key) = self.set.key(kid) else { return Verdict::UnknownKey };
        if key.verify(statement.as_bytes(), signature) { Verdict::Good } else { Verdict::Bad }
    }
}

/// A key's name as it may be shown to people, whoever wrote it.
pub(super) fn shown(kid: &str) -> &str {
    let is_plain = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    if kid.len() <= MAX_KID_CHARS && kid.chars().all(is_plain) { kid } else { "(a name of no known form)" }
}

fn read(path: &Path) -> Result<KeySet, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_KEY_FILE_BYTES).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    // Names that the file gives would have to be believed; a thumbprint is what the key is.
    if let Ok(mut set) = serde_json::from_str::<Value>(&text) {
        for key in set.get_mut("keys").and_then(Value::as_array_mut).into_iter().flatten() {
            key.as_object_mut().and_then(|key| key.remove("kid"));
        }
        text = set.to_string();
    }
    KeySet::parse(&text).map_err(|error| error.to_string())
}
