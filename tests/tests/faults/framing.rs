//! Shapes of request smuggling: where a request ends is never in doubt.
//!
//! Each shape carries the bytes of a second request where only somebody who reads it differently would see one. Whoever
//! answers them takes one caller's bytes for another's (RFC 9112, 11.2).

use std::{io::Write, time::Duration};

use vault_tests::{Vault, connect, read_answers, read_answers_until_silent};

/// For an answer to come, or the end of a connection, on a busy build machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// After which nothing more comes.
const SILENCE: Duration = Duration::from_millis(300);
const CARD: &str = r#"{"pan":"4111111111111111"}"#;
/// Whoever sees it answers 404.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nhost: v\r\n\r\n";

/// What becomes of a shape.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    /// It is refused or dropped, and the connection ends.
    Refused,
    /// It is one request. The connection ends, or the next request on it is understood.
    One,
    /// It is one request, and the connection ends (RFC 9112, 6.3: for two ways of saying the length it has to).
    Last,
}
use Fate::{Last, One, Refused};

/// Heads that say in a questionable way how long the body is, which is [`CARD`].
const LENGTHS: [(&str, Fate); 21] = [
    ("content-length: 26\r\ncontent-length: 27", Refused),
    ("content-length: 26\r\ncontent-length: 0", Refused),
    ("content-length: 0\r\ncontent-length: 26", Refused),
    ("content-length: 26\r\ncontent-length: 26", One),
    ("content-length: 26, 26", Refused),
    ("content-length: 26, 0", Refused),
    ("content-length: +26", Refused),
    ("content-length: -26", Refused),
    ("content-length: 0x1a", Refused),
    ("content-length: 26.0", Refused),
    ("content-length: 2 6", Refused),
    ("content-length:", Refused),
    ("content-length: 18446744073709551642", Refused),
    ("content-length: 18446744073709551615", Refused),
    ("content-length : 26", Refused),
    ("content-length\t: 26", Refused),
    (" content-length: 26", Refused),
    ("content-length:\r\n 26", Refused),
    ("content-length: 26\0", Refused),
    ("content-length: 2\r6", Refused),
    ("content-length: 026", One),
];

/// Heads that say in a questionable way that the body comes in chunks, as it does.
const CODINGS: [(&str, Fate); 23] = [
    ("content-length: 36\r\ntransfer-encoding: chunked", Last),
    ("content-length: 4\r\ntransfer-encoding: chunked", Last),
    ("transfer-encoding: chunked\r\ncontent-length: 4", Last),
    ("transfer-encoding: chunked\r\ncontent-length: x", Last),
    ("content-length: x\r\ntransfer-encoding: chunked", Refused),
    ("transfer-encoding: CHUNKED", One),
    ("transfer-encoding: identity", Refused),
    ("transfer-encoding: xchunked", Refused),
    ("transfer-encoding: chunked, identity", Refused),
    ("transfer-encoding: chunked\r\ntransfer-encoding: identity", Refused),
    ("transfer-encoding: identity\r\ntransfer-encoding: chunked", One),
    ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", One),
    ("transfer-encoding: gzip, chunked", One),
    ("transfer-encoding: \"chunked\"", Refused),
    ("transfer-encoding: chunked;q=1", Refused),
    ("transfer-encoding: \u{b}chunked", Refused),
    ("transfer-encoding: chunked\0", Refused),
    ("transfer-encoding : chunked", Refused),
    ("transfer-encoding\u{b}: chunked", Refused),
    ("transfer-encoding:\r\n chunked", Refused),
    ("x: y\r\n transfer-encoding: chunked", Refused),
    ("x: y\rtransfer-encoding: chunked", Refused),
    ("transfer_encoding: chunked\r\ncontent-length: 37", One),
];

/// Chunks of a body; what follows them is [`SMUGGLED`].
const CHUNKS: [(&str, Fate); 19] = [
    ("1a;name=value\r\n{}\r\n0\r\n\r\n", One),
    ("1a;\"\\\r\n\"\r\n{}\r\n0\r\n\r\n", Refused),
    ("1A \r\n{}\r\n0\r\n\r\n", One),
    ("0000001a\r\n{}\r\n0\r\n\r\n", One),
    ("1a\r\n{}\r\n0\r\ncontent-length: 1\r\n\r\n", One),
    ("0x1a\r\n{}\r\n0\r\n\r\n", Refused),
    ("+1a\r\n{}\r\n0\r\n\r\n", Refused),
    ("-1\r\n{}\r\n0\r\n\r\n", Refused),
    ("\r\n{}\r\n0\r\n\r\n", Refused),
    ("1a\n{}\r\n0\r\n\r\n", Refused),
    ("1a;x\n{}\r\n0\r\n\r\n", Refused),
    ("1a\r{}\r\n0\r\n\r\n", Refused),
    ("1a\r\n{}0\r\n\r\n", Refused),
    ("1a\r\n{}\n0\r\n\r\n", Refused),
    ("1a\r\n{}xx0\r\n\r\n", Refused),
    ("1a\r\n{}\r\n0\r\n\n", One),
    ("1000000000000001a\r\n{}\r\n0\r\n\r\n", Refused),
    ("ffffffffffffffff\r\n{}\r\n0\r\n\r\n", Refused),
    ("1a\0\r\n{}\r\n0\r\n\r\n", Refused),
];

/// First lines before an ordinary head with a length.
const FIRST_LINES: [(&str, Fate); 10] = [
    ("POST /v1/tokenize HTTP/1.1\r\n", One),
    ("\r\nPOST /v1/tokenize HTTP/1.1\r\n", One),
    ("POST /v1/tokenize HTTP/1.0\r\n", Last),
    ("POST  /v1/tokenize HTTP/1.1\r\n", Refused),
    ("POST /v1/tokenize  HTTP/1.1\r\n", Refused),
    ("POST\t/v1/tokenize HTTP/1.1\r\n", Refused),
    ("POST /v1/tokenize\r\n", Refused),
    ("POST /v1/tokenize HTTP/1.1 \r\n", Refused),
    ("POST /v1/tokenize HTTP/2.0\r\n", Refused),
    ("POST /v1/tokenize\0 HTTP/1.1\r\n", Refused),
];

fn shapes(jwt: &str) -> Vec<(String, String, Fate)> {
    let head = "POST /v1/tokenize HTTP/1.1\r\n";
    let fields = format!("host: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: application/json\r\n");
    let chunked = format!("1a\r\n{CARD}\r\n0\r\n\r\n");
    let mut shapes = Vec::new();
    let mut add = |name: &str, bytes: String, fate| {
        shapes.push((name.escape_debug().to_string(), bytes, fate));
    };
    for (length, fate) in LENGTHS {
        add(length, format!("{head}{fields}{length}\r\n\r\n{CARD}"), fate);
    }
    for (coding, fate) in CODINGS {
        add(coding, format!("{head}{fields}{coding}\r\n\r\n{chunked}"), fate);
    }
    for (chunks, fate) in CHUNKS {
        let body = chunks.replace("{}", CARD);
        add(chunks, format!("{head}{fields}transfer-encoding: chunked\r\n\r\n{body}"), fate);
    }
    for (first, fate) in FIRST_LINES {
        add(first, format!("{first}{fields}content-length: 26\r\n\r\n{CARD}"), fate);
    }
    add(
        "chunks of HTTP/1.0",
        format!("POST /v1/tokenize HTTP/1.0\r\n{fields}transfer-encoding: chunked\r\n\r\n{chunked}"),
        Refused,
    );
    // Lines that end in a line feed alone may be read as lines (RFC 9112, 2.2).
    let lines = format!("{head}{fields}content-length: 26\r\n\r\n").replace("\r\n", "\n");
    add("line feeds alone", format!("{lines}{CARD}"), One);
    let long = "x".repeat(64 * 1_024);
    add(
        "a long extension",
        format!("{head}{fields}transfer-encoding: chunked\r\n\r\n1a;{long}\r\n{CARD}\r\n0\r\n\r\n"),
        Refused,
    );
    let many = "x: y\r\n".repeat(2_000);
    add(
        "trailers without end",
        format!("{head}{fields}transfer-encoding: chunked\r\n\r\n1a\r\n{CARD}\r\n0\r\n{many}\r\n"),
        Refused,
    );
    shapes
}

/// Requests whose body is [`SMUGGLED`] and of no interest to whoever answers them.
fn unwanted(jwt: &str) -> Vec<(&'static str, String)> {
    let length = SMUGGLED.len();
    let with = |first: &str, fields: &str| format!("{first} HTTP/1.1\r\nhost: v\r\n{fields}");
    let sized =
        |first, fields: &str| with(first, &format!("{fields}content-length: {length}\r\n\r\n{SMUGGLED}"));
    let chunk = format!("transfer-encoding: chunked\r\n\r\n{length:x}\r\n{SMUGGLED}\r\n0\r\n\r\n");
    let json = format!("authorization: Bearer {jwt}\r\ncontent-type: application/json\r\n");
    vec![
        ("GET with a body", sized("GET /healthz", "")),
        ("GET with chunks", with("GET /healthz", &chunk)),
        ("OPTIONS with a body", sized("OPTIONS *", "")),
        ("nobody is there", sized("POST /nowhere", "")),
        ("no JWT", sized("POST /v1/tokenize", "")),
        ("no JWT, in chunks", with("POST /v1/tokenize", &chunk)),
        ("no JSON", sized("POST /v1/tokenize", &json)),
        ("another type", sized("POST /v1/tokenize", &json.replace("/json", "/xml"))),
        ("another method", sized("PUT /v1/tokenize", &json)),
        ("an upgrade", sized("GET /healthz", "connection: upgrade\r\nupgrade: h2c\r\n")),
        ("continue?", sized("POST /v1/tokenize", &format!("{json}expect: 100-continue\r\n"))),
        ("a login", sized("POST /v1/login", "")),
    ]
}

#[test]
fn where_a_request_ends_is_never_in_doubt() {
    let vault = Vault::start_with(|config| {
        config + "\n[limits]\nheader_timeout_seconds = 1\nbody_timeout_seconds = 1\n"
    });
    let mut wrong = Vec::new();
    for (name, bytes, fate) in shapes(&vault.jwt()) {
        let mut stream = connect(&vault.socket()).unwrap();
        let _ = stream.write_all(format!("{bytes}{SMUGGLED}").as_bytes());
        let (answers, has_ended) = read_answers(&mut stream, PATIENCE);
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let fits = match (fate, statuses.as_slice()) {
            (Refused, []) | (Last, [200 | 201]) | (One, [200 | 201 | 400]) => has_ended,
            (Refused, [status]) => has_ended && (400..600).contains(status),
            // What stands behind it is the next one where the connection goes on.
            (One, [200 | 201 | 400, 404]) => true,
            _ => false,
        };
        eprintln!("{} {name:<70} {statuses:?}, ended: {has_ended}", if fits { "ok   " } else { "WRONG" });
        if !fits {
            wrong.push(name);
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(vault.request("GET", "/healthz", "").status, 200);
}

#[test]
fn a_body_that_nobody_wants_is_no_request() {
    let vault = Vault::start();
    for (name, bytes) in unwanted(&vault.jwt()) {
        let mut stream = connect(&vault.socket()).unwrap();
        let _ = stream.write_all(bytes.as_bytes());
        let (answers, has_ended) = read_answers_until_silent(&mut stream, PATIENCE, SILENCE);
        let statuses: Vec<_> =
            answers.iter().map(|answer| answer.status).filter(|status| *status != 100).collect();
        eprintln!("{name:<30} {statuses:?}, ended: {has_ended}");
        assert!(statuses.len() == 1, "{name}: {answers:?}");
        if !has_ended {
            stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: v\r\n\r\n").unwrap();
            let (next, _) = read_answers_until_silent(&mut stream, PATIENCE, SILENCE);
            assert!(next.len() == 1 && next[0].status == 200, "{name}: {next:?}");
        }
    }
}
