//! Reading the audit log on the admin socket.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// The most entries of one answer.
pub const MAX_AUDIT_LIMIT: usize = 1_000;
/// The longest an answer waits for an entry that matches, in seconds.
pub const MAX_AUDIT_WAIT_S: u64 = 30;

/// Every operation that an entry may name in `op`.
pub const AUDIT_OPERATIONS: [&str; 25] = [
    "tokenize",
    "tokenize.batch",
    "detokenize",
    "detokenize.masked",
    "detokenize.batch",
    "tokens.read",
    "tokens.change",
    "tokens.delete",
    "tokens.search",
    "tokens.compare",
    "login",
    "envelopes.seal",
    "envelopes.open",
    "keys.list",
    "keys.rotate",
    "keys.destroy",
    "rewrap.start",
    "config.reload",
    "locks.list",
    "locks.unlock",
    "honey.list",
    "honey.plant",
    "honey.remove",
    "audit.read",
    "backup",
];

/// The query of `GET /v1/audit`: where to begin, how much to give, and which entries. Without `last` and `after` it begins
/// at the first entry of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::IntoParams))]
#[cfg_attr(feature = "openapi", into_params(parameter_in = Query))]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// The last so many entries that match, 1 to 1,000; not together with `after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000))]
    pub last: Option<usize>,
    /// Only entries whose `seq` is greater.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<u64>,
    /// The most entries of the answer, 1 to 1,000; 100 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(minimum = 1, maximum = 1000))]
    pub limit: Option<usize>,
    /// How long to wait for an entry if none matches yet, 0 to 30 seconds; 0 if left out, and never
    /// longer than half of the vault's own time limit. An entry about reading the log (`audit.read`) does not end it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", param(maximum = 30))]
    pub wait: Option<u64>,
    /// Only entries about this token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// Only entries of this subject.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Only entries of this issuer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// Only entries of this tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// Only entries of this operation, such as `detokenize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<String>,
    /// Only entries with this outcome: `granted`, `refused` or `failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// Only entries of this type: `begin`, `access`, `event` or `checkpoint`.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only entries of this time or later; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Only entries before this time; RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// The answer of `GET /v1/audit`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AuditAnswer {
    /// The entries in the order of their `seq`, each as it stands in the log (`docs/audit-log.md`).
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<serde_json::Value>))]
    pub entries: Vec<Box<RawValue>>,
    /// What to give as `after` to go on.
    pub next: u64,
    /// Whether it stopped before the end of the log.
    pub more: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_comes_through_as_it_stands_in_the_log() {
        let line = r#"{"v":1,"seq":7,"time":"2026-01-02T03:04:05.000006Z","from":"the future"}"#;
        let text = format!(r#"{{"entries":[{line}],"next":7,"more":false}}"#);
        let answer: AuditAnswer = serde_json::from_str(&text).unwrap();
        assert_eq!(answer.entries[0].get(), line);
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
    }

    #[test]
    fn an_empty_query_says_nothing_and_an_unknown_word_is_refused() {
        assert_eq!(serde_json::to_string(&AuditQuery::default()).unwrap(), "{}");
        let query: AuditQuery = serde_json::from_str(r#"{"type":"event"}"#).unwrap();
        assert_eq!(query.kind.as_deref(), Some("event"));
        assert!(serde_json::from_str::<AuditQuery>(r#"{"who":"me"}"#).is_err());
    }
}
