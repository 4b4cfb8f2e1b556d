//! The text of logs, taken apart and put together.

use std::io::{Read, Write};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::Files;
use crate::made_log::hex;

/// What a log says: compressed or not, and with however many blanks after its head.
pub(super) fn meaning(files: &Files) -> Files {
    let meaning = |(name, bytes): (&String, &Vec<u8>)| match name.strip_suffix(".gz") {
        Some(plain) => (plain.to_owned(), unpacked(bytes).unwrap_or_else(|| b"broken".to_vec())),
        None if name == "head.json" => (name.clone(), head_meaning(bytes)),
        None => (name.clone(), bytes.clone()),
    };
    files.iter().map(meaning).collect()
}

fn head_meaning(bytes: &[u8]) -> Vec<u8> {
    match bytes.strip_suffix(b"\n") {
        Some(line) => [line.trim_ascii_end(), b"\n"].concat(),
        None => bytes.to_vec(),
    }
}

/// Whether the file of this name is compressed.
pub(super) fn is_packed(name: &str) -> bool {
    name.strip_suffix(".gz").is_some()
}

pub(super) fn unpacked(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut plain = Vec::new();
    MultiGzDecoder::new(bytes).read_to_end(&mut plain).ok()?;
    Some(plain)
}

pub(super) fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(super) fn split(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = bytes.split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    lines.pop();
    lines
}

pub(super) fn joined(lines: &[Vec<u8>]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line, b"\n".as_slice()].concat()).collect()
}

pub(super) fn seq(line: &str) -> u64 {
    let digits = line.strip_prefix(r#"{"v":1,"seq":"#).and_then(|rest| rest.split_once(','));
    digits.unwrap().0.parse().unwrap()
}

pub(super) fn with_prev(line: &str, prev: &str) -> String {
    let (front, rest) = line.split_once("\"prev\":\"").unwrap();
    format!("{front}\"prev\":\"{prev}{}", &rest[64..])
}

pub(super) fn hash(line: &str) -> String {
    hex(Sha256::digest(line).as_slice())
}
