//! `head.json`: how far the log goes.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::line::{Checkpoint, Hash, MAX_LINE_BYTES, is_vault, parse_hash};

/// Its name.
pub(super) const HEAD_FILE: &str = "head.json";

/// How often it is read until it is twice the same.
const MAX_LOOKS: usize = 100;

/// What `head.json` says, nothing of it believed yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub(super) vault: String,
    pub(super) file: u64,
    pub(super) seq: u64,
    pub(super) hash: Hash,
    /// Statement and signature of a checkpoint, as an object.
    checkpoint: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Form {
    v: u8,
    vault: String,
    file: u64,
    seq: u64,
    hash: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    checkpoint: Option<Box<RawValue>>,
}

impl Head {
    /// The head in `dir`; the inner error says what is wrong with its content.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(dir: &Path) -> io::Result<Result<Self, &'static str>> {
        let mut text = read_once(dir)?;
        // Whoever writes it now may have written half of it.
        for _ in 0..MAX_LOOKS {
            let again = read_once(dir)?;
            if again == text {
                break;
            }
            text = again;
        }
        Ok(Self::parse(&text).ok_or("is not of the form that vaultd writes"))
    }

    /// Reads the content of a `head.json`, which is one line that blanks may follow, written in one way only.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?.strip_suffix('\n')?.trim_end_matches(' ');
        let form: Form = serde_json::from_str(text).ok()?;
        if form.v != 1 || !is_vault(&form.vault) || serde_json::to_string(&form).ok()? != text {
            return None;
        }
        let Form { vault, file, seq, hash, checkpoint, .. } = form;
        let checkpoint = checkpoint.map(|line| line.get().to_owned());
        Some(Self { vault, file, seq, hash: parse_hash(&hash)?, checkpoint })
    }

    /// Its checkpoint, as an object without its first brace.
    pub(super) fn members(&self) -> Option<&str> {
        self.checkpoint.as_deref()?.strip_prefix('{')
    }

    /// Its checkpoint, taken apart.
    pub(super) fn checkpoint(&self) -> Option<Checkpoint<'_>> {
        Checkpoint::parse(self.members()?)
    }

    /// Whether it says that the vault was stopped and the log ended in good order.
    pub(super) fn is_closed(&self) -> bool {
        self.checkpoint().is_some_and(|checkpoint| {
            // The file may have been turned over in between.
            checkpoint.fields.is_final && matches!(self.seq.saturating_sub(checkpoint.fields.upto), 1 | 2)
        })
    }
}

fn read_once(dir: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    let most = u64::try_from(2 * MAX_LINE_BYTES).unwrap_or(u64::MAX);
    File::open(dir.join(HEAD_FILE))?.take(most).read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blanks_may_follow_and_nothing_else_may_differ() {
        let hash = "0f".repeat(32);
        let text = format!(r#"{{"v":1,"vault":"00112233aabbccdd","file":1,"seq":7,"hash":"{hash}"}}"#);
        let head = Head::parse(format!("{text}\n").as_bytes()).unwrap();
        assert_eq!((head.file, head.seq, head.hash, head.is_closed()), (1, 7, [15; 32], false));
        assert_eq!(Head::parse(format!("{text}   \n").as_bytes()), Some(head));
        for bad in [
            text.clone(),
            format!("{text}\n\n"),
            format!(" {text}\n"),
            format!("{}\n", text.replace(",\"seq", ", \"seq")),
            format!("{}\n", text.replace("dd\"", "DD\"")),
            format!("{}\n", text.replace("\"v\":1", "\"v\":2")),
            format!("{}\n", text.replace('}', ",\"more\":1}")),
        ] {
            assert_eq!(Head::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
