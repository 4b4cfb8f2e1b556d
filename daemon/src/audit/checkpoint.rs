//! Checkpoints: what the HSM signs of the log.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::Serialize;

use super::{
    dir::Mark,
    line::{hex, timestamp},
};

/// That the log goes up to a line and what its hash is; to be signed by the key it names.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The line it is about.
    pub upto: Mark,
    text: Vec<u8>,
}

#[derive(Serialize)]
struct Fields<'a> {
    vault: &'a str,
    kid: &'a str,
    upto: u64,
    hash: String,
    time: String,
    #[serde(rename = "final", skip_serializing_if = "std::ops::Not::not")]
    is_final: bool,
}

impl Statement {
    /// The log of `vault` up to `upto`, for the key `kid` (RFC 7638 thumbprint) to sign. `is_final` says that the daemon ends
    /// after it.
    pub(super) fn new(vault: &str, upto: Mark, kid: &str, is_final: bool) -> Self {
        let time = timestamp(Timestamp::now());
        let fields = Fields { vault, kid, upto: upto.seq, hash: hex(&upto.hash), time, is_final };
        // A struct with string keys: there is nothing to fail.
        Self { upto, text: serde_json::to_vec(&fields).unwrap_or_default() }
    }

    /// The bytes that are signed.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// The fields of the line that holds it and its `signature`.
    pub(super) fn tail(&self, signature: &[u8]) -> Vec<u8> {
        let signature = URL_SAFE_NO_PAD.encode(signature);
        [br#","statement":"#.as_slice(), &self.text, br#","signature":""#, signature.as_bytes(), br#""}"#]
            .concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_bytes_stand_in_the_line() {
        let mark = Mark { seq: 7, hash: [1; 32], file: 1, offset: 0 };
        let statement = Statement::new("ab", mark, "kid", true);
        let line = String::from_utf8(statement.tail(b"signature")).unwrap();
        let object: serde_json::Value = serde_json::from_str(&line.replacen(',', "{", 1)).unwrap();
        assert_eq!(serde_json::to_string(&object["statement"]["upto"]).unwrap(), "7");
        assert_eq!(object["statement"]["final"], true);
        assert_eq!(object["signature"], "c2lnbmF0dXJl");
        assert!(line.contains(std::str::from_utf8(statement.text()).unwrap()));
    }
}
