//! HTTP by hand: to send what no client would.

use std::{
    collections::HashMap,
    io::{Read, Write},
    os::{fd::AsRawFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: HashMap<String, String>,
    /// The body.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The problem's code, once everything that holds for problems was checked.
    pub fn code(&self) -> String {
        let problem = self.json();
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(problem["status"], self.status, "{self:?}");
        assert_eq!(problem["request_id"].as_str().unwrap(), self.headers["x-request-id"], "{self:?}");
        assert!(!problem["detail"].as_str().unwrap().is_empty(), "{self:?}");
        if self.status == 401 {
            assert!(self.headers["www-authenticate"].starts_with("Bearer error="), "{self:?}");
        }
        if self.status == 503 {
            assert!(self.headers["retry-after"].parse::<u64>().is_ok(), "{self:?}");
        }
        problem["code"].as_str().unwrap().to_owned()
    }
}

/// A connection that is made anew whenever it is needed and the last one has ended.
#[derive(Debug)]
pub(crate) struct Line {
    socket: PathBuf,
    stream: Option<UnixStream>,
}

impl Line {
    /// None so far, to `socket`.
    pub(crate) fn to(socket: PathBuf) -> Self {
        Self { socket, stream: None }
    }

    /// Sends `request` as it is and reads the answer, for which it waits so long; `None` if there is none.
    pub(crate) fn exchange(&mut self, request: &[u8], patience: Duration) -> Option<Answer> {
        let mut stream = self.stream.take().or_else(|| connect(&self.socket).ok())?;
        stream.set_read_timeout(Some(patience)).unwrap();
        // A daemon that refuses the connection says so before it reads.
        let _ = stream.write_all(request);
        let answer = read_answer_if_whole(&mut stream)?;
        if answer.headers.get("connection").is_none_or(|value| value != "close") {
            self.stream = Some(stream);
        }
        Some(answer)
    }
}

/// A connection to a daemon that may have stopped to take any, to read or to write: nothing is waited for longer than half
/// a minute.
///
/// # Errors
/// If nobody takes it.
pub fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let fd = socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(fd);
    // For the connection too (unix(7), SO_SNDTIMEO in socket(7)).
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    socket::connect(stream.as_raw_fd(), &UnixAddr::new(socket)?)?;
    Ok(stream)
}

/// Sends `request` as it is and reads the answer.
pub fn exchange(socket: &Path, request: &[u8]) -> Answer {
    let mut stream = connect(socket).unwrap();
    // A daemon that has heard enough may close before everything is sent.
    let _ = stream.write_all(request);
    read_answer(&mut stream)
}

/// The same of a daemon that may end meanwhile, or not answer for half a minute.
pub fn exchange_if_whole(socket: &Path, request: &[u8]) -> Option<Answer> {
    let mut stream = connect(socket).ok()?;
    let _ = stream.write_all(request);
    read_answer_if_whole(&mut stream)
}

/// Reads one answer.
pub fn read_answer(stream: &mut UnixStream) -> Answer {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut bytes = Vec::new();
    let mut chunk = [0; 16_384];
    loop {
        if let Some(answer) = parse(&bytes) {
            return answer;
        }
        let count = stream.read(&mut chunk).unwrap_or_else(|error| panic!("{error} after {bytes:?}"));
        assert!(count > 0, "the connection ended after {:?}", String::from_utf8_lossy(&bytes));
        bytes.extend_from_slice(&chunk[..count]);
    }
}

/// Reads one answer; `None` if the connection ends before it is whole.
pub fn read_answer_if_whole(stream: &mut UnixStream) -> Option<Answer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 16_384];
    while parse(&bytes).is_none() {
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return None,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
        }
    }
    parse(&bytes)
}

/// Every answer that comes until the connection ends or nothing has come for `patience`, and whether it has ended.
pub fn read_answers(stream: &mut UnixStream, patience: Duration) -> (Vec<Answer>, bool) {
    read_answers_until_silent(stream, patience, patience)
}

/// The same where the first answer, but for `100 Continue`, is waited for with `patience`, and what follows it until
/// nothing has come for `silence`.
pub fn read_answers_until_silent(
    stream: &mut UnixStream,
    patience: Duration,
    silence: Duration,
) -> (Vec<Answer>, bool) {
    let (mut answers, mut bytes, mut chunk) = (Vec::<Answer>::new(), Vec::new(), [0; 16_384]);
    let has_ended = loop {
        let is_answered = answers.iter().any(|answer| answer.status != 100);
        stream.set_read_timeout(Some(if is_answered { silence } else { patience })).unwrap();
        match stream.read(&mut chunk) {
            Ok(0) => break true,
            Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
        while let Some((answer, length)) = parse_first(&bytes) {
            answers.push(answer);
            bytes.drain(..length);
        }
    };
    assert!(bytes.is_empty(), "what came is no answer: {:?}", String::from_utf8_lossy(&bytes));
    (answers, has_ended)
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    parse_first(bytes).map(|(answer, _)| answer)
}

/// The first answer in `bytes`, and how many of them are its.
fn parse_first(bytes: &[u8]) -> Option<(Answer, usize)> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..end]);
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers: HashMap<_, _> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let body = bytes.get(end + 4..end + 4 + length)?;
    let body = String::from_utf8(body.to_vec()).unwrap();
    Some((Answer { status, headers, body }, end + 4 + length))
}
