//! Answers as they are on the wire, read with another eye than the client's.

use serde_json::Value;
use vault_api::Problem;

use crate::bodies::has_digits_of_a_card;

/// One answer.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) content_type: String,
    pub(crate) body: Vec<u8>,
    /// It has the length of a body that was not sent: to HEAD.
    is_head_alone: bool,
}

/// Reads every answer of `bytes`, which must be whole answers of HTTP/1.1 (RFC 9112), or 1.0 to who asks so,
/// and nothing else.
pub(crate) fn answers(mut bytes: &[u8]) -> Vec<Answer> {
    let mut answers = Vec::new();
    while !bytes.is_empty() {
        let (answer, rest) = first(bytes);
        if answer.status != 100 {
            answers.push(answer);
        }
        bytes = rest;
    }
    answers
}

fn first(bytes: &[u8]) -> (Answer, &[u8]) {
    let mut fields = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut fields);
    let parsed = head.parse(bytes).unwrap_or_else(|error| panic!("{error}: {}", bytes.escape_ascii()));
    let httparse::Status::Complete(length) = parsed else { panic!("half a head: {}", bytes.escape_ascii()) };
    let is_start = |bytes: &[u8]| bytes.starts_with(b"HTTP/1.1 ") || bytes.starts_with(b"HTTP/1.0 ");
    assert!(is_start(bytes));
    let status = head.code.expect("a status");
    let field = |name: &str| {
        let found = head.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        found.map(|field| std::str::from_utf8(field.value).expect("a value in UTF-8").to_owned())
    };
    let rest = &bytes[length..];
    // The answer to HEAD has the length of a body that is not sent.
    let has_body = !rest.is_empty() && !is_start(rest);
    let (body, rest) = match (field("transfer-encoding"), field("content-length")) {
        _ if !has_body => (Vec::new(), rest),
        (Some(coding), None) => {
            assert_eq!(coding, "chunked");
            chunked(rest)
        }
        (None, Some(length)) => {
            let (body, rest) =
                rest.split_at_checked(length.parse().expect("a length")).expect("the whole body");
            (body.to_vec(), rest)
        }
        (coding, length) => panic!("{status} is framed by {coding:?} and {length:?}"),
    };
    let is_head_alone = !has_body && field("content-length").is_some_and(|length| length != "0");
    (Answer { status, content_type: field("content-type").unwrap_or_default(), body, is_head_alone }, rest)
}

fn chunked(mut rest: &[u8]) -> (Vec<u8>, &[u8]) {
    let mut body = Vec::new();
    loop {
        let size = httparse::parse_chunk_size(rest).expect("the size of a chunk");
        let httparse::Status::Complete((start, size)) = size else { panic!("half a chunk") };
        let size = usize::try_from(size).expect("a size");
        body.extend_from_slice(&rest[start..start + size]);
        assert_eq!(&rest[start + size..start + size + 2], b"\r\n");
        rest = &rest[start + size + 2..];
        if size == 0 {
            return (body, rest);
        }
    }
}

impl Answer {
    /// A failure is a problem (RFC 9457) that repeats no card number; what says it is JSON is JSON.
    pub(crate) fn expect_good(&self) {
        let shown = || format!("{} {}: {}", self.status, self.content_type, self.body.escape_ascii());
        assert!(self.status < 500 || self.status == 503, "{}", shown());
        if self.body.is_empty() {
            assert!(self.status < 400 || self.is_head_alone, "{}", shown());
            return;
        }
        if self.status >= 400 {
            assert_eq!(self.content_type, "application/problem+json", "{}", shown());
            let problem: Problem =
                serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{}", shown()));
            assert_eq!(problem.status, self.status, "{}", shown());
            assert!(!has_digits_of_a_card(&problem.detail), "{}", shown());
        } else if self.content_type.starts_with("application/json") {
            assert!(serde_json::from_slice::<Value>(&self.body).is_ok(), "{}", shown());
        }
    }
}
