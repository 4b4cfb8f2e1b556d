//! What entries say: the fields of each type of line after the six that every line has.

use serde::Serialize;

/// How a request ended (PCI DSS 10.2.2: success or failure).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// It was done.
    Granted,
    /// The caller may not, or asked for what cannot be.
    Refused,
    /// The vault could not.
    Failed,
}

impl Outcome {
    /// The outcome that the HTTP status `status` stands for.
    pub fn of_status(status: u16) -> Self {
        match status {
            ..400 => Self::Granted,
            400..500 => Self::Refused,
            500.. => Self::Failed,
        }
    }
}

/// An item of a batch that was not done.
#[derive(Clone, Debug, Serialize)]
pub struct FailedItem {
    /// Its token, as far as it may be written down.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The problem's code.
    pub code: &'static str,
}

/// One request. Fields are those of `docs/audit-log.md`; what is `None` or empty is left out.
#[derive(Debug, Serialize)]
pub struct Access<'a> {
    /// The answer's `x-request-id`.
    pub request_id: &'a str,
    /// The JWT's `sub`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<&'a str>,
    /// The JWT's `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issuer: Option<&'a str>,
    /// The tenant it acted for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<&'a str>,
    /// User id of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group id of the peer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Process id of the peer when it connected.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// The peer's systemd unit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<&'a str>,
    /// What was asked for.
    pub op: &'a str,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer's HTTP status; none where nobody was left to answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// The problem's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<&'a str>,
    /// The socket it came through.
    pub via: &'a str,
    /// Tokens it was about, or that it was given.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub tokens: &'a [String],
    /// Items of a batch that were not done.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub failed: &'a [FailedItem],
    /// The envelope's id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<&'a str>,
    /// The key it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// Another caller it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub about: Option<&'a str>,
    /// The subject of the second JWT.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<&'a str>,
    /// Its issuer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approved_by_issuer: Option<&'a str>,
    /// More about it, for people. Never card data, tokens or secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// Whether somebody should look at once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alarm: bool,
}

/// The entry of a request, ready to be written.
pub struct Entry(pub(crate) Vec<u8>);

impl Entry {
    /// The entry that says `access`.
    pub fn new(access: &Access<'_>) -> Self {
        Self(tail(access))
    }
}

/// Something that happened without a request.
#[derive(Debug, Default, Serialize)]
pub struct Event<'a> {
    /// What: a short name with dots.
    pub event: &'a str,
    /// More about it, for people. Never card data, tokens or secrets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<&'a str>,
    /// The key it was about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<&'a str>,
    /// Bytes that were cut off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// SHA-256 of what was cut off, in hexadecimal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sha256: Option<&'a str>,
    /// Whether somebody should look at once.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub alarm: bool,
}

/// The first line of a file.
#[derive(Debug, Serialize)]
pub(super) struct Begin<'a> {
    pub(super) file: u64,
    pub(super) vaultd: &'a str,
    /// Why the log goes on although some of it is lost: somebody accepted that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) resumed: Option<&'a str>,
}

/// The fields of `value` as they follow the first six: `,"name":…}`.
pub(super) fn tail(value: &impl Serialize) -> Vec<u8> {
    let mut tail = Vec::with_capacity(USUAL_BYTES);
    // Structs with string keys, written to a vector: there is nothing to fail.
    let _ = serde_json::to_writer(&mut tail, value);
    if let Some(brace) = tail.first_mut() {
        *brace = b',';
    }
    tail
}

const USUAL_BYTES: usize = 512;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_left_out() {
        let event = Event { event: "start", ..Event::default() };
        assert_eq!(tail(&event), br#","event":"start"}"#);
        let event = Event { alarm: true, detail: Some("a \"b\"\n"), ..event };
        assert_eq!(tail(&event), br#","event":"start","detail":"a \"b\"\n","alarm":true}"#);
    }

    #[test]
    fn a_status_is_an_outcome() {
        for (status, outcome) in [
            (200, Outcome::Granted),
            (204, Outcome::Granted),
            (400, Outcome::Refused),
            (429, Outcome::Refused),
            (500, Outcome::Failed),
            (503, Outcome::Failed),
        ] {
            assert_eq!(Outcome::of_status(status), outcome, "{status}");
        }
    }
}
