//! HTTP by hand: to send what no client would.

use std::{
    collections::HashMap,
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

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

/// Sends `request` as it is and reads the answer.
pub fn exchange(socket: &Path, request: &[u8]) -> Answer {
    let mut stream = UnixStream::connect(socket).unwrap();
    // A daemon that has heard enough may close before everything is sent.
    let _ = stream.write_all(request);
    read_answer(&mut stream)
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

fn parse(bytes: &[u8]) -> Option<Answer> {
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
    Some(Answer { status, headers, body: String::from_utf8(body.to_vec()).unwrap() })
}
