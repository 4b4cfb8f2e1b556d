//! Paths of the API.

use std::fmt::Write as _;

/// The path of one token's record, `/v1/tokens/{token}`.
///
/// The token is percent-encoded, so whatever a caller passes stays one path segment: `/`, `?` and `..` cannot
/// lead anywhere else.
pub(crate) fn token(token: &str) -> String {
    let mut path = String::with_capacity("/v1/tokens/".len() + token.len());
    path.push_str("/v1/tokens/");
    let dots_only = token.bytes().all(|byte| byte == b'.');
    for byte in token.bytes() {
        if is_unreserved(byte) && !dots_only {
            path.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(path, "%{byte:02X}");
        }
    }
    path
}

/// RFC 3986, 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

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
    }
}
