//! Requests that no client would send: each is answered or dropped at little cost, and the vault goes on.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::Duration,
};

use vault_tests::{Vault, exchange, read_answer};

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
        let mut stream = UnixStream::connect(&socket).unwrap();
        let _ = stream.write_all(nonsense.as_bytes());
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{nonsense:?}: {answer}");
    }
    assert_eq!(vault.request("GET", "/healthz", "").status, 200);
}

#[test]
fn a_request_cut_half_way_leaves_nothing_behind() {
    let vault = Vault::start();
    let jwt = vault.jwt();
    for _ in 0..200 {
        let mut stream = UnixStream::connect(vault.socket()).unwrap();
        let _ = write!(
            stream,
            "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: \
             application/json\r\ncontent-length: 30\r\n\r\n{{\"pan\":\"41111"
        );
    }
    std::thread::sleep(Duration::from_millis(200));
    let open = std::fs::read_dir(format!("/proc/{}/fd", vault.pid())).unwrap().count();
    assert!(open < 60, "{open} descriptors are still open");
    assert_eq!(vault.request("GET", "/healthz", "").status, 200);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let vault = Vault::start();
    let mut stream = UnixStream::connect(vault.socket()).unwrap();
    stream
        .write_all(b"GET /healthz HTTP/1.1\r\nhost: v\r\n\r\nGET /nowhere HTTP/1.1\r\nhost: v\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    let mut chunk = [0; 4_096];
    while let Ok(count @ 1..) = stream.read(&mut chunk) {
        text += std::str::from_utf8(&chunk[..count]).unwrap();
    }
    let (ok, not_found) = (text.find("200 OK").unwrap(), text.find("404 Not Found").unwrap());
    assert!(ok < not_found, "{text}");
}

#[test]
fn a_body_may_come_in_chunks_and_over_one_connection() {
    let vault = Vault::start();
    let mut stream = UnixStream::connect(vault.socket()).unwrap();
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
