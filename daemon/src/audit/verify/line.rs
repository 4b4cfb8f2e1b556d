//! A line taken apart, byte by byte: whatever deviates from the form is not a line.

use std::borrow::Cow;

use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest, Sha256};

/// The longest line that is looked at, in bytes. A batch of 1,000 tokens is far below.
pub(super) const MAX_LINE_BYTES: usize = 1_048_576;

/// Characters of a time: `2026-11-21T15:41:08.123456Z`.
const TIME_CHARS: usize = 27;
/// Characters of a vault's name.
const VAULT_CHARS: usize = 16;
/// Characters of a hash.
const HASH_CHARS: usize = 64;

/// A SHA-256.
pub(super) type Hash = [u8; 32];

/// SHA-256 (FIPS 180-4) of a line without its line feed.
pub(super) fn hash(line: &[u8]) -> Hash {
    Sha256::digest(line).into()
}

/// Lower-case hexadecimal.
pub(super) fn hex(hash: &Hash) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    hash.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// The hash that `text` is, in lower-case hexadecimal.
pub(super) fn parse_hash(text: &str) -> Option<Hash> {
    if text.len() != HASH_CHARS {
        return None;
    }
    let mut hash = Hash::default();
    for (byte, pair) in hash.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = pair.iter().try_fold(0, |byte, digit| Some(byte << 4 | nibble(*digit)?))?;
    }
    Some(hash)
}

/// Whether `text` has the form of a vault's name.
pub(super) fn is_vault(text: &str) -> bool {
    text.len() == VAULT_CHARS && text.bytes().all(|digit| nibble(digit).is_some())
}

/// Number of a line, or of a file: decimal, without leading zeros.
fn number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|digit| digit.is_ascii_digit()) && !text.starts_with('0');
    is_plain.then(|| text.parse().ok())?
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn is_time(text: &str) -> bool {
    text.bytes().zip("0000-00-00T00:00:00.000000Z".bytes()).all(|(is, form)| match form {
        b'0' => is.is_ascii_digit(),
        _ => is == form,
    })
}

/// What a line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The first of a file.
    Begin,
    /// A request.
    Access,
    /// What happened without a request.
    Event,
    /// A signature.
    Checkpoint,
}

/// A line, nothing of it believed yet.
#[derive(Debug)]
pub struct Line<'l> {
    /// Its number.
    pub seq: u64,
    /// Its time, as it is written; later ones compare greater.
    pub time: &'l str,
    /// The vault's name.
    pub vault: &'l str,
    /// What it is.
    pub kind: Kind,
    /// The hash of the line before.
    pub prev: [u8; 32],
    text: &'l str,
    rest: &'l str,
}

impl<'l> Line<'l> {
    /// Takes `line`, given without its line feed, apart.
    ///
    /// # Errors
    /// Why it is not a line of an audit log.
    pub fn parse(line: &'l [u8]) -> Result<Self, &'static str> {
        let text = std::str::from_utf8(line).map_err(|_| "is not UTF-8")?;
        let parsed = Self::first_fields(text).ok_or("does not begin with the fields of a line")?;
        if parsed.rest.len() < 2 || serde_json::from_str::<IgnoredAny>(text).is_err() {
            return Err("is not a JSON object");
        }
        Ok(parsed)
    }

    fn first_fields(text: &'l str) -> Option<Self> {
        let (seq, rest) = text.strip_prefix(r#"{"v":1,"seq":"#)?.split_once(',')?;
        let (time, rest) = rest.strip_prefix(r#""time":""#)?.split_at_checked(TIME_CHARS)?;
        let (vault, rest) = rest.strip_prefix(r#"","vault":""#)?.split_at_checked(VAULT_CHARS)?;
        let (kind, rest) = rest.strip_prefix(r#"","type":""#)?.split_once('"')?;
        let (prev, rest) = rest.strip_prefix(r#","prev":""#)?.split_at_checked(HASH_CHARS)?;
        let kind = match kind {
            "begin" => Kind::Begin,
            "access" => Kind::Access,
            "event" => Kind::Event,
            "checkpoint" => Kind::Checkpoint,
            _ => return None,
        };
        let rest = rest.strip_prefix('"').filter(|rest| rest.starts_with(','))?;
        let (seq, prev) = (number(seq)?, parse_hash(prev)?);
        (is_time(time) && is_vault(vault)).then_some(Self { seq, time, vault, kind, prev, text, rest })
    }

    /// What a `begin` line says.
    pub(super) fn begin(&self) -> Option<Begin> {
        serde_json::from_str(self.text).ok()
    }

    /// The `event` of an event.
    pub(super) fn event(&self) -> Option<Cow<'l, str>> {
        serde_json::from_str(self.text).ok().map(|event: Event<'l>| event.event)
    }

    /// Statement and signature of a checkpoint, as an object without its first brace.
    pub(super) fn members(&self) -> &'l str {
        self.rest.strip_prefix(',').unwrap_or_default()
    }
}

/// What a `begin` line says.
#[derive(Deserialize)]
pub(super) struct Begin {
    /// The number of the file.
    pub(super) file: u64,
    /// Present if the log goes on after a loss that somebody accepted.
    pub(super) resumed: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Event<'l> {
    #[serde(borrow)]
    event: Cow<'l, str>,
}

/// A checkpoint, nothing of it verified yet.
pub(super) struct Checkpoint<'l> {
    /// The bytes that are signed.
    pub(super) statement: &'l str,
    /// RS256, in base64url.
    pub(super) signature: &'l str,
    /// What they say.
    pub(super) fields: Statement,
    /// The hash of the line `upto`.
    pub(super) hash: Hash,
}

impl<'l> Checkpoint<'l> {
    /// Takes `"statement":{…},"signature":"…"}` apart.
    pub(super) fn parse(members: &'l str) -> Option<Self> {
        let (statement, signature) = members.rsplit_once(r#","signature":""#)?;
        let (statement, signature) =
            (statement.strip_prefix(r#""statement":"#)?, signature.strip_suffix(r#""}"#)?);
        let fields: Statement = serde_json::from_str(statement).ok()?;
        let hash = parse_hash(&fields.hash)?;
        let is_whole = is_vault(&fields.vault) && fields.time.len() == TIME_CHARS && is_time(&fields.time);
        is_whole.then_some(Self { statement, signature, fields, hash })
    }
}

/// What a checkpoint states.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Statement {
    pub(super) vault: String,
    pub(super) kid: String,
    pub(super) upto: u64,
    hash: String,
    time: String,
    #[serde(rename = "final", default)]
    pub(super) is_final: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(rest: &str) -> String {
        let prev = "0f".repeat(32);
        format!(
            r#"{{"v":1,"seq":7,"time":"2026-11-21T15:41:08.123456Z","vault":"00112233aabbccdd","type":"event","prev":"{prev}"{rest}"#
        )
    }

    #[test]
    fn a_line_is_taken_apart() {
        let text = line(r#","event":"repair","bytes":3}"#);
        let line = Line::parse(text.as_bytes()).unwrap();
        assert_eq!((line.seq, line.kind, line.prev), (7, Kind::Event, [15; 32]));
        assert_eq!((line.time, line.vault), ("2026-11-21T15:41:08.123456Z", "00112233aabbccdd"));
        assert_eq!(line.event().unwrap(), "repair");
        assert!(Checkpoint::parse(line.members()).is_none() && line.begin().is_none());
    }

    #[test]
    fn whatever_deviates_is_not_a_line() {
        let good = line(r#","event":"start"}"#);
        assert!(Line::parse(good.as_bytes()).is_ok());
        for (from, to) in [
            ("{\"v\":1", "{ \"v\":1"),
            ("\"v\":1", "\"v\":2"),
            ("\"seq\":7", "\"seq\":07"),
            ("\"seq\":7", "\"seq\":-7"),
            ("\"seq\":7", "\"seq\":99999999999999999999"),
            ("15:41", "15.41"),
            (".123456Z", ".12345Z"),
            ("aabbccdd", "AABBCCDD"),
            ("\"event\",", "\"Event\","),
            ("\"0f0f", "\"0F0f"),
            (",\"event\":\"start\"}", ",\"event\":\"start\""),
            (",\"event\":\"start\"}", ",\"event\":\"start\"}}"),
            (",\"event\":\"start\"}", "}"),
            (",\"event\":\"start\"}", ""),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good, "{from}");
            assert!(Line::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(Line::parse(b"\xff").is_err());
    }

    #[test]
    fn a_checkpoint_signs_nothing_but_its_statement() {
        let statement = format!(
            r#"{{"vault":"00112233aabbccdd","kid":"k","upto":6,"hash":"{}","time":"2026-11-21T15:41:08.123456Z","final":true}}"#,
            "00".repeat(32)
        );
        let good = line(&format!(r#","statement":{statement},"signature":"abc"}}"#));
        let checkpoint = Checkpoint::parse(Line::parse(good.as_bytes()).unwrap().members()).unwrap();
        assert_eq!((checkpoint.statement, checkpoint.signature), (statement.as_str(), "abc"));
        assert!(checkpoint.fields.is_final && checkpoint.fields.upto == 6);
        for (from, to) in [
            (",\"statement\"", ",\"more\":1,\"statement\""),
            (",\"signature\"", ",\"more\":1,\"signature\""),
            ("\"kid\":\"k\"", "\"kid\":\"k\",\"more\":1"),
        ] {
            let bad = good.replacen(from, to, 1);
            assert!(Checkpoint::parse(Line::parse(bad.as_bytes()).unwrap().members()).is_none(), "{bad}");
        }
    }
}
