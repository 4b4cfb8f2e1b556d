//! Callers who are slow, who leave half way, who never stop, and ten thousand who say nothing.

use std::{
    io::{Read, Write},
    net::Shutdown,
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use vault_tests::{Load, Vault, connect, not_run, read_answer, read_answers};

use crate::{CALLERS, is_well, seen};

const IDLE: usize = 10_000;
/// Of the issue, for 10,000 connections.
const MOST_RESIDENT_KIB: u64 = 250 * 1_024;
/// What either side has open beside them.
const OTHERS: u64 = 200;
const SLOW: usize = 50;
/// For a head and for a body, those of honest callers on a busy build machine among them.
const TIMEOUT: Duration = Duration::from_secs(5);
/// What a busy build machine may add.
const SLACK: Duration = Duration::from_secs(10);

#[test]
fn ten_thousand_idle_connections() {
    // Half of what the daemon has is for the admin socket.
    let needed = 2 * u64::try_from(IDLE).unwrap() + OTHERS;
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    let most = if most < needed && setrlimit(Resource::RLIMIT_NOFILE, needed, needed).is_ok() {
        needed
    } else {
        most
    };
    let count = IDLE.min(usize::try_from((most - OTHERS) / 2).unwrap());
    if count < IDLE * 9 / 10 {
        not_run(&format!("{most} descriptors are the most here, which is too few"));
        return;
    }
    // The daemon does so by itself.
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let vault = Vault::start_with(|config| {
        format!(
            "{config}\n[limits]\nheader_timeout_seconds = 300\nmax_connections = {}\nmax_connections_per_uid = {}\n",
            count + 100,
            count + 100
        )
    });
    let before = vault.status_kib("VmRSS");
    let began = Instant::now();
    let mut idle: Vec<_> = (0..count).map(|_| connect(&vault.socket()).unwrap()).collect();
    for stream in &mut idle {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: v\r\n\r\n").unwrap();
        assert_eq!(read_answer(stream).status, 200);
    }
    let took = began.elapsed();
    let resident = vault.status_kib("VmRSS");
    let load = Load::start(&vault, CALLERS);
    is_well(&vault, &load);
    thread::sleep(Duration::from_secs(1));
    seen("ten thousand idle connections", &load.take(), &[]);
    eprintln!(
        "{count} idle connections, each after one request, in {took:?}: {before} KiB resident before, {resident} with them"
    );
    assert!(resident <= MOST_RESIDENT_KIB, "{resident} KiB");
    drop(idle);
    is_well(&vault, &load);
    load.settle(&vault);
}

/// How a slow caller goes about it: what it sends at once, and what it repeats.
const WAYS: [(&str, &str); 4] = [
    ("", "G"),
    ("GET /healthz HTTP/1.1\r\n", "x"),
    ("GET /healthz HTTP/1.1\r\nhost: v\r\n", "x: y\r\n"),
    (
        "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer JWT\r\ncontent-type: application/json\r\n\
      content-length: 100000\r\n\r\n",
        " ",
    ),
];

#[test]
fn slow_callers_are_shown_out_and_nobody_waits_for_them() {
    let vault = Vault::start_with(|config| {
        let seconds = TIMEOUT.as_secs();
        format!("{config}\n[limits]\nheader_timeout_seconds = {seconds}\nbody_timeout_seconds = {seconds}\n")
    });
    let load = Load::start(&vault, CALLERS);
    is_well(&vault, &load);
    let before = vault.descriptors();
    thread::scope(|scope| {
        for slow in 0..SLOW {
            let (vault, (head, more)) = (&vault, WAYS[slow % WAYS.len()]);
            scope.spawn(move || {
                let mut stream = connect(&vault.socket()).unwrap();
                stream.write_all(head.replace("JWT", &vault.jwt()).as_bytes()).unwrap();
                let began = Instant::now();
                // A byte now and then, for as long as somebody takes it.
                while stream.write_all(more.as_bytes()).is_ok() {
                    assert!(began.elapsed() < TIMEOUT + SLACK, "{head:?} is still listened to");
                    // A head may have a hundred fields.
                    thread::sleep(TIMEOUT / 20);
                }
                let (answers, has_ended) = read_answers(&mut stream, SLACK);
                let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
                assert!(has_ended && [vec![408], vec![]].contains(&statuses), "{head:?}: {answers:?}");
            });
        }
    });
    seen("slow callers", &load.take(), &[]);
    let left = vault.descriptors();
    assert!(left <= before + 4, "{before} descriptors, then {left}");
    load.settle(&vault);
}

#[test]
fn who_leaves_half_way_harms_nobody() {
    let vault = Vault::start();
    let load = Load::start(&vault, CALLERS);
    is_well(&vault, &load);
    let before = vault.descriptors();
    let jwt = vault.jwt();
    let body = r#"{"pan":"5555555555554444"}"#;
    let request = format!(
        "POST /v1/tokenize HTTP/1.1\r\nhost: v\r\nauthorization: Bearer {jwt}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    for round in 0..300 {
        let mut stream = connect(&vault.socket()).unwrap();
        let sent = if round % 3 == 0 { fastrand::usize(..request.len()) } else { request.len() };
        stream.write_all(&request.as_bytes()[..sent]).unwrap();
        // It stops speaking, listening or both.
        match round % 4 {
            0 => drop(stream.shutdown(Shutdown::Write)),
            1 => drop(stream.shutdown(Shutdown::Read)),
            2 => drop(stream.shutdown(Shutdown::Both)),
            _ => continue,
        }
        if round % 4 == 0 {
            // What comes, if anything does, is the one answer to it.
            let (answers, has_ended) = read_answers(&mut stream, SLACK);
            assert!(has_ended && answers.len() <= 1, "{answers:?}");
        }
    }
    // Many at once on one connection, of which the first answers alone are read.
    let mut stream = connect(&vault.socket()).unwrap();
    for _ in 0..50 {
        stream.write_all(request.repeat(4).as_bytes()).unwrap();
    }
    let mut some = [0; 1_000];
    stream.read_exact(&mut some).unwrap();
    assert!(some.starts_with(b"HTTP/1.1 20"));
    drop(stream);
    seen("who leaves half way", &load.take(), &[]);
    is_well(&vault, &load);
    let left = vault.descriptors();
    assert!(left <= before + 4, "{before} descriptors, then {left}");
    load.settle(&vault);
}
