//! Paths of the API.

use std::fmt::Write as _;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::Error;

/// The path `base` with `segments` below it, such as `/v1/tokens/{token}`.
///
/// Each is percent-encoded, so whatever a caller passes stays one path segment: `/`, `?` and `..` cannot
/// lead anywhere else.
pub(crate) fn under<const N: usize>(base: &str, segments: [&str; N]) -> String {
    let mut path = base.to_owned();
    for segment in segments {
        path.push('/');
        let dots_only = segment.bytes().all(|byte| byte == b'.');
        encode(&mut path, segment, |byte| is_unreserved(byte) && !dots_only);
    }
    path
}

/// The path `base` with the fields of `query` that are there behind it (RFC 3986, 3.4).
pub(crate) fn query(base: &str, query: &impl Serialize) -> Result<String, Error> {
    let unusable = |_| Error::Config("the query cannot be written".into());
    let fields: Map<String, Value> =
        serde_json::to_value(query).and_then(serde_json::from_value).map_err(unusable)?;
    let mut path = base.to_owned();
    for (place, (name, value)) in fields.iter().enumerate() {
        path.push(if place == 0 { '?' } else { '&' });
        encode(&mut path, name, is_unreserved);
        path.push('=');
        match value {
            Value::String(text) => encode(&mut path, text, is_unreserved),
            other => encode(&mut path, &other.to_string(), is_unreserved),
        }
    }
    Ok(path)
}

fn encode(path: &mut String, text: &str, stays: impl Fn(u8) -> bool) {
    for byte in text.bytes() {
        if stays(byte) {
            path.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use vault_api::AuditQuery;

    use super::*;

    fn token(name: &str) -> String {
        under("/v1/tokens", [name])
    }

    #[test]
    fn a_token_of_the_vault_stays_as_it_is() {
        for name in ["0198c0de-7a31-7c55-9d5e-0a1b2c3d4e5f", "4111118273641111", "tok_3yZe7d"] {
            assert_eq!(token(name), format!("/v1/tokens/{name}"));
        }
    }

    #[test]
    fn anything_else_stays_one_segment() {
        assert_eq!(token("a/../b"), "/v1/tokens/a%2F..%2Fb");
        assert_eq!(token(".."), "/v1/tokens/%2E%2E");
        assert_eq!(token("a?b#c%d e"), "/v1/tokens/a%3Fb%23c%25d%20e");
        assert_eq!(token("ü\r\n"), "/v1/tokens/%C3%BC%0D%0A");
        assert_eq!(under("/v1/honey", ["a/b", "c"]), "/v1/honey/a%2Fb/c");
    }

    #[test]
    fn a_query_holds_what_was_said_and_cannot_be_broken_out_of() {
        assert_eq!(query("/v1/audit", &AuditQuery::default()).unwrap(), "/v1/audit");
        let asked = AuditQuery {
            after: Some(7),
            subject: Some("a&limit=9 ü".into()),
            since: Some("2026-01-02T03:04:05+01:00".parse().unwrap()),
            ..AuditQuery::default()
        };
        assert_eq!(
            query("/v1/audit", &asked).unwrap(),
            "/v1/audit?after=7&since=2026-01-02T02%3A04%3A05Z&subject=a%26limit%3D9%20%C3%BC"
        );
    }
}
