//! Requests that no client would send: each is answered or dropped at little cost, and the vault goes on.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{Read, Write},
    time::{Duration, Instant},
};

use vault_tests::{Vault, connect, exchange, read_answer, read_answers};

/// For an answer to come, or the end of a connection, on a busy build machine.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn floods_fragments_and_nonsense_do_not_hurt() {
    let vault = Vault::start();
    let socket = vault.socket();
    let many = "x: y\r\n".repeat(1_000);
    assert_eq!(
        exchange(&socket, format!("GET /healthz HTTP/1.1\r\nhost: v\r\n{many}\r\n").as_bytes()).status,
        431
    );
    let long = "y".repeat(1_048_576);
    assert_eq!(
        exchange(&socket, format!("GET /healthz HTTP/1.1\r\nx: {long}\r\n\r\n").as_bytes()).status,
        431
    );
    for nonsense in [
        "\r\n\r\n\r\nGET",
        "GET /healthz HTTP/9.9\r\n\r\n",
        "\u{0}\u{1}\u{2}\r\n\r\n",
        "GET  /healthz HTTP/1.1\r\n\r\n",
    ] {
        let mut stream = connect(&socket).unwrap();
        let _ = stream.write_all(nonsense.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let (answers, has_ended) = read_answers(&mut stream, PATIENCE);
        let is_refused = answers.iter().all(|answer| (400..500).contains(&answer.status));
        assert!(has_ended && is_refused, "{nonsense:?}: {answers:?}");
    }
    assert_eq!(vault.request("GET", "/healthz", "").status, 200);
}

/// What is no request, and the status and code of its answer.
fn no_requests() -> Vec<(String, u16, &'static str)> {
    let long = "y".repeat(100_000);
    let get = "GET /healthz HTTP/1.1\r\nhost: v\r\n";
    vec![
        (format!("{get}{}\r\n", "x: y\r\n".repeat(1_000)), 431, "head_too_large"),
        (format!("{get}x: {long}\r\n\r\n"), 431, "head_too_large"),
        (format!("GET /{long} HTTP/1.1\r\nhost: v\r\n\r\n"), 431, "head_too_large"),
        ("GET /healthz HTTP/9.9\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("\u{0}\u{1}\u{2}\r\n\r\n".to_owned(), 400, "invalid_request"),
        ("GET  /healthz HTTP/1.1\r\n\r\n".to_owned(), 400, "invalid_request"),
        (format!("{get}content-length: 1\r\ncontent-length: 2\r\n\r\nab"), 400, "invalid_request"),
        (format!("{get}content-length: x\r\n\r\n"), 400, "invalid_request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400, "invalid_request"),
    ]
}

#[test]
fn what_is_no_request_is_told_so_after_the_answers_before_it() {
    let vault = Vault::start();
    let before = [
        ("", &[][..]),
        ("GET /healthz HTTP/1.1\r\nhost: v\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: v\r\n\r\n", &[200, 404]),
        ("GET /healthz HTTP/1.0\r\nconnection: keep-alive\r\n\r\n", &[200]),
    ];
    for (bytes, status, code) in no_requests() {
        for (requests, statuses) in before {
            let mut stream = connect(&vault.socket()).unwrap();
            let _ = stream.write_all(format!("{requests}{bytes}").as_bytes());
            let (mut answers, has_ended) = read_answers(&mut stream, PATIENCE);
            let last = answers.pop().unwrap();
            assert_eq!((last.status, last.code().as_str()), (status, code), "{bytes:.60}: {last:?}");
            assert!(has_ended && last.headers["connection"] == "close", "{bytes:.60}: {last:?}");
            let found: Vec<_> = answers.iter().map(|answer| answer.status).collect();
            assert_eq!(found, statuses, "{bytes:.60}");
        }
    }
}

#[test]
fn answers_are_whole_before_what_is_no_request() {
    const REQUESTS: usize = 40;
    let vault = Vault::start();
    // More than the socket has room for, and read late.
    let mut stream = connect(&vault.socket()).unwrap();
    let request = "GET /v1/openapi.json HTTP/1.1\r\nhost: v\r\n\r\n".repeat(REQUESTS);
    stream.write_all(format!("{request}nonsense\r\n\r\n").as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let (answers, has_ended) = read_answers(&mut stream, PATIENCE);
    let (last, whole) = answers.split_last().unwrap();
    assert!(whole.len() == REQUESTS && whole.iter().all(|answer| answer.body == whole[0].body));
    assert_eq!((last.code().as_str(), has_ended), ("invalid_request", true));

    // One that is made while it is sent.
    let mut stream = connect(&vault.path("admin.sock")).unwrap();
    stream.write_all(b"POST /v1/backup HTTP/1.1\r\nhost: v\r\n\r\nnonsense\r\n\r\n").unwrap();
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text:.200}");
    let (_, last) = text.split_once("\r\n0\r\n\r\n").unwrap();
    assert!(last.starts_with("HTTP/1.1 400") && last.contains("invalid_request"), "{last}");
}

#[test]
fn a_request_cut_half_way_leaves_nothing_behind() {
    let vault = Vault::start();
    let jwt = vault.jwt();
    for _ in 0..200 {
        let mut stream = connect(&vault.socket()).unwrap();
        let _ = write!(
            stream,
            "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
             application/json\r\ncontent-length: 30\r\n\r\n{{\"pan\":\"41111"
        );
    }
    // Whoever comes after all of them is served: they were taken, each with a descriptor.
    assert_eq!(vault.request("GET", "/healthz", "").status, 200);
    let began = Instant::now();
    while vault.descriptors() >= 60 {
        let open = vault.descriptors();
        assert!(began.elapsed() < Duration::from_secs(10), "{open} descriptors are still open");
        std::thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(vault.request("GET", "/healthz", "").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let vault = Vault::start();
    let mut stream = connect(&vault.socket()).unwrap();
    let (first, last) = ("GET /healthz HTTP/1.1", "GET /nowhere HTTP/1.1\r\nconnection: close");
    stream.write_all(format!("{first}\r\nhost: v\r\n\r\n{last}\r\nhost: v\r\n\r\n").as_bytes()).unwrap();
    let (answers, has_ended) = read_answers(&mut stream, PATIENCE);
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!((statuses.as_slice(), has_ended), (&[200, 404][..], true), "{answers:?}");
}

#[test]
fn a_body_may_come_in_chunks_and_over_one_connection() {
    let vault = Vault::start();
    let mut stream = connect(&vault.socket()).unwrap();
    for _ in 0..3 {
        write!(
            stream,
            "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {}\r\ncontent-type: application/json; \
             charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n8\r\n{{\"pan\":\"\r\n12\r\n4111111111111111\"}}\r\n0\r\n\r\n",
            vault.jwt()
        )
        .unwrap();
        assert!(read_answer(&mut stream).status < 300);
    }
}
