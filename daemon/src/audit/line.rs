//! Lines, and the chain they form.

use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sha2::{Digest, Sha256};

/// The most bytes of a line: a batch of 1,000 tokens is far below.
pub(super) const MAX_LINE_BYTES: usize = 1_048_576;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    Begin,
    Access,
    Event,
    Checkpoint,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Begin => "begin",
            Self::Access => "access",
            Self::Event => "event",
            Self::Checkpoint => "checkpoint",
        }
    }
}

/// Where the log ends: what the next line has to continue.
#[derive(Clone, Debug)]
pub(super) struct Chain {
    vault: String,
    /// The last line's number; 0 if there is none.
    pub(super) seq: u64,
    /// The last line's hash; zeros if there is none.
    pub(super) hash: Hash,
    time: Timestamp,
}

impl Chain {
    /// The beginning of the log of the vault that is called `vault`.
    pub(super) fn new(vault: String) -> Self {
        Self { vault, seq: 0, hash: Hash::default(), time: Timestamp::MIN }
    }

    pub(super) fn vault(&self) -> &str {
        &self.vault
    }

    /// The time of lines that are written at `now`: clocks may go back, the log does not.
    pub(super) fn stamp(&mut self, now: Timestamp) -> String {
        self.time = self.time.max(now);
        timestamp(self.time)
    }

    /// How far its last line's time is ahead of `now`, if it is.
    pub(super) fn ahead_of(&self, now: Timestamp) -> SignedDuration {
        self.time.duration_since(now)
    }

    /// Appends a line to `out`, with the `time` that [`Chain::stamp`] gave.
    pub(super) fn append(&mut self, out: &mut Vec<u8>, kind: Kind, time: &str, tail: &[u8]) {
        let start = out.len();
        self.seq += 1;
        let head = format!(
            r#"{{"v":1,"seq":{},"time":"{time}","vault":"{}","type":"{}","prev":"{}""#,
            self.seq,
            self.vault,
            kind.as_str(),
            hex(&self.hash),
        );
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(tail);
        self.hash = hash(out.get(start..).unwrap_or_default());
        out.push(b'\n');
    }

    /// Takes over `line`, which was read, as the next one. Says what is wrong with it otherwise.
    pub(super) fn follow(&mut self, line: &[u8]) -> Result<Head, &'static str> {
        let head = Head::parse(line).ok_or("is not a line of the log")?;
        if head.vault != self.vault {
            return Err("belongs to another vault");
        }
        if head.seq != self.seq + 1 {
            return Err("has not the number that follows");
        }
        if head.prev != hex(&self.hash) {
            return Err("does not name the hash of the line before");
        }
        if head.time < self.time {
            return Err("is older than the line before");
        }
        self.adopt(&head, line);
        Ok(head)
    }

    /// Begins the chain at `line`, whatever came before.
    pub(super) fn adopt(&mut self, head: &Head, line: &[u8]) {
        (self.seq, self.hash, self.time) = (head.seq, hash(line), head.time);
    }

    /// Goes on after the line `seq` with `hash`, which is known from elsewhere.
    pub(super) fn jump(&mut self, seq: u64, hash: Hash) {
        (self.seq, self.hash) = (seq, hash);
    }
}

/// The fields that every line begins with.
#[derive(Debug, Deserialize)]
pub(super) struct Head {
    v: u8,
    pub(super) seq: u64,
    pub(super) time: Timestamp,
    vault: String,
    #[serde(rename = "type")]
    pub(super) kind: Kind,
    prev: String,
}

impl Head {
    /// Whether the line is of the log of the vault that is called `vault`.
    pub(super) fn is_of(&self, vault: &str) -> bool {
        self.vault == vault
    }

    /// The number of the line `line`, where it stands as the format says, without a look at the rest.
    pub(super) fn seq_of(line: &[u8]) -> Option<u64> {
        let seq = line.strip_prefix(br#"{"v":1,"seq":"#)?.split(|byte| *byte == b',').next()?;
        std::str::from_utf8(seq).ok()?.parse().ok()
    }

    /// Reads the line `line`, given without its line feed.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        serde_json::from_slice(line).ok().filter(|head: &Self| head.v == 1)
    }
}

/// The name of the vault with this id in its log.
pub(super) fn vault_name(vault_id: &[u8; 16]) -> String {
    let (name, _) = vault_id.split_at(VAULT_NAME_BYTES);
    hex(name)
}

/// SHA-256 (FIPS 180-4).
pub(super) fn hash(line: &[u8]) -> Hash {
    Sha256::digest(line).into()
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// The hash that `text` is the hexadecimal of.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    let mut hash = Hash::default();
    if text.len() != 2 * hash.len() {
        return None;
    }
    for (byte, place) in hash.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(text.get(place..place + 2)?, 16).ok()?;
    }
    Some(hash)
}

/// UTC with microseconds (RFC 3339).
pub(super) fn timestamp(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

const VAULT_NAME_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn chain() -> Chain {
        Chain::new(vault_name(&[0xab; 16]))
    }

    #[test]
    fn what_is_appended_can_be_followed() {
        let (mut writer, mut reader, mut log) = (chain(), chain(), Vec::new());
        for n in 0..3 {
            let time = writer.stamp(Timestamp::new(1_000 - n, 0).unwrap());
            writer.append(&mut log, Kind::Event, &time, br#","event":"start"}"#);
        }
        for line in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let head = reader.follow(line).unwrap();
            assert_eq!(head.time, Timestamp::new(1_000, 0).unwrap(), "a clock that goes back");
        }
        assert_eq!((reader.seq, reader.hash), (3, writer.hash));
        let first = String::from_utf8(log).unwrap();
        let start = format!(
            r#"{{"v":1,"seq":1,"time":"1970-01-01T00:16:40.000000Z","vault":"abababababababab","type":"event","prev":"{}","event":"start"}}"#,
            "0".repeat(64)
        );
        assert_eq!(first.lines().next().unwrap(), start);
        assert!(chain().follow(first.lines().nth(1).unwrap().as_bytes()).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_byte_breaks_the_chain(
            details in prop::collection::vec("[a-z \\u{e4}]{0,20}", 2..8),
            place: prop::sample::Index,
            flip in 1_u8..,
        ) {
            let (mut writer, mut log) = (chain(), Vec::new());
            let time = writer.stamp(Timestamp::UNIX_EPOCH);
            for detail in &details {
                writer.append(&mut log, Kind::Event, &time, format!(r#","detail":"{detail}"}}"#).as_bytes());
            }
            let whole = log.clone();
            let follow = |log: &[u8]| {
                let mut reader = chain();
                let mut lines = log.strip_suffix(b"\n").unwrap_or(log).split(|byte| *byte == b'\n');
                let followed = lines.try_for_each(|line| reader.follow(line).map(drop));
                followed.is_ok() && (reader.seq, reader.hash) == (writer.seq, writer.hash)
            };
            prop_assert!(follow(&whole));
            // The last line feed is no part of what is hashed.
            let place = place.index(log.len() - 1);
            log[place] ^= flip;
            prop_assert!(!follow(&log), "{:?}", String::from_utf8_lossy(&log));
        }
    }

    #[test]
    fn hexadecimal_goes_both_ways() {
        let hash = hash(b"abc");
        assert!(hex(&hash).starts_with("ba7816bf"));
        assert_eq!(parse_hash(&hex(&hash)), Some(hash));
        assert_eq!(parse_hash("ba"), None);
        assert_eq!(parse_hash(&"zz".repeat(32)), None);
    }
}
